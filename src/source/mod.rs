//! The source worker: a DynamoDB stream into a Pulsar topic.
//!
//! | stage | file | hands on through | bound |
//! |---|---|---|---|
//! | which stream | [`succession`], asked by [`follow`] | a stream, once the one before it is read to its end | one at a time |
//! | which shards need a lease, which rows nobody needs | [`discover`] and [`garbage`], asked for by [`catalog`] when a shard ends ([`children`]) or [`audit`] says | rows of the lease table | five DescribeStream calls a second ([`describe`]) |
//! | which leases to take and keep | [`lease::plan`], [`lease::keeper`] | one task for each lease held | one write under way for each |
//! | reading | [`shard`], driven by [`poll`] | pages | a page needs room first; without a backlog five calls a second for each shard |
//! | bytes | [`convert`] | messages | the page it comes from |
//! | sending, and by whom it is sent where each record counts once ([`once`]) | [`publish`] | the publisher, and a channel of receipts for each shard | `max_in_flight` records and 128 MiB over all shards (M1) |
//! | receipts, and records that cannot be published | [`settle`], by the policy of [`poison`] | what is safe | one entry for each record in flight |
//! | what is safe | [`checkpoint`] | the lease row, written by [`lease::keeper`] | one entry for each record in flight |
//!
//! [`consume`] puts the last five together for one shard; [`worker`] takes leases, starts those tasks and ends them. What fails and
//! can heal is repeated where it fails ([`heal`]), so an error that arrives here ends the worker.

pub mod audit;
pub mod catalog;
pub mod checkpoint;
pub mod children;
pub mod clock;
pub mod consume;
pub mod convert;
pub mod describe;
pub mod discover;
pub mod follow;
pub mod gap;
pub mod garbage;
pub mod heal;
pub mod lease;
pub mod once;
pub mod poison;
pub mod poll;
pub mod progress;
pub mod publish;
pub mod settle;
pub mod shard;
pub mod share;
pub mod succession;
pub mod worker;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use self::{
    catalog::Catalog,
    clock::Clock,
    convert::shape::Shape,
    follow::Follow,
    gap::{OnTrimmed, Parked},
    heal::heal,
    lease::plan::AssumeDead,
    once::Once,
    poison::Policy,
    publish::Budget,
};
use crate::{
    error::Result,
    metrics::{calls::Timed, health::Health},
    ports::{LeaseTable, Publisher, Streams},
};

/// Where reading starts for shards that have no lease yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    TrimHorizon,
    /// From the moment of the first start on.
    Latest,
    /// Epoch milliseconds.
    AtTimestamp(i64),
}

/// What the source worker needs to know; made by `config` from a validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Stable over restarts: `tenant/namespace/name-instance`. Written as the lease owner.
    pub worker_id: String,
    pub start: StartPosition,
    /// When this process was started, before it waited for anything: what LATEST means at the first start. Epoch milliseconds.
    pub started_at: i64,
    /// How often checkpoints are written at most, for each shard. A restart repeats at most that much.
    pub checkpoint_interval: Duration,
    /// First delay after throttling.
    pub backoff: Duration,
    /// Records read and not yet acknowledged, over all shards.
    pub max_in_flight: usize,
    /// A lease that was not written for so long belongs to nobody. 10 s while Java workers share the table.
    pub failover: Duration,
    /// This worker holds no more leases.
    pub max_leases: usize,
    /// Whose rows are taken at the start without waiting for the failover time.
    pub assume_dead: AssumeDead,
    /// How far before a checkpoint of the Java connector reading starts. Zero: at it.
    pub rewind_on_adopt: Duration,
    /// What happens when records are gone before they were read (G1).
    pub on_trimmed: OnTrimmed,
    /// How long a clean stop may wait for receipts (Z1).
    pub drain_timeout: Duration,
    /// What becomes of a record that cannot be published.
    pub poison: Policy,
    /// Each record is to be published once: what a publisher has to do that for is said in its messages' [`Place`](crate::ports::Place). `None`: at least once.
    pub once: Option<Once>,
    /// How records become messages. Its origin is set by [`follow`], which knows the stream.
    pub shape: Shape,
}

/// What all stages of a worker share.
#[derive(Debug)]
pub struct Shared<R, L, P> {
    settings: Settings,
    reader: Arc<R>,
    publisher: P,
    catalog: Catalog<R, L>,
    budget: Budget,
    parked: Parked,
    clock: Clock,
    health: Health,
    stop: CancellationToken,
}

/// Runs until `stop` is cancelled, then drains: waits for receipts, checkpoints, releases its leases (Z1).
///
/// Errors only where neither time nor a person can heal it without a restart. The end of a stream that has no successor is such an error.
pub async fn run<S: Streams, L: LeaseTable, P: Publisher>(
    settings: Settings,
    clock: Clock,
    streams: S,
    leases: Arc<L>,
    publisher: P,
    health: Health,
    stop: CancellationToken,
) -> Result<()> {
    let leases = Arc::new(Timed(leases));
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ready = heal("leases", clock, &health, settings.backoff, || leases.ensure()) => ready?,
    }
    let nonce = format!("{:016x}", fastrand::u64(..));
    tracing::info!(worker = settings.worker_id, nonce, "the source has started");
    let result = Follow { settings, clock, streams, leases, publisher, health, stop, nonce }.run().await;
    tracing::info!("the source has stopped");
    result
}
