//! Asks the stream for its shards, and gives those that need one a lease.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::{self, StreamExt};
use metrics::counter;
use tokio::{sync::Notify, time::Instant};

use super::{
    Settings, StartPosition,
    audit::{Audit, Scope},
    children::{Children, Found},
    clock::Clock,
    describe::{DISCOVER, Describe, Pages},
    discover::{self, Rows, Times},
    follow::Succession,
    garbage,
    heal::{self, heal},
    succession,
};
use crate::{
    error::{Kind, Result},
    metrics::{health::Health, names},
    ports::{Lease, LeaseTable, Moment, ShardId, StreamReader, StreamStatus},
};

/// The children of a shard that has ended show up late at times: so often and so long it is asked again, doubling.
const CHILDREN_TRIES: u32 = 10;
const CHILDREN_FIRST_DELAY: Duration = Duration::from_millis(50);
const CHILDREN_DELAY_CEILING: Duration = Duration::from_secs(1);
/// How long after the end of a shard that showed one child, and after that once more, it is asked whether there is another one.
const SIBLING_DELAYS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// Rows created at once: the first start on a big stream creates thousands, and the renewals of those that are there already must not wait.
const CREATIONS_UNDER_WAY: usize = 16;
/// Rows deleted after one listing, one after the other: what an audit may cost the lease table.
const DELETIONS: usize = 1_000;

/// The stage of health that tells of the stream itself.
const STREAM: &str = "stream";
/// The stage of health that tells of shards which wait for an ancestor.
const POSTPONED: &str = "discover postponed";

#[derive(Debug)]
pub struct Catalog<R, L> {
    reader: Arc<R>,
    table: Arc<L>,
    start: StartPosition,
    /// The time of the first start, where LATEST needs it.
    started_millis: i64,
    clock: Clock,
    health: Health,
    describe: Arc<Describe<R>>,
    children: Children<R>,
    /// The shards of the last whole listing, and when it was begun: many may ask at once whether they still exist.
    last_listing: tokio::sync::Mutex<Option<(Instant, BTreeSet<ShardId>)>>,
    created: Notify,
    /// Since when shards wait for an ancestor that is not listed.
    postponed_since: Mutex<Option<Moment>>,
    succession: Arc<Succession>,
}

/// What the stream says about a shard that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Existence {
    /// Or too young to be trimmed.
    Listed,
    /// The stream is there and the shard is not: trimmed.
    Trimmed,
}

impl<R: StreamReader, L: LeaseTable> Catalog<R, L> {
    pub fn new(reader: Arc<R>, table: Arc<L>, settings: &Settings, clock: Clock, health: Health, succession: Arc<Succession>) -> Self {
        let describe = Arc::new(Describe::new(reader.clone(), clock, health.clone(), succession.clone()));
        Self {
            reader,
            table,
            start: settings.start,
            started_millis: settings.started_at,
            clock,
            health,
            children: Children::new(describe.clone()),
            describe,
            last_listing: tokio::sync::Mutex::default(),
            created: Notify::new(),
            postponed_since: Mutex::default(),
            succession,
        }
    }

    /// The worker leaves the stream: there is nothing more to tell of it.
    pub fn leave(&self) {
        for stage in [STREAM, POSTPONED, DISCOVER] {
            self.health.green(stage);
        }
    }

    /// Whether a row of the lease table is one of this stream.
    pub fn is_own(&self, row: &Lease) -> bool {
        self.succession.is_own(row, self.reader.arn())
    }

    /// A listing comes late by seconds. What waits for longer than a minute is read by nobody, and is told (H1).
    fn tell_postponed(&self, postponed: &[ShardId]) {
        let mut since = self.postponed_since.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = postponed.first() else {
            if since.take().is_some() {
                self.health.green(POSTPONED);
            }
            return;
        };
        tracing::warn!(shards = ?postponed, "an ancestor is not listed yet; these shards wait for it");
        let now = self.clock.now();
        if now.saturating_sub(*since.get_or_insert(now)) >= heal::LONG {
            let count = postponed.len();
            self.health.red(
                POSTPONED,
                format!(
                    "{count} shards, {first} among them, are not read: the stream does not list an ancestor of theirs, although it is young"
                ),
            );
        }
    }

