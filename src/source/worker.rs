//! The worker on one stream: takes leases, starts a task for each shard ([`consume`]) and ends them, until the stop or the stream's end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use metrics::gauge;
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
};

use super::{
    Shared,
    audit::{Audit, Audits, Scope},
    consume::{self, Outcome},
    heal::{self, Trouble},
    lease::{
        keeper::{Keeper, Taken},
        plan::{self, Plan},
        sightings::Sightings,
    },
};
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::names,
    ports::{Checkpoint, Lease, LeaseTable, Moment, Publisher, ShardId, StreamReader},
};

/// While an audit creates rows one after the other, the table is read again after this pause, and longer the more rows there are.
const CREATED_PAUSE: Duration = Duration::from_millis(100);
const ROW_PAUSE: Duration = Duration::from_micros(100);
/// Leases taken or asked for at once.
const TAKES_UNDER_WAY: usize = 16;
/// Shards that end in this time are looked at together: thousands may end in the same minute.
const COALESCE: Duration = Duration::from_millis(20);

/// A shard may be listed so late. Sooner a disabled stream is not taken for finished (D1).
const LATE: Duration = Duration::from_secs(20);

/// Stages of health.
const TAKE: &str = "take leases";
const LIMIT: &str = "lease limit";

/// How a worker has come to its end without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// The stream is disabled, and every shard of it is finished, whichever worker has read it.
    Drained,
    /// The stream does not exist any more, and its table has another one.
    Replaced,
}

/// What a task of the worker has come to.
enum Done<L> {
    Shard(ShardId, Result<Outcome>),
    Audit(Result<Audit>),
    /// The rows of the lease table, and when reading them began. `None` when the worker stops.
    Look(Moment, Option<Result<Vec<Lease>>>),
    Acted(Act<L>),
    /// Children that the end of their parent did not show, with leases.
    Late(Result<Vec<Lease>>),
}

/// How a lease is to become this worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Take,
    /// From an owner that lives.
    Steal,
    Ask,
}

/// One lease that was to be taken or asked for.
enum Act<L> {
    Take(ShardId, Result<Taken<L>>),
    Ask(ShardId, Result<Option<Lease>>),
    /// The worker stops.
    Left,
}

pub struct Worker<R, L, P> {
    shared: Arc<Shared<R, L, P>>,
    keeper: Arc<Keeper<L>>,
    seen: Sightings,
    /// The shards that have a task here: exactly those whose leases this worker holds.
    held: BTreeSet<ShardId>,
    tasks: JoinSet<Done<L>>,
    /// When the lease table is read; `None` while it is being read.
    next_look: Option<Moment>,
    last_look: Moment,
    /// Once more right after that.
    look_again: bool,
    /// When to plan, and to do what the plan says.
    act_at: Option<Moment>,
    /// Leases being taken or asked for, for which a new plan waits.
    acting: usize,
    act_failure: Option<Error>,
    takes: Arc<Semaphore>,
    /// The table was read since leases were taken from others: it happens once for each look.
    may_steal: bool,
    audits: Audits,
    scanning: Trouble,
    /// Since when, and when last, a listing has said that the stream is disabled and that each of its shards has a row.
    complete: Option<(Moment, Moment)>,
    drained: bool,
}

impl<R: StreamReader, L: LeaseTable, P: Publisher> Worker<R, L, P> {
    pub fn new(shared: Shared<R, L, P>, keeper: Arc<Keeper<L>>) -> Self {
        Self {
            shared: Arc::new(shared),
            keeper,
            seen: Sightings::default(),
            held: BTreeSet::new(),
            tasks: JoinSet::new(),
            next_look: Some(Moment::ZERO),
            last_look: Moment::ZERO,
            look_again: false,
            act_at: None,
            acting: 0,
            act_failure: None,
            takes: Arc::new(Semaphore::new(TAKES_UNDER_WAY)),
            may_steal: false,
            audits: Audits::new(),
            scanning: Trouble::default(),
            complete: None,
            drained: false,
        }
    }

    /// Runs until the stop or the stream's end, then drains (Z1). Errors only where neither time nor a person can heal it without a restart.
    pub async fn run(mut self) -> Result<Ended> {
        let result = self.work().await;
        self.drain(result).await
    }

