//! One random schedule: what happens to a fleet, what has to be true at its end.

use std::time::Duration;

use pulsar_io_dynamodb::{
    ports::{Checkpoint, ShardId},
    source::{Settings, StartPosition, poison::Policy},
};
use tokio::time::Instant;

use super::{Gaps, outcome::Outcome};
use crate::support::source::{BEGIN_MILLIS, Call, DEAD_LETTERS, Fault, Refused, Run, Service, World, number, once, settings};

const ITEMS: u32 = 8;
const MAX_WORKERS: usize = 5;
/// After the last fault, everything has to be in order within that time: a child that the end of its parent did not show waits for the slow audit,
/// which is every five minutes.
const PATIENCE: Duration = Duration::from_secs(360);
/// An idle shard is read at least so often.
const READ_PAUSE: Duration = Duration::from_secs(2);
const HOUR_MILLIS: i64 = 3_600_000;

/// A worker of the fleet.
struct Member {
    run: Run,
    /// Frozen until then; it may also be about to freeze.
    thaw_at: Option<Instant>,
    /// To be killed then.
    kill_at: Option<Instant>,
    stopping: bool,
}

struct Fleet {
    world: World,
    random: fastrand::Rng,
    /// In one schedule of three records are refused, by numbers of their own.
    poison: Option<fastrand::Rng>,
    members: Vec<Member>,
    /// The open shard of each item, as in DynamoDB: an item is in one shard at a time, and in one of its children after a split.
    homes: Vec<ShardId>,
    settings: Settings,
    next_id: u32,
    /// Records that were trimmed behind a checkpoint that had not passed them.
    trimmed: Vec<u64>,
    outcome: Outcome,
}

/// Runs one schedule, of workers that publish each record `is_once` or at least. Errors with what is wrong.
pub async fn schedule(seed: u64, is_once: bool, gaps: &Gaps, made: impl FnOnce(&World)) -> Result<Outcome, String> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let poison = (seed % 3 == 2).then(|| fastrand::Rng::with_seed(seed ^ 0xdead));
    let world = World::new(seed);
    made(&world);
    world.change(|state| {
        state.page = random.usize(1..40);
        state.empty_pages = random.u32(0..4) == 0;
        state.messy_listings = random.u32(0..3) == 0;
        state.overlaps = random.u32(0..3) == 0;
        state.knows_children = random.u32(0..3) > 0;
        state.once = is_once;
        state.partitions = random.u32(1..4);
        state.receipt_delay = Duration::from_millis(if random.bool() { 0 } else { random.u64(1..40) });
    });
    let shards: Vec<_> = (0..random.usize(1..5)).map(|_| world.shard(None)).collect();
    let homes: Vec<_> = (0..ITEMS).map(|item| shards[item as usize % shards.len()].clone()).collect();
    let start = if random.u32(0..5) == 0 { StartPosition::AtTimestamp(BEGIN_MILLIS) } else { StartPosition::TrimHorizon };
    if start != StartPosition::TrimHorizon {
        homes.iter().zip(0..).for_each(|(home, item)| world.write_before_start(home, item, random.usize(0..4), BEGIN_MILLIS - 10_000));
    }
    let settings = Settings {
        start,
        checkpoint_interval: Duration::from_millis([0, 200, 1_000, 5_000][random.usize(0..4)]),
        max_in_flight: [5, 50, 500][random.usize(0..3)],
        poison: Policy::DeadLetter(DEAD_LETTERS.into()),
        ..if is_once { once([1, 3, 20][random.usize(0..3)]) } else { settings() }
    };
    let mut fleet =
        Fleet { world, random, poison, members: Vec::new(), homes, settings, next_id: 0, trimmed: Vec::new(), outcome: Outcome::default() };
    for _ in 0..fleet.random.usize(1..4) {
        fleet.scale_up();
    }
    for _ in 0..fleet.random.usize(10..36) {
        fleet.act();
        let longest = [300, 3_000, 3_000, 12_000][fleet.random.usize(0..4)];
        let pause = fleet.random.u64(0..longest);
        fleet.pass(Duration::from_millis(pause)).await?;
    }
    fleet.end(gaps).await
}

impl Fleet {
    fn start(&mut self, id: String) {
        // Wall clocks agree as little as they like.
        let wrong = self.random.i64(-HOUR_MILLIS..HOUR_MILLIS);
        let run = self.world.start_beside(Settings { worker_id: id, ..self.settings.clone() }, wrong);
        self.members.push(Member { run, thaw_at: None, kill_at: None, stopping: false });
    }

    fn scale_up(&mut self) {
        let id = format!("public/default/orders-{}", self.next_id);
        self.next_id += 1;
        self.start(id);
    }