    /// Lists the stream, creates the leases that are missing, page by page, and deletes the rows that nobody needs any more.
    ///
    /// Each call is repeated until it succeeds, so that an audit goes on where throttling has stopped it; errors only with what neither time
    /// nor a person heals.
    pub async fn audit(&self, scope: Scope) -> Result<Audit> {
        // The rows first: a lease that appears meanwhile makes a creation that does nothing, where a shard that appears
        // meanwhile could otherwise be taken for one without leased ancestors.
        let all = heal("leases", self.clock, &self.health, Duration::ZERO, || self.table.list()).await?;
        let (own, others) = all.into_iter().partition(|row| self.is_own(row));
        let (mut rows, others): (_, Vec<Lease>) = (Rows::new(own), others);
        if !rows.before().is_empty() && self.start != StartPosition::TrimHorizon {
            tracing::debug!("shards with leases, and their children, go on from there; the start position is for others");
        }
        let from = if scope == Scope::Whole { None } else { discover::audit_from(rows.before(), self.clock.epoch_millis()).cloned() };
        let (mut audit, mut looked_at, mut refused) = (Audit::default(), 0, false);
        let mut pages = Pages::after(from);
        while self.describe.turn_page(&mut pages).await? {
            let listing = &pages.listing;
            // Each look is at the whole list, so the next one waits until it has grown by a part of itself.
            if !listing.is_complete() && listing.len() < looked_at + looked_at / 4 {
                continue;
            }
            looked_at = listing.len();
            let times = Times { started: self.started_millis, now: self.clock.epoch_millis() };
            let missing = discover::missing(listing, &rows, self.start, times);
            for generation in missing.generations {
                let creations = generation.into_iter().map(|lease| self.create_if_possible(lease));
                let mut creations = stream::iter(creations).buffer_unordered(CREATIONS_UNDER_WAY);
                while let Some(created) = creations.next().await {
                    match created? {
                        Some(lease) => {
                            rows.created(lease);
                            audit.created += 1;
                            self.created.notify_one();
                        }
                        None => refused = true,
                    }
                }
            }
            audit.postponed = missing.postponed.len();
            if listing.is_complete() {
                self.tell_postponed(&missing.postponed);
            }
        }
        let Pages { status, listing, .. } = pages;
        self.tell_status(status);
        audit.complete = status == StreamStatus::Disabled && listing.is_whole() && audit.created == 0 && audit.postponed == 0 && !refused;
        let garbage = garbage::finished(&listing, rows.before(), self.clock.epoch_millis());
        self.delete(garbage.iter().take(DELETIONS)).await?;
        if listing.is_whole() && audit.postponed == 0 && !refused {
            let now = self.clock.epoch_millis();
            let is_gone = |row: &Lease| discover::is_gone(&row.shard, now);
            let left = succession::left_behind(&others, self.reader.arn(), &self.succession.lost, is_gone);
            self.delete(left.take(DELETIONS)).await?;
        }
        tracing::debug!(shards = listing.len(), ?scope, ?status, ?audit, "the stream was listed");
        Ok(audit)
    }

    /// A disabled stream is no error, but nothing more will come from it (H1).
    fn tell_status(&self, status: StreamStatus) {
        if !matches!(status, StreamStatus::Disabling | StreamStatus::Disabled) || self.succession.has_successor() {
            self.health.green(STREAM);
            return;
        }
        self.succession.hurry();
        let then = if self.succession.follows {
            "the table's next stream follows as soon as one is switched on"
        } else {
            "then the source ends, since a stream that is switched on again has another ARN; table:NAME as awsDynamodbStreamArn follows it"
        };
        self.health.red(STREAM, format!("the stream is disabled: what is in it is still read; {then}"));
    }

