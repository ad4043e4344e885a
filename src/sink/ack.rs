//! Which broker entries may be acknowledged (A1).
//!
//! The client acknowledges whole entries, and a batch is one entry: it is acknowledged once all its messages are confirmed (stored or
//! dead-lettered). And not before the older entries that write the same items: were a newer one acknowledged first and the worker
//! killed, the older one alone would come again and bring its old item back.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashMapExt};

use super::map::Target;
use crate::ports::EntryId;

/// A message's place in the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    entry: u64,
    index: u32,
    /// How often the message had come before.
    copy: u32,
}

#[derive(Debug, Default)]
pub struct Acks {
    /// Entries not acknowledged yet, by the order in which they came.
    entries: BTreeMap<u64, Entry>,
    places: HashMap<EntryId, u64>,
    /// Entries that are not here completely.
    partial: BTreeMap<EntryId, u64>,
    /// The newest entry that writes each item.
    writers: HashMap<Target, u64>,
    /// Entries all of whose messages are confirmed, that wait for older ones.
    held_back: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    id: EntryId,
    size: u32,
    /// The messages seen, by index.
    messages: HashMap<u32, Message>,
    confirmed: u32,
    /// Older entries that must be acknowledged before.
    after: BTreeSet<u64>,
    /// Newer entries that wait for this one.
    before: Vec<u64>,
    /// The items of which this may be the newest writer.
    items: Vec<Target>,
}

#[derive(Debug, Default)]
struct Message {
    /// The number of its newest copy.
    copy: u32,
    /// Whether that one is confirmed.
    confirmed: bool,
}

impl Acks {
    /// Counts a message that came in. `size`: how many its entry has.
    ///
    /// The broker sends entries again after a reconnect, also those in work, and older ones before them that were acknowledged
    /// meanwhile. So a message that comes again has to be written again, and only its newest copy counts.
    ///
    /// No slot: the tail of an entry that was acknowledged in the middle of its redelivery. Its head never comes again, so it can't be
    /// counted, and needs not.
    ///
    /// Also returns entries to acknowledge, as `confirmed` does: a lost connection may cut an entry off. Its messages come in one
    /// piece, so once a newer entry of its partition comes, the rest of it does not: it was acknowledged already, or is another
    /// consumer's now. What waits for it is set free.
    pub fn received(&mut self, id: &EntryId, index: u32, size: u32) -> (Option<Slot>, Vec<EntryId>) {
        let free = if self.partial.is_empty() { Vec::new() } else { self.give_up_before(id) };
        (self.count(id, index, size), free)
    }

    fn count(&mut self, id: &EntryId, index: u32, size: u32) -> Option<Slot> {
        debug_assert!(index < size, "A1: message {index} of {size} would never be acknowledged");
        let place = match self.places.get(id) {
            Some(place) => *place,
            None if index > 0 => return None,
            None => self.track(id, size),
        };
        let entry = self.entries.get_mut(&place)?;
        if let Some(message) = entry.messages.get_mut(&index) {
            message.copy += 1;
            if std::mem::take(&mut message.confirmed) {
                self.held_back -= usize::from(entry.is_complete());
                entry.confirmed -= 1;
            }
        }
        let copy = entry.messages.entry(index).or_default().copy;
        if entry.messages.len() >= entry.size as usize {
            self.partial.remove(id);
        }
        Some(Slot { entry: place, index, copy })
    }

    /// Forgets the partial entries that stand before `id` in its partition.
    fn give_up_before(&mut self, id: &EntryId) -> Vec<EntryId> {
        let first = EntryId { topic: id.topic.clone(), ledger: 0, entry: 0, batch_index: None };
        let cut = self.partial.range(first..id.clone()).map(|(_, place)| *place).collect();
        self.give_up(cut)
    }

    /// Forgets all entries of a topic partition: they are another consumer's by now, or come again. Returns entries to acknowledge, of others.
    pub fn leave(&mut self, topic: &str) -> Vec<EntryId> {
        let left = self.entries.iter().filter(|(_, entry)| *entry.id.topic == *topic).map(|(place, _)| *place).collect();
        self.give_up(left)
    }

