//! Finds what DynamoDB would refuse, before it is sent: one bad item fails a whole BatchWriteItem.

use std::{collections::HashSet, fmt};

use super::{Item, Number, Value, item_size};
use crate::ports::KeySchema;

/// Source for all limits: "Quotas in Amazon DynamoDB", Amazon DynamoDB Developer Guide. Confirmed on DynamoDB Local 2.6.1.
pub const MAX_ITEM_BYTES: usize = 400 * 1024;
pub const MAX_PARTITION_KEY_BYTES: usize = 2048;
pub const MAX_SORT_KEY_BYTES: usize = 1024;
/// Maps and lists in one another, the attribute's own included; the item itself is the 32nd level of the quota.
pub const MAX_NESTING: usize = 31;
/// Bytes of an attribute's name.
const MAX_NAME_BYTES: usize = 65535;

/// Why an item cannot be written, whatever is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    TooLarge { bytes: usize },
    KeyEmpty { name: String },
    KeyTooLong { name: String, bytes: usize, limit: usize },
    Number { text: String },
    EmptySet,
    DuplicateInSet { member: String },
    TooDeep,
    Name { bytes: usize },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::TooLarge { bytes } => write!(f, "the item has {bytes} bytes, DynamoDB takes {MAX_ITEM_BYTES}"),
            Invalid::KeyEmpty { name } => write!(f, "the key attribute {name:?} is empty"),
            Invalid::KeyTooLong { name, bytes, limit } => write!(f, "the key attribute {name:?} has {bytes} bytes, DynamoDB takes {limit}"),
            Invalid::Number { text } => {
                write!(f, "{text:?} is no number that DynamoDB can hold: 38 significant digits, magnitude 1E-130 to 9.99E+125")
            }
            Invalid::EmptySet => write!(f, "a set is empty"),
            Invalid::DuplicateInSet { member } => write!(f, "a set has {member} twice"),
            Invalid::TooDeep => write!(f, "maps and lists are nested deeper than {MAX_NESTING} levels"),
            Invalid::Name { bytes } => write!(f, "an attribute name has {bytes} bytes, DynamoDB takes 1 to {MAX_NAME_BYTES}"),
        }
    }
}

/// Checks a whole item: its key, then everything in it, then its size.
pub fn check_item(item: &Item, schema: &KeySchema) -> Result<(), Invalid> {
    check_key(item, schema)?;
    check_names(item.keys())?;
    item.values().try_for_each(|value| check_value(value, MAX_NESTING))?;
    match item_size(item) {
        bytes if bytes > MAX_ITEM_BYTES => Err(Invalid::TooLarge { bytes }),
        _ => Ok(()),
    }
}

/// Checks the key attributes of an item; that they are there, with the right types, is `ItemKey::of`'s concern.
pub fn check_key(item: &Item, schema: &KeySchema) -> Result<(), Invalid> {
    let sort = schema.sort.iter().map(|(name, _)| (name, MAX_SORT_KEY_BYTES));
    for (name, limit) in std::iter::once((&schema.partition.0, MAX_PARTITION_KEY_BYTES)).chain(sort) {
        let bytes = match item.get(name) {
            Some(Value::S(text)) => text.len(),
            Some(Value::B(bytes)) => bytes.len(),
            Some(number) => {
                check_value(number, 0)?;
                continue;
            }
            None => continue,
        };
        if bytes == 0 {
            return Err(Invalid::KeyEmpty { name: name.clone() });
        }
        if bytes > limit {
            return Err(Invalid::KeyTooLong { name: name.clone(), bytes, limit });
        }
    }
    Ok(())
}

fn check_names<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), Invalid> {
    let bad = names.find(|name| name.is_empty() || name.len() > MAX_NAME_BYTES);
    bad.map_or(Ok(()), |name| Err(Invalid::Name { bytes: name.len() }))
}

/// `levels`: how many maps and lists may still be nested, this one included.
fn check_value(value: &Value, levels: usize) -> Result<(), Invalid> {
    match value {
        Value::S(_) | Value::B(_) | Value::Bool(_) | Value::Null => Ok(()),
        Value::N(text) => number(text).map(|_| ()),
        Value::Ss(texts) => check_set(texts.iter().map(Ok), |text| format!("{text:?}")),
        Value::Ns(texts) => check_set(texts.iter().map(|text| number(text)), Number::to_string),
        Value::Bs(blobs) => check_set(blobs.iter().map(Ok), |blob| format!("a member of {} bytes", blob.len())),
        Value::L(_) | Value::M(_) if levels == 0 => Err(Invalid::TooDeep),
        Value::L(values) => values.iter().try_for_each(|value| check_value(value, levels - 1)),
        Value::M(map) => {
            check_names(map.keys())?;
            map.values().try_for_each(|value| check_value(value, levels - 1))
        }
    }
}

