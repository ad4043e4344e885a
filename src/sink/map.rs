//! What a message asks for + the table's key schema → one write that DynamoDB will take, and the item that it is for.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{
    decode::Decoded,
    poison::{Poison, Reason},
};
use crate::{
    dynamodb::attribute::{Item, ItemKey, Number, Value, check_item, check_key, to_json},
    ports::{Action, KeySchema, KeyType, Write},
};

/// One item of one table: what writes are kept in order for (K1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub table: Arc<str>,
    pub key: ItemKey,
}

/// One write and the item that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    pub write: Write,
    pub key: Target,
}

/// Makes the write and checks all that DynamoDB checks, since one bad item fails its whole batch. `None`: there is nothing to write.
pub fn map(decoded: Decoded, table: &Arc<str>, schema: &KeySchema) -> Result<Option<Mapped>, Poison> {
    let action = match decoded {
        Decoded::Put(item) => Action::Put(item),
        Decoded::Document(mut item) => {
            coerce_keys(&mut item, schema);
            Action::Put(item)
        }
        Decoded::Change { old, new } => {
            let (key, set): (Item, Item) = new.into_iter().partition(|(name, _)| schema.has(name));
            let remove = old.into_keys().filter(|name| !set.contains_key(name) && !schema.has(name)).collect();
            Action::Update { key, set, remove }
        }
        Decoded::Delete(key) => Action::Delete(key),
        Decoded::DeleteLike(mut item) => {
            coerce_keys(&mut item, schema);
            item.retain(|name, _| schema.has(name));
            Action::Delete(item)
        }
        Decoded::Nothing => return Ok(None),
        Decoded::Tombstone => return Err(Poison::new(Reason::NoKey, "a message without a value names no item")),
    };
    let key = Target { table: table.clone(), key: ItemKey::of(action.item(), schema)? };
    let checked = match &action {
        Action::Put(item) => check_item(item, schema).map_err(Poison::from),
        Action::Delete(key) => only_key(key, schema).and_then(|()| check_key(key, schema).map_err(Poison::from)),
        Action::Update { key, set, .. } => {
            let mut item = key.clone();
            item.extend(set.clone());
            check_item(&item, schema).map_err(Poison::from)
        }
    };
    match checked {
        Ok(()) => Ok(Some(Mapped { write: Write { table: table.clone(), action, condition: None }, key })),
        Err(poison) => Err(Poison { item_key: Some(key_json(action.item(), schema)), ..poison }),
    }
}

/// The key attributes of an item as DynamoDB JSON, for people.
pub fn key_json(item: &Item, schema: &KeySchema) -> String {
    let names = std::iter::once(&schema.partition).chain(&schema.sort).map(|(name, _)| name);
    to_json(&names.filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect())
}

/// A delete by a key with further attributes is refused by DynamoDB: they belong to some other table's key.
fn only_key(item: &Item, schema: &KeySchema) -> Result<(), Poison> {
    match item.keys().find(|name| !schema.has(name)) {
        None => Ok(()),
        Some(other) => Err(Poison::new(Reason::KeyMismatch, format!("{other:?} is in the key to delete, but not in the table's key"))),
    }
}

