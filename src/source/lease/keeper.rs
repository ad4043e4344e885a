//! Keeps a lease that was taken: renewals, checkpoints (which are renewals too), and the local deadline after which it counts as lost (L2).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::counter;

use super::Me;
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::{health::Health, names},
    ports::{Checkpoint, Claim, Lease, LeaseTable, Moment, ShardId},
    source::{
        checkpoint::is_ahead,
        clock::Clock,
        heal::{self, Trouble},
        publish::Progress,
    },
};

/// A holder stops so long before anybody else may take its lease (L2): room for a write under way and for clocks of unequal speed.
const MARGIN: Duration = Duration::from_secs(2);

/// What all tenures of a worker share.
#[derive(Debug)]
pub struct Keeper<L> {
    pub table: Arc<L>,
    pub me: Me,
    pub failover: Duration,
    pub checkpoint_interval: Duration,
    pub throttle_delay: Duration,
    pub clock: Clock,
    pub health: Health,
    pub troubles: Troubles,
}

/// The rows that cannot be written. They outlive the tenure: a lease that is lost by that and taken again is still in the same trouble (H1).
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<ShardId, Trouble>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage of health that tells of one lease.
fn stage(shard: &ShardId) -> String {
    format!("lease {shard}")
}

/// Whether a lease may still be acted on. The only place that says so; stages ask it before each publish (L2).
#[derive(Debug, Clone)]
pub struct Holding {
    clock: Clock,
    until_millis: Arc<AtomicU64>,
}

impl Holding {
    #[cfg(test)]
    pub fn until_moment(clock: Clock, until: Moment) -> Self {
        let holding = Self { clock, until_millis: Arc::default() };
        holding.extend(until);
        holding
    }

    pub fn is_good(&self) -> bool {
        self.clock.now() < self.until()
    }

    fn extend(&self, until: Moment) {
        self.until_millis.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn until(&self) -> Moment {
        Duration::from_millis(self.until_millis.load(Ordering::Acquire))
    }
}

/// A lease that this worker holds. Only its tenure writes its row.
#[derive(Debug)]
pub struct Tenure<L> {
    keeper: Arc<Keeper<L>>,
    lease: Lease,
    holding: Holding,
    /// When the last write that succeeded was sent.
    confirmed: Moment,
    checkpointed: Moment,
}

enum Write<'a> {
    Renew,
    Checkpoint(&'a Checkpoint),
    Release,
}

/// What became of an attempt to take a lease.
#[derive(Debug)]
pub enum Taken<L> {
    Held(Tenure<L>),
    /// Somebody else wrote the row; as it is now.
    Refused(Option<Lease>),
}

impl<L: LeaseTable> Keeper<L> {
    pub async fn take(self: &Arc<Self>, seen: &Lease) -> Result<Taken<L>> {
        let from = match &seen.owner {
            None => "nobody",
            Some(owner) if *owner == self.me.id => "self",
            Some(_) => "other",
        };
        let mut seen = seen.clone();
        loop {
            let sent = self.clock.now();
            let take = self.table.take(&seen, &self.me.id, &self.me.nonce);
            match heal::within(self.call_limit(), &format!("take the lease of {}", seen.shard), take).await? {
                Claim::Held(lease) => {
                    counter!(names::SOURCE_LEASES_TAKEN, "from" => from).increment(1);
                    let holding = Holding { clock: self.clock, until_millis: Arc::new(AtomicU64::new(0)) };
                    let mut tenure = Tenure { keeper: self.clone(), lease, holding, confirmed: sent, checkpointed: sent };
                    tenure.confirm(sent);
                    return Ok(Taken::Held(tenure));
                }
                // Ours, but since when? It is held from the next write on (L2).
                Claim::Landed(row) => seen = row,
                Claim::Lost(row) => return Ok(Taken::Refused(row)),
            }
        }
    }

    /// The trouble with a lease is over for this worker when it is somebody else's, or nobody's any more. `row`: as seen last.
    pub fn forget<'s>(&self, row: impl Fn(&ShardId) -> Option<&'s Lease>) {
        self.troubles.lock().retain(|shard, _| {
            let open = |row: &Lease| row.checkpoint != Checkpoint::ShardEnd && (row.owner.is_none() || self.me.owns(row));
            let ours = row(shard).is_some_and(open);
            if !ours {
                self.health.green(&stage(shard));
            }
            ours
        });
    }

    fn renewal_interval(&self) -> Duration {
        self.failover / 3
    }

    /// A write that hangs must leave time for another try.
    fn call_limit(&self) -> Duration {
        self.failover / 3
    }
}

impl<L: LeaseTable> Tenure<L> {
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    pub fn holding(&self) -> Holding {
        self.holding.clone()
    }

