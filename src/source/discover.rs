//! Which shards need a lease, where their reading starts, and which leases may start now (S1). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::StartPosition;
use crate::ports::{Checkpoint, Lease, Shard, ShardId};

/// A closed shard stays listed for 24 hours. One that was opened later than that cannot have been trimmed.
const RETENTION_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// What a listing of the stream asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The leases to create, parents before children: a crash half way leaves no child without its parent's lease.
    pub leases: Vec<Lease>,
    /// Shards that have to wait for a complete listing: one of their ancestors is neither listed nor leased, and too young to be trimmed.
    /// A lease now would let the child start first (S1), and the ancestor would never be read (D1).
    pub postponed: Vec<ShardId>,
}

/// The worker's wall clock, in epoch milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When this worker first started to look.
    pub started: i64,
    pub now: i64,
}

/// Which shards need a lease, and where their reading starts.
///
/// LATEST means from when this worker first started to look, unless an earlier start has left its own time in the rows (spec R13). A
/// shard with a leased descendant was finished before and gets no lease again; a shard with a leased ancestor is read whole,
/// whatever the start position; every other shard goes by the start position.
pub fn missing(shards: &[Shard], leases: &[Lease], start: StartPosition, times: Times) -> Missing {
    let listed: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    let leased: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (&lease.shard, lease)).collect();
    let finished = ancestors_of_leased(&listed, leases);
    let mut youngest_child: BTreeMap<&ShardId, Option<i64>> = BTreeMap::new();
    for shard in shards {
        if let Some(parent) = &shard.parent {
            // A child whose id tells no time counts as just started.
            let born = created_millis(&shard.id);
            youngest_child.entry(parent).and_modify(|known| *known = known.zip(born).map(|(a, b)| a.max(b))).or_insert(born);
        }
    }
    let (initial, start_at) = match start {
        StartPosition::TrimHorizon => (Checkpoint::TrimHorizon, None),
        StartPosition::Latest => {
            let earlier = leases.iter().filter_map(|lease| lease.start_at).min();
            (Checkpoint::Latest, Some(earlier.unwrap_or(times.started)))
        }
        StartPosition::AtTimestamp(millis) => (Checkpoint::AtTimestamp, Some(millis)),
    };
    let over_before_start = |shard: &Shard| match (start_at, youngest_child.get(&shard.id)) {
        (Some(start_at), Some(Some(child))) => shard.closed && *child < floor_second(start_at),
        _ => false,
    };

    let is_unseen = |id: &ShardId| {
        let young = is_young(id, times.now);
        young && !listed.contains_key(id) && !leased.contains_key(id)
    };

    let (mut new, mut postponed) = (Vec::new(), Vec::new());
    for shard in shards.iter().filter(|shard| !leased.contains_key(&shard.id) && !finished.contains(&shard.id)) {
        let lineage: Vec<&ShardId> = lineage(&listed, shard.parent.as_ref()).collect();
        let lease = match lineage.iter().find_map(|ancestor| leased.get(*ancestor)) {
            Some(ancestor) => child_lease(shard, ancestor),
            None if lineage.last().is_some_and(|oldest| is_unseen(oldest)) => {
                postponed.push(shard.id.clone());
                continue;
            }
            None if over_before_start(shard) => continue,
            None => Lease { checkpoint: initial.clone(), start_at, ..unowned(shard) },
        };
        new.push((lineage.len(), lease));
    }
    new.sort_by(|(a_depth, a), (b_depth, b)| (a_depth, &a.shard).cmp(&(b_depth, &b.shard)));
    new.dedup_by(|(_, a), (_, b)| a.shard == b.shard);
    Missing { leases: new.into_iter().map(|(_, lease)| lease).collect(), postponed }
}

/// The lease of a shard that follows a leased one: read whole, but for what the ancestor's start excludes.
pub fn child_lease(child: &Shard, ancestor: &Lease) -> Lease {
    Lease { start_at: ancestor.start_at, ..unowned(child) }
}

/// S1: every parent has ended, or has no lease: then it is trimmed, or lies before the start.
pub fn may_start<'a>(lease: &Lease, row: impl Fn(&ShardId) -> Option<&'a Lease>) -> bool {
    lease.checkpoint != Checkpoint::ShardEnd
        && lease.parents.iter().all(|parent| row(parent).is_none_or(|parent| parent.checkpoint == Checkpoint::ShardEnd))
}

/// Records of the start's own second are wanted: the stream rounds creation times down to the second.
pub fn floor_second(millis: i64) -> i64 {
    millis.div_euclid(1000) * 1000
}

fn unowned(shard: &Shard) -> Lease {
    Lease {
        shard: shard.id.clone(),
        owner: None,
        counter: 0,
        checkpoint: Checkpoint::TrimHorizon,
        owner_switches: 0,
        parents: shard.parent.iter().cloned().collect(),
        start_at: None,
        nonce: None,
        stream: None,
    }
}

/// When a shard was opened: its id carries it, as in `shardId-00000001752464541000-0a1b2c3d`. Epoch milliseconds.
/// Whether the shard was opened within the stream's retention: then it cannot have been trimmed. `now`: epoch milliseconds.
pub fn is_young(id: &ShardId, now: i64) -> bool {
    created_millis(id).is_some_and(|created| created > now - RETENTION_MILLIS)
}

fn created_millis(id: &ShardId) -> Option<i64> {
    id.as_str().strip_prefix("shardId-")?.split('-').next()?.parse().ok()
}

/// The ancestors that are still listed, nearest first, and the first one that is not.
fn lineage<'a>(listed: &BTreeMap<&'a ShardId, &'a Shard>, parent: Option<&'a ShardId>) -> impl Iterator<Item = &'a ShardId> {
    // No lineage is longer than the list: a circle in a broken answer must not hold us.
    std::iter::successors(parent, |id| listed.get(*id).and_then(|shard| shard.parent.as_ref())).take(listed.len() + 1)
}

fn ancestors_of_leased<'a>(listed: &BTreeMap<&'a ShardId, &'a Shard>, leases: &'a [Lease]) -> BTreeSet<&'a ShardId> {
    let mut found = BTreeSet::new();
    for lease in leases {
        let listed_parent = listed.get(&lease.shard).and_then(|shard| shard.parent.as_ref());
        for parent in lease.parents.iter().chain(listed_parent) {
            for ancestor in lineage(listed, Some(parent)) {
                if !found.insert(ancestor) {
                    break;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
