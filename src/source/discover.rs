//! Which shards need a lease, where their reading starts, and which leases may start now (S1). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::StartPosition;
use crate::ports::{Checkpoint, Lease, Shard, ShardId};

/// A closed shard stays listed for 24 hours. One that was opened later than that cannot have been trimmed.
const RETENTION_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// The children of a split are opened within that time.
const SPLIT_MILLIS: i64 = 1000;
/// What an audit looks at even if it is finished.
const RECENT_MILLIS: i64 = 60 * 60 * 1000;

/// What was listed of a stream so far. Shards may come twice and in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    shards: BTreeMap<ShardId, Shard>,
    /// Listed from after this shard on; from the beginning without one.
    from: Option<ShardId>,
    /// The last shard listed.
    reached: Option<ShardId>,
    /// Shards came in another order than that of their ids.
    jumbled: bool,
    complete: bool,
}

impl Listing {
    pub fn after(from: Option<ShardId>) -> Self {
        Self { from, ..Self::default() }
    }

    /// One page more; `last`: none follows.
    pub fn add(&mut self, page: Vec<Shard>, last: bool) {
        for shard in page {
            self.jumbled |= self.reached.as_ref().is_some_and(|reached| shard.id < *reached);
            self.reached = self.reached.take().max(Some(shard.id.clone()));
            // Closed in one answer is closed, whatever an older answer says.
            let closed = shard.closed || self.shards.get(&shard.id).is_some_and(|known| known.closed);
            self.shards.insert(shard.id.clone(), Shard { closed, ..shard });
        }
        self.complete = last;
    }

    pub fn get(&self, shard: &ShardId) -> Option<&Shard> {
        self.shards.get(shard)
    }

    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    pub fn len(&self) -> usize {
        self.shards.len()
    }

    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The last shard listed: where the next page starts.
    pub fn reached(&self) -> Option<&ShardId> {
        self.reached.as_ref()
    }

    /// Whether no page follows.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it shows the whole stream.
    pub fn is_whole(&self) -> bool {
        self.complete && self.from.is_none()
    }

    /// Whether this shard would be in the listing if the stream had it.
    fn covers(&self, shard: &ShardId) -> bool {
        let begun = self.from.as_ref().is_none_or(|from| shard > from);
        begun && (self.complete || (!self.jumbled && self.reached.as_ref().is_some_and(|reached| shard <= reached)))
    }

    /// The ancestors that are listed, nearest first, and the first one that is not.
    fn lineage<'a>(&'a self, parent: Option<&'a ShardId>) -> impl Iterator<Item = &'a ShardId> {
        // No lineage is longer than the list: a circle in a broken answer must not hold us.
        std::iter::successors(parent, |id| self.shards.get(*id).and_then(|shard| shard.parent.as_ref())).take(self.shards.len() + 1)
    }
}

/// What a listing of the stream asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The leases to create, parents before children: all of one generation before any of the next, so that a crash half way leaves no child
    /// without its parent's lease. Those of one generation in any order.
    pub generations: Vec<Vec<Lease>>,
    /// Shards that have to wait for a further listing: one of their ancestors is neither listed nor leased, and too young to be trimmed.
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

/// The rows of the lease table before a listing, and those that it has led to since.
#[derive(Debug, Default)]
pub struct Rows {
    before: Vec<Lease>,
    created: Vec<Lease>,
}

impl Rows {
    pub fn new(before: Vec<Lease>) -> Self {
        Self { before, created: Vec::new() }
    }

    pub fn created(&mut self, lease: Lease) {
        self.created.push(lease);
    }

    pub fn before(&self) -> &[Lease] {
        &self.before
    }

    fn all(&self) -> impl Iterator<Item = &Lease> {
        self.before.iter().chain(&self.created)
    }
}