    /// Waits until an audit has created rows: they can be read before it has come to its end. Cancel-safe.
    pub async fn created(&self) {
        self.created.notified().await;
    }

    /// The children of a shard that has ended, with leases. Empty where the stream shows none, even after some patience:
    /// then an audit finds them, or there are none, since the stream is disabled.
    pub async fn lease_children(&self, parent: &Lease) -> Result<Vec<Lease>> {
        let mut delay = CHILDREN_FIRST_DELAY;
        for _ in 0..CHILDREN_TRIES {
            let Found { children, grows } = self.children.find(&parent.shard).await?;
            if !children.is_empty() || !grows {
                let mut leases = Vec::with_capacity(children.len());
                for child in &children {
                    leases.push(self.create(discover::child_lease(child, parent)).await?);
                }
                return Ok(leases);
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(CHILDREN_DELAY_CEILING);
        }
        Ok(Vec::new())
    }

    /// The child that the end of a shard did not show beside the `known` one, with its lease. Looks a few times, where that costs next to nothing; an
    /// audit finds what is later than that.
    pub async fn lease_sibling(&self, parent: &Lease, known: &ShardId) -> Result<Vec<Lease>> {
        for delay in SIBLING_DELAYS {
            tokio::time::sleep(delay).await;
            let mut leases = Vec::new();
            for late in self.children.look_again(&parent.shard).await?.into_iter().filter(|child| child.id != *known) {
                leases.push(self.create(discover::child_lease(&late, parent)).await?);
            }
            if !leases.is_empty() {
                return Ok(leases);
            }
        }
        Ok(Vec::new())
    }

    /// Whether a shard that "does not exist" is trimmed. Waits, with red health, while the stream itself is gone.
    pub async fn existence(&self, shard: &ShardId) -> Result<Existence> {
        let asked = Instant::now();
        let mut last = self.last_listing.lock().await;
        if last.as_ref().is_none_or(|(begun, _)| *begun < asked) {
            let begun = Instant::now();
            let listing = self.describe.whole().await?;
            *last = Some((begun, listing.shards().map(|shard| shard.id.clone()).collect()));
        }
        let listed = last.as_ref().is_some_and(|(_, shards)| shards.contains(shard));
        // A listing may lag behind. What is younger than the stream's retention cannot have been trimmed, whatever it says (D1).
        Ok(if listed || discover::is_young(shard, self.clock.epoch_millis()) { Existence::Listed } else { Existence::Trimmed })
    }

    async fn delete(&self, rows: impl Iterator<Item = &Lease>) -> Result<()> {
        for row in rows {
            if heal("leases", self.clock, &self.health, Duration::ZERO, || self.table.delete(row)).await? {
                counter!(names::SOURCE_LEASES_DELETED).increment(1);
                tracing::info!(shard = %row.shard, "a lease that nobody needs any more is deleted");
            }
        }
        Ok(())
    }

    /// One odd shard must not hold up the others (spec R11).
    async fn create_if_possible(&self, lease: Lease) -> Result<Option<Lease>> {
        match self.create(lease).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.kind() == Kind::Invalid => {
                tracing::error!(%error, "a shard gets no lease; it is tried again with the next listing");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The row as it was written, or as it would have been where another worker was faster.
    async fn create(&self, lease: Lease) -> Result<Lease> {
        let lease = Lease { stream: Some(self.reader.arn().clone()), ..lease };
        let created = heal("leases", self.clock, &self.health, Duration::ZERO, || self.table.create(&lease)).await?;
        if created {
            tracing::info!(shard = %lease.shard, parents = ?lease.parents, from = ?lease.checkpoint, "lease created");
        }
        Ok(lease)
    }
}
