//! Asks the stream for its shards, within the budget of DescribeStream, and gives those that need one a lease.

use std::{sync::Arc, time::Duration};

use metrics::histogram;
use tokio::time::Instant;

use super::{
    StartPosition,
    clock::Clock,
    discover::{self, Missing, Times},
    heal::heal,
};
use crate::{
    error::Result,
    metrics::{health::Health, names},
    ports::{Lease, LeaseTable, Shard, ShardId, StreamReader, StreamStatus},
};

/// All consumers of a stream share ten DescribeStream calls a second; this worker leaves half of them.
const DESCRIBE_INTERVAL: Duration = Duration::from_millis(200);
/// The children of a shard that has ended show up late at times: so often and so long it is asked again, doubling.
const CHILDREN_TRIES: u32 = 10;
const CHILDREN_FIRST_DELAY: Duration = Duration::from_millis(50);
const CHILDREN_DELAY_CEILING: Duration = Duration::from_secs(1);

/// The stage of health that tells of the stream itself.
const STREAM: &str = "stream";

#[derive(Debug)]
pub struct Catalog<R, L> {
    reader: Arc<R>,
    table: Arc<L>,
    start: StartPosition,
    /// The time of the first start, where LATEST needs it.
    started_millis: i64,
    clock: Clock,
    health: Health,
    throttle_delay: Duration,
    /// When DescribeStream may be called next.
    next_call: tokio::sync::Mutex<Instant>,
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
    pub fn new(
        reader: Arc<R>,
        table: Arc<L>,
        (start, started_millis): (StartPosition, i64),
        clock: Clock,
        health: Health,
        throttle_delay: Duration,
    ) -> Self {
        let next_call = tokio::sync::Mutex::new(Instant::now());
        Self { reader, table, start, started_millis, clock, health, throttle_delay, next_call }
    }

    /// Lists the whole stream and creates the leases that are missing. Returns what it found.
    ///
    /// Each call is repeated until it succeeds; errors only with what neither time nor a person heals.
    pub async fn create_missing(&self) -> Result<Missing> {
        // The rows first: a lease that appears meanwhile makes a creation that does nothing, where a shard that appears
        // meanwhile could otherwise be taken for one without leased ancestors.
        let leases = heal("leases", self.clock, &self.health, self.throttle_delay, || self.table.list()).await?;
        let (status, shards) = self.list().await?;
        // Not an error, but nothing more will come from here (H1).
        if matches!(status, StreamStatus::Disabling | StreamStatus::Disabled) {
            self.health.red(
                STREAM,
                "the stream is disabled: what is in it is still read; a stream that is enabled again has a new ARN, which a restart finds",
            );
        } else {
            self.health.green(STREAM);
        }
        let missing =
            discover::missing(&shards, &leases, self.start, Times { started: self.started_millis, now: self.clock.epoch_millis() });
        if !leases.is_empty() && self.start != StartPosition::TrimHorizon {
            tracing::debug!(
                leases = leases.len(),
                "shards with leases, and their children, go on from there; the start position is for others"
            );
        }
        if !missing.postponed.is_empty() {
            tracing::warn!(shards = ?missing.postponed, "an ancestor is not listed yet; these shards wait for it");
        }
        for lease in &missing.leases {
            self.create(lease.clone()).await?;
        }
        tracing::debug!(shards = shards.len(), ?status, created = missing.leases.len(), "the stream was listed");
        Ok(missing)
    }

    /// The children of a shard that has ended; they get leases. Empty where the stream shows none, even after some patience:
    /// then the audit finds them, or there are none, since the stream is disabled.
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

    /// Whether a shard that "does not exist" is trimmed. Waits, with red health, while the stream itself is gone.
    pub async fn existence(&self, shard: &ShardId) -> Result<Existence> {
        let (_, shards) = self.list().await?;
        // A listing may lag behind. What is younger than the stream's retention cannot have been trimmed, whatever it says (D1).
        let listed = shards.iter().any(|other| other.id == *shard) || discover::is_young(shard, self.clock.epoch_millis());
        Ok(if listed { Existence::Listed } else { Existence::Trimmed })
    }

    async fn list(&self) -> Result<(StreamStatus, Vec<Shard>)> {
        let (mut shards, mut after) = (Vec::new(), None);
        loop {
            let page = self.call(|| self.reader.list_shards(after.as_ref())).await?;
            shards.extend(page.shards);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((page.status, shards)),
            }
        }
    }

    /// By CHILD_SHARDS, or from a full listing where the endpoint does not know that; and whether more may come.
    async fn children(&self, parent: &ShardId) -> Result<(Vec<Shard>, bool)> {
        let (status, mut shards) = match self.call(|| self.reader.children(parent)).await? {
            Some(page) => (page.status, page.shards),
            None => self.list().await?,
        };
        shards.retain(|shard| shard.parent.as_ref() == Some(parent));
        Ok((shards, matches!(status, StreamStatus::Enabled | StreamStatus::Enabling)))
    }

    /// The row as it was written, or as it would have been where another worker was faster.
    async fn create(&self, lease: Lease) -> Result<Lease> {
        let lease = Lease { stream: Some(self.reader.arn().clone()), ..lease };
        let created = heal("leases", self.clock, &self.health, self.throttle_delay, || self.table.create(&lease)).await?;
        if created {
            tracing::info!(shard = %lease.shard, parents = ?lease.parents, from = ?lease.checkpoint, "lease created");
        }
        Ok(lease)
    }

    async fn call<T, Fut: Future<Output = Result<T>>>(&self, mut call: impl FnMut() -> Fut) -> Result<T> {
        heal("discover", self.clock, &self.health, self.throttle_delay, || {
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
        // Held while it sleeps, and moved on after that: a caller that gives up in between leaves nothing reserved.
        let mut next = self.next_call.lock().await;
        let came = Instant::now();
        tokio::time::sleep_until(*next).await;
        histogram!(names::SOURCE_DESCRIBE_WAIT).record(came.elapsed());
        *next = Instant::now() + DESCRIBE_INTERVAL;
    }
}
