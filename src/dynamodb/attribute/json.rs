//! DynamoDB JSON: `{"pk":{"S":"a"},"n":{"N":"1"},"b":{"B":"AAEC"}}`. Strict: one type for each value, no name twice, standard base64.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{Item, Value};

/// The types as they are written, source: "AttributeValue", Amazon DynamoDB API Reference.
const TAGS: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"];

pub fn is_type_tag(name: &str) -> bool {
    TAGS.contains(&name)
}

/// Reads one item. The error says what is wrong and where, in the parser's words.
pub fn item_from_json(json: &str) -> serde_json::Result<Item> {
    serde_json::from_str::<Attributes>(json).map(|attributes| attributes.0)
}

/// Writes an item, names in order.
pub fn to_json(item: &Item) -> String {
    serde_json::to_string(&AttributesRef(item)).unwrap_or_default()
}

/// An item on its way in: a map that refuses a name that comes twice.
#[derive(Debug, Default)]
pub(crate) struct Attributes(pub(crate) Item);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut item = Item::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if let Some(name) = duplicate(&mut item, name, value) {
                        return Err(de::Error::custom(format_args!("attribute {name:?} comes twice")));
                    }
                }
                Ok(Attributes(item))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Adds an attribute; gives the name back when it was there already.
fn duplicate(item: &mut Item, name: String, value: Value) -> Option<String> {
    use std::collections::btree_map::Entry;
    match item.entry(name) {
        Entry::Occupied(there) => Some(there.key().clone()),
        Entry::Vacant(free) => {
            free.insert(value);
            None
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tagged;
        impl<'de> Visitor<'de> for Tagged {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with exactly one attribute type, such as {\"S\":\"text\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let Some(tag) = map.next_key::<String>()? else {
                    return Err(de::Error::custom("an attribute value without a type"));
                };
                let value = match tag.as_str() {
                    "S" => Value::S(map.next_value()?),
                    "N" => Value::N(map.next_value()?),
                    "B" => Value::B(map.next_value::<Blob>()?.0),
                    "BOOL" => Value::Bool(map.next_value()?),
                    "NULL" if map.next_value::<bool>()? => Value::Null,
                    "NULL" => return Err(de::Error::custom("NULL must be true")),
                    "SS" => Value::Ss(map.next_value()?),
                    "NS" => Value::Ns(map.next_value()?),
                    "BS" => Value::Bs(map.next_value::<Vec<Blob>>()?.into_iter().map(|blob| blob.0).collect()),
                    "L" => Value::L(map.next_value()?),
                    "M" => Value::M(map.next_value::<Attributes>()?.0),
                    other => return Err(de::Error::unknown_field(other, &TAGS)),
                };
                match map.next_key::<String>()? {
                    None => Ok(value),
                    Some(second) => Err(de::Error::custom(format_args!("an attribute value with two types, {tag} and {second}"))),
                }
            }
        }
        deserializer.deserialize_map(Tagged)
    }
}

struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Blob).map_err(|why| de::Error::custom(format_args!("not base64: {why}")))
    }
}

struct AttributesRef<'a>(&'a Item);

impl Serialize for AttributesRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        let tag = self.type_tag();
        match self {
            Value::S(text) | Value::N(text) => map.serialize_entry(tag, text)?,
            Value::B(bytes) => map.serialize_entry(tag, &BASE64.encode(bytes))?,
            Value::Bool(truth) => map.serialize_entry(tag, truth)?,
            Value::Null => map.serialize_entry(tag, &true)?,
            Value::Ss(texts) | Value::Ns(texts) => map.serialize_entry(tag, texts)?,
            Value::Bs(blobs) => map.serialize_entry(tag, &blobs.iter().map(|bytes| BASE64.encode(bytes)).collect::<Vec<_>>())?,
            Value::L(values) => map.serialize_entry(tag, values)?,
            Value::M(item) => map.serialize_entry(tag, &AttributesRef(item))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_round_trip_with_its_exact_text() {
        let json = r#"{"b":{"B":"AAH/"},"bs":{"BS":["AA==",""]},"e":{"S":""},"l":{"L":[{"N":"1.10"},{"L":[]}]},"m":{"M":{"":{"NULL":true}}},"n":{"N":"12345678901234567890.12300"},"ns":{"NS":["1","1E5"]},"s":{"S":"é\u0001\"😀"},"ss":{"SS":["a"]},"t":{"BOOL":false}}"#;
        let item = item_from_json(json).expect("valid");
        assert_eq!(item["n"], Value::N("12345678901234567890.12300".into()));
        assert_eq!(item["b"], Value::B(vec![0, 1, 255]));
        assert_eq!(to_json(&item), json);
    }

    #[test]
    fn what_is_not_dynamodb_json_is_refused() {
        for (json, why) in [
            (r#"[]"#, "object of attributes"),
            (r#"{"a":1}"#, "exactly one attribute type"),
            (r#"{"a":{}}"#, "without a type"),
            (r#"{"a":{"S":"x","N":"1"}}"#, "two types"),
            (r#"{"a":{"S":"x","S":"y"}}"#, "two types"),
            (r#"{"a":{"X":"x"}}"#, "unknown field"),
            (r#"{"a":{"s":"x"}}"#, "unknown field"),
            (r#"{"a":{"S":1}}"#, "string"),
            (r#"{"a":{"N":1}}"#, "string"),
            (r#"{"a":{"BOOL":"true"}}"#, "boolean"),
            (r#"{"a":{"NULL":false}}"#, "NULL must be true"),
            (r#"{"a":{"B":"AA"}}"#, "not base64"),
            (r#"{"a":{"B":"-_=="}}"#, "not base64"),
            (r#"{"a":{"S":"\ud800"}}"#, "hex escape"),
            (r#"{"a":{"S":"\udc00"}}"#, "surrogate"),
            (r#"{"a":{"S":"x"},"a":{"S":"y"}}"#, "comes twice"),
            (r#"{"a":{"M":{"b":{"S":"x"},"b":{"S":"y"}}}}"#, "comes twice"),
            (r#"{"a":{"S":"x""#, "EOF"),
            (r#"{"a":{"S":"x"}}x"#, "trailing"),
        ] {
            let error = item_from_json(json).expect_err(json).to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
