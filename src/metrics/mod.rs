pub mod health;
pub mod http;
pub mod names;
pub mod prometheus;
