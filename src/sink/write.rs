//! The calls to DynamoDB: so many at once, and what each answer means for the next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::{
    batch::Batch,
    pace::{Capacity, Pace},
};
use crate::{
    dynamodb::attribute::item_size,
    error::{Error, Kind, Limit, Result, Retry},
    ports::{Action, Fate, ItemTables, Moment, Vehicle, Write, Written},
};

/// The longest delay between two attempts of the same write.
const MAX_BACKOFF: Duration = Duration::from_secs(20);
/// The delay after an error that a person has to heal.
pub const MANUAL_RETRY: Duration = Duration::from_secs(15);

/// One answered batch.
#[derive(Debug)]
pub struct Answer {
    pub batch: Batch,
    pub took: Duration,
    pub verdict: Verdict,
}

/// What the answer means.
#[derive(Debug)]
pub enum Verdict {
    /// What has become of each write; what was not processed is to be sent again.
    Written { fates: Vec<Fate>, consumed: Option<f64> },
    /// Perhaps stored, perhaps not: all of it is to be sent again, by `Writer::retry_at`.
    Failed(Error),
    /// Something in it can never be written.
    Refused(Error),
    /// The worker cannot go on.
    Fatal(Error),
}

/// Runs the calls. After an error that a person has to heal (no permission, no table, no credentials) it pauses, then
/// tries with one call at a time until one succeeds.
#[derive(Debug)]
pub struct Writer<T> {
    tables: Arc<T>,
    vehicle: Vehicle,
    max_in_flight: usize,
    backoff: Duration,
    pace: Pace,
    capacity: Option<Capacity>,
    calls: JoinSet<(Batch, Duration, Result<Written>)>,
    /// Each unanswered batch.
    sent: BTreeMap<u64, Sent>,
    /// Writes in them.
    unanswered: usize,
    /// Until when nothing is sent; `Some` until a call succeeds.
    paused: Option<Moment>,
}

#[derive(Debug)]
struct Sent {
    at: Moment,
    /// Write capacity units that it was charged.
    units: f64,
}

/// How many calls there may be, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// Writes in a full request.
    pub batch: usize,
    /// Requests at once.
    pub max_in_flight: usize,
    /// Write capacity units a second.
    pub capacity: Option<u64>,
    /// The first delay after throttling; it doubles with each attempt, with full jitter.
    pub backoff: Duration,
}

impl<T: ItemTables> Writer<T> {
    pub fn new(tables: Arc<T>, vehicle: Vehicle, drive: Drive) -> Self {
        let Drive { batch, max_in_flight, capacity, backoff } = drive;
        Self {
            tables,
            vehicle,
            max_in_flight,
            backoff,
            pace: Pace::new(batch, max_in_flight),
            capacity: capacity.map(|rate| Capacity::new(rate as f64)),
            calls: JoinSet::new(),
            sent: BTreeMap::new(),
            unanswered: 0,
            paused: None,
        }
    }

    /// How many writes may be sent now; `None` while none may.
    pub fn room(&self, now: Moment) -> Option<usize> {
        if self.slot_at()? > now {
            return None;
        }
        self.pace.room(self.unanswered)
    }

    /// How many writes may be unanswered at once.
    pub fn window(&self) -> usize {
        self.pace.window()
    }

    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// When a slot is free at the earliest; `None` while an answer has to come first.
    pub fn slot_at(&self) -> Option<Moment> {
        let capacity = self.capacity.as_ref().map_or(Moment::ZERO, Capacity::ready_at);
        self.free().then(|| self.paused.unwrap_or_default().max(capacity))
    }

    fn free(&self) -> bool {
        let calls = if self.paused.is_some() { 1 } else { self.max_in_flight };
        self.sent.len() < calls && self.pace.room(self.unanswered).is_some()
    }

    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// A person has to heal something first.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// When the oldest unanswered batch was sent.
    pub fn waiting_since(&self) -> Option<Moment> {
        self.sent.values().next().map(|sent| sent.at)
    }

    /// When to send a write again that has failed `attempts` times in a row before: after a delay that doubles, and not in a pause.
    pub fn retry_at(&self, attempts: u32, now: Moment) -> Moment {
        let delay = full_jitter(self.backoff, attempts, fastrand::f64());
        (now + delay).max(self.paused.unwrap_or_default())
    }

