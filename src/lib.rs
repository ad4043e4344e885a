//! Moves data between Amazon DynamoDB and Apache Pulsar.
//!
//! ```text
//! source   DynamoDB stream ─► discover ─► lease ─► poll ─► convert ─► publish ─► Pulsar topic
//!                                           ▲                            │ receipt
//!                                           └──────── checkpoint ◄───────┘
//! sink     Pulsar topics ───► receive ─► decode ─► map ─► batch ─► write ─────► DynamoDB table
//!                                ▲                                   │ stored (or dead-lettered)
//!                                └──────────────── ack ◄─────────────┘
//! ```
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod dynamodb;
pub mod error;
pub mod host;
pub mod leases;
pub mod logging;
pub mod metrics;
pub mod ports;
pub mod pulsar;
pub mod sink;
pub mod source;
pub mod supervisor;
