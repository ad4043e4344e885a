//! Which writes go out next: the table of keys in flight (K1), and the batches made of keys that are not.
//!
//! Each key with work has a lane: its operations in message order. A lane is
//!
//! ```text
//!   ready ──next()──► in flight ──written──► (next operation: ready, none: gone)
//!     ▲                  │  │
//!     └──failed, ────────┘  └──refused──► burying ──buried()──► (next operation: ready, none: gone)
//!        unprocessed
//! ```
//!
//! Nothing else sends a key, so it is in one unanswered request at most, retries included, and the last message wins. Other keys
//! overtake a key that has to wait. Operations of one key are done in message order, whether stored or dead-lettered.
//!
//! Message order is the order of positions within a topic partition, and of arrival between partitions. They differ after a
//! redelivery: an older message that comes while a newer one is in work counts as replaced by it.

mod heat;
mod lane;
mod leave;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::{HashMap, HashMapExt};

use self::{
    heat::Heat,
    lane::{Lane, Op, State},
};
use super::{map::Target, mode::Shaped, pace, poison::Poison};
use crate::{
    dynamodb::attribute::wire_size,
    error::Error,
    ports::{Action, EntryId, Moment, Vehicle, Write},
};

/// Bytes of one request, a little below the 16 MB of "BatchWriteItem" and the 4 MB of "TransactWriteItems", Amazon DynamoDB API Reference:
/// its envelope counts too.
pub fn max_bytes(vehicle: Vehicle) -> usize {
    const ENVELOPE: usize = 64 * 1024;
    match vehicle {
        Vehicle::Batch | Vehicle::Single => 16 * 1024 * 1024 - ENVELOPE,
        Vehicle::Transaction => 4 * 1024 * 1024 - ENVELOPE,
    }
}

/// Names a message in work.
pub type Ticket = u64;

/// Where a message stands: its entry and its index there.
pub type Place = (EntryId, u32);

#[derive(Debug, Clone)]
pub struct Limits {
    /// Writes in a request: 1 to 25 in a batch, 1 to 100 in a transaction, 1 otherwise.
    pub max_batch: usize,
    /// Bytes of a request on the wire.
    pub max_bytes: usize,
    /// A newer write replaces older ones of its key that wait; else each is written in turn.
    pub coalesce: bool,
    /// How long a batch that is not full waits for more.
    pub flush: Duration,
    /// Of how many items the newest stored message is remembered: as many as may be in work and in the client's queues.
    pub remember: usize,
}

/// Writes of different keys, to be sent together.
#[derive(Debug, Clone)]
pub struct Batch {
    pub id: u64,
    pub writes: Vec<Arc<Write>>,
    /// How often the unluckiest of them has failed in a row.
    pub attempts: u32,
    /// How many of them have been sent before.
    pub retried: usize,
    /// All of one partition key that is too busy by itself: what the table takes otherwise is not to be seen here.
    pub hot: bool,
}

/// An operation that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub ticket: Ticket,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Put,
    Deleted,
    Updated,
    /// Its condition is not met, and policy says to go on.
    Skipped,
    /// A newer write of the same item is stored instead.
    Coalesced,
}

/// What is to be done about one write of a batch that was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    Stored,
    /// To be sent again, but not at once.
    Again,
    /// To be sent again; nothing was wrong with it.
    AtOnce,
    /// Not stored, and that is all right.
    Skipped,
    /// Never to be stored.
    Refused(Poison),
}

/// A write that DynamoDB refuses for good. Its key waits until `buried` is called.
#[derive(Debug)]
pub struct Grave {
    pub ticket: Ticket,
    pub key: Target,
    pub write: Arc<Write>,
    pub poison: Poison,
}

#[derive(Debug)]
pub struct Batches {
    limits: Limits,
    lanes: HashMap<Target, Lane>,
    /// Lanes to send, and how long they may wait for a full batch. Every ready lane is in exactly one of `ready`, `delayed`, `suspects`, `heat`.
    ready: VecDeque<(Moment, Target)>,
    /// Lanes to send again, by when.
    delayed: BTreeMap<Moment, Vec<Target>>,
    /// Parts of a refused batch, sent as they are until the culprit is alone.
    suspects: VecDeque<Vec<Target>>,
    /// Lanes of partition keys that are too busy, at their own pace.
    heat: Heat,
    graves: VecDeque<Grave>,
    in_flight: HashMap<u64, Vec<Target>>,
    /// Those of them that `heat` has sent.
    hot: HashSet<u64>,
    next_id: u64,
    stored: Stored,
}

