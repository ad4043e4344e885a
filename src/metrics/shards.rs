//! How far each shard is that this worker reads: lag, age of what waits for Pulsar, time to trim, age of what no checkpoint covers.
//!
//! An age grows while nothing happens, so nothing here is a gauge that a stage sets: stages note when something happened, and the ages are
//! worked out when somebody asks. What belongs to a shard goes with its [`Meter`]: nothing stays behind of a shard that has ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use metrics::{gauge, histogram};
use serde::Serialize;
use tokio::time::Instant;

use super::names;
use crate::{ports::ShardId, source::clock::Clock};

/// Milliseconds of the worker's monotonic clock; negative for what was before its start.
type Millis = i64;
/// Stands for "there is none" in an atomic.
const NONE: Millis = Millis::MIN;

/// DynamoDB keeps a change for 24 hours.
const RETENTION: Millis = 24 * 60 * 60 * 1000;
/// An empty page says that the tip is reached; for so long it is believed. The longest pause between two pages of an idle shard is 1 s.
const FRESH: Millis = 10_000;
/// Without a page for so long, and without a reason that anybody gave, reading has stalled (H1). A call may take 30 s, a backoff 30 s.
const STALLED: Millis = 180_000;
/// For so long the end of a shard is remembered, for the gap to the first page of its children.
const ENDED_KEPT: Millis = 15 * 60 * 1000;

/// The shards of one worker. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Shards {
    /// Zero of [`Millis`].
    start: Instant,
    clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<ShardId, Arc<State>>,
    /// When each shard was read to its end.
    ended: BTreeMap<ShardId, Millis>,
    /// Whether this worker reads shards at all: a sink does not.
    in_use: bool,
}

impl Default for Shards {
    fn default() -> Self {
        Self::new(Clock::start())
    }
}

#[derive(Debug)]
struct State {
    /// When the lease was taken.
    taken: Millis,
    /// When the shard was opened, as its id says.
    opened: Option<Millis>,
    read: Mutex<Read>,
    records: AtomicU64,
    bytes: AtomicU64,
    /// When the oldest record without receipt was handed to the publisher, and when it was created.
    oldest_sent: AtomicI64,
    oldest_created: AtomicI64,
    /// Since when something is acknowledged that no checkpoint covers.
    unwritten: AtomicI64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Read {
    /// When the last page was handed on.
    page: Option<Millis>,
    position: Position,
}

#[derive(Debug, Clone, Copy, Default)]
enum Position {
    /// No page yet.
    #[default]
    Unknown,
    /// When the newest record read was created.
    Behind(Millis),
    /// Everything was read that was there at this time.
    Tip(Millis),
    /// Everything was read, and nothing comes any more.
    End,
}

/// What is known of one shard at one time. Times are ages in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    pub shard: String,
    /// How old the oldest record is that is not in Pulsar yet: not read, or read and not acknowledged. 0 at the tip. At least that, before the
    /// first page.
    pub lag_seconds: f64,
    /// Until DynamoDB drops what was not read and acknowledged.
    pub time_to_trim_seconds: f64,
    /// How long the oldest record that Pulsar has not acknowledged waits for that.
    pub unacked_seconds: f64,
    /// How long something is acknowledged that no checkpoint covers.
    pub checkpoint_age_seconds: f64,
    /// Since the last page, or since the lease was taken.
    pub page_age_seconds: f64,
    pub in_flight_records: u64,
    pub in_flight_bytes: u64,
}

impl Shards {
    pub fn new(clock: Clock) -> Self {
        Self { start: Instant::now(), clock, inner: Arc::default() }
    }

    /// A shard is read from now on, until the meter is dropped.
    pub fn enter(&self, shard: &ShardId, parents: &[ShardId]) -> Meter {
        let state = Arc::new(State::new(self.now(), self.opened(shard)));
        let mut inner = self.lock();
        inner.in_use = true;
        inner.held.insert(shard.clone(), state.clone());
        drop(inner);
        Meter { shards: self.clone(), shard: shard.clone(), parents: parents.to_vec(), state }
    }

    /// Every shard held, in the order of their ids.
    pub fn status(&self) -> Vec<ShardStatus> {
        let now = self.now();
        self.lock().held.iter().map(|(shard, state)| state.status(shard, now)).collect()
    }