    pub fn send(&mut self, batch: Batch, now: Moment) {
        let units = match &mut self.capacity {
            None => 0.0,
            Some(capacity) => {
                let units = batch.writes.iter().map(|write| estimated(write, self.vehicle)).sum();
                capacity.charge(units, now);
                units
            }
        };
        self.sent.insert(batch.id, Sent { at: now, units });
        self.unanswered += batch.writes.len();
        let (tables, vehicle) = (self.tables.clone(), self.vehicle);
        self.calls.spawn(async move {
            let started = Instant::now();
            let result = tables.write(vehicle, &batch.writes).await;
            (batch, started.elapsed(), result)
        });
    }

    /// The next answer; `None` when nothing is under way. Cancel-safe.
    pub async fn answer(&mut self, now: impl Fn() -> Moment) -> Option<Result<Answer>> {
        let (batch, took, result) = match self.calls.join_next().await? {
            Ok(answer) => answer,
            Err(broken) => return Some(Err(Error::new(Kind::Fatal, "write a batch", broken))),
        };
        let charged = self.sent.remove(&batch.id).map_or(0.0, |sent| sent.units);
        self.unanswered -= batch.writes.len();
        self.pace.answered(batch.writes.len(), congested(&result, &batch));
        if let Some(capacity) = &mut self.capacity {
            match &result {
                Ok(Written { consumed: Some(units), .. }) => capacity.correct(units - charged),
                Err(error) if error.kind() == Kind::Throttled => capacity.correct(-charged),
                // A failed condition consumes too, and says nothing.
                _ => {}
            }
        }
        let verdict = self.verdict(&batch, result, now());
        Some(Ok(Answer { batch, took, verdict }))
    }

    fn verdict(&mut self, batch: &Batch, result: Result<Written>, now: Moment) -> Verdict {
        let error = match result {
            Ok(Written { fates, .. }) if fates.len() != batch.writes.len() => {
                let why = format!("{} answers for {} writes: a defect", fates.len(), batch.writes.len());
                return Verdict::Fatal(Error::new(Kind::Fatal, "write a batch", why));
            }
            Ok(Written { fates, consumed }) => {
                self.paused = None;
                return Verdict::Written { fates, consumed };
            }
            Err(error) => error,
        };
        match (error.retry(), error.kind()) {
            (Retry::Timed, _) => Verdict::Failed(error),
            (Retry::Manual, _) => {
                self.paused = Some(now + MANUAL_RETRY);
                Verdict::Failed(error)
            }
            (Retry::Never, Kind::Invalid | Kind::ItemCollectionFull | Kind::Poison) => {
                self.paused = None;
                Verdict::Refused(error)
            }
            (Retry::Never, _) => Verdict::Fatal(error),
        }
    }
}

/// How many of a request's writes were not taken because there is too much. Where only a key range is too busy, its keys wait by themselves, and
/// the others need not.
fn congested(result: &Result<Written>, batch: &Batch) -> usize {
    match result {
        Ok(_) if batch.hot => 0,
        Ok(written) => written.fates.iter().filter(|fate| **fate == Fate::Unprocessed).count(),
        Err(error) if error.kind() == Kind::Throttled && matches!(error.limit(), Limit::KeyRange | Limit::IndexKeyRange) => 0,
        Err(error) if matches!(error.kind(), Kind::Throttled | Kind::Unavailable) => batch.writes.len(),
        Err(_) => 0,
    }
}

/// Write capacity units of a write, by what is known of it: one for each started KB of the item, twice that in a transaction ("Read and write operations", Amazon
/// DynamoDB Developer Guide). What is there already may be larger.
fn estimated(write: &Write, vehicle: Vehicle) -> f64 {
    let bytes = match &write.action {
        Action::Put(item) | Action::Delete(item) => item_size(item),
        Action::Update { key, set, .. } => item_size(key) + item_size(set),
    };
    let factor = if vehicle == Vehicle::Transaction { 2.0 } else { 1.0 };
    bytes.div_ceil(1024).max(1) as f64 * factor
}

/// A delay before attempt `attempts` + 1: anything up to `base` × 2^`attempts`, capped. `random` is in 0..1.
pub fn full_jitter(base: Duration, attempts: u32, random: f64) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(attempts)).min(MAX_BACKOFF).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_cap() {
        let base = Duration::from_millis(100);
        assert_eq!(full_jitter(base, 0, 1.0), base);
        assert_eq!(full_jitter(base, 3, 0.5), Duration::from_millis(400));
        assert_eq!(full_jitter(base, 60, 1.0), MAX_BACKOFF);
        assert_eq!(full_jitter(base, 60, 0.0), Duration::ZERO);
    }
}