    fn give_up(&mut self, places: Vec<u64>) -> Vec<EntryId> {
        let mut free = BTreeSet::new();
        for place in places {
            if let Some(entry) = self.entries.remove(&place) {
                self.held_back -= usize::from(entry.is_complete());
                self.forget(place, &entry);
                free.extend(self.unblock(place, entry.before));
            }
        }
        self.acknowledge(free)
    }

    /// The message writes this item.
    pub fn writes(&mut self, slot: Slot, item: &Target) {
        let Some(entry) = self.entries.get_mut(&slot.entry) else { return };
        match self.writers.get_mut(item) {
            // Entries of several partitions come interleaved; whoever came first is acknowledged first.
            Some(newest) if *newest >= slot.entry => {}
            Some(newest) => {
                let older = std::mem::replace(newest, slot.entry);
                entry.items.push(item.clone());
                if entry.after.insert(older)
                    && let Some(older) = self.entries.get_mut(&older)
                {
                    older.before.push(slot.entry);
                }
            }
            None => {
                self.writers.insert(item.clone(), slot.entry);
                entry.items.push(item.clone());
            }
        }
    }

    /// The message is stored or dead-lettered. Returns the entries to acknowledge now, older ones first.
    pub fn confirmed(&mut self, slot: Slot) -> Vec<EntryId> {
        let Some(entry) = self.entries.get_mut(&slot.entry) else { return Vec::new() };
        match entry.messages.get_mut(&slot.index) {
            Some(message) if message.copy == slot.copy && !message.confirmed => message.confirmed = true,
            _ => return Vec::new(),
        }
        entry.confirmed += 1;
        if !entry.is_complete() {
            return Vec::new();
        }
        self.held_back += 1;
        self.acknowledge(BTreeSet::from([slot.entry]))
    }

    /// Takes out which of these entries are complete and wait for nothing, and all that this sets free, older ones first.
    fn acknowledge(&mut self, mut free: BTreeSet<u64>) -> Vec<EntryId> {
        let mut acknowledge = Vec::new();
        while let Some(place) = free.pop_first() {
            if self.entries.get(&place).is_some_and(|entry| entry.is_complete() && entry.after.is_empty())
                && let Some(entry) = self.entries.remove(&place)
            {
                self.held_back -= 1;
                self.forget(place, &entry);
                free.extend(self.unblock(place, entry.before));
                acknowledge.push(entry.id);
            }
        }
        acknowledge
    }

    /// These entries do not wait for `place` any more.
    fn unblock(&mut self, place: u64, waiting: Vec<u64>) -> Vec<u64> {
        for newer in &waiting {
            if let Some(entry) = self.entries.get_mut(newer) {
                entry.after.remove(&place);
            }
        }
        waiting
    }

    /// Whether so many entries are held back that no more should come in (M1). While the oldest entry is not here completely, it
    /// needs more to come in.
    pub fn is_full(&self, limit: usize) -> bool {
        self.held_back >= limit && self.entries.values().next().is_some_and(|oldest| oldest.messages.len() >= oldest.size as usize)
    }

    fn track(&mut self, id: &EntryId, size: u32) -> u64 {
        let place = self.next;
        self.next += 1;
        self.places.insert(id.clone(), place);
        self.partial.insert(id.clone(), place);
        let (messages, after) = (HashMap::new(), BTreeSet::new());
        let entry = Entry { id: id.clone(), size: size.max(1), messages, confirmed: 0, after, before: Vec::new(), items: Vec::new() };
        self.entries.insert(place, entry);
        place
    }

    fn forget(&mut self, place: u64, entry: &Entry) {
        self.places.remove(&entry.id);
        self.partial.remove(&entry.id);
        for item in &entry.items {
            if self.writers.get(item) == Some(&place) {
                self.writers.remove(item);
            }
        }
    }
}

impl Entry {
    fn is_complete(&self) -> bool {
        self.confirmed >= self.size
    }
}

#[cfg(test)]
mod tests {
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
            let mut copies: HashMap<usize, u32> = HashMap::new();
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
                        *copies.entry(number).or_default() += 1;
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
                    if slot.index > 0 || copies.get(&number).copied().unwrap_or_default() == slot.copy {
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
}
