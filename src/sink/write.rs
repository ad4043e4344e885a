//! The calls to DynamoDB: so many at once, and what each answer means for the next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::batch::Batch;
use crate::{
    error::{Error, Kind, Result, Retry},
    ports::{Fate, ItemTables, Moment, Vehicle},
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
    Written { fates: Vec<Fate>, retry_at: Moment },
    /// Perhaps stored, perhaps not: all of it is to be sent again.
    Failed { error: Error, retry_at: Moment },
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
    calls: JoinSet<(Batch, Duration, Result<Vec<Fate>>)>,
    /// When each unanswered batch was sent.
    sent: BTreeMap<u64, Moment>,
    /// Until when nothing is sent; `Some` until a call succeeds.
    paused: Option<Moment>,
}

impl<T: ItemTables> Writer<T> {
    /// `backoff`: the first delay after throttling; it doubles with each attempt, with full jitter.
    pub fn new(tables: Arc<T>, vehicle: Vehicle, max_in_flight: usize, backoff: Duration) -> Self {
        Self { tables, vehicle, max_in_flight, backoff, calls: JoinSet::new(), sent: BTreeMap::new(), paused: None }
    }

    /// Whether another batch may be sent now.
    pub fn has_slot(&self, now: Moment) -> bool {
        self.free() && self.paused.is_none_or(|until| until <= now)
    }

    /// When a slot is free at the earliest; `None` while an answer has to come first.
    pub fn slot_at(&self) -> Option<Moment> {
        self.free().then(|| self.paused.unwrap_or_default())
    }

    fn free(&self) -> bool {
        self.sent.len() < if self.paused.is_some() { 1 } else { self.max_in_flight }
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
        self.sent.values().next().copied()
    }

    pub fn send(&mut self, batch: Batch, now: Moment) {
        self.sent.insert(batch.id, now);
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
        self.sent.remove(&batch.id);
        let verdict = self.verdict(&batch, result, now());
        Some(Ok(Answer { batch, took, verdict }))
    }

    fn verdict(&mut self, batch: &Batch, result: Result<Vec<Fate>>, now: Moment) -> Verdict {
        let retry_at = now + full_jitter(self.backoff, batch.attempts, fastrand::f64());
        let error = match result {
            Ok(fates) if fates.len() != batch.writes.len() => {
                let why = format!("{} answers for {} writes: a defect", fates.len(), batch.writes.len());
                return Verdict::Fatal(Error::new(Kind::Fatal, "write a batch", why));
            }
            Ok(fates) => {
                self.paused = None;
                return Verdict::Written { fates, retry_at };
            }
            Err(error) => error,
        };
        match (error.retry(), error.kind()) {
            (Retry::Timed, _) => Verdict::Failed { error, retry_at },
            (Retry::Manual, _) => {
                let retry_at = now + MANUAL_RETRY;
                self.paused = Some(retry_at);
                Verdict::Failed { error, retry_at }
            }
            (Retry::Never, Kind::Invalid | Kind::ItemCollectionFull | Kind::Poison) => {
                self.paused = None;
                Verdict::Refused(error)
            }
            (Retry::Never, _) => Verdict::Fatal(error),
        }
    }
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