/// The newest message that is stored of each item, of the items stored last.
///
/// After a reconnection the broker sends an older message again that is in work, and it may come when a newer one of the same item is
/// stored already: written then, it would stand over the newer (K1).
#[derive(Debug, Default)]
struct Stored {
    newest: HashMap<Target, (Place, u64)>,
    /// Each storing, the oldest first; the number tells which of them are still the newest of their item.
    order: VecDeque<(Target, u64)>,
    next: u64,
}

impl Stored {
    fn remember(&mut self, key: &Target, place: Place, limit: usize) {
        self.next += 1;
        self.newest.insert(key.clone(), (place, self.next));
        self.order.push_back((key.clone(), self.next));
        while self.order.len() > limit
            && let Some((key, number)) = self.order.pop_front()
        {
            if self.newest.get(&key).is_some_and(|(_, newest)| *newest == number) {
                self.newest.remove(&key);
            }
        }
    }

    /// Whether this message, or a newer one of its partition, is stored. Those of other partitions have no order.
    fn covers(&self, key: &Target, place: &Place) -> bool {
        self.newest.get(key).is_some_and(|(newest, _)| newest.0.topic == place.0.topic && newest >= place)
    }
}

impl Batches {
    pub fn new(limits: Limits) -> Self {
        Self {
            heat: Heat::new(limits.max_batch),
            hot: HashSet::new(),
            limits,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            suspects: VecDeque::new(),
            graves: VecDeque::new(),
            in_flight: HashMap::new(),
            next_id: 0,
            stored: Stored::default(),
        }
    }

