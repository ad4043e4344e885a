//! Plain JSON: objects become maps, arrays lists, and numbers keep the text they were written in (38 digits fit no machine type).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{JsonMode, not_parseable};
use crate::{
    dynamodb::attribute::{Item, MAX_NESTING, Value},
    sink::poison::{Poison, Reason},
};

/// An object as an item.
pub fn decode(text: &str, mode: JsonMode) -> Result<Item, Poison> {
    object(text, MAX_NESTING, mode)
}

/// Any value; an object may become an item.
pub fn any(text: &str, mode: JsonMode) -> Result<Value, Poison> {
    // Proves that it is JSON, and nothing but that.
    let raw: &RawValue = serde_json::from_str(text).map_err(not_parseable)?;
    match raw.get().as_bytes().first() {
        Some(b'{') => decode(raw.get(), mode).map(Value::M),
        _ => value(raw.get(), MAX_NESTING, JsonMode::Document),
    }
}

/// An object's members in their order. Each level of nesting reads its text once more; `levels` bounds that.
fn object(text: &str, levels: usize, mode: JsonMode) -> Result<Item, Poison> {
    let Pairs(pairs) = serde_json::from_str(text).map_err(not_parseable)?;
    let mut item = Item::new();
    for (name, raw) in pairs {
        let value = value(raw.get(), levels, mode)?;
        if item.contains_key(&name) {
            return Err(Poison::new(Reason::NotParseable, format!("the payload has {name:?} twice in one object")));
        }
        item.insert(name, value);
    }
    Ok(item)
}

fn value(text: &str, levels: usize, mode: JsonMode) -> Result<Value, Poison> {
    let deeper = || levels.checked_sub(1).ok_or_else(|| Poison::new(Reason::TooDeep, format!("deeper than {MAX_NESTING} levels")));
    match text.as_bytes().first() {
        Some(b'{' | b'[') if mode == JsonMode::String => Ok(Value::S(text.to_owned())),
        Some(b'{') => Ok(Value::M(object(text, deeper()?, mode)?)),
        Some(b'[') => {
            let levels = deeper()?;
            let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(not_parseable)?;
            raw.into_iter().map(|element| value(element.get(), levels, mode)).collect::<Result<_, _>>().map(Value::L)
        }
        Some(b'"') => serde_json::from_str(text).map(Value::S).map_err(not_parseable),
        Some(b't' | b'f') => serde_json::from_str(text).map(Value::Bool).map_err(not_parseable),
        Some(b'n') => Ok(Value::Null),
        _ => Ok(Value::N(text.to_owned())),
    }
}

/// An object as it stands, so that a name that comes twice is seen.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, &'de RawValue>().map_err(de::Error::custom)? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::attribute::to_json;

    fn document(text: &str) -> String {
        to_json(&decode(text, JsonMode::Document).expect(text))
    }

    #[test]
    fn numbers_keep_their_literal_text() {
        for literal in ["1.10", "12345678901234567890.123", "18446744073709551616", "-0", "1E5", "1e-7", "0.1"] {
            assert_eq!(document(&format!(r#"{{ "n" : {literal} }}"#)), format!(r#"{{"n":{{"N":"{literal}"}}}}"#));
        }
    }

    #[test]
    fn every_json_type_has_its_attribute_type() {
        assert_eq!(
            document(r#" {"s":"\u00e9\n","t":true,"f":false,"z":null,"l":[1,[],{"x":"y"}],"m":{"":[null]}} "#),
            r#"{"f":{"BOOL":false},"l":{"L":[{"N":"1"},{"L":[]},{"M":{"x":{"S":"y"}}}]},"m":{"M":{"":{"L":[{"NULL":true}]}}},"s":{"S":"é\n"},"t":{"BOOL":true},"z":{"NULL":true}}"#
        );
    }

    #[test]
    fn in_string_mode_what_is_nested_keeps_its_text() {
        let item = decode(r#"{"n":1.10,"j":{"a": [1, 2.50]},"l":[ ]}"#, JsonMode::String).expect("an object");
        assert_eq!(to_json(&item), r#"{"j":{"S":"{\"a\": [1, 2.50]}"},"l":{"S":"[ ]"},"n":{"N":"1.10"}}"#);
    }

    #[test]
    fn what_is_no_object_is_poison() {
        for text in ["", "1", "null", "[]", "{", r#"{"a":1}x"#, r#"{"a":tru}"#, r#"{"a":01}"#, r#"{"a":"\ud800"}"#, r#"{"a":1,"a":2}"#] {
            assert_eq!(decode(text, JsonMode::Document).expect_err(text).reason, Reason::NotParseable, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_cheap() {
        let nested = |levels: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(decode(&nested(31), JsonMode::Document).is_ok());
        assert_eq!(decode(&nested(32), JsonMode::Document).expect_err("deep").reason, Reason::TooDeep);
        assert_eq!(decode(&nested(100_000), JsonMode::Document).expect_err("very deep").reason, Reason::TooDeep);
    }
}