    /// The shards that have not had a page for so long that something must be wrong, with that time.
    pub fn stalled(&self) -> Vec<(ShardId, Duration)> {
        let now = self.now();
        let stalled = |(shard, state): (&ShardId, &Arc<State>)| {
            let read = state.read();
            let age = now - read.page.unwrap_or(state.taken);
            (age >= STALLED && !matches!(read.position, Position::End)).then(|| (shard.clone(), Duration::from_millis(age.unsigned_abs())))
        };
        self.lock().held.iter().filter_map(stalled).collect()
    }

    /// Sets the gauges that are worked out from all shards. `None` for a worker that reads none, else every shard's status.
    pub fn report(&self) -> Option<Vec<ShardStatus>> {
        if !self.lock().in_use {
            return None;
        }
        let all = self.status();
        let worst = |of: fn(&ShardStatus) -> f64| all.iter().map(of).fold(0.0, f64::max);
        gauge!(names::SOURCE_LAG).set(worst(|shard| shard.lag_seconds));
        gauge!(names::SOURCE_UNACKED_AGE).set(worst(|shard| shard.unacked_seconds));
        gauge!(names::SOURCE_CHECKPOINT_AGE).set(worst(|shard| shard.checkpoint_age_seconds));
        let to_trim = all.iter().map(|shard| shard.time_to_trim_seconds).fold(seconds(RETENTION), f64::min);
        gauge!(names::SOURCE_TIME_TO_TRIM).set(to_trim);
        gauge!(names::SOURCE_IN_FLIGHT).set(all.iter().map(|shard| shard.in_flight_records).sum::<u64>() as f64);
        gauge!(names::SOURCE_IN_FLIGHT_BYTES).set(all.iter().map(|shard| shard.in_flight_bytes).sum::<u64>() as f64);
        Some(all)
    }

    fn now(&self) -> Millis {
        self.local(Instant::now())
    }

