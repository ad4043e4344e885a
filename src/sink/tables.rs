//! Finds out a table's key, and makes the table where that is wanted.

use std::time::Duration;

use super::write::{MANUAL_RETRY, full_jitter};
use crate::{
    error::{Kind, Result, Retry},
    metrics::health::Health,
    ports::{ItemTables, KeySchema},
};

const STAGE: &str = "sink/table";

/// What is done about a table that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Wait until somebody makes it: nothing can be written without it.
    Wait,
    /// Say so: it is a message that has named it.
    Tell,
    /// Make it with this key.
    Create(KeySchema),
}

/// The table's key; `None` where it is not there. Tries again where time or a person can heal it.
pub async fn find<T: ItemTables>(
    tables: &T,
    name: &str,
    missing: &Missing,
    backoff: Duration,
    health: &Health,
) -> Result<Option<KeySchema>> {
    let mut attempts = 0;
    loop {
        let error = match (tables.describe(name).await, missing) {
            (Ok(schema), _) => {
                health.green(STAGE);
                return Ok(Some(schema));
            }
            (Err(error), Missing::Tell) if error.kind() == Kind::NotFound => return Ok(None),
            (Err(error), Missing::Create(key)) if error.kind() == Kind::NotFound => match tables.create(name, key).await {
                Ok(()) => {
                    tracing::info!(table = name, ?key, "the table is made");
                    continue;
                }
                Err(error) => error,
            },
            (Err(error), _) => error,
        };
        let delay = match error.retry() {
            Retry::Never => return Err(error),
            Retry::Timed => full_jitter(backoff, attempts, fastrand::f64()),
            Retry::Manual => MANUAL_RETRY,
        };
        tracing::warn!(table = name, %error, "the table cannot be described, trying again");
        health.red(STAGE, &error);
        attempts += 1;
        tokio::time::sleep(delay).await;
    }
}
