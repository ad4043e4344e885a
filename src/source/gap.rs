//! Records that were gone from the stream before they were read (G1): what is said of them, and the shards that policy has stopped.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::heal;
use crate::{
    error::{Error, Kind},
    ports::{Moment, SequenceNumber, ShardId},
};

/// What happens to a shard with a gap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnTrimmed {
    /// It is read on with the oldest record that is left.
    #[default]
    Continue,
    /// Nothing after the gap is published until a person has decided.
    Fail,
}

/// Where a gap ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// Before this record, which is there.
    Record(SequenceNumber),
    /// Before whatever is written next: nothing was left.
    Now,
    /// The stream does not have the shard any more.
    EndOfShard,
}

/// The bounds of a gap in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The last record that was read; `None`: not even the first one was.
    pub after: Option<SequenceNumber>,
    pub until: Until,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            Some(after) => write!(f, "the records after {after} and ")?,
            None => f.write_str("the records from the beginning of the shard and ")?,
        }
        match &self.until {
            Until::Record(before) => write!(f, "before {before}"),
            Until::Now => f.write_str("before what is written next"),
            Until::EndOfShard => f.write_str("up to its end"),
        }
    }
}

impl Gap {
    /// What stops the shard, with what to do.
    pub fn error(&self, shard: &ShardId) -> Error {
        let way_on = match self.until {
            Until::EndOfShard => String::new(),
            _ => format!("`leases reset {shard} --to TRIM_HORIZON --force`, or "),
        };
        let why = format!(
            "{self} were gone from the stream before they were read, and onTrimmed is fail. Bring them from elsewhere if they are needed; to go on \
             without them: {way_on}onTrimmed: continue and a restart"
        );
        Error::new(Kind::TrimmedData, format!("read {shard} without a gap"), why)
    }
}

/// The shards that stand still at a gap.
#[derive(Debug, Default)]
pub struct Parked(Mutex<BTreeMap<ShardId, (Error, Moment)>>);

impl Parked {
    /// The shard stands still for as long as what is returned lives.
    pub fn park<'p>(&'p self, shard: &'p ShardId, error: &Error, now: Moment) -> Parking<'p> {
        self.lock().insert(shard.clone(), (error.clone(), now));
        Parking { parked: self, shard }
    }

    /// Why a worker that holds so many shards cannot recover (H1): for a minute none of them was read.
    pub fn stuck(&self, held: usize, now: Moment) -> Option<Error> {
        let parked = self.lock();
        let is_old = |since: &Moment| now.saturating_sub(*since) >= heal::LONG;
        let all = held > 0 && parked.len() == held && parked.values().all(|(_, since)| is_old(since));
        all.then(|| parked.values().next().map(|(error, _)| error.clone())).flatten()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, (Error, Moment)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them.
pub struct Parking<'p> {
    parked: &'p Parked,
    shard: &'p ShardId,
}

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        self.parked.lock().remove(self.shard);
    }
}
