//! DynamoDB JSON, also wrapped as `{"Item":{…}}`, as exports to S3 write it.

use serde_json::value::RawValue;

use super::{Decoded, Members, is_type_tag, members, not_parseable};
use crate::{dynamodb::attribute::item_from_json, sink::poison::Poison};

pub fn decode(text: &str) -> Result<Decoded, Poison> {
    let members = members(text)?;
    let item = match wrapped(&members) {
        Some(item) if !is_typed(&members) => item.get(),
        _ => text,
    };
    item_from_json(item).map(Decoded::Put).map_err(not_parseable)
}

/// Whether every value is an object with one type as its only member.
pub fn is_typed(members: &Members) -> bool {
    let typed = |value: &&RawValue| {
        serde_json::from_str::<Members>(value.get()).is_ok_and(|tags| tags.len() == 1 && tags.keys().all(|tag| is_type_tag(tag)))
    };
    !members.is_empty() && members.values().all(typed)
}

/// The item below `Item`, where that is the only member and its values are typed.
pub fn wrapped<'a>(outer: &Members<'a>) -> Option<&'a RawValue> {
    let item = outer.get("Item").filter(|_| outer.len() == 1)?;
    members(item.get()).is_ok_and(|inner| is_typed(&inner)).then_some(*item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_item() {
        let item = r#"{"pk":{"S":"a"},"n":{"N":"1.10"}}"#;
        assert_eq!(decode(&format!(r#" {{"Item": {item} }}"#)), decode(item));
        let Ok(Decoded::Put(item)) = decode(item) else { panic!("no put") };
        assert_eq!(item.len(), 2);
    }

    #[test]
    fn anything_else_is_poison() {
        for text in [r#"{"a":1}"#, r#"{"a":{"S":"x"},"a":{"S":"y"}}"#, r#"{"Item":{"a":1}}"#, "[]", "{", ""] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
