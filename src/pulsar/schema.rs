//! Asks the schema registry.
//!
//! By a connection of our own, as the Java client's lookup does it: any broker answers for any topic. The client library asks only through a
//! consumer, whose queue of messages would have to be empty first.

use std::{collections::BTreeMap, time::Duration};

use ::pulsar::message::proto::{self, BaseCommand, CommandGetSchema, ServerError, base_command::Type, schema::Type as WireKind};

use super::{
    client::{Attempts, Settings, server_kind},
    connection::Connection,
};
use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{Schema, SchemaId, SchemaKind, Schemas},
};

/// For one connection and its answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The schema registry of a cluster.
#[derive(Debug, Clone)]
pub struct Registry {
    settings: Settings,
    health: Health,
}

impl Registry {
    pub fn new(settings: Settings, health: Health) -> Self {
        Self { settings, health }
    }
}

impl Schemas for Registry {
    async fn schema(&self, id: &SchemaId) -> Result<Option<Schema>> {
        let mut attempts = Attempts::new("schemas", self.health.clone());
        loop {
            let answer = match tokio::time::timeout(LIMIT, ask(&self.settings, id)).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::new(Kind::Unavailable, doing(&self.settings, id), format!("no answer within {} s", LIMIT.as_secs()))),
            };
            match answer {
                Ok(schema) => {
                    attempts.succeeded();
                    return Ok(schema);
                }
                Err(error) => attempts.failed(error).await?,
            }
        }
    }
}

fn doing(settings: &Settings, id: &SchemaId) -> String {
    format!("ask Pulsar at {} for {id}", settings.url)
}

async fn ask(settings: &Settings, id: &SchemaId) -> Result<Option<Schema>> {
    const REQUEST: u64 = 1;
    let doing = doing(settings, id);
    let failed = |kind, why: &dyn std::fmt::Display| Error::new(kind, &*doing, why);
    let about_it = |error: Error| Error::new(error.kind(), &*doing, error.why());
    let mut connection = Connection::open_any(settings).await.map_err(about_it)?;
    let question = CommandGetSchema { request_id: REQUEST, topic: id.topic.to_string(), schema_version: Some(id.version.clone()) };
    let command = BaseCommand { r#type: Type::GetSchema.into(), get_schema: Some(question), ..Default::default() };
    connection.send(command).await.map_err(about_it)?;
    let answer = connection.receive().await.map_err(about_it)?;
    if let Some(refused) = answer.error {
        return Err(failed(server_kind(refused.error()), &refused.message));
    }
    let Some(answer) = answer.get_schema_response else { return Err(failed(Kind::Unavailable, &"it answers with something else")) };
    match (answer.error_code.map(|_| answer.error_code()), answer.schema) {
        (Some(ServerError::TopicNotFound), _) => Ok(None),
        (Some(code), _) => Err(failed(server_kind(code), &answer.error_message.unwrap_or_else(|| code.as_str_name().into()))),
        (None, Some(schema)) => Ok(Some(from_wire(schema))),
        (None, None) => Ok(None),
    }
}

fn from_wire(schema: proto::Schema) -> Schema {
    let kind = match schema.r#type() {
        WireKind::None => SchemaKind::Bytes,
        WireKind::String => SchemaKind::String,
        WireKind::Json => SchemaKind::Json,
        WireKind::Protobuf => SchemaKind::Protobuf,
        WireKind::Avro => SchemaKind::Avro,
        WireKind::Bool => SchemaKind::Boolean,
        WireKind::Int8 => SchemaKind::Int8,
        WireKind::Int16 => SchemaKind::Int16,
        WireKind::Int32 => SchemaKind::Int32,
        WireKind::Int64 => SchemaKind::Int64,
        WireKind::Float => SchemaKind::Float,
        WireKind::Double => SchemaKind::Double,
        WireKind::Date => SchemaKind::Date,
        WireKind::Time => SchemaKind::Time,
        WireKind::Timestamp => SchemaKind::Timestamp,
        WireKind::KeyValue => SchemaKind::KeyValue,
        WireKind::Instant => SchemaKind::Instant,
        WireKind::LocalDate => SchemaKind::LocalDate,
        WireKind::LocalTime => SchemaKind::LocalTime,
        WireKind::LocalDateTime => SchemaKind::LocalDateTime,
        WireKind::ProtobufNative => SchemaKind::ProtobufNative,
    };
    let properties: BTreeMap<_, _> = schema.properties.into_iter().map(|property| (property.key, property.value)).collect();
    Schema { kind, definition: schema.schema_data, properties }
}
