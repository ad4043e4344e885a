//! Keeps a lease that was taken: renewals, checkpoints (which are renewals too), and the local deadline after which it counts as lost (L2).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::counter;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{mark, plan::Policy};
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::{health::Health, names},
    ports::{Checkpoint, Claim, Holder, Lease, LeaseTable, Mark, Moment, ShardId, WhileHeld},
    source::{
        Settings,
        checkpoint::is_ahead,
        clock::Clock,
        heal::{self, Trouble},
        progress::Progress,
    },
};

/// A holder stops so long before anybody else may take its lease (L2): room for a write under way and for clocks of unequal speed.
const MARGIN: Duration = Duration::from_secs(2);

/// Writes of leases under way at once, over all leases of a worker. Ten thousand leases make 3,000 renewals a second: 64 are enough while a
/// write takes up to 20 ms, and a table that has become slow is not flooded.
const WRITES_UNDER_WAY: usize = 64;

/// What all tenures of a worker share.
#[derive(Debug)]
pub struct Keeper<L> {
    pub table: Arc<L>,
    pub policy: Policy,
    pub throttle_delay: Duration,
    checkpoint_interval: Duration,
    rewind_on_adopt: Duration,
    writes: Semaphore,
    clock: Clock,
    health: Health,
    troubles: Troubles,
    /// Leases that are not to be released before this process has ended (D2).
    withheld: Mutex<BTreeSet<ShardId>>,
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
    /// Somebody was told that it is over. It stays over then: what comes later must not go out without what was left out (O1).
    over: Arc<AtomicBool>,
}

impl Holding {
    fn new(clock: Clock, until: Moment) -> Self {
        let holding = Self { clock, until_millis: Arc::default(), over: Arc::default() };
        holding.extend(until);
        holding
    }

    #[cfg(test)]
    pub fn until_moment(clock: Clock, until: Moment) -> Self {
        Self::new(clock, until)
    }

    fn is_good(&self) -> bool {
        if self.clock.now() >= self.until() {
            self.over.store(true, Ordering::Release);
        }
        !self.over.load(Ordering::Acquire)
    }

    /// For what is on its way to Pulsar.
    pub fn while_held(&self) -> WhileHeld {
        let holding = self.clone();
        WhileHeld::new(move || holding.is_good())
    }