    fn local(&self, at: Instant) -> Millis {
        let millis = |since: Duration| Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX);
        match at.checked_duration_since(self.start) {
            Some(since) => millis(since),
            None => -millis(self.start.duration_since(at)),
        }
    }

    /// A time of the wall clock, by the monotonic clock: an age does not jump when somebody sets the clock.
    fn of_epoch(&self, millis: i64) -> Millis {
        self.now() - (self.clock.epoch_millis() - millis).max(0)
    }

    fn opened(&self, shard: &ShardId) -> Option<Millis> {
        let millis = shard.as_str().strip_prefix("shardId-")?.split('-').next()?.parse().ok()?;
        Some(self.of_epoch(millis))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(taken: Millis, opened: Option<Millis>) -> Self {
        Self {
            taken,
            opened,
            read: Mutex::default(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            oldest_sent: AtomicI64::new(NONE),
            oldest_created: AtomicI64::new(NONE),
            unwritten: AtomicI64::new(NONE),
        }
    }

    fn read(&self) -> Read {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, shard: &ShardId, now: Millis) -> ShardStatus {
        let some = |at: &AtomicI64| Some(at.load(Relaxed)).filter(|at| *at != NONE);
        let age = |at: Option<Millis>| at.map_or(0, |at| (now - at).max(0));
        let read = self.read();
        let (unread, oldest_unread) = match read.position {
            Position::Unknown => (age(Some(self.taken)), age(self.opened.or(Some(self.taken)))),
            Position::Behind(created) => (age(Some(created)), age(Some(created))),
            Position::Tip(at) => {
                let age = age(Some(at));
                let age = if age <= FRESH { 0 } else { age };
                (age, age)
            }
            Position::End => (0, 0),
        };
        let unacked = age(some(&self.oldest_created));
        ShardStatus {
            shard: shard.to_string(),
            lag_seconds: seconds(unread.max(unacked)),
            time_to_trim_seconds: seconds((RETENTION - oldest_unread.max(unacked)).max(0)),
            unacked_seconds: seconds(age(some(&self.oldest_sent))),
            checkpoint_age_seconds: seconds(age(some(&self.unwritten))),
            page_age_seconds: seconds(age(read.page.or(Some(self.taken)))),
            in_flight_records: self.records.load(Relaxed),
            in_flight_bytes: self.bytes.load(Relaxed),
        }
    }
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1000.0
}

/// Notes what happens to one shard. The shard is in nobody's metrics any more once this is dropped.
#[derive(Debug)]
pub struct Meter {
    shards: Shards,
    shard: ShardId,
    parents: Vec<ShardId>,
    state: Arc<State>,
}

impl Meter {
    /// For what has no worker around it.
    pub fn detached() -> Self {
        let (shards, shard) = (Shards::default(), ShardId::new("detached"));
        let state = Arc::new(State::new(shards.now(), None));
        Self { shards, shard, parents: Vec::new(), state }
    }

    /// A page was handed on. `newest`: when its newest record was created, epoch milliseconds. `empty`: it had no record, so the tip was
    /// reached when it was `called` for.
    pub fn page(&self, called: Instant, empty: bool, newest: Option<i64>) {
        let now = self.shards.now();
        let position = match newest {
            _ if empty => Position::Tip(self.shards.local(called)),
            Some(created) => Position::Behind(self.shards.of_epoch(created)),
            // Its records do not say, or were read before.
            None => Position::Behind(now),
        };
        let before = std::mem::replace(&mut *self.lock_read(), Read { page: Some(now), position });
        if before.page.is_none() {
            self.first_page(called);
        }
    }

    /// The shard was read to its end: its children may start.
    pub fn ended(&self) {
        let now = self.shards.now();
        self.lock_read().position = Position::End;
        let mut inner = self.shards.lock();
        inner.ended.retain(|_, at| now - *at <= ENDED_KEPT);
        inner.ended.insert(self.shard.clone(), now);
    }

    /// A record was handed to the publisher, and is in flight until the answer is dropped.
    pub fn sent(&self, bytes: usize) -> InFlight {
        let bytes = bytes as u64;
        self.state.records.fetch_add(1, Relaxed);
        self.state.bytes.fetch_add(bytes, Relaxed);
        InFlight { state: self.state.clone(), bytes }
    }

    /// The oldest record without receipt: when it was handed to the publisher and when it was created (epoch milliseconds). `None`: there is none.
    pub fn waits_for(&self, oldest: Option<(Instant, Option<i64>)>) {
        let (sent, created) = match oldest {
            Some((sent, created)) => {
                let sent = self.shards.local(sent);
                (sent, created.map_or(sent, |created| self.shards.of_epoch(created)))
            }
            None => (NONE, NONE),
        };
        self.state.oldest_sent.store(sent, Relaxed);
        self.state.oldest_created.store(created, Relaxed);
    }

    /// Whether something is acknowledged that no checkpoint covers.
    pub fn unwritten(&self, is: bool) {
        if !is {
            self.state.unwritten.store(NONE, Relaxed);
        } else if self.state.unwritten.load(Relaxed) == NONE {
            self.state.unwritten.store(self.shards.now(), Relaxed);
        }
    }

    /// A checkpoint was written; `more` is acknowledged since.
    pub fn checkpointed(&self, more: bool) {
        self.unwritten(false);
        self.unwritten(more);
    }

    fn first_page(&self, called: Instant) {
        let inner = self.shards.lock();
        if let Some(end) = self.parents.iter().filter_map(|parent| inner.ended.get(parent)).max() {
            let gap = (self.shards.local(called) - end).max(0);
            drop(inner);
            histogram!(names::SOURCE_ROLLOVER_GAP).record(seconds(gap));
        }
    }

    fn lock_read(&self) -> MutexGuard<'_, Read> {
        self.state.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let mut inner = self.shards.lock();
        // The lease may have been taken again meanwhile: then the entry is the newer meter's.
        if inner.held.get(&self.shard).is_some_and(|held| Arc::ptr_eq(held, &self.state)) {
            inner.held.remove(&self.shard);
        }
    }
}

/// One record between the publisher and its receipt.
#[derive(Debug)]
pub struct InFlight {
    state: Arc<State>,
    bytes: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.records.fetch_sub(1, Relaxed);
        self.state.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// The shards that lag most, worst first: `count` of them at most.
pub fn worst(all: &[ShardStatus], count: usize) -> Vec<&ShardStatus> {
    let mut shards: Vec<&ShardStatus> = all.iter().collect();
    shards.sort_by(|a, b| b.lag_seconds.total_cmp(&a.lag_seconds).then_with(|| a.shard.cmp(&b.shard)));
    shards.truncate(count);
    shards
}

#[cfg(test)]
mod tests;