    /// Any worker that is not ending already.
    fn anyone(&mut self) -> Option<usize> {
        let there: Vec<_> =
            (0..self.members.len()).filter(|at| !self.members[*at].stopping && self.members[*at].kill_at.is_none()).collect();
        self.random.choice(there)
    }

    /// Something happens.
    fn act(&mut self) {
        match self.random.u32(0..100) {
            0..32 => {
                for _ in 0..self.random.usize(1..8) {
                    let item = self.random.u32(0..ITEMS);
                    let home = &self.homes[item as usize];
                    self.world.write(home, item, self.random.usize(1..6));
                    if let Some(poison) = &mut self.poison
                        && poison.u32(0..3) == 0
                    {
                        // Pulsar IO does not tell of one message that its receipt fails.
                        let refused = if poison.bool() || self.settings.once.is_some() { Refused::AtOnce } else { Refused::WithTheReceipt };
                        let last = self.world.last(home);
                        self.world.lock().refusals.insert(last, refused);
                    }
                }
            }
            32..45 => self.split(),
            45..56 => self.fault(),
            56..58 => self.decline(),
            58..62 => {
                let service = [Service::Streams, Service::Leases][self.random.usize(0..2)];
                let permille = [0, 300, 700, 1_000][self.random.usize(0..4)];
                self.world.change(|state| {
                    state.note(0, format!("{permille} of 1000 calls of {service:?} are throttled"));
                    state.throttled.insert(service, permille);
                });
            }
            62..66 => self.cut(),
            66..68 => self.world.expire_iterators(),
            68..72 => {
                let (hold, slow) = (self.random.bool(), self.random.u32(0..3));
                self.world.change(|state| {
                    if hold {
                        state.hold = !state.hold;
                    } else if !state.slow.remove(&slow) {
                        state.slow.insert(slow);
                    }
                    let text = format!("receipts: all held {}, partitions held {:?}", state.hold, state.slow);
                    state.note(0, text);
                });
            }
            72..80 => self.kill(),
            80..88 => self.freeze(),
            88..92 => self.stop(),
            92..94 if self.members.len() < MAX_WORKERS => self.scale_up(),
            94..95 if self.members.len() < MAX_WORKERS => {
                let Some(at) = self.anyone() else { return };
                self.outcome.twins += 1;
                self.start(self.members[at].run.worker.clone());
            }
            95..97 => {
                let Some(at) = self.anyone() else { return };
                let run = self.members[at].run.id;
                self.outcome.refusals += 1;
                self.world.change(|state| {
                    state.note(run, "has all its messages refused from now on");
                    state.refused.insert(run);
                });
            }
            97..98 => self.trim(),
            _ => {
                let Some(at) = self.anyone() else { return };
                let step = self.random.i64(-HOUR_MILLIS..HOUR_MILLIS);
                self.world.change(|state| state.note(self.members[at].run.id, format!("has its wall clock moved by {step} ms")));
                self.members[at].run.machine.step(step);
            }
        }
    }

    fn split(&mut self) {
        self.outcome.splits += 1;
        let parent = self.random.choice(&self.homes).expect("there are items").clone();
        let children = match self.random.u32(0..4) {
            0 => self.world.split::<1>(&parent).to_vec(),
            // A child that is there while its parent is still open, as pages of a listing may show it.
            1 => {
                let child = self.world.shard(Some(&parent));
                self.world.close(&parent);
                vec![child]
            }
            _ => self.world.split::<2>(&parent).to_vec(),
        };
        for child in &children {
            if self.random.u32(0..3) == 0 {
                self.world.hide(child, Duration::from_millis(self.random.u64(0..40_000)));
            }
        }
        for home in self.homes.iter_mut().filter(|home| **home == parent) {
            *home = self.random.choice(&children).expect("a child").clone();
        }
    }

    /// One fault after the other, of one call.
    fn fault(&mut self) {
        let call = Call::ALL[self.random.usize(0..Call::ALL.len())];
        for _ in 0..self.random.usize(1..4) {
            let late = Fault::Late(Duration::from_millis(self.random.u64(100..20_000)));
            let slow = Fault::SlowReply(Duration::from_millis(self.random.u64(100..10_000)));
            let faults = [Fault::Throttle, Fault::Down, Fault::LostReply, Fault::Mute, Fault::Hang, late, late, slow];
            let fault = faults[self.random.usize(0..faults.len())];
            let longest = [2, 6, 6, 30][self.random.usize(0..4)];
            let times = self.random.usize(1..longest);
            self.world.change(|state| state.note(0, format!("the next {times} of {call:?}: {fault:?}")));
            self.world.fail(call, fault, times);
        }
    }

