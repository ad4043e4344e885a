//! The source worker: a DynamoDB stream into a Pulsar topic.
//!
//! | stage | file | hands on through | bound |
//! |---|---|---|---|
//! | which shards need a lease, which rows nobody needs | [`discover`] and [`garbage`], asked for by [`catalog`] when a shard ends or [`audit`] says | rows of the lease table | five DescribeStream calls a second |
//! | which leases to take and keep | [`lease::plan`], [`lease::keeper`] | one task for each lease held | one write under way for each |
//! | reading | [`shard`], driven by [`poll`] | pages | five calls a second for each shard; a page needs room first |
//! | bytes | [`convert`] | messages | the page it comes from |
//! | sending | [`publish`] | the publisher, and a channel of receipts for each shard | `max_in_flight` records and 128 MiB over all shards (M1) |
//! | what is safe | [`checkpoint`] | the lease row, written by [`lease::keeper`] | one entry for each record in flight |
//!
//! [`consume`] puts the last four together for one shard; this file takes leases, starts those tasks and ends them. What fails and
//! can heal is repeated where it fails ([`heal`]), so an error that arrives here ends the worker.

pub mod audit;
pub mod catalog;
pub mod checkpoint;
pub mod clock;
pub mod consume;
pub mod convert;
pub mod discover;
pub mod garbage;
pub mod heal;
pub mod lease;
pub mod poll;
pub mod publish;
pub mod shard;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt;
use metrics::gauge;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    audit::{Audit, Audits, Scope},
    catalog::Catalog,
    clock::Clock,
    consume::Outcome,
    convert::shape::{Origin, Shape},
    heal::{Trouble, heal},
    lease::{
        Me,
        keeper::{Keeper, Taken, Troubles},
        plan::{self, Sightings},
    },
    publish::Budget,
};
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::{calls::Timed, health::Health, names},
    ports::{Lease, LeaseTable, Moment, Publisher, ShardId, StreamReader},
};

/// While an audit creates rows one after the other, the table is read again after this pause, and longer the more rows there are.
const CREATED_PAUSE: Duration = Duration::from_millis(100);
const ROW_PAUSE: Duration = Duration::from_micros(100);
/// Leases taken at once.
const TAKES_UNDER_WAY: usize = 16;

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
    /// How long a clean stop may wait for receipts (Z1).
    pub drain_timeout: Duration,
    /// How records become messages. Its origin is set by [`run`], which knows the stream.
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
    clock: Clock,
    health: Health,
    stop: CancellationToken,
}

/// Runs until `stop` is cancelled, then drains: waits for receipts, checkpoints, releases its leases (Z1).
///
/// Errors only where neither time nor a person can heal it without a restart.
pub async fn run<R: StreamReader, L: LeaseTable, P: Publisher>(
    mut settings: Settings,
    clock: Clock,
    reader: Arc<R>,
    leases: Arc<L>,
    publisher: P,
    health: Health,
    stop: CancellationToken,
) -> Result<()> {
    let (reader, leases) = (Arc::new(Timed(reader)), Arc::new(Timed(leases)));
    settings.shape.origin = Origin::of(reader.arn().as_str());
    let throttle_delay = settings.backoff;
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ready = heal("leases", clock, &health, throttle_delay, || leases.ensure()) => ready?,
    }
    let nonce = format!("{:016x}", fastrand::u64(..));
    tracing::info!(worker = settings.worker_id, nonce, "the source has started");
    let keeper = Arc::new(Keeper {
        table: leases.clone(),
        me: Me { id: settings.worker_id.clone(), nonce },
        failover: settings.failover,
        checkpoint_interval: settings.checkpoint_interval,
        throttle_delay,
        clock,
        health: health.clone(),
        troubles: Troubles::default(),
    });
    let catalog = Catalog::new(reader.clone(), leases, (settings.start, settings.started_at), clock, health.clone());
    let budget = Budget::new(settings.max_in_flight);
    // A child: an error here stops the shards, and not whoever else listens to the host's token.
    let stop = stop.child_token();
    let shared = Shared { settings, reader, publisher, catalog, budget, clock, health, stop };
    let mut worker = Worker {
        shared: Arc::new(shared),
        keeper,
        seen: Sightings::default(),
        held: BTreeSet::new(),
        tasks: JoinSet::new(),
        next_scan: Moment::ZERO,
        last_scan: Moment::ZERO,
        untaken: false,
        audits: Audits::new(),
        scanning: Trouble::default(),
    };
    let result = worker.run().await;
    worker.drain(result).await
}

