//! What can be seen of the invariants from outside, checked as it happens. A violation is written down with its id.

use pulsar_io_dynamodb::ports::{Checkpoint, Claim, Lease, ShardId};
use tokio::time::Instant;

use super::{
    Call, FakeShard, Record, State,
    log::{Actor, What},
    number, settings,
};

/// Where a record is.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub shard: ShardId,
    pub index: usize,
    pub item: u32,
}

/// What happened to one item's records, which have an order over all shards.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// Those that are wanted.
    records: Vec<u64>,
    /// Before this index they were published, or are gone.
    published: usize,
    /// Before this index they were stored, or are gone.
    stored: usize,
}

/// One worker's hold of one shard, as it can know of it.
#[derive(Debug)]
pub(super) struct Tenure {
    /// When a write of its own landed last.
    landed: Instant,
    /// It was told that the lease is another's, or has given it up.
    over: bool,
    /// What it published last.
    last: u64,
}

impl State {
    pub(super) fn push(&mut self, shard: &ShardId, record: Record) {
        let there = self.shards.get_mut(shard).expect("a shard");
        assert!(!there.shard.closed, "no records after the end");
        let home = Home { shard: shard.clone(), index: there.records.len(), item: record.item };
        self.homes.insert(record.sequence, home);
        if !record.before_start {
            self.items.entry(record.item).or_default().records.push(record.sequence);
        }
        there.records.push(record);
    }

    pub(super) fn check_read(&mut self, run: Actor, shard: &ShardId) {
        self.read.insert(shard.clone(), (run, Instant::now()));
        if let Some(waits_for) = self.unfinished_ancestor(shard) {
            self.violation(run, format!("S1: {shard} is read before the end of {waits_for}"));
        }
    }

    pub(super) fn check_publish(&mut self, run: Actor, sequence: u64) {
        let Home { shard, item, .. } = self.homes.get(&sequence).expect("published what was written").clone();
        // In one tenure: strictly forward.
        let tenure = self.tenures.get_mut(&(run, shard.clone()));
        let (backwards, held) = match tenure {
            Some(tenure) => {
                let before = std::mem::replace(&mut tenure.last, sequence);
                let expired = tenure.landed.elapsed() >= settings().failover;
                (before >= sequence, if tenure.over { Err("is over, and it knows") } else { (!expired).then_some(()).ok_or("has run out") })
            }
            None => (false, Err("never was")),
        };
        if backwards {
            self.violation(run, format!("O1: {sequence} of {shard} after a later one"));
        }
        if let Err(why) = held {
            self.violation(run, format!("L2: {sequence} of {shard} is published by a worker whose lease {why}"));
        }
        // S1: whatever the ancestors have is stored.
        if let Some(waits_for) = self.unfinished_ancestor(&shard) {
            self.violation(run, format!("S1: {sequence} of {shard} before the end of {waits_for}"));
        }
        self.seen.insert(sequence);
        // Whoever has not seen a change of an item yet sees the older ones first.
        if self.advance(item, sequence, false) {
            self.violation(run, format!("O1: {sequence} of item {item} before an older change of it"));
        }
    }

    /// L2 holds for dead letters too.
    pub(super) fn check_letter(&mut self, run: Actor, sequence: u64) {
        let shard = self.homes[&sequence].shard.clone();
        let held =
            self.tenures.get(&(run, shard.clone())).is_some_and(|tenure| !tenure.over && tenure.landed.elapsed() < settings().failover);
        if !held {
            self.violation(run, format!("L2: the dead letter of {sequence} of {shard} without its lease"));
        }
    }

    pub(super) fn check_store(&mut self, run: Actor, sequence: u64) {
        let Home { shard, item, .. } = self.homes[&sequence].clone();
        self.tell(run, What::Stored(shard, sequence));
        self.stored.insert(sequence);
        if self.advance(item, sequence, true) {
            self.violation(run, format!("O1: {sequence} of item {item} is stored before an older change of it"));
        }
    }

    /// Moves an item's front on. `true` where an older record than `sequence` is still missing.
    fn advance(&mut self, item: u32, sequence: u64, stored: bool) -> bool {
        let Some(book) = self.items.get_mut(&item) else { return false };
        let (front, done) = if stored { (&mut book.stored, &self.stored) } else { (&mut book.published, &self.seen) };
        while let Some(next) = book.records.get(*front) {
            let home = &self.homes[next];
            let gone = || self.shards.get(&home.shard).is_none_or(|shard| home.index < shard.trimmed);
            if !done.contains(next) && !self.refusals.contains_key(next) && !gone() {
                break;
            }
            *front += 1;
        }
        book.records.get(*front).is_some_and(|missing| *missing < sequence)
    }

    /// M1, as far as records go. Those that a worker has given up with their lease are bounded by its publisher alone.
    pub(super) fn check_window(&mut self, run: Actor) {
        let in_flight: usize = self
            .lanes
            .range((run, 0)..=(run, u32::MAX))
            .map(|(_, lane)| lane.iter().filter(|accepted| accepted.is_awaited()).count())
            .sum();
        if in_flight > self.windows.get(&run).copied().unwrap_or(usize::MAX) {
            self.violation(run, format!("M1: {in_flight} records in flight"));
        }
    }

