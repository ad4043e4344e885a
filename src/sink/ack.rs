//! Which broker entries may be acknowledged (A1).
//!
//! The broker knows whole entries only, and a batch is one entry: it is done once all its messages are confirmed (stored or dead-lettered). And it
//! is acknowledged not before the older entries that write the same items: were a newer one acknowledged first and the worker killed, the older
//! one alone would come again and bring its old item back (K1).
//!
//! Our own client acknowledges an entry as a whole. Pulsar IO acknowledges the messages of a batch one by one, and so must the worker there: of a
//! batch that is larger than what may be unanswered, the rest comes only once some of it is acknowledged. Nor does all of it come, where a transform
//! function returns nothing for some. So a message that is confirmed waits for older entries there, and not for the rest of its own.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    mem,
};

use foldhash::{HashMap, HashMapExt};

use super::map::Target;
use crate::ports::EntryId;

/// A message's place in the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    entry: u64,
    index: u32,
    copy: u64,
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
    /// What is confirmed and waits for older entries: entries, or messages where those are acknowledged one by one.
    held_back: usize,
    next_entry: u64,
    next_copy: u64,
}

#[derive(Debug)]
struct Entry {
    /// The whole one.
    id: EntryId,
    size: u32,
    /// Its messages are acknowledged one by one.
    one_by_one: bool,
    /// The messages seen and not acknowledged, by index.
    messages: HashMap<u32, Message>,
    /// The indices of those that are confirmed.
    confirmed: Vec<u32>,
    /// Older entries that must be acknowledged before.
    after: BTreeSet<u64>,
    /// Newer entries that wait for this one.
    before: Vec<u64>,
    /// The items of which this may be the newest writer.
    items: Vec<Target>,
}