    /// Takes a write, in the order of arrival. One that is stored already, or a newer one of its item, is over at once.
    pub fn add(&mut self, ticket: Ticket, place: Place, shaped: Shaped, now: Moment) -> Option<Done> {
        let Shaped { write, key, version } = shaped;
        if version.is_none() && self.stored.covers(&key, &place) {
            return Some(Done { ticket, outcome: Outcome::Coalesced });
        }
        let bytes = wire_bytes(&write);
        let op = Op { ticket, place, bytes, write: Arc::new(write), late: false, version, refused: None, void: false };
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.insert(op);
            return None;
        }
        self.ready.push_back((now + self.limits.flush, key.clone()));
        let lane = Lane { ops: VecDeque::from([op]), state: State::Ready, attempts: 0, failing_since: None, one_by_one: 0 };
        self.lanes.insert(key, lane);
        None
    }

    /// The next batch to send: full, or older than the flush time, or whatever there is when in a `hurry`. `most`: writes that the table takes now.
    pub fn next(&mut self, now: Moment, hurry: bool, most: usize) -> Option<Batch> {
        if let Some(keys) = self.suspects.pop_front() {
            return Some(self.send(keys));
        }
        let full = self.limits.max_batch.min(most);
        let (lanes, coalesce, mut bytes) = (&self.lanes, self.limits.coalesce, 0);
        let mut fits = |key: &Target| {
            bytes += lanes[key].next_bytes(coalesce);
            bytes <= self.limits.max_bytes
        };
        if let Some(keys) = self.heat.next(now, full, &mut fits) {
            let batch = Batch { hot: true, ..self.send(keys) };
            self.hot.insert(batch.id);
            return Some(batch);
        }
        while let Some(due) = self.delayed.first_entry().filter(|due| *due.key() <= now) {
            for key in due.remove().into_iter().rev() {
                self.ready.push_front((now, key));
            }
        }
        let waited = self.ready.front().is_some_and(|(due, _)| *due <= now);
        if !waited && !hurry && self.ready.len() < full {
            return None;
        }
        let mut keys = Vec::new();
        let mut bytes = 0;
        while keys.len() < full
            && let Some((_, key)) = self.ready.front()
        {
            if self.heat.takes(key) {
                self.ready.pop_front();
                continue;
            }
            bytes += self.lanes[key].next_bytes(coalesce);
            if bytes > self.limits.max_bytes && !keys.is_empty() {
                break;
            }
            keys.extend(self.ready.pop_front().map(|(_, key)| key));
        }
        (!keys.is_empty()).then(|| self.send(keys))
    }

    /// When `next` is worth asking again, if nothing else happens.
    pub fn next_due(&self) -> Option<Moment> {
        let flush = self.ready.front().map(|(due, _)| *due);
        let delayed = self.delayed.keys().next().copied();
        let suspects = self.suspects.front().map(|_| Moment::ZERO);
        flush.into_iter().chain(delayed).chain(suspects).chain(self.heat.next_due()).min()
    }

    /// The next refused write to bury.
    pub fn next_grave(&mut self) -> Option<Grave> {
        self.graves.pop_front()
    }

    /// The batch was answered: what has become of each of its writes, in their order. `retry_at`: see `failed`.
    pub fn answered(&mut self, batch: u64, settled: Vec<Settled>, now: Moment, retry_at: impl Fn(u32) -> Moment) -> Vec<Done> {
        let mut done = Vec::new();
        let (mut again, mut at_once) = (Vec::new(), Vec::new());
        let keys = self.in_flight.remove(&batch).unwrap_or_default();
        debug_assert_eq!(keys.len(), settled.len(), "K1: a write without an answer");
        let unprocessed = settled.iter().filter(|settled| **settled == Settled::Again).count();
        let hot = self.cooled(batch, &keys, unprocessed, now);
        for (key, settled) in keys.into_iter().zip(settled) {
            match settled {
                Settled::Again => again.push(key),
                Settled::AtOnce => at_once.push(key),
                Settled::Stored => self.over(key, None, now, &mut done),
                Settled::Skipped => self.over(key, Some(Outcome::Skipped), now, &mut done),
                Settled::Refused(poison) => self.refuse(key, poison, now),
            }
        }
        self.retry(again, now, retry_at, hot);
        for key in self.unsent(at_once).into_iter().rev() {
            self.ready.push_front((now, key));
        }
        done
    }

    /// The batch failed; each of its writes may or may not be stored. Their keys stay locked until they are sent again, in their newest form.
    /// `retry_at`: when to send a write again that has failed so many times in a row before. `key_range`: the partitions of its keys are too busy, and nothing else.
    pub fn failed(&mut self, batch: u64, now: Moment, retry_at: impl Fn(u32) -> Moment, key_range: bool) {
        let keys = self.in_flight.remove(&batch).unwrap_or_default();
        self.cooled(batch, &keys, if key_range { keys.len() } else { 0 }, now);
        self.retry(keys, now, retry_at, key_range);
    }

    /// Whether the batch was one of `heat`. A partition key that is like any other again is treated so.
    fn cooled(&mut self, batch: u64, keys: &[Target], congested: usize, now: Moment) -> bool {
        let hot = self.hot.remove(&batch);
        if hot {
            self.ready.extend(self.heat.answered(keys, congested).into_iter().map(|key| (now, key)));
        }
        hot
    }

    /// DynamoDB refused the batch, so nothing of it is stored: a single write is the culprit, several are sent again in two halves.
    pub fn refused(&mut self, batch: u64, error: &Error, now: Moment) {
        let mut keys = self.in_flight.remove(&batch).unwrap_or_default();
        self.cooled(batch, &keys, 0, now);
        if keys.len() > 1 {
            keys = self.unsent(keys);
            let half = keys.split_off(keys.len() / 2);
            self.suspects.extend([keys, half].into_iter().filter(|part| !part.is_empty()));
        } else if let Some(key) = keys.pop() {
            self.refuse(key, Poison::refused(error), now);
        }
    }

    fn refuse(&mut self, key: Target, poison: Poison, now: Moment) {
        let lane = self.lane(&key);
        if let State::InFlight { covers } = lane.state {
            let culprit = lane.chosen(covers);
            if lane.ops.iter().take(covers).any(|op| op.void) {
                // Whoever has it now will see.
                lane.drop_void();
            } else if covers > 1 && lane.one_by_one == 0 && !Arc::ptr_eq(&lane.write(covers), &lane.ops[culprit].write) {
                lane.one_by_one = covers;
            } else {
                lane.ops[culprit].refused = Some(poison);
            }
        }
        self.advance(key, now);
    }

    /// The refused write is safe in the dead-letter topic: its key goes on.
    pub fn buried(&mut self, key: Target, now: Moment) {
        let lane = self.lane(&key);
        debug_assert_eq!(lane.state, State::Burying);
        lane.ops.pop_front();
        lane.one_by_one = lane.one_by_one.saturating_sub(1);
        self.advance(key, now);
    }

    /// How many keys have been failing, and since when the first of them has.
    pub fn failing(&self) -> Option<(usize, Moment)> {
        let failing = self.lanes.values().filter_map(|lane| lane.failing_since);
        failing.fold(None, |so_far, since| Some(so_far.map_or((1, since), |(count, oldest)| (count + 1, since.min(oldest)))))
    }

    fn send(&mut self, keys: Vec<Target>) -> Batch {
        let id = self.next_id;
        self.next_id += 1;
        let mut batch = Batch { id, writes: Vec::with_capacity(keys.len()), attempts: 0, retried: 0, hot: false };
        let coalesce = self.limits.coalesce;
        for key in &keys {
            let lane = self.lane(key);
            debug_assert_eq!(lane.state, State::Ready, "K1: {key:?} has an unanswered write");
            let covers = lane.covers(coalesce);
            lane.state = State::InFlight { covers };
            batch.attempts = batch.attempts.max(lane.attempts);
            batch.retried += usize::from(lane.attempts > 0);
            batch.writes.push(lane.write(covers));
        }
        self.in_flight.insert(id, keys);
        batch
    }

    /// The operations that the last write of this key has covered are over.
    fn over(&mut self, key: Target, outcome: Option<Outcome>, now: Moment, done: &mut Vec<Done>) {
        let lane = self.lane(&key);
        let State::InFlight { covers } = lane.state else { return };
        let written = lane.chosen(covers);
        let stored = &lane.ops[written];
        let place = (!stored.void).then(|| stored.place.clone());
        for (at, op) in lane.ops.drain(..covers).enumerate() {
            let outcome = match (outcome, &op.write.action) {
                _ if at != written => Outcome::Coalesced,
                (Some(outcome), _) => outcome,
                (None, Action::Put(_)) => Outcome::Put,
                (None, Action::Delete(_)) => Outcome::Deleted,
                (None, Action::Update { .. }) => Outcome::Updated,
            };
            done.push(Done { ticket: op.ticket, outcome });
        }
        lane.attempts = 0;
        lane.failing_since = None;
        lane.one_by_one = lane.one_by_one.saturating_sub(covers);
        if let Some(place) = place {
            self.stored.remember(&key, place, self.limits.remember);
        }
        self.advance(key, now);
    }

    /// Each write waits by its own failures: one that has failed often must not hold up those that were in a request with it.
    fn retry(&mut self, keys: Vec<Target>, now: Moment, retry_at: impl Fn(u32) -> Moment, hot: bool) {
        let mut by_attempts: BTreeMap<u32, Vec<Target>> = BTreeMap::new();
        for key in self.unsent(keys) {
            let lane = self.lane(&key);
            by_attempts.entry(lane.attempts).or_default().push(key);
            lane.attempts = lane.attempts.saturating_add(1);
            lane.failing_since.get_or_insert(now);
        }
        for (attempts, keys) in by_attempts {
            let at = retry_at(attempts);
            if hot {
                self.heat.throttled(keys, now, at);
            } else {
                self.delayed.entry(rounded(at)).or_default().extend(keys);
            }
        }
    }

    /// Goes on with the first operation that is left.
    fn advance(&mut self, key: Target, now: Moment) {
        let due = now + self.limits.flush;
        let lane = self.lane(&key);
        match lane.ops.front() {
            None => {
                self.lanes.remove(&key);
            }
            Some(Op { ticket, write, refused: Some(poison), .. }) => {
                let grave = Grave { ticket: *ticket, key, write: write.clone(), poison: poison.clone() };
                lane.state = State::Burying;
                self.graves.push_back(grave);
            }
            Some(_) => {
                lane.state = State::Ready;
                self.ready.push_back((due, key));
            }
        }
    }

    /// Every key in the queues and in flight has a lane: lanes end in `advance` only, which is reached from none of the queues.
    fn lane(&mut self, key: &Target) -> &mut Lane {
        self.lanes.get_mut(key).unwrap_or_else(|| unreachable!("{key:?} is queued without a lane"))
    }
}

/// Up to a step of the clock that all retries share: those of many requests fill a request together then, instead of one small request each.
fn rounded(at: Moment) -> Moment {
    const STEP: u128 = 5_000_000;
    let steps = at.as_nanos().div_ceil(STEP);
    Moment::from_nanos(u64::try_from(steps * STEP).unwrap_or(u64::MAX))
}

/// Bytes of a write in a request, never too low.
fn wire_bytes(write: &Write) -> usize {
    match &write.action {
        Action::Put(item) | Action::Delete(item) => wire_size(item),
        Action::Update { key, set, remove } => wire_size(key) + wire_size(set) + remove.iter().map(|name| name.len() + 32).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests;
