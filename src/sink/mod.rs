//! The sink worker: Pulsar topics into DynamoDB tables.
//!
//! | stage | file | hands on | bounded by |
//! |---|---|---|---|
//! | receive | `receive` | messages, from the `Inbox` | `max_buffered`, `max_buffered_bytes` (M1), entries held back (`ack`) |
//! | decode | `decode/` | what a message asks for | the message, 1,000 schemas |
//! | shape | `shape` | the item that is meant | the message |
//! | map | `map` | one valid write and its item's key | the message |
//! | mode | `mode` | the write with its condition and version | the message |
//! | batch | `batch`, `coalesce` | batches of keys that are not in flight (K1) | messages in work |
//! | write | `write` | answers of the table | `max_in_flight` calls |
//! | dead_letter | `dead_letter` | receipts of the dead-letter topic | messages in work |
//! | ack | `ack` | entries to acknowledge (A1) | messages in work, as many entries held back |
//!
//! One task owns all state and runs the stages; only calls to DynamoDB and to the dead-letter topic run beside it. Whatever comes in
//! stays in work until it is stored or dead-lettered: there is no third way out but the end of the worker, unacknowledged.

mod ack;
mod ask;
mod batch;
mod coalesce;
mod dead_letter;
pub mod decode;
mod map;
pub mod mode;
mod poison;
mod receive;
pub mod shape;
mod worker;
mod write;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use self::mode::Mode;
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::health::Health,
    ports::{Inbox, ItemTables, KeySchema, Publisher, Schemas},
};

/// What the sink worker needs to know; made by `config` from a validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub table_name: Arc<str>,
    /// How messages are read.
    pub rules: decode::Rules,
    /// How items are made of them.
    pub shape: shape::Shape,
    pub mode: Mode,
    /// Writes in one BatchWriteItem: 1 to 25; in one TransactWriteItems: 1 to 100.
    pub max_batch: usize,
    /// Requests under way at once.
    pub max_in_flight: usize,
    /// Messages received and not yet stored.
    pub max_buffered: usize,
    /// Payload bytes received and not yet stored (M1).
    pub max_buffered_bytes: usize,
    /// A newer write of an item replaces an older one that still waits.
    pub coalesce: bool,
    /// How long a batch that is not full waits for more.
    pub flush_timeout: Duration,
    /// First delay after throttling.
    pub backoff: Duration,
    /// How long a clean stop may wait for writes under way (Z1).
    pub drain_timeout: Duration,
    /// `tenant/namespace/name-instance`, for the dead-letter properties.
    pub worker_id: String,
}

/// How long leaving the subscription may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until `stop` is cancelled, then drains: takes no more messages, waits for the writes under way, acknowledges, closes (Z1).
///
/// Without `dead_letters`, a message that can never be written ends the worker with an error that names it; it stays unacknowledged.
/// So does a dead-letter topic that fails. In both cases the other messages in work are written and acknowledged first.
pub async fn run<I: Inbox, S: Schemas, T: ItemTables, P: Publisher>(
    settings: Settings,
    inbox: I,
    schemas: Arc<S>,
    tables: Arc<T>,
    dead_letters: Option<P>,
    health: Health,
    stop: CancellationToken,
) -> Result<()> {
    let schema = tokio::select! {
        biased;
        () = stop.cancelled() => return close(inbox).await,
        schema = describe(&*tables, &settings, &health) => schema,
    };
    match schema {
        Ok(schema) => {
            let mut worker = worker::Worker::new(settings, schema, inbox, schemas, tables, dead_letters, health);
            let served = worker.serve(&stop).await;
            let drained = worker.drain().await;
            let closed = close(worker.into_inbox()).await;
            served.and(drained).and(closed)
        }
        Err(error) => {
            // What counts is why there is no table.
            let _ = close(inbox).await;
            Err(error)
        }
    }
}

/// The table's keys. Tries again where time or a person can heal it.
async fn describe<T: ItemTables>(tables: &T, settings: &Settings, health: &Health) -> Result<KeySchema> {
    const STAGE: &str = "sink/table";
    let mut attempts = 0;
    loop {
        let error = match tables.describe(&settings.table_name).await {
            Ok(schema) => {
                health.green(STAGE);
                return match settings.mode.contradiction(&schema) {
                    Some(why) => Err(Error::new(Kind::Configuration, format!("write to table {}", settings.table_name), why)),
                    None => Ok(schema),
                };
            }
            Err(error) => error,
        };
        let delay = match error.retry() {
            Retry::Never => return Err(error),
            Retry::Timed => write::full_jitter(settings.backoff, attempts, fastrand::f64()),
            Retry::Manual => write::MANUAL_RETRY,
        };
        tracing::warn!(table = %settings.table_name, %error, "the table cannot be described, trying again");
        health.red(STAGE, &error);
        attempts += 1;
        tokio::time::sleep(delay).await;
    }
}

async fn close<I: Inbox>(inbox: I) -> Result<()> {
    let late = |_| Error::new(Kind::Unavailable, "leave the subscription", "no answer in time; what was acknowledged last may come again");
    tokio::time::timeout(CLOSE_TIMEOUT, inbox.close()).await.map_err(late)?
}