#[derive(Debug)]
struct Message {
    /// Names its newest copy.
    copy: u64,
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
        let one_by_one = id.batch_index.is_some();
        let whole = if one_by_one { Cow::Owned(id.whole()) } else { Cow::Borrowed(id) };
        let free = if self.partial.is_empty() { Vec::new() } else { self.close_before(&whole) };
        (self.count(&whole, index, size, one_by_one), free)
    }

    fn count(&mut self, id: &EntryId, index: u32, size: u32, one_by_one: bool) -> Option<Slot> {
        debug_assert!(index < size, "A1: message {index} of {size} would never be acknowledged");
        let place = match self.places.get(id) {
            Some(place) => *place,
            None if index > 0 && !one_by_one => return None,
            None => self.track(id, size, one_by_one),
        };
        let entry = self.entries.get_mut(&place)?;
        let copy = self.next_copy;
        self.next_copy += 1;
        let former = entry.messages.insert(index, Message { copy, confirmed: false });
        if former.is_some_and(|message| message.confirmed) {
            self.held_back -= entry.held_back();
            entry.confirmed.retain(|confirmed| *confirmed != index);
            self.held_back += entry.held_back();
        }
        let is_here = if one_by_one { index + 1 >= entry.size } else { entry.messages.len() >= entry.size as usize };
        if is_here {
            self.partial.remove(id);
        }
        Some(Slot { entry: place, index, copy })
    }

    /// The rest of the partial entries that stand before `id` in its partition does not come.
    fn close_before(&mut self, id: &EntryId) -> Vec<EntryId> {
        let first = EntryId { topic: id.topic.clone(), ledger: 0, entry: 0, batch_index: None };
        let cut: Vec<u64> = self.partial.range(first..id.clone()).map(|(_, place)| *place).collect();
        let mut free = BTreeSet::new();
        for place in cut {
            match self.entries.get(&place) {
                Some(entry) if entry.one_by_one => {
                    self.partial.remove(&entry.id);
                    free.insert(place);
                }
                _ => free.extend(self.forget(place)),
            }
        }
        self.acknowledge(free)
    }

    /// Forgets all entries of a topic partition: they are another consumer's by now, or come again. Returns entries to acknowledge, of others.
    pub fn leave(&mut self, topic: &str) -> Vec<EntryId> {
        let left: Vec<u64> = self.entries.iter().filter(|(_, entry)| *entry.id.topic == *topic).map(|(place, _)| *place).collect();
        let free = left.into_iter().flat_map(|place| self.forget(place)).collect();
        self.acknowledge(free)
    }

    /// The message writes this item.
    pub fn writes(&mut self, slot: Slot, item: &Target) {
        let Some(entry) = self.entries.get_mut(&slot.entry) else { return };
        let former = match self.writers.get_mut(item) {
            // Entries of several partitions come interleaved; whoever came first is acknowledged first.
            Some(newest) if *newest >= slot.entry => return,
            Some(newest) => Some(mem::replace(newest, slot.entry)),
            None => {
                self.writers.insert(item.clone(), slot.entry);
                None
            }
        };
        entry.items.push(item.clone());
        if let Some(former) = former
            && !entry.after.contains(&former)
            && let Some(older) = self.entries.get_mut(&former)
            // All of it that has come is acknowledged. The rest may never come.
            && !older.messages.is_empty()
        {
            older.before.push(slot.entry);
            if let Some(entry) = self.entries.get_mut(&slot.entry) {
                entry.after.insert(former);
            }
        }
    }

    /// The message is stored or dead-lettered. Returns what to acknowledge now, older entries first.
    pub fn confirmed(&mut self, slot: Slot) -> Vec<EntryId> {
        let Some(entry) = self.entries.get_mut(&slot.entry) else { return Vec::new() };
        match entry.messages.get_mut(&slot.index) {
            Some(message) if message.copy == slot.copy && !message.confirmed => message.confirmed = true,
            _ => return Vec::new(),
        }
        self.held_back -= entry.held_back();
        entry.confirmed.push(slot.index);
        self.held_back += entry.held_back();
        if entry.held_back() == 0 {
            return Vec::new();
        }
        self.acknowledge(BTreeSet::from([slot.entry]))
    }

    /// Takes out what of these entries is confirmed and waits for nothing, and all that this sets free, older ones first.
    fn acknowledge(&mut self, mut free: BTreeSet<u64>) -> Vec<EntryId> {
        let mut acknowledge = Vec::new();
        while let Some(place) = free.pop_first() {
            let Some(entry) = self.entries.get_mut(&place).filter(|entry| entry.after.is_empty()) else { continue };
            if entry.one_by_one {
                let confirmed = mem::take(&mut entry.confirmed);
                self.held_back -= confirmed.len();
                for index in confirmed {
                    entry.messages.remove(&index);
                    acknowledge.push(EntryId { batch_index: Some(index), ..entry.id.clone() });
                }
                if !entry.messages.is_empty() {
                    continue;
                }
                if self.partial.contains_key(&entry.id) {
                    let waiting = mem::take(&mut entry.before);
                    free.extend(self.unblock(place, waiting));
                    continue;
                }
            } else if entry.is_complete() {
                acknowledge.push(entry.id.clone());
            } else {
                continue;
            }
            free.extend(self.forget(place));
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

    /// Whether so much is held back that no more should come in (M1). While the oldest entry is not here completely, it needs more to
    /// come in.
    pub fn is_full(&self, limit: usize) -> bool {
        self.held_back >= limit && self.entries.values().next().is_some_and(|oldest| !self.partial.contains_key(&oldest.id))
    }

    fn track(&mut self, id: &EntryId, size: u32, one_by_one: bool) -> u64 {
        let place = self.next_entry;
        self.next_entry += 1;
        self.places.insert(id.clone(), place);
        self.partial.insert(id.clone(), place);
        let entry = Entry {
            id: id.clone(),
            size: size.max(1),
            one_by_one,
            messages: HashMap::new(),
            confirmed: Vec::new(),
            after: BTreeSet::new(),
            before: Vec::new(),
            items: Vec::new(),
        };
        self.entries.insert(place, entry);
        place
    }

    /// Returns the entries that have waited for it.
    fn forget(&mut self, place: u64) -> Vec<u64> {
        let Some(entry) = self.entries.remove(&place) else { return Vec::new() };
        self.held_back -= entry.held_back();
        self.places.remove(&entry.id);
        self.partial.remove(&entry.id);
        for item in &entry.items {
            if self.writers.get(item) == Some(&place) {
                self.writers.remove(item);
            }
        }
        self.unblock(place, entry.before)
    }
}

impl Entry {
    fn is_complete(&self) -> bool {
        self.confirmed.len() >= self.size as usize
    }

    /// What of it is confirmed and not acknowledged.
    fn held_back(&self) -> usize {
        if self.one_by_one { self.confirmed.len() } else { usize::from(self.is_complete()) }
    }
}

#[cfg(test)]
mod tests;
