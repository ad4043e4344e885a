//! One configuration file for every host, checked as a whole before anything is created.
//!
//! The file is what `pulsar-admin sources create --source-config-file` and `sinks create --sink-config-file` take: Pulsar's own
//! fields at the top, this connector's keys below `configs`. [`load`] reads it and collects every problem; [`source`] and [`sink`] say which
//! keys there are (their doc comments are the reference) and turn them into the workers' settings.

pub mod alias;
pub mod aws;
mod direction;
pub mod java;
pub mod lease;
pub mod load;
pub mod pulsar;
pub mod reference;
pub mod sink;
pub mod source;
pub mod validate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fields of Pulsar's `SourceConfig` and `SinkConfig` that only matter where Pulsar runs the connector. Accepted, so that one file serves
/// every host.
pub const HOST_FIELDS: &[&str] = &[
    "archive",
    "autoAck",
    "batchSourceConfig",
    "className",
    "cleanupSubscription",
    "customRuntimeOptions",
    "logTopic",
    "maxMessageRetries",
    "negativeAckRedeliveryDelayMs",
    "parallelism",
    "resources",
    "runtimeFlags",
    "schemaType",
    "serdeClassName",
    "sinkType",
    "sourceType",
    "timeoutMs",
    "topicToSchemaProperties",
];

/// Who publishes and consumes, as far as it matters to what a configuration may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Pulsar IO, below which the archive's process runs. Also for commands that publish nothing.
    PulsarIo,
    /// This program's own client.
    Own,
}

/// What Pulsar promises for each message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProcessingGuarantees {
    #[serde(rename = "ATMOST_ONCE")]
    AtMostOnce,
    #[default]
    #[serde(rename = "ATLEAST_ONCE")]
    AtLeastOnce,
    #[serde(rename = "EFFECTIVELY_ONCE")]
    EffectivelyOnce,
}

/// `tenant/namespace/name-0`: the same after each restart. `instance` is which of several parallel ones, from 0 on.
pub fn worker_id(tenant: &str, namespace: &str, name: &str, instance: u32) -> String {
    format!("{tenant}/{namespace}/{name}-{instance}")
}