/// What a task of the worker has come to.
enum Done {
    Shard(ShardId, Result<Outcome>),
    Audit(Result<Audit>),
}

struct Worker<R, L, P> {
    shared: Arc<Shared<R, L, P>>,
    keeper: Arc<Keeper<L>>,
    seen: Sightings,
    /// The shards that have a task here: exactly those whose leases this worker holds.
    held: BTreeSet<ShardId>,
    tasks: JoinSet<Done>,
    next_scan: Moment,
    last_scan: Moment,
    /// Rows were seen that may be taken now.
    untaken: bool,
    audits: Audits,
    scanning: Trouble,
}

impl<R: StreamReader, L: LeaseTable, P: Publisher> Worker<R, L, P> {
    /// Until the stop, or the first error that nothing heals.
    async fn run(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        loop {
            let wake = self.audits.wake().map_or(self.next_scan, |audit| audit.min(self.next_scan));
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                Some(done) = self.tasks.join_next() => self.done(done)?,
                () = std::future::ready(()), if self.untaken => self.take().await?,
                () = shared.catalog.created() => self.next_scan = self.next_scan.min(self.last_scan + CREATED_PAUSE + ROW_PAUSE * self.seen.len()),
                () = shared.clock.sleep_until(wake) => {
                    if self.next_scan <= shared.clock.now() {
                        self.scan().await?;
                    }
                    let now = shared.clock.now();
                    let responsible = plan::is_auditor(&self.seen, &self.keeper.me, now, self.keeper.failover);
                    if let Some(scope) = self.audits.begin(now, responsible) {
                        self.audit(scope);
                    }
                }
            }
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>) -> Result<()> {
        let now = self.shared.clock.now();
        match done {
            Ok(Done::Shard(shard, result)) => {
                self.held.remove(&shard);
                gauge!(names::SOURCE_LEASES_HELD).set(self.held.len() as f64);
                match result? {
                    Outcome::Finished { lease, children } => {
                        self.seen.saw(lease, now);
                        if children.is_empty() {
                            self.audits.childless(now);
                        }
                        // They are taken without reading the table, since thousands of shards may end in the same minute: of their parent
                        // all is known.
                        for child in children {
                            if self.seen.row(&child.shard).is_none() {
                                self.seen.saw(child, now);
                            }
                        }
                        self.untaken = true;
                    }
                    Outcome::Lost(lease) => {
                        self.seen.saw(lease, now);
                        self.next_scan = now;
                    }
                    Outcome::Released => self.next_scan = now,
                }
            }
            Ok(Done::Audit(result)) => {
                self.audits.done(&result?, now);
            }
            Err(panic) => return Err(Error::new(Kind::Fatal, "read the stream", format!("a task has failed: {panic}"))),
        }
        Ok(())
    }

