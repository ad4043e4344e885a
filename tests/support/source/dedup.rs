//! A broker that deduplicates (D2), and clients that put what waits into batches, as Pulsar 4.0.8 has them: of a batch the broker looks at the first number
//! alone, and a producer's name can be connected once, for as long as its process lives.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use pulsar_io_dynamodb::{
    ports::{Lease, Place, SequenceNumber, ShardId},
    source::{Settings, once::Once},
};

use super::{State, World, log::Actor, number, settings, topic::Accepted};

/// What the broker knows of the producers of the topic.
#[derive(Debug, Default)]
pub(super) struct Producers {
    /// The greatest number that is stored of each, in each partition.
    highest: BTreeMap<(Arc<str>, u32), u64>,
    /// Which start of which worker has a producer of this name.
    connected: BTreeMap<Arc<str>, Actor>,
    /// Starts whose instance has ended, so that nothing of them is sent any more.
    silent: BTreeSet<Actor>,
}

/// Settings that publish each record once. `most_unwritten` beyond a checkpoint.
pub fn once(most_unwritten: u64) -> Settings {
    // A drain that lasts longer than the failover time would keep names that the next owners need.
    let drain_timeout = Duration::from_secs(5);
    Settings { once: Some(Once { application: "leases".into(), most_unwritten }), drain_timeout, ..settings() }
}

impl Producers {
    /// The worker's process has ended, and its connections with it.
    pub(super) fn disconnect(&mut self, run: Actor) {
        self.connected.retain(|_, of| *of != run);
    }
}

impl World {
    /// From now on, as [`once`] settings ask for.
    pub fn deduplicate(&self) {
        self.lock().once = true;
    }

    /// Changes a shard's row behind its owner's back; told the first record. Returns the shard's records.
    pub fn change_row(&self, shard: &ShardId, change: impl FnOnce(&mut Lease, SequenceNumber)) -> BTreeSet<u64> {
        let mut state = self.lock();
        let records: BTreeSet<u64> = state.shards[shard].records.iter().map(|record| record.sequence).collect();
        let first = number(*records.first().expect("a record"));
        change(state.rows.get_mut(shard).expect("a row"), first);
        records
    }
}

impl State {
    /// A message is given to the client. Where another process has a producer of that name, the client fails, and its instance ends.
    pub(super) fn connect(&mut self, run: Actor, place: Option<&Place>) {
        assert_eq!(place.is_some(), self.once, "a place where each record counts once, and nowhere else");
        let Some(Place { producer, .. }) = place else { return };
        let holder = *self.producers.connected.entry(producer.clone()).or_insert(run);
        if holder != run && self.refused.insert(run) {
            self.note(run, format!("cannot connect {producer}, which is worker {holder}'s"));
        }
    }

    /// The next batch of a lane: messages of one producer.
    pub(super) fn batch(&mut self, lane: (Actor, u32)) -> Vec<Accepted> {
        let most = if self.once { self.random.usize(1..20) } else { 1 };
        let Some(waiting) = self.lanes.get_mut(&lane) else { return Vec::new() };
        take_batch(waiting, most)
    }

    /// Stores a batch, or drops it, and answers all its messages.
    pub(super) fn store_batch(&mut self, (run, partition): (Actor, u32), batch: Vec<Accepted>) {
        let (Some(first), Some(last)) = (batch.first().and_then(Accepted::place), batch.last().and_then(Accepted::place)) else {
            return batch.into_iter().for_each(|accepted| self.store(run, accepted));
        };
        let key = (first.producer.clone(), partition);
        let (first, last) = (first.sequence, last.sequence);
        let is_connected = self.producers.connected.get(&key.0) == Some(&run);
        if is_connected && self.producers.highest.get(&key).is_some_and(|highest| first <= *highest) {
            self.note(run, format!("has {first} to {last} of {} dropped", key.0));
            for accepted in batch {
                if !self.stored.contains(&accepted.sequence) {
                    self.violation(run, format!("D2: {} is dropped as a duplicate, and is not stored", accepted.sequence));
                }
                accepted.answer(Ok(()));
            }
            return;
        }
        // What an instance that ends has sent before may be stored, and it hears nothing of it.
        let ends = self.refused.contains(&run);
        let was_sent = is_connected && !self.producers.silent.contains(&run);
        if ends && was_sent && self.random.bool() {
            batch.iter().for_each(|accepted| self.check_once(run, accepted.sequence));
            self.producers.highest.insert(key, last);
        } else if ends {
            self.producers.silent.insert(run);
        } else {
            self.producers.highest.insert(key, last);
        }
        batch.into_iter().for_each(|accepted| self.store(run, accepted));
    }

    /// Whether a dead letter is there already.
    pub(super) fn has_letter(&mut self, place: &Place) -> bool {
        let highest = self.producers.highest.entry((place.producer.clone(), u32::MAX)).or_default();
        let is_there = place.sequence <= *highest;
        *highest = place.sequence.max(*highest);
        is_there
    }

    /// A record is stored: for the first time, unless gaps allow another one.
    pub(super) fn check_once(&mut self, run: Actor, sequence: u64) {
        if self.once && !self.gaps && self.stored.contains(&sequence) {
            self.violation(run, format!("D2: {sequence} is stored twice"));
        }
        self.check_store(run, sequence);
    }

    pub(super) fn disconnect(&mut self, run: Actor) {
        self.producers.disconnect(run);
    }
}

fn take_batch(waiting: &mut VecDeque<Accepted>, most: usize) -> Vec<Accepted> {
    let producer = waiting.front().and_then(Accepted::place).map(|place| place.producer.clone());
    let of_it = |accepted: &Accepted| accepted.place().map(|place| &place.producer) == producer.as_ref();
    let length = waiting.iter().take(most).take_while(|accepted| of_it(accepted)).count();
    waiting.drain(..length).collect()
}
