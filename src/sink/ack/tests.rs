use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::{
    dynamodb::attribute::{Item, ItemKey, Value},
    ports::{KeySchema, KeyType},
};

fn entry(number: u64) -> EntryId {
    EntryId { topic: "persistent://public/default/in".into(), ledger: 1, entry: number, batch_index: None }
}

fn item(number: u64) -> Target {
    let schema = KeySchema { partition: ("p".into(), KeyType::N), sort: None };
    let key = ItemKey::of(&Item::from([("p".into(), Value::N(number.to_string()))]), &schema).expect("a key");
    Target { table: "copies".into(), key }
}

fn slot(received: (Option<Slot>, Vec<EntryId>)) -> Slot {
    received.0.expect("it is counted")
}

#[test]
fn a1_an_entry_is_acknowledged_with_its_last_message() {
    let mut acks = Acks::default();
    let slots: Vec<Slot> = (0..3).map(|index| slot(acks.received(&entry(1), index, 3))).collect();
    assert!(acks.confirmed(slots[2]).is_empty());
    assert!(acks.confirmed(slots[0]).is_empty());
    assert!(acks.confirmed(slots[0]).is_empty(), "a message counts once");
    assert_eq!(acks.confirmed(slots[1]), [entry(1)]);
    assert!(acks.entries.is_empty() && acks.places.is_empty());
}

#[test]
fn a1_a_part_of_an_entry_that_is_not_here_yet_is_not_confirmed() {
    let mut acks = Acks::default();
    let first = slot(acks.received(&entry(1), 0, 2));
    assert!(acks.confirmed(first).is_empty());
    let second = slot(acks.received(&entry(1), 1, 2));
    assert_eq!(acks.confirmed(second), [entry(1)]);
}

#[test]
fn a_redelivery_neither_acknowledges_early_nor_leaks() {
    let mut acks = Acks::default();
    let slots: Vec<Slot> = (0..3).map(|index| slot(acks.received(&entry(1), index, 3))).collect();
    assert!(acks.confirmed(slots[0]).is_empty());
    let again = slot(acks.received(&entry(1), 0, 3));
    let twice = slot(acks.received(&entry(1), 1, 3));
    assert!(acks.confirmed(slots[1]).is_empty(), "not the newest copy");
    assert!(acks.confirmed(slots[2]).is_empty());
    assert!(acks.confirmed(again).is_empty());
    assert_eq!(acks.confirmed(twice), [entry(1)]);
    assert_eq!(acks.received(&entry(1), 2, 3), (None, vec![]), "the tail of the redelivery");
    assert!(acks.entries.is_empty());
    let whole = slot(acks.received(&entry(1), 0, 3));
    assert!(acks.confirmed(whole).is_empty(), "a redelivery from the start is counted anew");
}

#[test]
fn an_entry_held_back_can_come_again() {
    let mut acks = Acks::default();
    let old = slot(acks.received(&entry(1), 0, 1));
    acks.writes(old, &item(7));
    let new = slot(acks.received(&entry(2), 0, 1));
    acks.writes(new, &item(7));
    assert!(acks.confirmed(new).is_empty() && acks.held_back == 1);
    let again = slot(acks.received(&entry(2), 0, 1));
    assert_eq!(acks.held_back, 0);
    assert_eq!(acks.confirmed(old), [entry(1)]);
    assert_eq!(acks.confirmed(again), [entry(2)]);
    assert!(acks.entries.is_empty() && acks.held_back == 0);
}