    /// Until the stop, the stream's end, or the first error that nothing heals.
    async fn work(&mut self) -> Result<Ended> {
        let shared = self.shared.clone();
        while !self.drained {
            if let Some(error) = shared.parked.stuck(self.held.len(), shared.clock.now()) {
                return Err(error);
            }
            let act_at = self.act_at.filter(|_| self.acting == 0);
            // Whether the audit is this worker's is seen in the rows.
            let audit_at = self.audits.wake().filter(|_| self.seen.looked());
            let wake = [self.next_look, audit_at, act_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(Ended::Stopped),
                Some(done) = self.tasks.join_next() => self.done(done)?,
                () = shared.catalog.created() => self.look_by(self.last_look + CREATED_PAUSE + ROW_PAUSE * self.seen.len()),
                () = shared.clock.sleep_until(wake.unwrap_or(Moment::MAX)), if wake.is_some() => {
                    let now = shared.clock.now();
                    if self.next_look.is_some_and(|due| due <= now) {
                        self.look();
                    }
                    if act_at.is_some_and(|due| due <= now) {
                        self.act();
                    }
                    if audit_at.is_some_and(|due| due <= now) {
                        let policy = &self.keeper.policy;
                        let responsible = plan::is_auditor(&self.seen, &policy.me, now, policy.failover);
                        if let Some(scope) = self.audits.begin(now, responsible) {
                            self.audit(scope);
                        }
                    }
                }
            }
        }
        Ok(Ended::Drained)
    }

    fn done(&mut self, done: Result<Done<L>, JoinError>) -> Result<()> {
        let now = self.shared.clock.now();
        match done {
            Ok(Done::Shard(shard, result)) => {
                self.held.remove(&shard);
                gauge!(names::SOURCE_LEASES_HELD).set(self.held.len() as f64);
                match result? {
                    Outcome::Finished { lease, children } => {
                        match &children[..] {
                            [] => self.audits.childless(now),
                            [only] => self.look_for_sibling(lease.clone(), only.shard.clone()),
                            _ => {}
                        }
                        self.seen.saw(lease, now);
                        self.made(children, now);
                    }
                    // Who has it now is seen at the next look.
                    Outcome::Lost(lease) => {
                        self.seen.saw(lease, now);
                        self.look_by(now + COALESCE);
                    }
                    // Whoever held everything looks seldom, and has now somebody to look after.
                    Outcome::GivenUp(lease) => {
                        self.seen.saw(lease, now);
                        self.look_by(now + self.pause(now));
                    }
                }
                self.act_by(now + COALESCE);
            }
            Ok(Done::Look(began, Some(rows))) => return self.looked(began, rows),
            Ok(Done::Look(_, None)) => {}
            Ok(Done::Acted(act)) => return self.acted(act),
            Ok(Done::Late(children)) => {
                self.made(children?, now);
                self.act_by(now + COALESCE);
            }
            Ok(Done::Audit(result)) => {
                let audit = result?;
                self.audits.done(&audit, now);
                self.complete = audit.complete.then(|| (self.complete.map_or(now, |(since, _)| since), now));
                if audit.complete {
                    self.look_by(now);
                }
            }
            Err(panic) => return Err(Error::new(Kind::Fatal, "read the stream", format!("a task has failed: {panic}"))),
        }
        Ok(())
    }

    /// Children's rows that were created here are taken without reading the table, since thousands of shards may end in the same minute: of
    /// their parent all is known.
    fn made(&mut self, children: Vec<Lease>, now: Moment) {
        for child in children {
            if !self.seen.made(child, now) {
                self.look_by(now + COALESCE);
            }
        }
    }