fn number(text: &str) -> Result<Number, Invalid> {
    Number::parse(text).filter(Number::fits).ok_or_else(|| Invalid::Number { text: text.to_owned() })
}

fn check_set<T: std::hash::Hash + Eq>(
    members: impl Iterator<Item = Result<T, Invalid>>,
    show: impl Fn(&T) -> String,
) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    for member in members {
        let member = member?;
        if seen.contains(&member) {
            return Err(Invalid::DuplicateInSet { member: show(&member) });
        }
        seen.insert(member);
    }
    if seen.is_empty() { Err(Invalid::EmptySet) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{super::item_from_json, *};
    use crate::ports::KeyType;

    fn schema() -> KeySchema {
        KeySchema { partition: ("p".into(), KeyType::S), sort: Some(("s".into(), KeyType::N)) }
    }

    fn check(attributes: &str) -> Result<(), Invalid> {
        let item = item_from_json(&format!(r#"{{"p":{{"S":"a"}},"s":{{"N":"1"}}{attributes}}}"#)).expect("test data");
        check_item(&item, &schema())
    }

    #[test]
    fn an_item_of_exactly_400_kb_passes_and_one_byte_more_does_not() {
        let rest = item_size(&item_from_json(r#"{"p":{"S":"a"},"s":{"N":"1"},"x":{"S":""}}"#).expect("test data"));
        let filled = |bytes: usize| check(&format!(r#","x":{{"S":"{}"}}"#, "x".repeat(bytes - rest)));
        assert_eq!(filled(MAX_ITEM_BYTES), Ok(()));
        assert_eq!(filled(MAX_ITEM_BYTES + 1), Err(Invalid::TooLarge { bytes: MAX_ITEM_BYTES + 1 }));
    }

    #[test]
    fn keys_have_limits() {
        let keys = KeySchema { partition: ("p".into(), KeyType::B), sort: Some(("s".into(), KeyType::S)) };
        let check = |p: usize, s: usize| {
            check_item(&Item::from([("p".into(), Value::B(vec![0; p])), ("s".into(), Value::S("x".repeat(s)))]), &keys)
        };
        assert_eq!(check(2048, 1024), Ok(()));
        assert_eq!(check(2049, 1024), Err(Invalid::KeyTooLong { name: "p".into(), bytes: 2049, limit: 2048 }));
        assert_eq!(check(2048, 1025), Err(Invalid::KeyTooLong { name: "s".into(), bytes: 1025, limit: 1024 }));
        assert_eq!(check(0, 1), Err(Invalid::KeyEmpty { name: "p".into() }));
        assert_eq!(check(1, 0), Err(Invalid::KeyEmpty { name: "s".into() }));
        let too_precise = Item::from([("p".into(), Value::S("a".into())), ("s".into(), Value::N("1".repeat(39)))]);
        assert!(matches!(check_key(&too_precise, &schema()), Err(Invalid::Number { .. })));
    }

    #[test]
    fn nesting_stops_at_32_with_the_item() {
        let nested = |levels: usize| {
            let value = (1..levels).fold(Value::L(vec![]), |inner, level| match level % 2 {
                0 => Value::L(vec![inner]),
                _ => Value::M(Item::from([("m".into(), inner)])),
            });
            let item = Item::from([("p".into(), Value::S("a".into())), ("s".into(), Value::N("1".into())), ("x".into(), value)]);
            check_item(&item, &schema())
        };
        assert_eq!(nested(31), Ok(()));
        assert_eq!(nested(32), Err(Invalid::TooDeep));
    }

    #[test]
    fn numbers_and_sets_are_checked_wherever_they_are() {
        assert_eq!(check(r#","x":{"L":[{"M":{"y":{"NS":["1","2"]}}},{"S":""},{"SS":[""]}]}"#), Ok(()));
        assert!(matches!(check(r#","x":{"L":[{"M":{"y":{"N":"NaN"}}}]}"#), Err(Invalid::Number { .. })));
        assert!(matches!(check(r#","x":{"NS":["1","1E126"]}"#), Err(Invalid::Number { .. })));
        for set in ["SS", "NS", "BS"] {
            assert_eq!(check(&format!(r#","x":{{"{set}":[]}}"#)), Err(Invalid::EmptySet));
        }
        for twice in [r#"{"SS":["a","a"]}"#, r#"{"NS":["1","1.0"]}"#, r#"{"BS":["AA==","AA=="]}"#] {
            assert!(matches!(check(&format!(r#","x":{twice}"#)), Err(Invalid::DuplicateInSet { .. })), "{twice}");
        }
        assert_eq!(check(r#","":{"S":"a"}"#), Err(Invalid::Name { bytes: 0 }));
    }
}