/// A newer entry of the same item waits for the older one, which is stuck on another item; unrelated entries do not.
#[test]
fn a1_entries_of_one_item_are_acknowledged_in_order() {
    let mut acks = Acks::default();
    let old = [slot(acks.received(&entry(1), 0, 2)), slot(acks.received(&entry(1), 1, 2))];
    acks.writes(old[0], &item(7));
    acks.writes(old[1], &item(8));
    let new = slot(acks.received(&entry(2), 0, 1));
    acks.writes(new, &item(7));
    let other = slot(acks.received(&entry(3), 0, 1));
    acks.writes(other, &item(9));
    assert!(acks.confirmed(old[0]).is_empty());
    assert!(acks.confirmed(new).is_empty(), "the older entry would bring its item back");
    assert!(acks.is_full(1) && !acks.is_full(2));
    assert_eq!(acks.confirmed(other), [entry(3)]);
    assert_eq!(acks.confirmed(old[1]), [entry(1), entry(2)]);
    assert!(acks.writers.is_empty() && acks.held_back == 0);
}

/// A lost connection cuts an entry off. It comes again from its start, or not at all; then it must not hold others back.
#[test]
fn a_part_of_an_entry_that_never_comes_holds_nobody_back() {
    for comes_again in [true, false] {
        let mut acks = Acks::default();
        let head = slot(acks.received(&entry(5), 0, 2));
        acks.writes(head, &item(7));
        assert!(acks.confirmed(head).is_empty());
        let other = EntryId { topic: "persistent://public/default/other".into(), ..entry(6) };
        let newer = slot(acks.received(&other, 0, 1));
        acks.writes(newer, &item(7));
        assert!(acks.confirmed(newer).is_empty(), "another partition says nothing about this one");
        let older = slot(acks.received(&entry(4), 0, 1));
        assert_eq!(acks.confirmed(older), [entry(4)], "an older entry comes again: this one may, too");
        if comes_again {
            let again = [slot(acks.received(&entry(5), 0, 2)), slot(acks.received(&entry(5), 1, 2))];
            assert!(acks.confirmed(again[1]).is_empty());
            assert_eq!(acks.confirmed(again[0]), [entry(5), other]);
        } else {
            let (next, free) = acks.received(&entry(6), 0, 1);
            assert_eq!(free, [other]);
            assert_eq!(acks.confirmed(next.expect("it is counted")), [entry(6)]);
        }
        assert!(acks.entries.is_empty() && acks.partial.is_empty() && acks.held_back == 0);
    }
}

/// Two partitions interleaved, each writing the other's item: neither waits for the other for ever.
#[test]
fn interleaved_entries_do_not_wait_for_each_other() {
    let mut acks = Acks::default();
    let a0 = slot(acks.received(&entry(1), 0, 2));
    acks.writes(a0, &item(7));
    let other = EntryId { topic: "persistent://public/default/other".into(), ..entry(2) };
    let b0 = slot(acks.received(&other, 0, 1));
    acks.writes(b0, &item(7));
    assert!(acks.confirmed(b0).is_empty());
    assert!(!acks.is_full(1), "the rest of the oldest entry has to come in");
    let a1 = slot(acks.received(&entry(1), 1, 2));
    acks.writes(a1, &item(7));
    assert!(acks.confirmed(a0).is_empty());
    assert_eq!(acks.confirmed(a1), [entry(1), other]);
}

fn of_batch(number: u64, index: u32) -> EntryId {
    EntryId { batch_index: Some(index), ..entry(number) }
}

/// Pulsar IO: [7, 8] and [7]. The broker would deliver the first batch again as a whole, and alone.
#[test]
fn k1_a_newer_message_waits_for_the_batch_of_the_older_one_and_not_for_its_own() {
    let mut acks = Acks::default();
    let old = [0, 1].map(|index| slot(acks.received(&of_batch(1, index), index, 2)));
    acks.writes(old[0], &item(7));
    acks.writes(old[1], &item(8));
    assert_eq!(acks.confirmed(old[0]), [of_batch(1, 0)]);
    let new = [0, 1].map(|index| slot(acks.received(&of_batch(2, index), index, 2)));
    acks.writes(new[0], &item(7));
    acks.writes(new[1], &item(9));
    let other = slot(acks.received(&of_batch(3, 0), 0, 2));
    acks.writes(other, &item(10));
    assert!(acks.confirmed(new[0]).is_empty() && acks.is_full(1));
    assert_eq!(acks.confirmed(other), [of_batch(3, 0)], "the rest of its own batch has not even come");
    assert_eq!(acks.confirmed(old[1]), [of_batch(1, 1), of_batch(2, 0)]);
    assert_eq!(acks.confirmed(new[1]), [of_batch(2, 1)]);
    assert_eq!(acks.entries.len(), 1, "the rest of the third one is to come");
    let rest = slot(acks.received(&of_batch(3, 1), 1, 2));
    assert_eq!(acks.confirmed(rest), [of_batch(3, 1)]);
    assert!(acks.entries.is_empty() && acks.writers.is_empty() && acks.places.is_empty() && acks.held_back == 0);
}

