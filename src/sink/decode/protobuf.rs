//! Protobuf by descriptors: those in a PROTOBUF_NATIVE schema, or those in a file.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Read};
use serde::Deserialize;

use super::{
    Rules,
    number::{double, float},
};
use crate::{
    dynamodb::attribute::{Item, MAX_NESTING, Value},
    sink::poison::{Poison, Reason},
};

/// A message type.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtobufSchema(MessageDescriptor);

/// What Pulsar registers for PROTOBUF_NATIVE. Source: `ProtobufNativeSchemaData`, Pulsar 4.0.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    file_descriptor_set: String,
    root_message_type_name: String,
}

impl ProtobufSchema {
    /// From a PROTOBUF_NATIVE schema. Errors say what is wrong with it.
    pub fn registered(definition: &[u8]) -> Result<Self, String> {
        let registered: Registered = serde_json::from_slice(definition).map_err(|why| format!("it cannot be read: {why}"))?;
        let set = BASE64.decode(registered.file_descriptor_set).map_err(|why| format!("its descriptors are not base64: {why}"))?;
        Self::of_descriptors(&set, &registered.root_message_type_name)
    }

    /// From a `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` writes it, and the message's full name.
    pub fn of_descriptors(set: &[u8], message: &str) -> Result<Self, String> {
        let pool = DescriptorPool::decode(set).map_err(|why| format!("its descriptors cannot be read: {why}"))?;
        pool.get_message_by_name(message).map(Self).ok_or_else(|| format!("there is no message {message:?} in its descriptors"))
    }

    pub fn read(&self, payload: &[u8], rules: &Rules) -> Result<Value, Poison> {
        let message = DynamicMessage::decode(self.0.clone(), payload);
        let message =
            message.map_err(|why| Poison::new(Reason::NotParseable, format!("the payload is no {}: {why}", self.0.full_name())))?;
        self::message(&message, rules, MAX_NESTING + 1)
    }
}

/// `levels`: how many maps and lists may be nested from here on.
fn message(message: &DynamicMessage, rules: &Rules, levels: usize) -> Result<Value, Poison> {
    let descriptor = message.descriptor();
    let part = |name: &str| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
    let number = |name: &str| part(name).map_or(0, |value| value.as_i64().or_else(|| value.as_i32().map(i64::from)).unwrap_or(0));
    let nanos = || i128::from(number("seconds")) * 1_000_000_000 + i128::from(number("nanos"));
    let inner = || levels.checked_sub(1).ok_or_else(|| Poison::new(Reason::TooDeep, format!("deeper than {MAX_NESTING} levels")));
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => rules.temporal.timestamp(nanos()),
        "google.protobuf.Duration" => Ok(rules.temporal.duration(0, 0, nanos())),
        // A message around one scalar, for a field that may be absent.
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") && descriptor.fields().len() == 1 => {
            let fields = descriptor.fields();
            fields.map(|field| value(&message.get_field(&field), &field, rules, levels)).next().unwrap_or(Ok(Value::Null))
        }
        "google.protobuf.Value" => match message.fields().next() {
            Some((field, chosen)) if field.name() != "null_value" => value(chosen, &field, rules, levels),
            _ => Ok(Value::Null),
        },
        "google.protobuf.Struct" => match message.fields().next() {
            Some((field, fields)) => value(fields, &field, rules, levels),
            None => Ok(Value::M(Item::new())),
        },
        "google.protobuf.ListValue" => match message.fields().next() {
            Some((field, values)) => value(values, &field, rules, levels),
            None => Ok(Value::L(Vec::new())),
        },
        _ => {
            let levels = inner()?;
            let mut item = Item::new();
            // What is absent and can be is left out; what cannot be absent (a scalar of proto3) has its default.
            for field in descriptor.fields().filter(|field| !field.supports_presence() || message.has_field(field)) {
                let read = value(&message.get_field(&field), &field, rules, levels).map_err(|poison| poison.at(field.name()))?;
                item.insert(field.name().to_owned(), read);
            }
            Ok(Value::M(item))
        }
    }
}

fn value(read: &Read, field: &FieldDescriptor, rules: &Rules, levels: usize) -> Result<Value, Poison> {
    let inner = || levels.checked_sub(1).ok_or_else(|| Poison::new(Reason::TooDeep, format!("deeper than {MAX_NESTING} levels")));
    Ok(match read {
        Read::Bool(truth) => Value::Bool(*truth),
        Read::I32(number) => Value::N(number.to_string()),
        Read::I64(number) => Value::N(number.to_string()),
        Read::U32(number) => Value::N(number.to_string()),
        Read::U64(number) => Value::N(number.to_string()),
        Read::F32(number) => float(*number, rules.non_finite)?,
        Read::F64(number) => double(*number, rules.non_finite)?,
        Read::String(text) => Value::S(text.clone()),
        Read::Bytes(bytes) => Value::B(bytes.to_vec()),
        // A number that has no name is one that the writer's descriptors knew and these do not.
        Read::EnumNumber(number) => Value::S(match field.kind() {
            Kind::Enum(names) => names.get_value(*number).map_or_else(|| number.to_string(), |named| named.name().to_owned()),
            _ => number.to_string(),
        }),
        Read::Message(message) => self::message(message, rules, levels)?,
        Read::List(values) => {
            let levels = inner()?;
            Value::L(values.iter().map(|read| value(read, field, rules, levels)).collect::<Result<_, _>>()?)
        }
        Read::Map(entries) => {
            let levels = inner()?;
            let Kind::Message(entry) = field.kind() else { return Err(Poison::new(Reason::NotParseable, "a map without entries")) };
            let of_value = entry.map_entry_value_field();
            let read = |(key, read): (&MapKey, &Read)| {
                let name = map_key(key);
                let value = value(read, &of_value, rules, levels).map_err(|poison| poison.at(&name))?;
                Ok((name, value))
            };
            Value::M(entries.iter().map(read).collect::<Result<_, Poison>>()?)
        }
    })
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(truth) => truth.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
        MapKey::String(text) => text.clone(),
    }
}
