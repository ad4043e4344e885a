//! The schemas that are known, and reading by them.

use std::collections::HashMap;

use super::{
    Decoded, InputFormat, Record, Rules,
    avro::AvroSchema,
    json,
    key_value::{self, KeyValueSchema},
    primitive,
    protobuf::ProtobufSchema,
    text,
};
use crate::{
    dynamodb::attribute::{Item, Value},
    error::{Error, Kind, Result},
    ports::{InboundMessage, Schema, SchemaId, SchemaKind},
    sink::poison::{Poison, Reason},
};

/// So many schema versions are kept. More are in use at once only where a topic has as many; then all are asked for again.
const MAX_KNOWN: usize = 1000;

/// Reads messages, each by its own schema. A schema that is not known yet has to be asked for first.
#[derive(Debug)]
pub struct Decoder {
    rules: Rules,
    known: HashMap<SchemaId, Result<Known, String>>,
}

/// A schema, ready to read by.
#[derive(Debug)]
enum Known {
    /// Primitives and JSON: their kind says it all.
    Plain(SchemaKind),
    Avro(AvroSchema),
    Protobuf(ProtobufSchema),
    KeyValue {
        key: Box<Known>,
        value: Box<Known>,
        separated: bool,
    },
}

impl Decoder {
    pub fn new(rules: Rules) -> Self {
        Self { rules, known: HashMap::new() }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The schema that has to be learnt before this message can be read.
    pub fn missing(&self, message: &InboundMessage) -> Option<SchemaId> {
        self.id(message).filter(|id| !self.known.contains_key(id))
    }

    /// Takes what the registry says: `None` for a version that is gone. Errors where the configuration has to say more.
    pub fn learn(&mut self, id: SchemaId, schema: Option<Schema>) -> Result<()> {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let known = match schema {
            None => Err(format!("the registry has no {id} any more")),
            Some(schema) => self.understand(&schema, &id)?,
        };
        self.known.insert(id, known);
        Ok(())
    }

    fn understand(&self, schema: &Schema, id: &SchemaId) -> Result<Result<Known, String>> {
        let unusable = |why: String| format!("the {id} cannot be used: {why}");
        Ok(match schema.kind {
            SchemaKind::Avro => AvroSchema::parse(&schema.definition).map(Known::Avro).map_err(unusable),
            SchemaKind::ProtobufNative => ProtobufSchema::registered(&schema.definition).map(Known::Protobuf).map_err(unusable),
            SchemaKind::Protobuf => match &self.rules.protobuf {
                Some(configured) => Ok(Known::Protobuf(configured.clone())),
                None => {
                    let why = "its type PROTOBUF does not tell the message's form: give protobufDescriptorFile and protobufMessage, or \
                               let the producer use PROTOBUF_NATIVE";
                    return Err(Error::new(Kind::Configuration, format!("read by {id}"), why));
                }
            },
            SchemaKind::KeyValue => match KeyValueSchema::parse(schema) {
                Ok(KeyValueSchema { key, value, separated }) => {
                    let (key, value) = (self.understand(&key, id)?, self.understand(&value, id)?);
                    key.and_then(|key| Ok(Known::KeyValue { key: key.into(), value: value?.into(), separated }))
                }
                Err(why) => Err(unusable(why)),
            },
            plain => Ok(Known::Plain(plain)),
        })
    }

    fn id(&self, message: &InboundMessage) -> Option<SchemaId> {
        let version = message.schema_version.as_ref().filter(|version| !version.is_empty())?;
        let by_schema = matches!(self.rules.format, InputFormat::Auto | InputFormat::Schema);
        by_schema.then(|| SchemaId { topic: message.entry.topic_and_partition().0.into(), version: version.clone() })
    }

    /// Reads a message whose schema is known. `Poison`: it never can be.
    pub fn decode(&self, message: &InboundMessage) -> Result<Record, Poison> {
        const NONE: &Known = &Known::Plain(SchemaKind::Bytes);
        let known = match self.id(message).and_then(|id| self.known.get(&id)) {
            None => NONE,
            Some(Ok(known)) => known,
            Some(Err(why)) => return Err(Poison::new(Reason::Schema, why.clone())),
        };
        let Known::KeyValue { key, value, separated } = known else {
            let asks = if self.is_null(message, known) { Decoded::Tombstone } else { self.asks(known, &message.payload, true)? };
            return Ok(Record { key: None, asks });
        };
        if self.is_null(message, known) && !separated {
            return Ok(Record { key: None, asks: Decoded::Tombstone });
        }
        let (key_bytes, value_bytes) = key_value::parts(message, *separated)?;
        let key = match key_bytes {
            Some(bytes) => Some(self.value(key, &bytes).map_err(|poison| poison.at("key"))?).filter(|key| *key != Value::Null),
            None => None,
        };
        let asks = match value_bytes {
            Some(bytes) if !(*separated && self.is_null(message, value)) => self.asks(value, bytes, false)?,
            _ => Decoded::Tombstone,
        };
        Ok(Record { key, asks })
    }

    /// Whether the message's payload stands for null: its producer says so, or it is empty where nothing that can be read is.
    fn is_null(&self, message: &InboundMessage, known: &Known) -> bool {
        let by_emptiness = match known {
            // Empty Protobuf: all fields have their defaults.
            Known::Plain(SchemaKind::Bytes | SchemaKind::String) | Known::Protobuf(_) => false,
            Known::Plain(_) | Known::Avro(_) | Known::KeyValue { .. } => true,
        };
        message.null_value || (message.payload.is_empty() && (by_emptiness || self.rules.empty_is_tombstone))
    }

    /// `whole`: the payload is all there is, so that text may be any of the formats of its own.
    fn asks(&self, known: &Known, payload: &[u8], whole: bool) -> Result<Decoded, Poison> {
        let by_form = match known {
            Known::Plain(SchemaKind::Bytes | SchemaKind::String) => whole,
            Known::Plain(SchemaKind::Json) => true,
            _ => false,
        };
        if by_form && self.rules.format != InputFormat::Schema {
            return text(payload, &self.rules);
        }
        Ok(match self.value(known, payload)? {
            Value::M(item) => Decoded::Document(item),
            Value::Null => Decoded::Tombstone,
            scalar => Decoded::Document(Item::from([(self.rules.value_attribute.clone(), scalar)])),
        })
    }

    fn value(&self, known: &Known, payload: &[u8]) -> Result<Value, Poison> {
        match known {
            Known::Avro(schema) => schema.read(payload, &self.rules),
            Known::Protobuf(schema) => schema.read(payload, &self.rules),
            Known::Plain(kind) => match primitive::read(*kind, payload, &self.rules) {
                Some(read) => read,
                None => {
                    let text = std::str::from_utf8(payload);
                    json::any(
                        text.map_err(|why| Poison::new(Reason::NotParseable, format!("JSON that is no UTF-8: {why}")))?,
                        self.rules.json,
                    )
                }
            },
            Known::KeyValue { .. } => Err(Poison::new(Reason::Schema, "a KEY_VALUE schema in another one")),
        }
    }
}
