//! The only users of the Pulsar client: connection, publisher, inbox.

pub mod client;
pub mod inbox;
pub mod publisher;