    /// The lease table gets worse and worse: answers get lost, then nothing is written any more.
    fn decline(&mut self) {
        let (lost, fine, down) = (self.random.usize(1..4), self.random.usize(0..4), self.random.usize(10..100));
        self.world.change(|state| state.note(0, format!("of renewals, {lost} are not answered, {fine} are fine, {down} fail")));
        for (fault, times) in [(Fault::Mute, lost), (Fault::None, fine), (Fault::Down, down)] {
            self.world.fail(Call::Renew, fault, times);
        }
        self.world.fail(Call::Checkpoint, Fault::Down, down);
    }

    fn cut(&mut self) {
        let Some(at) = self.anyone() else { return };
        let run = self.members[at].run.id;
        let service = [Service::Streams, Service::Leases, Service::Topic][self.random.usize(0..3)];
        self.world.change(|state| {
            let cut = state.cut.insert((run, service)) || !state.cut.remove(&(run, service));
            state.note(run, format!("{} {service:?}", if cut { "is cut off from" } else { "reaches again" }));
        });
    }

    /// At once, or between any two awaits a little later.
    fn kill(&mut self) {
        let Some(at) = self.anyone() else { return };
        self.outcome.kills += 1;
        if self.random.bool() {
            let polls = self.random.u32(0..400);
            self.members[at].run.machine.freeze_after(polls);
            self.world.change(|state| state.note(self.members[at].run.id, format!("is to die after {polls} steps")));
            self.members[at].kill_at = Some(Instant::now() + Duration::from_millis(self.random.u64(0..2_000)));
        } else {
            self.members[at].kill_at = Some(Instant::now());
        }
    }

    fn freeze(&mut self) {
        let Some(at) = self.anyone() else { return };
        self.outcome.freezes += 1;
        let time = Duration::from_millis(self.random.u64(5_000..60_000));
        let polls = if self.random.bool() { 0 } else { self.random.u32(0..400) };
        let member = &mut self.members[at];
        self.world.change(|state| state.note(member.run.id, format!("is to be frozen for {time:?} after {polls} steps")));
        member.run.machine.freeze_after(polls);
        member.thaw_at = Some(Instant::now() + time);
    }

    fn stop(&mut self) {
        let Some(at) = self.anyone() else { return };
        self.outcome.stops += 1;
        let member = &mut self.members[at];
        self.world.change(|state| state.note(member.run.id, "is told to stop"));
        member.run.stop.cancel();
        member.stopping = true;
    }

    /// What is older than the stream keeps it is gone, whether it was read or not.
    fn trim(&mut self) {
        let (which, how_many) = (self.random.u64(..), self.random.f64());
        self.world.change(|state| {
            let shards: Vec<_> = state.shards.keys().cloned().collect();
            let shard = &shards[(which % shards.len() as u64) as usize];
            let there = state.shards.get_mut(shard).expect("a shard");
            let before = there.trimmed;
            there.trimmed += ((there.records.len() - there.trimmed) as f64 * how_many) as usize;
            // Where a shard was never checkpointed, its oldest record is wherever it begins: nobody can tell what was before.
            if let Some(Checkpoint::At(reached)) = state.rows.get(shard).map(|row| &row.checkpoint) {
                let after = there.records[before..there.trimmed].iter().filter(|record| number(record.sequence) > *reached);
                self.trimmed.extend(after.map(|record| record.sequence));
            }
            state.gaps = true;
            let text = format!("{} records of {} are gone", there.trimmed, crate::support::source::log::short(shard));
            state.note(0, text);
        });
    }

