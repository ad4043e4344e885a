//! A message → what it asks for. By its schema or by its form alone: the table's keys are `map`'s concern.
//!
//! | payload | file |
//! |---|---|
//! | text: plain JSON, DynamoDB JSON, the source's change events | `json`, `dynamodb_json`, `change_event` |
//! | by schema: AVRO, PROTOBUF_NATIVE and PROTOBUF, KEY_VALUE, primitives | `avro/`, `protobuf`, `key_value`, `primitive` |
//! | what dates, times and numbers become | `temporal`, `number` |

mod avro;
mod change_event;
mod dynamodb_json;
mod json;
mod key_value;
mod known;
mod number;
mod primitive;
mod protobuf;
mod temporal;

use std::collections::BTreeMap;

use serde_json::value::RawValue;

pub use self::{known::Decoder, number::NonFinite, protobuf::ProtobufSchema, temporal::TemporalFormat};
use crate::{
    dynamodb::attribute::{Item, Value, is_type_tag},
    sink::poison::{Poison, Reason},
};

/// How a message is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InputFormat {
    /// By its schema; text, and what has no schema, by its own form: change event, DynamoDB JSON or plain JSON object.
    #[default]
    Auto,
    /// By its schema alone: text is text, and what has no schema is bytes.
    Schema,
    ChangeEvent,
    DynamodbJson,
    Json,
}

/// What nested JSON becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JsonMode {
    /// Maps and lists.
    #[default]
    Document,
    /// Its text, as RisingWave writes its type `jsonb`.
    String,
}

/// What becomes of a change event without the new image that it should bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnMissingImage {
    #[default]
    Poison,
    /// The item stays as it is.
    Ignore,
}

/// How messages are read, as configured.
#[derive(Debug, Clone)]
pub struct Rules {
    pub format: InputFormat,
    pub temporal: TemporalFormat,
    pub non_finite: NonFinite,
    pub json: JsonMode,
    /// The attribute for a value that is no record.
    pub value_attribute: String,
    /// The message type of PROTOBUF schemas, which do not tell it.
    pub protobuf: Option<ProtobufSchema>,
    /// An empty payload is null, also where its schema has empty values.
    pub empty_is_tombstone: bool,
    pub missing_image: OnMissingImage,
    /// Change events of removals by time to live are deletes.
    pub replay_ttl_deletes: bool,
    /// Change events are read with their old images, for who changes items and does not replace them.
    pub old_images: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            format: InputFormat::Auto,
            temporal: TemporalFormat::Iso,
            non_finite: NonFinite::Poison,
            json: JsonMode::Document,
            value_attribute: "value".into(),
            protobuf: None,
            empty_is_tombstone: false,
            missing_image: OnMissingImage::Poison,
            replay_ttl_deletes: true,
            old_images: false,
        }
    }
}

/// A message, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key of a KEY_VALUE message; `None` where it is null, and for all others.
    pub key: Option<Value>,
    pub asks: Decoded,
}

/// What a message asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// Store this item; all types are the sender's.
    Put(Item),
    /// As `Put`, from a format with other types than DynamoDB's: key attributes follow the table's.
    Document(Item),
    /// The item was changed from the one to the other, both whole; all types are the sender's.
    Change { old: Item, new: Item },
    /// Remove the item with this key; carries the key attributes.
    Delete(Item),
    /// As `Delete`, from a format with other types: key attributes follow the table's, and what is no key attribute does not count.
    DeleteLike(Item),
    /// The value is null: remove the item that the message's key names.
    Tombstone,
    /// Nothing: the message is done with.
    Nothing,
}

impl Decoded {
    /// What it is about: the item, or the key to delete. `None` where the message has no value.
    pub fn value(&self) -> Option<&Item> {
        match self {
            Self::Put(item) | Self::Document(item) | Self::Delete(item) | Self::DeleteLike(item) | Self::Change { new: item, .. } => {
                Some(item)
            }
            Self::Tombstone | Self::Nothing => None,
        }
    }
}

/// A text as a JSON object, if it is one.
pub fn json_object(text: &str) -> Option<Item> {
    json::decode(text, JsonMode::Document).ok()
}

