pub mod attribute;
pub mod client;
pub mod credentials;
