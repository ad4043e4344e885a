//! What keeps a worker from making progress, in words (H1), and how far it is.

use std::{collections::BTreeMap, sync::Arc, sync::Mutex};

use metrics::gauge;

use super::{
    names,
    shards::{ShardStatus, Shards},
};
use crate::source::clock::Clock;

/// Shared by all stages of a worker; cheap to clone. Red as long as any stage has a reason, or a shard stands still without one.
#[derive(Debug, Clone, Default)]
pub struct Health {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
    shards: Shards,
}

impl Health {
    /// By the clock of its worker.
    pub fn new(clock: Clock) -> Self {
        Self { reasons: Arc::default(), shards: Shards::new(clock) }
    }

    /// `stage` (and what it works on, such as a shard) cannot go on, because of `reason`. Repeating it replaces the reason.
    pub fn red(&self, stage: impl Into<String>, reason: impl ToString) {
        self.lock().insert(stage.into(), reason.to_string());
    }

    /// `stage` makes progress again.
    pub fn green(&self, stage: &str) {
        self.lock().remove(stage);
    }

    /// Nothing is in the way when this is empty.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        let mut reasons = self.lock().clone();
        for (shard, age) in self.shards.stalled() {
            let reason = format!("no page of {shard} was read for {} s", age.as_secs());
            reasons.entry(format!("shard {shard}")).or_insert(reason);
        }
        reasons
    }

    /// The shards that a source reads.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Sets the gauges that somebody has to work out. The shards' status, where the worker reads any.
    pub fn report(&self) -> Option<Vec<ShardStatus>> {
        gauge!(names::HEALTH_REASONS).set(self.reasons().len() as f64);
        self.shards.report()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.reasons.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