    /// Errors with `LeaseLost` where it may not.
    pub fn still_good(&self, shard: &ShardId) -> Result<()> {
        if self.is_good() {
            return Ok(());
        }
        Err(Error::new(Kind::LeaseLost, format!("publish records of {shard}"), "the lease was not renewed in time"))
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
    /// The note in the row was told to whoever keeps it.
    told: bool,
    /// An owner before may have published records after the checkpoint that the row had when it was taken.
    pub goes_on: bool,
}

/// How a lease was given up.
#[derive(Debug)]
pub struct Closed {
    /// The row as it is then, as far as that is known.
    pub lease: Lease,
    /// Something was published that the row's checkpoint does not tell of.
    pub unsettled: bool,
}

/// Why [`Tenure::keep`] has come back.
#[derive(Debug)]
pub enum Kept {
    /// SHARD_END is written.
    Ended,
    /// Another worker asks for the lease, which may go now. Told once; the lease has to be kept on until it is handed over.
    Asked(Holder),
}

enum Write<'a> {
    Renew,
    Checkpoint(&'a Mark),
    Release,
    HandOver(&'a Holder),
}

/// What became of an attempt to take a lease.
#[derive(Debug)]
pub enum Taken<L> {
    Held(Tenure<L>),
    /// Somebody else wrote the row; as it is now.
    Refused(Option<Lease>),
}

impl<L: LeaseTable> Keeper<L> {
    pub fn new(table: Arc<L>, settings: &Settings, nonce: String, clock: Clock, health: Health) -> Self {
        let policy = Policy {
            me: Holder { id: settings.worker_id.clone(), nonce },
            failover: settings.failover,
            // Time to notice it, and to drain.
            ask_limit: settings.failover + settings.drain_timeout,
            max_leases: settings.max_leases,
            assume_dead: settings.assume_dead.clone(),
        };
        Self {
            table,
            policy,
            throttle_delay: settings.backoff,
            checkpoint_interval: settings.checkpoint_interval,
            rewind_on_adopt: settings.rewind_on_adopt,
            writes: Semaphore::new(WRITES_UNDER_WAY),
            clock,
            health,
            troubles: Troubles::default(),
            withheld: Mutex::default(),
        }
    }

    /// `steals`: from an owner that lives.
    pub async fn take(self: &Arc<Self>, seen: &Lease, steals: bool) -> Result<Taken<L>> {
        let _turn = self.turn().await?;
        let me = &self.policy.me;
        let from = match &seen.owner {
            None => "nobody",
            Some(_) if me.owns(seen) => "asked",
            Some(owner) if *owner == me.id => "self",
            Some(_) if steals => "living",
            Some(_) => "silent",
        };
        let mut seen = seen.clone();
        loop {
            let goes_on = mark::goes_on(&seen);
            let rewound = mark::is_rewound(&seen, self.rewind_on_adopt);
            seen.mark = (!rewound).then(|| mark::go_on(&seen, self.clock.epoch_millis()));
            let sent = self.clock.now();
            let take = self.table.take(&seen, &me.id, &me.nonce);
            match heal::within(self.call_limit(), &format!("take the lease of {}", seen.shard), take).await? {
                Claim::Held(lease) => {
                    counter!(names::SOURCE_LEASES_TAKEN, "from" => from).increment(1);
                    let holding = Holding::new(self.clock, Moment::ZERO);
                    let mut tenure =
                        Tenure { keeper: self.clone(), lease, holding, confirmed: sent, checkpointed: sent, told: false, goes_on };
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
            let open = |row: &Lease| row.checkpoint != Checkpoint::ShardEnd && (row.owner.is_none() || self.policy.me.owns(row));
            let ours = row(shard).is_some_and(open);
            if !ours {
                self.health.green(&stage(shard));
            }
            ours
        });
    }

    /// Asks the owner for its lease. Returns the row as it is now.
    pub async fn ask(&self, seen: &Lease) -> Result<Option<Lease>> {
        let _turn = self.turn().await?;
        let ask = self.table.ask(seen, &self.policy.me);
        match heal::within(self.call_limit(), &format!("ask for the lease of {}", seen.shard), ask).await? {
            Claim::Held(row) | Claim::Landed(row) => Ok(Some(row)),
            Claim::Lost(row) => Ok(row),
        }
    }

    /// Leaves a row alone that was asked for, or is this worker's although nobody holds it here: nobody else would have it for the failover
    /// time. Best effort.
    pub async fn leave(&self, seen: &Lease) -> Result<()> {
        if self.withheld().contains(&seen.shard) {
            return Ok(());
        }
        let _turn = self.turn().await?;
        let doing = format!("leave the lease of {}", seen.shard);
        let row = if self.policy.me.owns(seen) {
            Some(seen.clone())
        } else {
            match heal::within(self.call_limit(), &doing, self.table.withdraw(seen, &self.policy.me)).await? {
                Claim::Held(_) | Claim::Landed(_) => None,
                Claim::Lost(row) => row.filter(|row| self.policy.me.owns(row)),
            }
        };
        if let Some(row) = row {
            heal::within(self.call_limit(), &doing, self.table.release(&row)).await?;
        }
        Ok(())
    }

    fn withheld(&self) -> MutexGuard<'_, BTreeSet<ShardId>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among the writes under way.
    async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        self.writes.acquire().await.map_err(|_| Error::new(Kind::Fatal, "write a lease", "the worker has ended"))
    }

    fn renewal_interval(&self) -> Duration {
        self.policy.failover / 3
    }

    /// A write that hangs must leave time for another try.
    fn call_limit(&self) -> Duration {
        self.policy.failover / 3
    }
}

impl<L: LeaseTable> Tenure<L> {
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    pub fn holding(&self) -> Holding {
        self.holding.clone()
    }

    /// Renews the lease and writes what `progress` has to write, until SHARD_END is written or somebody asks for the lease.
    ///
    /// Errors with `LeaseLost` when another worker has it, or when it could not be renewed in time. Cancel-safe: a write that was under
    /// way is found again by the next one.
    pub async fn keep(&mut self, progress: &Progress) -> Result<Kept> {
        let keeper = self.keeper.clone();
        let (clock, stage) = (keeper.clock, stage(&self.lease.shard));
        let mut retry_at = Moment::ZERO;
        loop {
            let now = clock.now();
            if !self.holding.is_good() {
                counter!(names::SOURCE_LEASES_LOST).increment(1);
                return Err(self.lost("it could not be renewed in time"));
            }
            if !self.told
                && let Some(asker) = &self.lease.wanted_by
                && *asker != keeper.policy.me
                && (progress.is_past_doubt() || !progress.has_producer())
            {
                self.told = true;
                return Ok(Kept::Asked(asker.clone()));
            }
            let due = progress.due();
            let is_end = due.as_ref().is_some_and(|mark| mark.checkpoint == Checkpoint::ShardEnd);
            let renew_at = self.confirmed + keeper.renewal_interval();
            let write_at = match &due {
                Some(_) if is_end || progress.is_pressing() => now,
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
                Some(mark) => self.checkpoint(mark, progress).await,
                None => self.write(Write::Renew).await,
            };
            match result {
                Ok(()) => {
                    if keeper.troubles.lock().remove(&self.lease.shard).is_some() {
                        keeper.health.green(&stage);
                    }
                    if is_end {
                        return Ok(Kept::Ended);
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
                    retry_at = clock.now() + delay.min(keeper.policy.failover / 10);
                    tracing::warn!(shard = %self.lease.shard, %error, "the lease was not written; it is tried again");
                    if serious {
                        keeper.health.red(stage.clone(), &error);
                    }
                }
            }
        }
    }

    /// The last checkpoint, then gives the lease up (Z1), to `to` where that is given. Best effort: what fails here costs a takeover and
    /// duplicates, no records. With nothing left that may be published again, the epoch of its numbers ends (D2).
    pub async fn close(mut self, progress: &Progress, to: Option<&Holder>) -> Closed {
        if let Some(mark) = progress.due()
            && let Err(error) = self.checkpoint(&mark, progress).await
        {
            tracing::warn!(shard = %self.lease.shard, %error, "the last checkpoint was not written; its records will be published again");
        }
        let unsettled = progress.waiting() > 0 || progress.due().is_some();
        if unsettled && progress.has_producer() {
            tracing::warn!(shard = %self.lease.shard, "the lease is not released, since not all was published or checkpointed; it is free after the failover time");
            self.keeper.withheld().insert(self.lease.shard.clone());
            return Closed { lease: self.lease, unsettled };
        }
        if !unsettled && progress.is_past_doubt() {
            self.lease.mark = self.lease.mark.map(mark::closed);
        }
        let write = match to {
            Some(holder) => Write::HandOver(holder),
            None => Write::Release,
        };
        if let Err(error) = self.write(write).await {
            tracing::warn!(shard = %self.lease.shard, %error, "the lease was not released; it is free after the failover time");
        }
        Closed { lease: self.lease, unsettled }
    }

    async fn checkpoint(&mut self, mark: &Mark, progress: &Progress) -> Result<()> {
        debug_assert!(!is_ahead(&self.lease.checkpoint, &mark.checkpoint), "C2: {mark:?} after {:?}", self.lease.checkpoint);
        self.write(Write::Checkpoint(mark)).await?;
        progress.wrote(mark);
        self.checkpointed = self.confirmed;
        counter!(names::SOURCE_CHECKPOINTS).increment(1);
        Ok(())
    }

    async fn write(&mut self, mut what: Write<'_>) -> Result<()> {
        let (keeper, limit) = (self.keeper.clone(), self.keeper.call_limit());
        let table = &keeper.table;
        let doing = format!("write the lease of {}", self.lease.shard);
        let _turn = keeper.turn().await?;
        if !self.holding.is_good() {
            return Err(self.lost("it could not be renewed in time"));
        }
        loop {
            let sent = self.keeper.clock.now();
            let claim = match &what {
                Write::Renew => heal::within(limit, &doing, table.renew(&self.lease)).await?,
                Write::Checkpoint(mark) => heal::within(limit, &doing, table.checkpoint(&self.lease, mark)).await?,
                Write::Release => heal::within(limit, &doing, table.release(&self.lease)).await?,
                Write::HandOver(to) => heal::within(limit, &doing, table.hand_over(&self.lease, to)).await?,
            };
            match claim {
                Claim::Held(lease) => {
                    self.lease = lease;
                    self.confirm(sent);
                    return Ok(());
                }
                // Nothing is left to be kept.
                Claim::Landed(row) if matches!(what, Write::Release | Write::HandOver(_)) => {
                    self.lease = row;
                    return Ok(());
                }
                // Written, but when? The next write tells from when on the lease is kept (L2).
                Claim::Landed(row) => self.lease = row,
                // Only this start writes this nonce: an earlier write of ours had landed although its reply was lost (spec R3).
                Claim::Lost(Some(row)) if self.keeper.policy.me.owns(&row) && row.counter > self.lease.counter => self.lease = row,
                // Whoever asked for it has thought better of it: anybody may have it.
                Claim::Lost(Some(row)) if matches!(what, Write::HandOver(_)) && self.keeper.policy.me.owns(&row) => {
                    self.lease = row;
                    what = Write::Release;
                }
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
        let failover = self.keeper.policy.failover;
        self.holding.extend(sent + failover.saturating_sub(MARGIN.min(failover / 5)));
    }

    fn lost(&self, why: &str) -> Error {
        Error::new(Kind::LeaseLost, format!("keep the lease of {}", self.lease.shard), why)
    }
}
