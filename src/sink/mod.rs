//! The sink worker: Pulsar topics into DynamoDB tables.
//!
//! | stage | file | hands on | bounded by |
//! |---|---|---|---|
//! | receive | `receive` | messages, from the `Inbox` | `max_buffered`, `max_buffered_bytes` (M1), entries held back (`ack`) |
//! | decode | `decode/` | what a message asks for | the message, 1,000 schemas |
//! | ask | `ask`, `tables` | a schema, or a table's key, that a message waits for | one message |
//! | shape | `shape/` | the item that is meant | the message |
//! | map | `map` | one valid write and its item's key | the message |
//! | mode | `mode` | the write with its condition and version | the message |
//! | batch | `batch`, `coalesce` | batches of keys that are not in flight (K1) | messages in work |
//! | write | `write`, `pace` | answers of the table | `max_in_flight` calls, what the table takes |
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
pub mod map;
pub mod mode;
mod order;
mod pace;
mod poison;
mod receive;
pub mod shape;
mod tables;
mod worker;
mod write;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use self::{ask::Asked, mode::Mode, tables::Missing};
use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{Inbox, ItemTables, KeySchema, Publisher, Schemas},
};

/// What the sink worker needs to know; made by `config` from a validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The table; a template of its name where messages choose it.
    pub table_name: Arc<str>,
    /// The key of tables that are made where they are not there; `None`: none are.
    pub created_key: Option<KeySchema>,
    /// How messages are read.
    pub rules: decode::Rules,
    /// How items are made of them.
    pub shape: shape::Shape,
    pub mode: Mode,
    /// Writes in one BatchWriteItem: 1 to 25; in one TransactWriteItems: 1 to 100.
    pub max_batch: usize,
    /// The subscription is Key_Shared: messages come in the order of their keys only.
    pub by_key: bool,
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
    /// Write capacity units a second; `None`: as many as the table takes.
    pub max_write_capacity: Option<u64>,
    /// The worker ends with the first request that fails for another reason than throttling.
    pub fail_on_error: bool,
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
    let backoff = settings.backoff;
    let missing = |otherwise| settings.created_key.clone().map_or(otherwise, Missing::Create);
    let mut known = HashMap::new();
    if settings.shape.route.is_none() {
        // One table for all: nothing is received without it.
        let table = settings.table_name.clone();
        let missing = missing(Missing::Wait);
        let found = tokio::select! {
            biased;
            () = stop.cancelled() => return close(inbox).await,
            found = tables::find(&*tables, &table, &missing, backoff, &health) => found,
        };
        match found.and_then(|found| found.map_or(Ok(None), |schema| usable(&settings, &table, schema).map(Some))) {
            Ok(schema) => known.extend(schema.map(|schema| (table, schema))),
            Err(error) => {
                // What counts is why there is no table.
                let _ = close(inbox).await;
                return Err(error);
            }
        }
    }
    let missing = missing(Missing::Tell);
    let asked = Asked { schemas, tables, missing, backoff, health };
    let mut worker = worker::Worker::new(settings, known, inbox, asked, dead_letters);
    let served = worker.serve(&stop).await;
    let drained = worker.drain().await;
    let closed = close(worker.into_inbox()).await;
    served.and(drained).and(closed)
}

/// Checks what the configuration says about a table's key.
fn usable(settings: &Settings, table: &str, schema: KeySchema) -> Result<KeySchema> {
    match settings.shape.contradicts(&schema).or_else(|| settings.mode.contradiction(&schema)) {
        None => Ok(schema),
        Some(why) => Err(Error::new(Kind::Configuration, format!("write to table {table}"), why)),
    }
}

async fn close<I: Inbox>(inbox: I) -> Result<()> {
    let late = |_| Error::new(Kind::Unavailable, "leave the subscription", "no answer in time; what was acknowledged last may come again");
    tokio::time::timeout(CLOSE_TIMEOUT, inbox.close()).await.map_err(late)?
}