/// All that has come of [7, 8] is acknowledged, then comes the rest: what is newer still waits for it.
#[test]
fn k1_a_batch_is_remembered_while_its_rest_may_come() {
    let mut acks = Acks::default();
    let first = slot(acks.received(&of_batch(1, 0), 0, 2));
    acks.writes(first, &item(7));
    assert_eq!(acks.confirmed(first), [of_batch(1, 0)]);
    let rest = slot(acks.received(&of_batch(1, 1), 1, 2));
    let new = slot(acks.received(&entry(2), 0, 1));
    acks.writes(new, &item(7));
    assert!(acks.confirmed(new).is_empty());
    assert_eq!(acks.confirmed(rest), [of_batch(1, 1), entry(2)]);
    assert!(acks.entries.is_empty() && acks.held_back == 0);
}

/// A transform function returns nothing for the last message of a batch, so it never comes.
#[test]
fn a_batch_whose_end_never_comes_holds_nobody_back() {
    let mut acks = Acks::default();
    let first = slot(acks.received(&of_batch(1, 0), 0, 2));
    acks.writes(first, &item(7));
    let other = EntryId { topic: "persistent://public/default/other".into(), ..entry(5) };
    let waiting = slot(acks.received(&other, 0, 1));
    acks.writes(waiting, &item(7));
    assert!(acks.confirmed(waiting).is_empty());
    assert_eq!(acks.confirmed(first), [of_batch(1, 0), other.clone()], "another partition does not tell whether more comes");
    let late = slot(acks.received(&other, 0, 1));
    acks.writes(late, &item(7));
    assert_eq!(acks.confirmed(late), [other], "nothing of the batch is left to wait for");
    let new = slot(acks.received(&entry(2), 0, 1));
    acks.writes(new, &item(7));
    assert_eq!(acks.entries.len(), 1, "the next entry of its partition has come, so its end does not");
    assert_eq!(acks.confirmed(new), [entry(2)]);
    assert!(acks.entries.is_empty() && acks.partial.is_empty() && acks.writers.is_empty() && acks.held_back == 0);
}

#[test]
fn a1_a_message_acknowledged_by_itself_counts_by_its_newest_copy() {
    let mut acks = Acks::default();
    let old = slot(acks.received(&entry(1), 0, 1));
    acks.writes(old, &item(7));
    let new = [0, 1].map(|index| slot(acks.received(&of_batch(2, index), index, 2)));
    acks.writes(new[0], &item(7));
    assert!(acks.confirmed(new[0]).is_empty() && acks.held_back == 1);
    let again = slot(acks.received(&of_batch(2, 0), 0, 2));
    assert_eq!(acks.held_back, 0);
    assert_eq!(acks.confirmed(old), [entry(1)]);
    assert!(acks.confirmed(new[0]).is_empty(), "not the newest copy");
    assert_eq!(acks.confirmed(again), [of_batch(2, 0)]);
    assert_eq!(acks.confirmed(new[1]), [of_batch(2, 1)]);
    let late = slot(acks.received(&of_batch(2, 1), 1, 2));
    assert_eq!(acks.confirmed(late), [of_batch(2, 1)], "its acknowledgement was lost");
    assert!(acks.entries.is_empty() && acks.partial.is_empty() && acks.held_back == 0);
}

