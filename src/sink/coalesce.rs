//! Several writes of one item that become one. Pure.

use std::sync::Arc;

use crate::ports::{Action, Write};

/// The one write that leaves an item as these do one after the other. It carries the condition of the last of them.
///
/// A put or a delete replaces what was before it; an update changes it: a put with other attributes, a delete that becomes the put of what
/// the update sets, or one update for two.
pub fn merged<'a>(writes: impl DoubleEndedIterator<Item = &'a Arc<Write>>) -> Arc<Write> {
    let mut newest_first = writes.rev();
    let Some(last) = newest_first.next() else { unreachable!("a lane without a write is not sent") };
    if !matches!(last.action, Action::Update { .. }) {
        return last.clone();
    }
    let mut action = last.action.clone();
    let mut changed = false;
    for older in newest_first {
        if !matches!(action, Action::Update { .. }) {
            break;
        }
        action = after(&older.action, action);
        changed = true;
    }
    if changed { Arc::new(Write { action, ..Write::clone(last) }) } else { last.clone() }
}

fn after(older: &Action, newer: Action) -> Action {
    let Action::Update { key, set, remove } = newer else { return newer };
    match older {
        Action::Put(item) => {
            let mut item = item.clone();
            item.retain(|name, _| !remove.contains(name));
            item.extend(set);
            Action::Put(item)
        }
        Action::Delete(_) => {
            let mut item = key;
            item.extend(set);
            Action::Put(item)
        }
        Action::Update { set: before, remove: removed, .. } => {
            let mut all = before.clone();
            all.retain(|name, _| !remove.contains(name));
            let mut gone = removed.clone();
            gone.retain(|name| !set.contains_key(name));
            gone.extend(remove);
            all.extend(set);
            Action::Update { key, set: all, remove: gone }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::dynamodb::attribute::{Item, Value};

    fn key() -> Item {
        Item::from([("p".into(), Value::S("a".into()))])
    }

    fn action() -> impl Strategy<Value = Action> {
        let attributes = || prop::collection::btree_map("[a-d]", (0..3u8).prop_map(|n| Value::N(n.to_string())), 0..4);
        prop_oneof![
            attributes().prop_map(|mut item: BTreeMap<String, Value>| {
                item.extend(key());
                Action::Put(item)
            }),
            Just(Action::Delete(key())),
            (attributes(), prop::collection::btree_set("[a-d]", 0..3)).prop_map(|(set, mut remove)| {
                remove.retain(|name| !set.contains_key(name));
                Action::Update { key: key(), set, remove }
            }),
        ]
    }

    /// As DynamoDB does it.
    fn apply(item: Option<Item>, action: &Action) -> Option<Item> {
        match action {
            Action::Put(item) => Some(item.clone()),
            Action::Delete(_) => None,
            Action::Update { key, set, remove } => {
                let mut item = item.unwrap_or_else(|| key.clone());
                item.retain(|name, _| !remove.contains(name));
                item.extend(set.clone());
                Some(item)
            }
        }
    }

    proptest! {
        #[test]
        fn k1_one_write_leaves_the_item_as_all_of_them_do(actions in prop::collection::vec(action(), 1..6), there in any::<bool>()) {
            let before = there.then(|| { let mut item = key(); item.insert("a".into(), Value::N("9".into())); item });
            let writes: Vec<Arc<Write>> =
                actions.iter().map(|action| Arc::new(Write { table: "t".into(), action: action.clone(), condition: None })).collect();
            let one = merged(writes.iter());
            let expected = actions.iter().fold(before.clone(), apply);
            prop_assert_eq!(apply(before, &one.action), expected);
        }
    }
}