/// The members of a JSON object, unread.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Reads a payload that is text. `Poison`: it never can be.
pub(super) fn text(payload: &[u8], rules: &Rules) -> Result<Decoded, Poison> {
    let text =
        std::str::from_utf8(payload).map_err(|why| Poison::new(Reason::NotParseable, format!("the payload is no UTF-8 text: {why}")))?;
    if text.trim() == "null" {
        return Ok(Decoded::Tombstone);
    }
    let form = match rules.format {
        InputFormat::Auto | InputFormat::Schema => sniff(&members(text)?),
        form => form,
    };
    match form {
        InputFormat::ChangeEvent => change_event::decode(text, rules),
        InputFormat::DynamodbJson => dynamodb_json::decode(text),
        InputFormat::Json | InputFormat::Auto | InputFormat::Schema => json::decode(text, rules.json).map(Decoded::Document),
    }
}

/// The form of an object: a change event has `eventName` and `dynamodb`; in DynamoDB JSON every value is an object with one type
/// as its only member, or all of that stands below `Item`; everything else is plain JSON.
fn sniff(members: &Members) -> InputFormat {
    if members.contains_key("eventName") && members.contains_key("dynamodb") {
        InputFormat::ChangeEvent
    } else if dynamodb_json::is_typed(members) || dynamodb_json::wrapped(members).is_some() {
        InputFormat::DynamodbJson
    } else {
        InputFormat::Json
    }
}

fn members(text: &str) -> Result<Members<'_>, Poison> {
    serde_json::from_str(text).map_err(not_parseable)
}

fn not_parseable(why: serde_json::Error) -> Poison {
    Poison::new(Reason::NotParseable, format!("the payload cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::attribute::to_json;

    fn auto(text: &str) -> String {
        match super::text(text.as_bytes(), &Rules::default()) {
            Ok(Decoded::Tombstone) => "tombstone".into(),
            Ok(Decoded::Put(item)) => format!("put {}", to_json(&item)),
            Ok(Decoded::Document(item)) => format!("document {}", to_json(&item)),
            Ok(Decoded::Delete(key)) => format!("delete {}", to_json(&key)),
            Ok(other) => panic!("{other:?}"),
            Err(poison) => poison.reason.name().to_owned(),
        }
    }

    #[test]
    fn auto_goes_by_the_form() {
        for (text, meaning) in [
            (r#"{"a":{"S":"x"},"b":{"N":"1"}}"#, r#"put {"a":{"S":"x"},"b":{"N":"1"}}"#),
            (r#"{"Item":{"a":{"S":"x"}}}"#, r#"put {"a":{"S":"x"}}"#),
            (r#"{"Item":{"M":{"a":{"S":"x"}}}}"#, r#"put {"Item":{"M":{"a":{"S":"x"}}}}"#),
            (r#"{"Item":{"a":"x"}}"#, r#"document {"Item":{"M":{"a":{"S":"x"}}}}"#),
            (r#"{"a":{"S":"x"},"b":1}"#, r#"document {"a":{"M":{"S":{"S":"x"}}},"b":{"N":"1"}}"#),
            (r#"{"a":{"S":"x","N":"1"}}"#, r#"document {"a":{"M":{"N":{"S":"1"},"S":{"S":"x"}}}}"#),
            (r#"{}"#, r#"document {}"#),
            (r#"{"eventName":"REMOVE","dynamodb":{"Keys":{"a":{"S":"x"}}}}"#, r#"delete {"a":{"S":"x"}}"#),
            (r#"{"eventName":"REMOVE"}"#, r#"document {"eventName":{"S":"REMOVE"}}"#),
            (r#"{"a":{"S":5}}"#, "NOT_PARSEABLE"),
            (r#"[1]"#, "NOT_PARSEABLE"),
            (r#""#, "NOT_PARSEABLE"),
            (r#"null"#, "tombstone"),
        ] {
            assert_eq!(auto(text), meaning, "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_poison() {
        let poison = text(b"{\"a\":\"\xff\"}", &Rules::default()).expect_err("no UTF-8");
        assert_eq!(poison.reason, Reason::NotParseable);
    }
}