    /// A shard that was split has two children, and the stream may show one of them late.
    fn look_for_sibling(&mut self, parent: Lease, known: ShardId) {
        let shared = self.shared.clone();
        self.tasks.spawn(shared.clock.run(async move {
            let late = shared.stop.run_until_cancelled(shared.catalog.lease_sibling(&parent, &known)).await;
            Done::Late(late.unwrap_or_else(|| Ok(Vec::new())))
        }));
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

    /// Reads the lease table.
    fn look(&mut self) {
        (self.next_look, self.last_look) = (None, self.shared.clock.now());
        let shared = self.shared.clone();
        let (keeper, began) = (self.keeper.clone(), shared.clock.now());
        self.tasks.spawn(shared.clock.run(async move {
            let rows = heal::within(heal::CALL_LIMIT, "list the leases", keeper.table.list());
            Done::Look(began, shared.stop.run_until_cancelled(rows).await)
        }));
    }

    fn look_by(&mut self, moment: Moment) {
        self.next_look = self.next_look.map(|due| due.min(moment));
        // The one that is under way may have begun too early.
        self.look_again |= self.next_look.is_none();
    }

    fn looked(&mut self, began: Moment, rows: Result<Vec<Lease>>) -> Result<()> {
        let now = self.shared.clock.now();
        match rows {
            Ok(rows) => {
                let rows: Vec<_> = rows.into_iter().filter(|row| self.shared.catalog.is_own(row)).collect();
                if !self.seen.looked() {
                    tell_start(&rows);
                }
                self.seen.listed(rows, began, now);
                self.keeper.forget(|shard| self.seen.row(shard));
            }
            Err(error) => return self.failed(error),
        }
        self.report();
        // A stream that goes on has a row that is not finished, but for moments: each shard's children have theirs before it ends.
        if self.acting == 0 && self.held.is_empty() && self.seen.rows().all(|row| row.checkpoint == Checkpoint::ShardEnd) {
            self.drained = self.complete.is_some_and(|(since, last)| since + LATE <= last && last <= began);
            self.audits.all_finished(now);
        }
        let pause = self.pause(now);
        // Not all workers at the same moments.
        let pause = if std::mem::take(&mut self.look_again) { COALESCE } else { pause.mul_f64(0.9 + 0.1 * fastrand::f64()) };
        self.next_look = Some(now + pause);
        self.may_steal = true;
        self.act_by(now);
        Ok(())
    }

    /// How long to wait before the table is read again.
    fn pause(&self, now: Moment) -> Duration {
        plan::pause(&self.seen, |shard| self.held.contains(shard), now, self.keeper.policy.failover)
    }

    fn act_by(&mut self, moment: Moment) {
        self.act_at = Some(self.act_at.map_or(moment, |earlier| earlier.min(moment)));
    }

    /// Does what the plan says.
    fn act(&mut self) {
        let shared = self.shared.clone();
        let now = shared.clock.now();
        let Plan { take, more, ask, steal, unread, wake } =
            plan::plan(&self.seen, &self.keeper.policy, |shard| self.held.contains(shard), now);
        self.act_at = if more { Some(now) } else { wake };
        if unread > 0 {
            let max = self.keeper.policy.max_leases;
            shared.health.red(LIMIT, format!("{unread} shards are read by nobody, and this worker holds the {max} leases that maxLeasesForWorker allows: raise it, or start another worker"));
        } else {
            shared.health.green(LIMIT);
        }
        let steal = if std::mem::take(&mut self.may_steal) { steal } else { Vec::new() };
        if take.is_empty() && ask.is_empty() && steal.is_empty() {
            self.healed();
            return;
        }
        for lease in &steal {
            tracing::info!(shard = %lease.shard, owner = ?lease.owner, "taking over, to share the leases fairly");
        }
        let by = |leases: Vec<Lease>, how: How| leases.into_iter().map(move |lease| (lease, how));
        for (lease, how) in by(take, How::Take).chain(by(steal, How::Steal)).chain(by(ask, How::Ask)) {
            // A row of the Java connector learns whose shard it is.
            let lease = Lease { stream: lease.stream.or_else(|| Some(shared.reader.arn().clone())), ..lease };
            let (keeper, takes, stop) = (self.keeper.clone(), self.takes.clone(), shared.stop.clone());
            self.acting += 1;
            self.tasks.spawn(shared.clock.run(async move {
                let _turn = takes.acquire().await;
                // Not given up half way: a lease that was taken for nobody would stay away for the failover time.
                Done::Acted(match how {
                    _ if stop.is_cancelled() => Act::Left,
                    How::Take | How::Steal => Act::Take(lease.shard.clone(), keeper.take(&lease, how == How::Steal).await),
                    How::Ask => Act::Ask(lease.shard.clone(), keeper.ask(&lease).await),
                })
            }));
        }
    }

    fn acted(&mut self, act: Act<L>) -> Result<()> {
        let now = self.shared.clock.now();
        self.acting -= 1;
        match act {
            // It is kept from now on, however long the others take.
            Act::Take(shard, Ok(Taken::Held(tenure))) => {
                self.seen.saw(tenure.lease().clone(), now);
                self.held.insert(shard.clone());
                gauge!(names::SOURCE_LEASES_HELD).set(self.held.len() as f64);
                let shared = self.shared.clone();
                self.tasks.spawn(shared.clock.run(async move { Done::Shard(shard, consume::consume(&shared, tenure).await) }));
            }
            Act::Take(_, Ok(Taken::Refused(Some(row)))) => self.seen.saw(row, now),
            Act::Ask(_, Ok(Some(row))) => self.seen.asked(row, now),
            Act::Take(shard, Ok(Taken::Refused(None))) | Act::Ask(shard, Ok(None)) => self.seen.gone(&shard),
            Act::Take(_, Err(error)) | Act::Ask(_, Err(error)) => self.act_failure = Some(error),
            Act::Left => {}
        }
        if self.acting > 0 {
            return Ok(());
        }
        match self.act_failure.take() {
            Some(error) => self.failed(error),
            None => {
                self.healed();
                // What was refused may make another plan.
                self.act_by(now + COALESCE);
                Ok(())
            }
        }
    }

    fn healed(&mut self) {
        if self.scanning.healed() {
            self.shared.health.green(TAKE);
        }
    }

    /// What the lease table looks like from here.
    fn report(&self) {
        let census = plan::census(&self.seen, self.shared.clock.now(), self.keeper.policy.failover);
        gauge!(names::SOURCE_LEASES).set(census.leases as f64);
        gauge!(names::SOURCE_LEASES_FREE).set(census.free as f64);
        gauge!(names::SOURCE_WORKERS).set(census.workers as f64);
    }

    /// The table is read again after a pause, and then planned anew.
    fn failed(&mut self, error: Error) -> Result<()> {
        heal::count("leases", &error);
        if error.retry() == Retry::Never {
            return Err(error);
        }
        let now = self.shared.clock.now();
        self.next_look = Some(now + self.scanning.failed(&error, self.keeper.throttle_delay, now, fastrand::f64()));
        self.act_at = None;
        tracing::warn!(%error, "leases were not taken; it is tried again");
        if self.scanning.is_serious(&error, now) {
            self.shared.health.red(TAKE, &error);
        }
        Ok(())
    }

    /// Z1: stops the shards, which settle, checkpoint and release. The first error is the one to tell.
    async fn drain(mut self, mut result: Result<Ended>) -> Result<Ended> {
        let replaced = |error: &Error| error.kind() == Kind::StreamReplaced;
        match &result {
            Err(error) if replaced(error) => tracing::warn!(%error, "the stream is left"),
            Err(error) => tracing::error!(%error, "stopping"),
            Ok(_) => {}
        }
        self.shared.stop.cancel();
        while let Some(done) = self.tasks.join_next().await {
            if let Err(error) = self.done(done)
                && !replaced(&error)
            {
                tracing::error!(%error, "while stopping");
                // What is lost with a stream is told later, unless something is worse.
                result = if result.as_ref().is_err_and(replaced) { Err(error) } else { result.and(Err(error)) };
            }
        }
        let me = &self.keeper.policy.me;
        let half_way: Vec<_> = self.seen.rows().filter(|row| row.wanted_by.as_ref() == Some(me) || me.owns(row)).collect();
        for (lease, left) in half_way.iter().zip(join_all(half_way.iter().map(|lease| self.keeper.leave(lease))).await) {
            if let Err(error) = left {
                tracing::warn!(shard = %lease.shard, %error, "the lease is free after the failover time");
            }
        }
        self.shared.health.green(TAKE);
        self.shared.catalog.leave();
        result.or_else(|error| if replaced(&error) { Ok(Ended::Replaced) } else { Err(error) })
    }
}

/// People set a start position and wonder why it does not count (spec R14).
fn tell_start(rows: &[Lease]) {
    let unfinished = rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd).count();
    if unfinished > 0 {
        tracing::info!(
            leases = unfinished,
            "going on from the checkpoints of the lease table: initialPositionInStream counts only for shards without a lease, and `leases reset` sets \
             another position"
        );
    }
}