/// Plain JSON has no binary and is loose about numbers: 7 and "7" are one N key, and a number is an S key by its literal text. What
/// does not fit is left as it is, for `ItemKey::of` to name.
pub(super) fn coerce_keys(item: &mut Item, schema: &KeySchema) {
    for (name, wants) in std::iter::once(&schema.partition).chain(&schema.sort) {
        let coerced = match (wants, item.get(name)) {
            (KeyType::N, Some(Value::S(text))) if Number::parse(text).is_some() => Some(Value::N(text.clone())),
            (KeyType::S, Some(Value::N(text))) => Some(Value::S(text.clone())),
            (KeyType::B, Some(Value::S(text))) => BASE64.decode(text).ok().map(Value::B),
            _ => None,
        };
        if let Some(value) = coerced {
            item.insert(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::decode::{Rules, text};

    fn schema(partition: KeyType, sort: Option<KeyType>) -> KeySchema {
        KeySchema { partition: ("p".into(), partition), sort: sort.map(|sort| ("s".into(), sort)) }
    }

    fn mapped(json: &str, schema: &KeySchema) -> Result<Mapped, Poison> {
        map(text(json.as_bytes(), &Rules::default())?, &"copies".into(), schema).map(|mapped| mapped.expect("a write"))
    }

    fn reason(json: &str, schema: &KeySchema) -> Reason {
        mapped(json, schema).expect_err(json).reason
    }

    #[test]
    fn plain_json_keys_follow_the_tables_types() {
        let n = schema(KeyType::N, None);
        let seven = mapped(r#"{"p":7}"#, &n).expect("N");
        assert_eq!(mapped(r#"{"p":"7"}"#, &n).expect("N"), seven);
        assert_eq!(mapped(r#"{"p":"7.0"}"#, &n).expect("N").key, seven.key);
        let s = mapped(r#"{"p":1.10}"#, &schema(KeyType::S, None)).expect("S");
        assert_eq!(s.write.item()["p"], Value::S("1.10".into()));
        let b = mapped(r#"{"p":"AAE="}"#, &schema(KeyType::B, None)).expect("B");
        assert_eq!(b.write.item()["p"], Value::B(vec![0, 1]));
        assert_eq!(reason(r#"{"p":"x"}"#, &n), Reason::KeyType);
        assert_eq!(reason(r#"{"p":"?"}"#, &schema(KeyType::B, None)), Reason::KeyType);
        assert_eq!(reason(r#"{"p":true}"#, &schema(KeyType::S, None)), Reason::KeyType);
    }

    #[test]
    fn typed_keys_are_taken_at_their_word() {
        assert_eq!(reason(r#"{"p":{"S":"7"}}"#, &schema(KeyType::N, None)), Reason::KeyType);
        assert_eq!(reason(r#"{"p":{"N":"7"}}"#, &schema(KeyType::S, None)), Reason::KeyType);
        assert_eq!(reason(r#"{"p":{"N":"seven"}}"#, &schema(KeyType::N, None)), Reason::NumberInvalid);
    }

    #[test]
    fn what_dynamodb_would_refuse_is_poison_before_it_is_sent() {
        let s = schema(KeyType::S, Some(KeyType::S));
        let large = format!(r#"{{"p":"a","s":"b","x":"{}"}}"#, "x".repeat(400 * 1024));
        let long = format!(r#"{{"p":"a","s":"{}"}}"#, "x".repeat(1025));
        for (json, expected) in [
            (r#"{"p":"a"}"#, Reason::NoKey),
            (r#"{"p":"a","s":null}"#, Reason::KeyType),
            (r#"{"p":"","s":"b"}"#, Reason::KeyEmpty),
            (r#"{"p":"a","s":"b","x":1e126}"#, Reason::NumberInvalid),
            (r#"{"p":{"S":"a"},"s":{"S":"b"},"x":{"SS":[]}}"#, Reason::SetInvalid),
            (large.as_str(), Reason::ItemTooLarge),
            (long.as_str(), Reason::KeyTooLong),
        ] {
            assert_eq!(reason(json, &s), expected);
        }
        let poison = mapped(r#"{"p":"a","s":"b","x":{"":1}}"#, &s).expect_err("an empty name");
        assert_eq!(poison.reason, Reason::NameInvalid);
        assert_eq!(poison.item_key.as_deref(), Some(r#"{"p":{"S":"a"},"s":{"S":"b"}}"#));
    }

    #[test]
    fn a_change_sets_what_the_new_image_has_and_removes_what_only_the_old_one_has() {
        let item = |json: &str| crate::dynamodb::attribute::item_from_json(json).expect("an item");
        let change = Decoded::Change {
            old: item(r#"{"p":{"S":"a"},"kept":{"S":"1"},"gone":{"S":"2"}}"#),
            new: item(r#"{"p":{"S":"a"},"kept":{"S":"3"},"new":{"S":"4"}}"#),
        };
        let write = map(change, &"copies".into(), &schema(KeyType::S, None)).expect("a write").expect("one").write;
        let Action::Update { key, set, remove } = write.action else { panic!("{:?}", write.action) };
        assert_eq!((&*to_json(&key), &*to_json(&set)), (r#"{"p":{"S":"a"}}"#, r#"{"kept":{"S":"3"},"new":{"S":"4"}}"#));
        assert_eq!(remove.into_iter().collect::<Vec<_>>(), ["gone"]);
    }

    #[test]
    fn a_delete_carries_the_key_and_nothing_else() {
        let s = schema(KeyType::S, None);
        let remove = |keys: &str| format!(r#"{{"eventName":"REMOVE","dynamodb":{{"Keys":{keys}}}}}"#);
        let delete = mapped(&remove(r#"{"p":{"S":"a"}}"#), &s).expect("a delete");
        assert!(matches!(delete.write.action, Action::Delete(_)));
        assert_eq!(reason(&remove(r#"{"p":{"S":"a"},"s":{"S":"b"}}"#), &s), Reason::KeyMismatch);
        assert_eq!(reason(&remove(r#"{"p":{"S":""}}"#), &s), Reason::KeyEmpty);
    }
}