    fn audit(&mut self, scope: Scope) {
        let shared = self.shared.clone();
        self.tasks.spawn(shared.clock.run(async move {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => Done::Audit(Ok(Audit::default())),
                result = shared.catalog.audit(scope) => Done::Audit(result),
            }
        }));
    }

    /// Looks at the lease table, and takes what may be taken.
    async fn scan(&mut self) -> Result<()> {
        self.last_scan = self.shared.clock.now();
        let shared = self.shared.clone();
        let rows = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            rows = heal::within(heal::CALL_LIMIT, "list the leases", self.keeper.table.list()) => rows,
        };
        match rows {
            Ok(rows) => {
                self.seen.listed(rows, shared.clock.now());
                self.keeper.forget(|shard| self.seen.row(shard));
                self.report();
            }
            Err(error) => return self.scan_failed(error),
        }
        let pause =
            if plan::others_work(&self.seen, |shard| self.held.contains(shard)) { self.keeper.failover / 5 } else { self.keeper.failover };
        self.next_scan = shared.clock.now() + pause;
        self.take().await
    }

    /// Takes what may be taken of the rows that were seen.
    async fn take(&mut self) -> Result<()> {
        self.untaken = false;
        let (shared, keeper) = (self.shared.clone(), self.keeper.clone());
        let wanted = plan::to_take(&self.seen, &keeper.me, |shard| self.held.contains(shard), shared.clock.now(), keeper.failover);
        let mut takes = futures_util::stream::iter(wanted)
            .map(|lease| {
                let keeper = &keeper;
                // A row of the Java connector learns whose shard it is.
                let lease = Lease { stream: lease.stream.or_else(|| Some(shared.reader.arn().clone())), ..lease };
                async move { (keeper.take(&lease).await, lease) }
            })
            .buffer_unordered(TAKES_UNDER_WAY);
        let mut failure = None;
        while let Some((taken, lease)) = takes.next().await {
            match taken {
                // It is kept from now on, however long the others take.
                Ok(Taken::Held(tenure)) => {
                    let (shared, shard) = (self.shared.clone(), tenure.lease().shard.clone());
                    self.seen.saw(tenure.lease().clone(), shared.clock.now());
                    self.held.insert(shard.clone());
                    self.tasks.spawn(shared.clock.run(async move { Done::Shard(shard, consume::consume(&shared, tenure).await) }));
                }
                Ok(Taken::Refused(Some(row))) => self.seen.saw(row, shared.clock.now()),
                Ok(Taken::Refused(None)) => self.seen.gone(&lease.shard),
                Err(error) => failure = Some(error),
            }
        }
        gauge!(names::SOURCE_LEASES_HELD).set(self.held.len() as f64);
        match failure {
            Some(error) => self.scan_failed(error),
            None => {
                if self.scanning.healed() {
                    shared.health.green("take leases");
                }
                Ok(())
            }
        }
    }

    /// What the lease table looks like from here.
    fn report(&self) {
        let census = plan::census(&self.seen, self.shared.clock.now(), self.keeper.failover);
        gauge!(names::SOURCE_LEASES).set(census.leases as f64);
        gauge!(names::SOURCE_LEASES_FREE).set(census.free as f64);
        gauge!(names::SOURCE_WORKERS).set(census.workers as f64);
    }

    fn scan_failed(&mut self, error: Error) -> Result<()> {
        heal::count("leases", &error);
        if error.retry() == Retry::Never {
            return Err(error);
        }
        let now = self.shared.clock.now();
        self.next_scan = now + self.scanning.failed(&error, self.keeper.throttle_delay, now, fastrand::f64());
        tracing::warn!(%error, "leases were not taken; it is tried again");
        if self.scanning.is_serious(&error, now) {
            self.shared.health.red("take leases", &error);
        }
        Ok(())
    }

    /// Z1: stops the shards, which settle, checkpoint and release. The first error is the one to tell.
    async fn drain(mut self, mut result: Result<()>) -> Result<()> {
        if let Err(error) = &result {
            tracing::error!(%error, "stopping");
        }
        self.shared.stop.cancel();
        while let Some(done) = self.tasks.join_next().await {
            if let Err(error) = self.done(done) {
                tracing::error!(%error, "while stopping");
                result = result.and(Err(error));
            }
        }
        self.shared.health.green("take leases");
        tracing::info!("the source has stopped");
        result
    }
}
