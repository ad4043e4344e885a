//! Plain JSON: objects become maps, arrays lists, and numbers keep the text they were written in (38 digits fit no machine type).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Decoded, not_parseable};
use crate::{
    dynamodb::attribute::{Item, MAX_NESTING, Value},
    sink::poison::{Poison, Reason},
};

pub fn decode(text: &str) -> Result<Decoded, Poison> {
    object(text, MAX_NESTING).map(Decoded::Document)
}

/// An object's members in their order. Each level of nesting reads its text once more; `levels` bounds that.
fn object(text: &str, levels: usize) -> Result<Item, Poison> {
    let Pairs(pairs) = serde_json::from_str(text).map_err(not_parseable)?;
    let mut item = Item::new();
    for (name, raw) in pairs {
        let value = value(raw.get(), levels)?;
        if item.contains_key(&name) {
            return Err(Poison::new(Reason::NotParseable, format!("the payload has {name:?} twice in one object")));
        }
        item.insert(name, value);
    }
    Ok(item)
}

fn value(text: &str, levels: usize) -> Result<Value, Poison> {
    let deeper = || levels.checked_sub(1).ok_or_else(|| Poison::new(Reason::TooDeep, format!("deeper than {MAX_NESTING} levels")));
    match text.as_bytes().first() {
        Some(b'{') => Ok(Value::M(object(text, deeper()?)?)),
        Some(b'[') => {
            let levels = deeper()?;
            let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(not_parseable)?;
            raw.into_iter().map(|element| value(element.get(), levels)).collect::<Result<_, _>>().map(Value::L)
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
        match decode(text) {
            Ok(Decoded::Document(item)) => to_json(&item),
            other => panic!("{other:?}"),
        }
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
    fn what_is_no_object_is_poison() {
        for text in ["", "1", "null", "[]", "{", r#"{"a":1}x"#, r#"{"a":tru}"#, r#"{"a":01}"#, r#"{"a":"\ud800"}"#, r#"{"a":1,"a":2}"#] {
            assert_eq!(decode(text).expect_err(text).reason, Reason::NotParseable, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_cheap() {
        let nested = |levels: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(decode(&nested(31)).is_ok());
        assert_eq!(decode(&nested(32)).expect_err("deep").reason, Reason::TooDeep);
        assert_eq!(decode(&nested(100_000)).expect_err("very deep").reason, Reason::TooDeep);
    }
}
