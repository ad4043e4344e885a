//! A message's payload → what it asks for. By its form alone: the table's key schema is `map`'s concern.

mod change_event;
mod dynamodb_json;
mod json;

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{
    dynamodb::attribute::{Item, is_type_tag},
    sink::{
        InputFormat,
        poison::{Poison, Reason},
    },
};

/// What a message asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// Store this item; all types are the sender's.
    Put(Item),
    /// As `Put`, from plain JSON, which knows fewer types: key attributes follow the table's.
    Document(Item),
    /// Remove the item with this key; carries the key attributes.
    Delete(Item),
}

/// The members of a JSON object, unread.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Reads a payload. `Poison`: it never can be.
pub fn decode(format: InputFormat, payload: &[u8]) -> Result<Decoded, Poison> {
    let text =
        std::str::from_utf8(payload).map_err(|why| Poison::new(Reason::NotParseable, format!("the payload is no UTF-8 text: {why}")))?;
    match format {
        InputFormat::ChangeEvent => change_event::decode(text),
        InputFormat::DynamodbJson => dynamodb_json::decode(text),
        InputFormat::Json => json::decode(text),
        InputFormat::Auto => match sniff(&members(text)?) {
            InputFormat::ChangeEvent => change_event::decode(text),
            InputFormat::DynamodbJson => dynamodb_json::decode(text),
            InputFormat::Json | InputFormat::Auto => json::decode(text),
        },
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
        match decode(InputFormat::Auto, text.as_bytes()) {
            Ok(Decoded::Put(item)) => format!("put {}", to_json(&item)),
            Ok(Decoded::Document(item)) => format!("document {}", to_json(&item)),
            Ok(Decoded::Delete(key)) => format!("delete {}", to_json(&key)),
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
            (r#"null"#, "NOT_PARSEABLE"),
        ] {
            assert_eq!(auto(text), meaning, "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_poison() {
        let poison = decode(InputFormat::Json, b"{\"a\":\"\xff\"}").expect_err("no UTF-8");
        assert_eq!(poison.reason, Reason::NotParseable);
    }
}
