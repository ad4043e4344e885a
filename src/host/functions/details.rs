//! Pulsar's `FunctionDetails` as its protobuf JSON: what was registered. Each field may be left out, unknown ones are left alone, 64-bit
//! integers are texts and enumerations are names (`pulsar-functions/proto/src/main/proto/Function.proto`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Has no `Debug`: configurations have secrets in them.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    pub tenant: String,
    pub namespace: String,
    pub name: String,
    pub log_topic: String,
    /// `ATLEAST_ONCE` (also when it is empty), `ATMOST_ONCE`, `EFFECTIVELY_ONCE` or `MANUAL`.
    pub processing_guarantees: String,
    /// A JSON object, or nothing.
    pub user_config: String,
    /// A JSON object from a secret's name to what its provider knows it by, or nothing.
    pub secrets_map: String,
    /// `FUNCTION`, `SOURCE` or `SINK`; older versions leave it out.
    pub component_type: String,
    pub retain_ordering: bool,
    pub retain_key_ordering: bool,
    pub source: SourceSpec,
    pub sink: SinkSpec,
    pub retry_details: RetryDetails,
}

/// Where a function's input comes from; for a `SOURCE`, the connector's own configuration.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceSpec {
    pub configs: String,
    /// `SHARED` (also when it is empty), `FAILOVER` or `KEY_SHARED`.
    pub subscription_type: String,
    pub subscription_name: String,
    /// `LATEST` (also when it is empty) or `EARLIEST`.
    pub subscription_position: String,
    /// Topics, each with its `ConsumerSpec`.
    pub input_specs: BTreeMap<String, Value>,
}

/// Where a function's output goes; for a `SINK`, the connector's own configuration.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SinkSpec {
    pub configs: String,
    pub topic: String,
    /// Pulsar's `ProducerSpec`: `maxPendingMessages`, `compressionType`, `batchBuilder` and so on.
    pub producer_spec: Map<String, Value>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryDetails {
    pub dead_letter_topic: String,
}