/// Which shards need a lease, and where their reading starts.
///
/// LATEST means from when this worker first started to look, unless an earlier start has left its own time in the rows (spec R13). A
/// shard with a leased descendant was finished before and gets no lease again; a shard with a leased ancestor is read whole,
/// whatever the start position; every other shard goes by the start position.
///
/// A listing that is not complete yet is of use already (spec R10): what it settles is returned, the rest with the further pages.
pub fn missing(listing: &Listing, rows: &Rows, start: StartPosition, times: Times) -> Missing {
    let leased: BTreeMap<&ShardId, &Lease> = rows.all().map(|lease| (&lease.shard, lease)).collect();
    // Of leases that this very listing has led to nothing follows: should a parent turn up after its child, it is read late, but it is read.
    let finished = ancestors_of_leased(listing, &rows.before);
    let mut youngest_child: BTreeMap<&ShardId, Option<i64>> = BTreeMap::new();
    for shard in listing.shards() {
        if let Some(parent) = &shard.parent {
            // A child whose id tells no time counts as just started.
            let born = created_millis(&shard.id);
            youngest_child.entry(parent).and_modify(|known| *known = known.zip(born).map(|(a, b)| a.max(b))).or_insert(born);
        }
    }
    let (initial, start_at) = match start {
        StartPosition::TrimHorizon => (Checkpoint::TrimHorizon, None),
        StartPosition::Latest => {
            match rows.all().filter_map(|lease| lease.start_at).min() {
                Some(earlier) => (Checkpoint::Latest, Some(earlier)),
                None if rows.before.is_empty() => (Checkpoint::Latest, Some(times.started)),
                // Rows that do not say when the first start was, the Java connector's say: this shard was opened while nobody looked (D1).
                None => (Checkpoint::TrimHorizon, None),
            }
        }
        StartPosition::AtTimestamp(millis) => (Checkpoint::AtTimestamp, Some(millis)),
    };
    let over_before_start = |shard: &Shard| match (start_at, youngest_child.get(&shard.id)) {
        (Some(start_at), Some(Some(child))) => shard.closed && *child < floor_second(start_at),
        _ => false,
    };
    // With a start time, a closed shard is judged by its children.
    let child_to_come = |shard: &Shard| start_at.is_some() && shard.closed && !youngest_child.contains_key(&shard.id);

    let (mut generations, mut postponed) = (BTreeMap::<usize, Vec<Lease>>::new(), Vec::new());
    for shard in listing.shards().filter(|shard| !leased.contains_key(&shard.id) && !finished.contains(&shard.id)) {
        let lineage: Vec<&ShardId> = listing.lineage(shard.parent.as_ref()).collect();
        let unlisted = lineage.last().filter(|oldest| listing.get(oldest).is_none() && !leased.contains_key(**oldest));
        let lease = match lineage.iter().position(|ancestor| leased.contains_key(*ancestor)) {
            // A row of the parent is a sure sign that this shard never had one: rows are deleted parents first. Else a later page may
            // show that a descendant is leased.
            Some(distance) if distance == 0 || listing.complete => child_lease(shard, leased[lineage[distance]]),
            Some(_) => continue,
            None if unlisted.is_some_and(|oldest| !listing.covers(oldest) || is_young(oldest, times.now)) => {
                postponed.push(shard.id.clone());
                continue;
            }
            None if !listing.complete && (!rows.before.is_empty() || child_to_come(shard)) => continue,
            None if over_before_start(shard) => continue,
            None => Lease { checkpoint: initial.clone(), start_at, ..unowned(shard) },
        };
        generations.entry(lineage.len()).or_default().push(lease);
    }
    Missing { generations: generations.into_values().collect(), postponed }
}

/// The shard after which an audit starts to list: nothing can be missing of what is older than every shard that is not finished and every one
/// that was opened within the hour, since children show up minutes late at most (spec R10). `None`: from the beginning.
pub fn audit_from(leases: &[Lease], now: i64) -> Option<&ShardId> {
    let opened = |lease: &Lease| created_millis(&lease.shard).unwrap_or(i64::MIN);
    let matters = |lease: &&Lease| lease.checkpoint != Checkpoint::ShardEnd || opened(lease) > now - RECENT_MILLIS;
    let bound = leases.iter().filter(matters).map(opened).min()?;
    leases.iter().filter(|lease| opened(lease) < bound.saturating_sub(SPLIT_MILLIS)).map(|lease| &lease.shard).max()
}

/// Of the children that a listing shows so far, whose parents wait for them: those that nothing will be added to. The children of a split
/// are opened at the same time.
pub fn families(listing: &Listing, waits: impl Fn(&ShardId) -> bool) -> BTreeMap<ShardId, Vec<Shard>> {
    let mut families: BTreeMap<ShardId, Vec<Shard>> = BTreeMap::new();
    for shard in listing.shards() {
        if let Some(parent) = shard.parent.as_ref().filter(|parent| waits(parent)) {
            families.entry(parent.clone()).or_default().push(shard.clone());
        }
    }
    let reached = listing.reached().filter(|_| !listing.jumbled).and_then(created_millis);
    let passed = |child: &Shard| created_millis(&child.id).zip(reached).is_some_and(|(born, reached)| reached > born + SPLIT_MILLIS);
    families.retain(|_, children| listing.complete || children.iter().all(passed));
    families
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
    Lease { parents: shard.parent.iter().cloned().collect(), ..Lease::new(shard.id.clone(), Checkpoint::TrimHorizon) }
}

/// Whether the shard was opened within the stream's retention: then it cannot have been trimmed. `now`: epoch milliseconds.
pub fn is_young(id: &ShardId, now: i64) -> bool {
    created_millis(id).is_some_and(|created| created > now - RETENTION_MILLIS)
}

/// Whether the stream cannot have the shard any more: it was open for some hours and kept for 24 more. `now`: epoch milliseconds.
pub fn is_gone(id: &ShardId, now: i64) -> bool {
    created_millis(id).is_some_and(|created| created <= now - 2 * RETENTION_MILLIS)
}

/// When a shard was opened: its id carries it, as in `shardId-00000001752464541000-0a1b2c3d`. Epoch milliseconds.
pub fn created_millis(id: &ShardId) -> Option<i64> {
    id.as_str().strip_prefix("shardId-")?.split('-').next()?.parse().ok()
}

fn ancestors_of_leased<'a>(listing: &'a Listing, leases: &'a [Lease]) -> BTreeSet<&'a ShardId> {
    let mut found = BTreeSet::new();
    for lease in leases {
        let listed_parent = listing.get(&lease.shard).and_then(|shard| shard.parent.as_ref());
        for parent in lease.parents.iter().chain(listed_parent) {
            for ancestor in listing.lineage(Some(parent)) {
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
