//! The item's key as text: the same for every change of an item, different for different items.

use crate::{
    dynamodb::attribute::{Number, Value, item_from_json, to_json},
    error::{Error, Kind, Result},
};

/// The record's `Keys` as DynamoDB JSON without spaces, names in order of their UTF-8 bytes, numbers in plain notation: `{"pk":{"S":"a"},"sk":{"N":"1.5"}}`.
///
/// DynamoDB takes N `1` and `1.0` for one item, and so the key is one. A stream's record does not say which attribute is the partition
/// key, so both are in it.
pub fn item_key(keys: Option<&[u8]>) -> Result<String> {
    let poison = |why: String| Error::new(Kind::Poison, "make the item's key of a stream record", why);
    let keys = keys.ok_or_else(|| poison("it has no Keys".into()))?;
    let mut item = item_from_json(&String::from_utf8_lossy(keys)).map_err(|error| poison(error.to_string()))?;
    if item.is_empty() {
        return Err(poison("its Keys are empty".into()));
    }
    for value in item.values_mut() {
        if let Value::N(text) = value
            && let Some(number) = Number::parse(text)
        {
            *text = number.plain();
        }
    }
    Ok(to_json(&item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(keys: &str) -> String {
        item_key(Some(keys.as_bytes())).expect(keys)
    }

    #[test]
    fn w12_one_item_has_one_key_however_the_service_writes_it() {
        let expected = r#"{"pk":{"S":"a"},"sk":{"N":"1.5"}}"#;
        for text in ["1.5", "1.50", "15e-1", "+01.5"] {
            assert_eq!(key(&format!(r#"{{"sk":{{"N":"{text}"}},"pk":{{"S":"a"}}}}"#)), expected);
        }
        assert_eq!(key(r#"{"n":{"N":"1E+3"}}"#), r#"{"n":{"N":"1000"}}"#);
        assert_eq!(key(r#"{"n":{"N":"-0.00"}}"#), r#"{"n":{"N":"0"}}"#);
        assert_eq!(key(r#"{"b":{"B":"AAH//g=="}}"#), r#"{"b":{"B":"AAH//g=="}}"#);
        assert_ne!(key(r#"{"pk":{"S":"1"}}"#), key(r#"{"pk":{"N":"1"}}"#));
        assert_ne!(key(r#"{"pk":{"S":"ab"},"sk":{"S":"c"}}"#), key(r#"{"pk":{"S":"a"},"sk":{"S":"bc"}}"#));
    }

    #[test]
    fn a_record_without_keys_is_poison() {
        for keys in [None, Some("{}"), Some(r#"{"pk":{}}"#)] {
            assert_eq!(item_key(keys.map(str::as_bytes)).expect_err("no key").kind(), Kind::Poison);
        }
    }
}
