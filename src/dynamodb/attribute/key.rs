//! An item's primary key, in a form in which equal keys are equal.

use std::{fmt, sync::Arc};

use super::{Item, Number, Value};
use crate::ports::{KeySchema, KeyType};

/// Names one item of a table: each key attribute as its type, its length and its bytes; numbers in canonical form. Equal exactly
/// where DynamoDB sees one item: N `1` and `1.0` are one, ("a", "bc") and ("ab", "c") are two.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemKey(Arc<[u8]>);

/// Why an item has no usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadKey {
    Missing { name: String },
    WrongType { name: String, has: &'static str, wants: KeyType },
    NotANumber { name: String, text: String },
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKey::Missing { name } => write!(f, "the table's key attribute {name:?} is missing"),
            BadKey::WrongType { name, has, wants } => {
                write!(f, "the table's key attribute {name:?} has type {has}, the table wants {wants:?}")
            }
            BadKey::NotANumber { name, text } => write!(f, "the table's key attribute {name:?} is no number: {text:?}"),
        }
    }
}

impl ItemKey {
    /// The key of an item, or of a map that holds exactly the key.
    pub fn of(item: &Item, schema: &KeySchema) -> Result<Self, BadKey> {
        let mut bytes = Vec::with_capacity(32);
        for (name, wants) in std::iter::once(&schema.partition).chain(&schema.sort) {
            let value = item.get(name).ok_or_else(|| BadKey::Missing { name: name.clone() })?;
            match (wants, value) {
                (KeyType::S, Value::S(text)) => append(&mut bytes, b'S', text.as_bytes()),
                (KeyType::B, Value::B(blob)) => append(&mut bytes, b'B', blob),
                (KeyType::N, Value::N(text)) => match Number::parse(text) {
                    Some(number) => append(&mut bytes, b'N', number.to_string().as_bytes()),
                    None => return Err(BadKey::NotANumber { name: name.clone(), text: text.clone() }),
                },
                _ => return Err(BadKey::WrongType { name: name.clone(), has: value.type_tag(), wants: *wants }),
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The part of the partition key: the same for all items of one key.
    pub fn partition(&self) -> Self {
        let length = self.0.get(1..HEAD).and_then(|length| length.try_into().ok()).map_or(0, u64::from_be_bytes);
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEAD).min(self.0.len());
        Self(self.0[..end].into())
    }
}

/// A part's type and length.
const HEAD: usize = 1 + size_of::<u64>();

fn append(bytes: &mut Vec<u8>, tag: u8, part: &[u8]) {
    bytes.push(tag);
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}

impl fmt::Debug for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemKey({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::item_from_json, *};

    fn key(types: (KeyType, KeyType), json: &str) -> Result<ItemKey, BadKey> {
        let schema = KeySchema { partition: ("p".into(), types.0), sort: Some(("s".into(), types.1)) };
        ItemKey::of(&item_from_json(json).expect("test data"), &schema)
    }

    fn text(p: &str, s: &str) -> ItemKey {
        key((KeyType::S, KeyType::S), &format!(r#"{{"p":{{"S":"{p}"}},"s":{{"S":"{s}"}}}}"#)).expect("valid")
    }

    #[test]
    fn equal_exactly_where_dynamodb_sees_one_item() {
        let number = |text: &str| key((KeyType::N, KeyType::B), &format!(r#"{{"p":{{"N":"{text}"}},"s":{{"B":"/wA="}}}}"#)).expect("valid");
        for one in ["1", "1.0", "1E0", "01"] {
            assert_eq!(number(one), number("1"));
        }
        assert_eq!(number("-0"), number("0"));
        assert_ne!(number("1"), number("10"));
        assert_ne!(text("a$", "b"), text("a", "$b"));
        assert_ne!(text("a", "b"), text("b", "a"));
        assert_ne!(text("ab", "c"), text("a", "bc"));
    }

    #[test]
    fn a_key_must_be_there_and_have_the_tables_type() {
        let types = (KeyType::S, KeyType::N);
        assert_eq!(key(types, r#"{"p":{"S":"a"}}"#), Err(BadKey::Missing { name: "s".into() }));
        let wrong = key(types, r#"{"p":{"NULL":true},"s":{"N":"1"}}"#);
        assert_eq!(wrong, Err(BadKey::WrongType { name: "p".into(), has: "NULL", wants: KeyType::S }));
        let no_number = key(types, r#"{"p":{"S":"a"},"s":{"N":"x"}}"#);
        assert_eq!(no_number, Err(BadKey::NotANumber { name: "s".into(), text: "x".into() }));
    }
}