    /// Time passes, in which workers thaw, die, end and come back.
    async fn pass(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let mut next = until;
            let mut at = 0;
            while at < self.members.len() {
                let member = &mut self.members[at];
                if member.thaw_at.is_some_and(|due| due <= now) {
                    member.thaw_at = None;
                    member.run.machine.thaw();
                    self.world.change(|state| state.note(member.run.id, "is thawed"));
                }
                if member.run.task.is_finished() {
                    self.ended(at).await?;
                    continue;
                }
                if member.kill_at.is_some_and(|due| due <= now) {
                    let member = self.members.remove(at);
                    let id = member.run.worker.clone();
                    self.world.kill(member.run).await;
                    self.replace(id);
                    continue;
                }
                next = [member.thaw_at, member.kill_at].into_iter().flatten().fold(next, Instant::min);
                at += 1;
            }
            if now >= until {
                return self.fine();
            }
            tokio::time::sleep_until(next.min(now + Duration::from_millis(500))).await;
        }
    }

    /// A worker has ended by itself: only where it was told to, or where its messages were refused.
    async fn ended(&mut self, at: usize) -> Result<(), String> {
        let Member { run, stopping, .. } = self.members.remove(at);
        let (id, worker) = (run.id, run.worker);
        let result = run.task.await.map_err(|error| format!("worker {id} panics: {error}"))?;
        let refused = self.world.lock().refused.contains(&id);
        self.world.change(|state| {
            state.note(id, format!("has ended: {result:?}"));
            state.lose(id);
        });
        match result {
            Ok(()) if !stopping => return Err(format!("worker {id} has ended without reason")),
            // Its producers are to end with it.
            Err(error) if self.settings.once.is_some() && error.to_string().contains("EFFECTIVELY_ONCE") => self.outcome.ended += 1,
            Err(error) if !refused => return Err(format!("worker {id} has ended: {error}")),
            _ => {}
        }
        if stopping && self.random.bool() {
            return Ok(());
        }
        self.replace(worker);
        Ok(())
    }

    /// The same again, as a supervisor does it, or another one, as a scheduler may.
    fn replace(&mut self, id: String) {
        match self.random.u32(0..4) {
            0 => self.scale_up(),
            _ => self.start(id),
        }
    }

    fn fine(&self) -> Result<(), String> {
        let state = self.world.lock();
        match state.violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// No more faults: everything has to come in order, and a clean stop has to leave nothing behind.
    async fn end(mut self, gaps: &Gaps) -> Result<Outcome, String> {
        for member in &mut self.members {
            member.thaw_at = member.thaw_at.map(|_| Instant::now());
        }
        self.world.change(|state| {
            state.note(0, "no more faults");
            state.faults.clear();
            state.cut.clear();
            state.throttled.clear();
            state.slow.clear();
            state.messy_listings = false;
            state.hold = false;
        });
        // For so long a last fault may work on: a call that nobody answers, a lease that runs out.
        self.pass(self.settings.failover).await?;
        if !self.members.iter().any(|member| !member.stopping) {
            self.scale_up();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.pass(Duration::from_millis(500)).await?;
            let Some(unsettled) = self.unsettled() else { break };
            if Instant::now() > deadline {
                return Err(format!("not settled {PATIENCE:?} after the last fault: {unsettled}"));
            }
        }
        for member in &mut self.members {
            member.stopping = true;
            member.run.stop.cancel();
        }
        let deadline = Instant::now() + self.settings.drain_timeout + Duration::from_secs(2);
        while let Some(at) = (0..self.members.len()).find(|_| true) {
            let Member { run, .. } = self.members.remove(at);
            let ended = tokio::time::timeout_at(deadline, run.task).await.map_err(|_| format!("Z1: worker {} does not stop", run.id))?;
            let result = ended.map_err(|error| format!("worker {} panics: {error}", run.id))?;
            let refused = self.world.lock().refused.contains(&run.id);
            result.or_else(|error| if refused { Ok(()) } else { Err(format!("worker {}: {error}", run.id)) })?;
        }
        self.fine()?;
        let state = self.world.lock();
        if let Some(row) = state.rows.values().find(|row| row.owner.is_some() && row.checkpoint != Checkpoint::ShardEnd) {
            return Err(format!("Z1: after a clean stop there is {row:?}"));
        }
        let lost: Vec<_> = self.trimmed.iter().filter(|sequence| !state.seen.contains(sequence)).collect();
        if !lost.is_empty() && gaps.count() == 0 {
            return Err(format!("G1: {lost:?} were trimmed before they were read, and nothing says so"));
        }
        Ok(Outcome {
            takes: state.count(Call::Take) as u64,
            gaps: gaps.count(),
            published: state.published.len() as u64,
            letters: state.dead_letters.len() as u64,
            duplicates: (state.published.len() - state.seen.len()) as u64,
            calls: state.calls.len() as u64,
            virtual_seconds: state.seconds(),
            ..self.outcome.clone()
        })
    }

    /// What is not in order yet.
    fn unsettled(&self) -> Option<String> {
        if self.members.iter().any(|member| member.stopping) {
            return Some("a worker is still stopping".into());
        }
        let lives = |run| self.members.iter().any(|member| member.run.id == run);
        let state = self.world.lock();
        // D1
        if !state.all_stored() {
            return Some("not all is stored".into());
        }
        for (id, shard) in &state.shards {
            let Some(row) = state.rows.get(id) else {
                // A shard that was over before the start, or that had nothing left, needs no lease.
                if shard.shard.closed { continue } else { return Some(format!("the open shard {id} has no lease")) }
            };
            if shard.shard.closed && row.checkpoint != Checkpoint::ShardEnd {
                return Some(format!("the closed shard {id} has not ended: {row:?}"));
            }
            // Its owner reads it: the table may know of a take that its taker does not know of.
            if !shard.shard.closed && !state.reader(id, READ_PAUSE).is_some_and(|reader| state.holder(id) == Some(reader) && lives(reader))
            {
                return Some(format!("nobody reads the open shard {id}: {row:?}"));
            }
        }
        drop(state);
        // H1
        let red = self.members.iter().find(|member| !member.run.health.reasons().is_empty());
        red.map(|member| format!("worker {} is not healthy: {:?}", member.run.id, member.run.health.reasons()))
    }
}