    /// Renews the lease and writes what `progress` has to write, until SHARD_END is written.
    ///
    /// Errors with `LeaseLost` when another worker has it, or when it could not be renewed in time. Cancel-safe: a write that was under
    /// way is found again by the next one.
    pub async fn keep(&mut self, progress: &Progress) -> Result<()> {
        let keeper = self.keeper.clone();
        let (clock, stage) = (keeper.clock, stage(&self.lease.shard));
        let mut retry_at = Moment::ZERO;
        loop {
            let now = clock.now();
            if !self.holding.is_good() {
                counter!(names::SOURCE_LEASES_LOST).increment(1);
                return Err(self.lost("it could not be renewed in time"));
            }
            let due = progress.due();
            let renew_at = self.confirmed + keeper.renewal_interval();
            let write_at = match &due {
                Some(Checkpoint::ShardEnd) => now,
                Some(_) => renew_at.min(self.checkpointed + keeper.checkpoint_interval),
                None => renew_at,
            };
            let write_at = write_at.max(retry_at);
            if write_at > now {
                tokio::select! {
                    biased;
                    () = clock.sleep_until(write_at.min(self.holding.until())) => {}
                    () = progress.changed() => {}
                }
                continue;
            }
            let result = match &due {
                Some(checkpoint) => self.checkpoint(checkpoint, progress).await,
                None => self.write(Write::Renew).await,
            };
            match result {
                Ok(()) => {
                    if keeper.troubles.lock().remove(&self.lease.shard).is_some() {
                        keeper.health.green(&stage);
                    }
                    if due == Some(Checkpoint::ShardEnd) {
                        return Ok(());
                    }
                }
                Err(error) if error.retry() == Retry::Never => return Err(error),
                Err(error) => {
                    heal::count("lease", &error);
                    let (delay, serious) = {
                        let mut troubles = keeper.troubles.lock();
                        let trouble = troubles.entry(self.lease.shard.clone()).or_default();
                        let delay = trouble.failed(&error, Duration::ZERO, clock.now(), fastrand::f64());
                        (delay, trouble.is_serious(&error, clock.now()))
                    };
                    // Waiting longer than this would give the lease away.
                    retry_at = clock.now() + delay.min(keeper.failover / 10);
                    tracing::warn!(shard = %self.lease.shard, %error, "the lease was not written; it is tried again");
                    if serious {
                        keeper.health.red(stage.clone(), &error);
                    }
                }
            }
        }
    }

    /// The last checkpoint, then gives the lease up (Z1). Best effort: what fails here costs a takeover and duplicates, no records.
    pub async fn close(mut self, progress: &Progress) {
        if let Some(checkpoint) = progress.due()
            && let Err(error) = self.checkpoint(&checkpoint, progress).await
        {
            tracing::warn!(shard = %self.lease.shard, %error, "the last checkpoint was not written; its records will be published again");
        }
        if let Err(error) = self.write(Write::Release).await {
            tracing::warn!(shard = %self.lease.shard, %error, "the lease was not released; it is free after the failover time");
        }
    }

    async fn checkpoint(&mut self, checkpoint: &Checkpoint, progress: &Progress) -> Result<()> {
        debug_assert!(!is_ahead(&self.lease.checkpoint, checkpoint), "C2: {checkpoint:?} after {:?}", self.lease.checkpoint);
        self.write(Write::Checkpoint(checkpoint)).await?;
        progress.wrote(checkpoint);
        self.checkpointed = self.confirmed;
        counter!(names::SOURCE_CHECKPOINTS).increment(1);
        Ok(())
    }

    async fn write(&mut self, what: Write<'_>) -> Result<()> {
        if !self.holding.is_good() {
            return Err(self.lost("it could not be renewed in time"));
        }
        let (table, limit) = (self.keeper.table.clone(), self.keeper.call_limit());
        let doing = format!("write the lease of {}", self.lease.shard);
        loop {
            let sent = self.keeper.clock.now();
            let claim = match &what {
                Write::Renew => heal::within(limit, &doing, table.renew(&self.lease)).await?,
                Write::Checkpoint(checkpoint) => heal::within(limit, &doing, table.checkpoint(&self.lease, checkpoint)).await?,
                Write::Release => heal::within(limit, &doing, table.release(&self.lease)).await?,
            };
            match claim {
                Claim::Held(lease) => {
                    self.lease = lease;
                    self.confirm(sent);
                    return Ok(());
                }
                // Nothing is left to be kept.
                Claim::Landed(row) if matches!(what, Write::Release) => {
                    self.lease = row;
                    return Ok(());
                }
                // Written, but when? The next write tells from when on the lease is kept (L2).
                Claim::Landed(row) => self.lease = row,
                // Only this start writes this nonce: an earlier write of ours had landed although its reply was lost (spec R3).
                Claim::Lost(Some(row)) if self.keeper.me.owns(&row) && row.counter > self.lease.counter => self.lease = row,
                Claim::Lost(row) => {
                    counter!(names::SOURCE_LEASES_LOST).increment(1);
                    let by = row.map_or("its row is gone".into(), |row| match row.owner {
                        Some(owner) => format!("{owner} has taken it"),
                        None => "its row has no owner any more".into(),
                    });
                    return Err(self.lost(&by));
                }
            }
        }
    }

    /// A write that was sent at `sent` has succeeded: nobody can have seen the row unchanged for longer than since then.
    fn confirm(&mut self, sent: Moment) {
        self.confirmed = sent;
        let failover = self.keeper.failover;
        self.holding.extend(sent + failover.saturating_sub(MARGIN.min(failover / 5)));
    }

    fn lost(&self, why: &str) -> Error {
        Error::new(Kind::LeaseLost, format!("keep the lease of {}", self.lease.shard), why)
    }
}
