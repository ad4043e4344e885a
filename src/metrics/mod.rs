pub mod health;
pub mod names;
