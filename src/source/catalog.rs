//! Asks the stream for its shards, within the budget of DescribeStream, and gives those that need one a lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{counter, histogram};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    Settings, StartPosition,
    audit::{Audit, Scope},
    clock::Clock,
    discover::{self, Listing, Rows, Times},
    follow::Succession,
    garbage,
    heal::{self, heal},
    succession,
};
use crate::{
    error::{Error, Kind, Result},
    metrics::{health::Health, names},
    ports::{Lease, LeaseTable, Moment, Shard, ShardId, ShardPage, StreamReader, StreamStatus},
};

/// All consumers of a stream share ten DescribeStream calls a second; this worker leaves half of them.
pub const DESCRIBE_INTERVAL: Duration = Duration::from_millis(200);
/// The children of a shard that has ended show up late at times: so often and so long it is asked again, doubling.
const CHILDREN_TRIES: u32 = 10;
const CHILDREN_FIRST_DELAY: Duration = Duration::from_millis(50);
const CHILDREN_DELAY_CEILING: Duration = Duration::from_secs(1);
/// When more shards than that have ended at the same time, one listing for all of them costs less than a call for each.
const FEW: usize = 3;
/// Rows deleted after one listing, one after the other: what an audit may cost the lease table.
const DELETIONS: usize = 1_000;

/// The stage of health that tells of the stream itself.
const STREAM: &str = "stream";
/// The stage of health that tells of DescribeStream.
const DISCOVER: &str = "discover";
/// The stage of health that tells of shards which wait for an ancestor.
const POSTPONED: &str = "discover postponed";

/// What an ended shard waits for: its children as far as the stream shows them, and whether more may come.
type Found = (Vec<Shard>, bool);

