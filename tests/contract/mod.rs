//! The edges against the services they talk to, or stand-ins that answer as they do.

mod authentication;
mod bridge;
mod cli;
#[cfg(feature = "cloudwatch")]
mod cloudwatch;
mod containers;
mod credentials;
mod functions;
mod item_table;
mod kcl;
mod lease_table;
mod leases;
mod memory;
mod metrics;
pub mod publisher;
pub mod pulsar;
mod records;
mod schemas;
mod stand_in;
mod stream_reader;
