//! The only users of the Pulsar client library: connection, publisher, inbox, schemas.

pub mod auth;
mod chunks;
pub mod client;
mod connection;
mod consumer;
mod frames;
pub mod inbox;
mod lookup;
pub mod message_id;
pub mod oauth2;
pub mod partitions;
mod permits;
pub mod publisher;
pub mod schema;
mod tls;
mod turn;
mod unpack;

/// What the log targets of the library begin with. The colons matter: a filter's target is a prefix, and "pulsar" is one of
/// `pulsar_io_dynamodb` too.
pub const LOG_TARGET: &str = "pulsar::";

/// The library is silent: it tells each attempt of each reconnection, and this program tells them itself.
pub const DEFAULT_LOG_FILTER: &str = "info,pulsar::=off";