#[derive(Debug)]
pub struct Catalog<R, L> {
    reader: Arc<R>,
    table: Arc<L>,
    start: StartPosition,
    /// The time of the first start, where LATEST needs it.
    started_millis: i64,
    clock: Clock,
    health: Health,
    /// When DescribeStream may be called next.
    next_call: tokio::sync::Mutex<Instant>,
    /// The endpoint does not know CHILD_SHARDS.
    unfiltered: AtomicBool,
    /// The ended shards whose children are looked for.
    waiting: Mutex<BTreeMap<ShardId, oneshot::Sender<Found>>>,
    /// Held by the one that looks for all of them.
    finder: tokio::sync::Mutex<()>,
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
        Self {
            reader,
            table,
            start: settings.start,
            started_millis: settings.started_at,
            clock,
            health,
            next_call: tokio::sync::Mutex::new(Instant::now()),
            unfiltered: AtomicBool::new(false),
            waiting: Mutex::default(),
            finder: tokio::sync::Mutex::default(),
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
        while self.turn_page(&mut pages).await? {
            let listing = &pages.listing;
            // Each look is at the whole list, so the next one waits until it has grown by a part of itself.
            if !listing.is_complete() && listing.len() < looked_at + looked_at / 4 {
                continue;
            }
            looked_at = listing.len();
            let times = Times { started: self.started_millis, now: self.clock.epoch_millis() };
            let missing = discover::missing(listing, &rows, self.start, times);
            for lease in missing.leases {
                match self.create_if_possible(lease).await? {
                    Some(lease) => {
                        rows.created(lease);
                        audit.created += 1;
                        self.created.notify_one();
                    }
                    None => refused = true,
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
            let (children, grows) = self.children(&parent.shard).await?;
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

    /// One attempt, together with all others that wait at the same time: one of them asks for all.
    async fn children(&self, parent: &ShardId) -> Result<Found> {
        let (sender, mut receiver) = oneshot::channel();
        self.lock_waiting().insert(parent.clone(), sender);
        let _entry = Waits { catalog: self, parent };
        let found = tokio::select! {
            biased;
            found = &mut receiver => found.ok(),
            _turn = self.finder.lock() => match receiver.try_recv() {
                Ok(found) => Some(found),
                Err(_) => Some(self.find(parent).await?),
            },
        };
        // Nobody drops a sender without an answer but this very call.
        found.ok_or_else(|| Error::new(Kind::Fatal, format!("find the children of {parent}"), "nobody has answered"))
    }

    /// Finds the children of `parent`, and answers others that wait where that costs nothing more.
    async fn find(&self, parent: &ShardId) -> Result<Found> {
        let crowd: Vec<ShardId> = self.lock_waiting().keys().cloned().collect();
        if crowd.len() <= FEW && !self.unfiltered.load(Ordering::Relaxed) {
            // A parent that is trimmed is not known any more; a stream that is gone tells so when it is listed.
            let unless_missing = |answer: Result<_>| match answer {
                Err(error) if error.kind() == Kind::NotFound => Ok(Err(error)),
                answer => answer.map(Ok),
            };
            match self.call(|| async { unless_missing(self.reader.children(parent).await) }).await? {
                Ok(Some(mut page)) => {
                    page.shards.retain(|shard| shard.parent.as_ref() == Some(parent));
                    return Ok((page.shards, grows(page.status)));
                }
                Ok(None) => self.unfiltered.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "the stream is listed instead"),
            }
        }
        // Children are opened after their parents, and listed after them.
        let mut pages = Pages::after(crowd.first().cloned());
        let mut own = None;
        while self.turn_page(&mut pages).await? {
            let mut waiting = self.lock_waiting();
            for (family, children) in discover::families(&pages.listing, |shard| waiting.contains_key(shard)) {
                if family == *parent {
                    own = Some(children);
                } else if let Some(waits) = waiting.remove(&family) {
                    let _ = waits.send((children, true));
                }
            }
            if own.is_some() && !crowd.iter().any(|shard| shard != parent && waiting.contains_key(shard)) {
                break;
            }
        }
        let grows = grows(pages.status);
        if pages.listing.is_complete() {
            let mut waiting = self.lock_waiting();
            for childless in crowd.iter().filter(|shard| *shard != parent).filter_map(|shard| waiting.remove(shard)) {
                let _ = childless.send((Vec::new(), grows));
            }
        }
        Ok((own.unwrap_or_default(), grows))
    }

    fn lock_waiting(&self) -> MutexGuard<'_, BTreeMap<ShardId, oneshot::Sender<Found>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a shard that "does not exist" is trimmed. Waits, with red health, while the stream itself is gone.
    pub async fn existence(&self, shard: &ShardId) -> Result<Existence> {
        let asked = Instant::now();
        let mut last = self.last_listing.lock().await;
        if last.as_ref().is_none_or(|(begun, _)| *begun < asked) {
            let (begun, mut pages) = (Instant::now(), Pages::after(None));
            while self.turn_page(&mut pages).await? {}
            *last = Some((begun, pages.listing.shards().map(|shard| shard.id.clone()).collect()));
        }
        let listed = last.as_ref().is_some_and(|(_, shards)| shards.contains(shard));
        // A listing may lag behind. What is younger than the stream's retention cannot have been trimmed, whatever it says (D1).
        Ok(if listed || discover::is_young(shard, self.clock.epoch_millis()) { Existence::Listed } else { Existence::Trimmed })
    }

    /// Adds the next page; `false` when there is none.
    async fn turn_page(&self, pages: &mut Pages) -> Result<bool> {
        if pages.listing.is_complete() {
            return Ok(false);
        }
        let page = match self.call(|| self.list(pages.after.as_ref())).await {
            // The shard to start from is not there any more.
            Err(error) if error.kind() == Kind::Invalid && pages.after.is_some() && pages.listing.is_empty() => {
                tracing::warn!(%error, "the stream is listed from its beginning");
                *pages = Pages::after(None);
                self.call(|| self.list(None)).await?
            }
            answer => answer?,
        };
        pages.status = page.status;
        pages.listing.add(page.shards, page.next.is_none());
        pages.after = page.next;
        Ok(true)
    }

    /// One page, or what its absence means.
    async fn list(&self, after: Option<&ShardId>) -> Result<ShardPage> {
        let error = match self.reader.list_shards(after).await {
            Err(error) if error.kind() == Kind::NotFound => error,
            answer => return answer,
        };
        self.succession.hurry();
        Err(match after {
            Some(_) => Error::new(Kind::Invalid, "list the stream from a shard on", error),
            None if self.succession.has_successor() => Error::new(Kind::StreamReplaced, format!("read {}", self.reader.arn()), error.why()),
            None => error,
        })
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

    async fn call<T, Fut: Future<Output = Result<T>>>(&self, mut call: impl FnMut() -> Fut) -> Result<T> {
        heal(DISCOVER, self.clock, &self.health, Duration::ZERO, || {
            let call = call();
            async {
                self.turn().await;
                call.await
            }
        })
        .await
    }

    /// Waits for this call's place in the budget.
    async fn turn(&self) {
        let came = Instant::now();
        // Held while it sleeps, and moved on after that: a caller that gives up in between leaves nothing reserved.
        let mut next = self.next_call.lock().await;
        tokio::time::sleep_until(*next).await;
        *next = Instant::now() + DESCRIBE_INTERVAL;
        histogram!(names::SOURCE_DESCRIBE_WAIT).record(came.elapsed());
    }
}

/// A listing of the stream under way.
struct Pages {
    listing: Listing,
    status: StreamStatus,
    after: Option<ShardId>,
}

impl Pages {
    fn after(from: Option<ShardId>) -> Self {
        Self { listing: Listing::after(from.clone()), status: StreamStatus::Enabled, after: from }
    }
}

fn grows(status: StreamStatus) -> bool {
    matches!(status, StreamStatus::Enabled | StreamStatus::Enabling)
}

/// An ended shard in the list of those that wait, until it has its answer or gives up.
struct Waits<'a, R, L> {
    catalog: &'a Catalog<R, L>,
    parent: &'a ShardId,
}

impl<R, L> Drop for Waits<'_, R, L> {
    fn drop(&mut self) {
        self.catalog.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.parent);
    }
}