proptest! {
    /// A1 against a model: at every step, exactly those entries are acknowledged whose messages are all confirmed and that no
    /// older unacknowledged entry shares an item with; each once, whatever is redelivered.
    #[test]
    fn a1_against_a_model(
        sizes in prop::collection::vec((1..4_u32, prop::collection::vec(0..4_u64, 3)), 1..12),
        steps in prop::collection::vec((any::<usize>(), prop::bool::weighted(0.15)), 0..120),
    ) {
        let mut acks = Acks::default();
        let mut pending: Vec<(usize, u32)> = Vec::new();
        for (number, (size, _)) in sizes.iter().enumerate() {
            pending.extend((0..*size).map(|index| (number, index)));
        }
        pending.reverse();
        let mut in_work: Vec<(usize, Slot)> = Vec::new();
        let mut confirmed: HashMap<usize, HashSet<u32>> = HashMap::new();
        let mut newest: HashMap<usize, u64> = HashMap::new();
        let mut acknowledged: HashSet<usize> = HashSet::new();
        let mut arrived = 0;
        let mut play = |pick: usize, again: bool, acks: &mut Acks| -> Result<(), TestCaseError> {
            if again && arrived > 0 {
                // A redelivery is of complete entries here: the newest may not be one yet.
                let number = pick % arrived;
                if number + 1 == arrived {
                    return Ok(());
                }
                if !acknowledged.contains(&number) {
                    let slot = slot(acks.received(&entry(number as u64), 0, sizes[number].0));
                    acks.writes(slot, &item(sizes[number].1[0]));
                    newest.insert(number, slot.copy);
                    confirmed.entry(number).or_default().remove(&0);
                    in_work.push((number, slot));
                } else if sizes[number].0 > 1 {
                    prop_assert_eq!(acks.received(&entry(number as u64), 1, sizes[number].0).0, None);
                }
            } else if !pending.is_empty() && (pick.is_multiple_of(2) || in_work.is_empty()) {
                let (number, index) = pending.pop().expect("checked");
                arrived = arrived.max(number + 1);
                let slot = slot(acks.received(&entry(number as u64), index, sizes[number].0));
                acks.writes(slot, &item(sizes[number].1[index as usize]));
                in_work.push((number, slot));
            } else if !in_work.is_empty() {
                let (number, slot) = in_work.swap_remove(pick % in_work.len());
                if slot.index > 0 || newest.get(&number).is_none_or(|copy| *copy == slot.copy) {
                    confirmed.entry(number).or_default().insert(slot.index);
                }
                let before = acknowledged.clone();
                for id in acks.confirmed(slot) {
                    prop_assert!(acknowledged.insert(id.entry as usize), "acknowledged twice");
                }
                let items = |number: usize| -> HashSet<u64> {
                    let (size, items) = &sizes[number];
                    items.iter().take(*size as usize).copied().collect()
                };
                let mut expected: Vec<usize> = Vec::new();
                for (number, (size, _)) in sizes.iter().enumerate().take(arrived) {
                    let complete = before.contains(&number)
                        || confirmed.get(&number).is_some_and(|indices| indices.len() == *size as usize);
                    let free = (0..number).all(|older| expected.contains(&older) || items(older).is_disjoint(&items(number)));
                    if complete && free {
                        expected.push(number);
                    }
                }
                let mut actual: Vec<usize> = acknowledged.iter().copied().collect();
                actual.sort_unstable();
                prop_assert_eq!(actual, expected);
            }
            Ok(())
        };
        for (pick, again) in steps {
            play(pick, again, &mut acks)?;
        }
        let total: u32 = sizes.iter().map(|(size, _)| size).sum();
        for _ in 0..2 * total + 240 {
            play(1, false, &mut acks)?;
            play(0, false, &mut acks)?;
        }
        prop_assert_eq!(acknowledged.len(), sizes.len());
        prop_assert!(acks.entries.is_empty() && acks.places.is_empty() && acks.writers.is_empty() && acks.held_back == 0);
    }
}
