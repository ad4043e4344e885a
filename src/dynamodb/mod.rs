//! The only users of the AWS SDK: clients, credentials, stream reader, lease table, item tables.

pub mod attribute;
pub mod client;
mod conditional;
mod create_table;
pub mod credentials;
pub mod failure;
pub mod http;
pub mod item_table;
mod kept;
pub mod lease_table;
pub mod probe;
pub mod stream_reader;
pub mod streams;
