//! Schemas of topics, as Pulsar's registry has them.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use crate::error::Result;

/// What a schema describes. Source of the list: `Schema.Type` in `PulsarApi.proto`, Apache Pulsar 4.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaKind {
    /// No schema, or one of bytes.
    Bytes,
    String,
    Json,
    /// Protobuf whose schema holds nothing but an Avro rendering of the message.
    Protobuf,
    Avro,
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    Date,
    Time,
    Timestamp,
    KeyValue,
    Instant,
    LocalDate,
    LocalTime,
    LocalDateTime,
    ProtobufNative,
}

impl SchemaKind {
    /// By the name that Java's `SchemaType` and the properties of a KEY_VALUE schema have for it.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "NONE" | "BYTES" => Self::Bytes,
            "STRING" => Self::String,
            "JSON" => Self::Json,
            "PROTOBUF" => Self::Protobuf,
            "AVRO" => Self::Avro,
            "BOOLEAN" => Self::Boolean,
            "INT8" => Self::Int8,
            "INT16" => Self::Int16,
            "INT32" => Self::Int32,
            "INT64" => Self::Int64,
            "FLOAT" => Self::Float,
            "DOUBLE" => Self::Double,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "TIMESTAMP" => Self::Timestamp,
            "KEY_VALUE" => Self::KeyValue,
            "INSTANT" => Self::Instant,
            "LOCAL_DATE" => Self::LocalDate,
            "LOCAL_TIME" => Self::LocalTime,
            "LOCAL_DATE_TIME" => Self::LocalDateTime,
            "PROTOBUF_NATIVE" => Self::ProtobufNative,
            _ => return None,
        })
    }
}

/// One version of a topic's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub kind: SchemaKind,
    /// An Avro schema as JSON for JSON and AVRO, the descriptor for PROTOBUF_NATIVE, both parts' for KEY_VALUE, nothing for primitives.
    pub definition: Vec<u8>,
    pub properties: BTreeMap<String, String>,
}

/// Names a version of a topic's schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaId {
    /// The topic's full name. The partitions of a topic share its schemas.
    pub topic: Arc<str>,
    /// As messages carry it.
    pub version: Vec<u8>,
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of the schema of topic {}", version_text(&self.version), self.topic)
    }
}

/// A schema version as Pulsar's tools write it: its own registry numbers them. Others may name them as they like.
pub fn version_text(version: &[u8]) -> String {
    <[u8; 8]>::try_from(version).map_or_else(|_| version.escape_ascii().to_string(), |number| i64::from_be_bytes(number).to_string())
}

/// The registry of schemas.
pub trait Schemas: Send + Sync + 'static {
    /// Asks until there is an answer: what time can heal is tried again, for as long as it takes. `None`: there is no such version any more.
    fn schema(&self, id: &SchemaId) -> impl Future<Output = Result<Option<Schema>>> + Send;
}
