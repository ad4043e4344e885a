//! Where the source's edges read time; decisions get it as a [`Moment`].

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::ports::Moment;

/// Monotonic time since the worker started.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> Moment {
        self.0.elapsed()
    }

    pub async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.0 + moment).await;
    }
}

/// The wall clock in epoch milliseconds: for start positions and lag only, never to compare two machines' leases.
pub fn epoch_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
