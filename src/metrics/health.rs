//! What keeps a worker from making progress, in words (H1).

use std::{collections::BTreeMap, sync::Arc, sync::Mutex};

/// Shared by all stages of a worker; cheap to clone. Red as long as any stage has a reason.
#[derive(Debug, Clone, Default)]
pub struct Health {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
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
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.reasons.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