    /// A write of the lease table whose condition holds.
    pub(super) fn check_write(&mut self, run: Actor, call: Call, before: &Lease, after: &Lease) {
        let shard = after.shard.clone();
        let (tenure, now) = ((run, shard.clone()), Instant::now());
        if call == Call::Take {
            self.check_take(run, before);
            self.nonces.insert(after.nonce.clone().expect("a taker has a nonce"), run);
            // Reading starts again at the checkpoint.
            self.tenures.insert(tenure, Tenure { landed: now, over: false, last: 0 });
            return;
        }
        if self.holder(&shard) != Some(run) {
            let owner = before.owner.as_deref().unwrap_or("nobody");
            self.violation(run, format!("L1: {call:?} of {shard}, whose lease is {owner}'s"));
        }
        if call == Call::Checkpoint {
            self.check_checkpoint(run, before, after);
        } else if before.checkpoint != after.checkpoint {
            self.violation(run, format!("C2: {call:?} changes the checkpoint of {shard}"));
        }
        if let Some(tenure) = self.tenures.get_mut(&tenure) {
            tenure.landed = now;
        }
    }

    /// L1, L2: nobody takes a lease from a worker that may think it has it.
    fn check_take(&mut self, run: Actor, before: &Lease) {
        let Some(holder) = self.holder(&before.shard).filter(|holder| *holder != run) else { return };
        let fresh = self.landed.get(&before.shard).is_some_and(|landed| landed.elapsed() <= settings().failover);
        // A later start of the same worker may: the earlier one is dead, but for twins, which find out at their next write.
        let restarted = before.owner.is_some() && self.worker_of(run) == before.owner;
        if fresh && !restarted {
            self.violation(run, format!("L2: {} is taken from worker {holder}, which may still publish", before.shard));
        }
        if self.unfinished_parent(before) {
            self.violation(run, format!("S1: {} is taken before the end of its parent", before.shard));
        }
    }

    fn worker_of(&self, run: Actor) -> Option<String> {
        self.workers.get(&run).cloned()
    }

    /// What a worker has been told of its lease.
    pub(super) fn told(&mut self, run: Actor, call: Call, shard: &ShardId, claim: &Claim) {
        let lost = match claim {
            Claim::Held(_) | Claim::Landed(_) => matches!(call, Call::Release | Call::HandOver),
            Claim::Lost(Some(row)) => row.nonce.as_ref().and_then(|nonce| self.nonces.get(nonce)) != Some(&run),
            Claim::Lost(None) => true,
        };
        if lost
            && call != Call::Take
            && let Some(tenure) = self.tenures.get_mut(&(run, shard.clone()))
        {
            tenure.over = true;
        }
    }

    fn check_checkpoint(&mut self, run: Actor, before: &Lease, after: &Lease) {
        // A shard that the stream has dropped has nothing left to pass.
        let Some(shard) = self.shards.get_mut(&after.shard) else { return };
        let closed = shard.shard.closed;
        let settled = settle(shard, |sequence| self.stored.contains(&sequence) || self.excused.contains(&sequence));
        let broken = match (&before.checkpoint, &after.checkpoint) {
            (Checkpoint::ShardEnd, Checkpoint::ShardEnd) => None,
            (Checkpoint::ShardEnd, _) => Some("C2: a checkpoint after SHARD_END"),
            (Checkpoint::At(a), Checkpoint::At(b)) if b < a => Some("C2: a checkpoint that goes back"),
            (_, Checkpoint::At(at)) => {
                let passed = shard.records.partition_point(|record| number(record.sequence) <= *at);
                (passed > settled).then_some("C1: passes a record without receipt")
            }
            (_, Checkpoint::ShardEnd) => (settled < shard.records.len() || !closed).then_some("C2: SHARD_END before the last receipt"),
            _ => Some("C2: a sentinel as checkpoint"),
        };
        if let Some(broken) = broken {
            let text = format!("{broken}: {:?} -> {:?} of {}", before.checkpoint, after.checkpoint, after.shard);
            self.violation(run, text);
        }
    }

    fn unfinished_parent(&self, lease: &Lease) -> bool {
        lease.parents.iter().filter_map(|parent| self.rows.get(parent)).any(|parent| parent.checkpoint != Checkpoint::ShardEnd)
    }

    /// The nearest ancestor of a shard that has records to be stored yet, or a lease that has not ended.
    fn unfinished_ancestor(&mut self, shard: &ShardId) -> Option<ShardId> {
        let mut parent = self.shards.get(shard)?.shard.parent.clone();
        while let Some(id) = parent {
            if self.rows.get(&id).is_some_and(|row| row.checkpoint != Checkpoint::ShardEnd) {
                return Some(id);
            }
            let ancestor = self.shards.get_mut(&id)?;
            if settle(ancestor, |sequence| self.stored.contains(&sequence) || self.excused.contains(&sequence)) < ancestor.records.len() {
                return Some(id);
            }
            parent = ancestor.shard.parent.clone();
        }
        None
    }
}

/// How many of a shard's records, from the first one, need nothing more.
fn settle(shard: &mut FakeShard, is_stored: impl Fn(u64) -> bool) -> usize {
    shard.settled = shard.settled.max(shard.trimmed);
    while shard.records.get(shard.settled).is_some_and(|record| record.before_start || is_stored(record.sequence)) {
        shard.settled += 1;
    }
    shard.settled
}
