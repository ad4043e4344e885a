//! A process that Pulsar's functions worker, `functions localrun` or Function Mesh has started: no virtual machine, our own Pulsar client, and
//! the state told as those hosts ask for it.
//!
//! ```text
//! -instance-conf JSON        ─► conf ──┐
//!                                      ├─► Given ─► Instance ─► plan ─► a worker's configuration, and how to reach Pulsar
//! --function_details JSON …  ─► flags ─┘
//! ```

pub mod conf;
pub mod details;
pub mod flags;
pub mod instance;
pub mod numbers;
pub mod plan;
pub mod secrets;
