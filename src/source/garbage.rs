//! Which rows of the lease table nobody needs any more. Pure.
//!
//! A row goes when its shard is finished and its children have rows of their own, so that each lineage keeps its last row: it says that
//! what follows is read whole. Rows go parents first: the rows of a lineage have no hole, and a parent's row says that its children's were
//! never deleted (`discover::missing` relies on that).

use std::collections::{BTreeMap, BTreeSet};

use super::discover::{self, Listing, created_millis};
use crate::ports::{Checkpoint, Lease, ShardId};

/// A finished row stays for so long after its shard was opened, as with the Java connector: a listing that lags behind must not bring it back.
const KEPT_MILLIS: i64 = 6 * 60 * 60 * 1000;

/// The finished rows that can be deleted. `now`: epoch milliseconds.
///
/// While the stream may list the shard, its children have to be finished as well. A row that is not finished is never garbage: whose shard is
/// gone, its reader finds out and counts the gap (G1).
pub fn finished(listing: &Listing, leases: &[Lease], now: i64) -> Vec<Lease> {
    let rows: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (&lease.shard, lease)).collect();
    let mut children: BTreeMap<&ShardId, BTreeSet<&ShardId>> = BTreeMap::new();
    let listed = listing.shards().flat_map(|shard| shard.parent.iter().map(move |parent| (parent, &shard.id)));
    let leased = leases.iter().flat_map(|lease| lease.parents.iter().map(move |parent| (parent, &lease.shard)));
    for (parent, child) in listed.chain(leased) {
        children.entry(parent).or_default().insert(child);
    }
    let is_garbage = |row: &&Lease| {
        // A shard whose id tells no time is kept.
        let is_old = created_millis(&row.shard).is_some_and(|created| created <= now - KEPT_MILLIS);
        let vanished = listing.is_whole() && listing.get(&row.shard).is_none() && !discover::is_young(&row.shard, now);
        let is_followed = children.get(&row.shard).is_some_and(|children| {
            children.iter().all(|child| rows.get(child).is_some_and(|child| vanished || child.checkpoint == Checkpoint::ShardEnd))
        });
        let has_leased_parent = row.parents.iter().any(|parent| rows.contains_key(parent));
        row.checkpoint == Checkpoint::ShardEnd && is_old && is_followed && !has_leased_parent
    };
    leases.iter().filter(is_garbage).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Shard;

    const HOUR: i64 = 60 * 60 * 1000;
    const NOW: i64 = 1_700_000_000_000;

    fn id(hours: i64, name: &str) -> ShardId {
        ShardId::new(format!("shardId-{:020}-{name}", NOW - hours * HOUR))
    }

    fn shard(id: &ShardId, parent: Option<&ShardId>) -> Shard {
        Shard { id: id.clone(), parent: parent.cloned(), closed: true }
    }

    fn row(shard: &Shard, ended: bool) -> Lease {
        let checkpoint = if ended { Checkpoint::ShardEnd } else { Checkpoint::TrimHorizon };
        Lease { parents: shard.parent.iter().cloned().collect(), ..Lease::new(shard.id.clone(), checkpoint) }
    }

    /// A lineage of four, oldest first, so many hours old.
    fn lineage(hours: [i64; 4]) -> [Shard; 4] {
        let ids = [0, 1, 2, 3].map(|at| id(hours[at], &at.to_string()));
        [0, 1, 2, 3].map(|at: usize| shard(&ids[at], at.checked_sub(1).map(|parent| &ids[parent])))
    }

    fn listing(shards: &[Shard]) -> Listing {
        let mut listing = Listing::default();
        listing.add(shards.to_vec(), true);
        listing
    }

    fn garbage(listed: &[Shard], rows: &[Lease]) -> Vec<ShardId> {
        finished(&listing(listed), rows, NOW).into_iter().map(|row| row.shard).collect()
    }

    #[test]
    fn a_finished_row_goes_once_its_children_are_finished_and_parents_go_first() {
        let shards = lineage([20, 16, 12, 8]);
        let mut rows: Vec<Lease> = shards.iter().map(|shard| row(shard, true)).collect();
        for expected in &shards[..3] {
            assert_eq!(garbage(&shards, &rows), std::slice::from_ref(&expected.id));
            rows.remove(0);
        }
        assert_eq!(garbage(&shards, &rows), [], "the last of a lineage stays: what follows it is read whole");
    }

    #[test]
    fn a_row_that_a_child_or_a_java_worker_may_still_need_stays() {
        let shards = lineage([20, 16, 12, 8]);
        let all = |ended: [bool; 4]| -> Vec<Lease> { shards.iter().zip(ended).map(|(shard, ended)| row(shard, ended)).collect() };
        assert_eq!(garbage(&shards, &all([true, false, false, false])), [], "the child is not finished");
        assert_eq!(garbage(&shards, &all([false, true, true, true])), [], "nor is this one");
        assert_eq!(garbage(&shards, &all([true; 4])[..1]), [], "the child has no row yet");
        // One of two children.
        let other = shard(&id(16, "other"), Some(&shards[0].id));
        let listed: Vec<Shard> = shards.iter().cloned().chain([other]).collect();
        assert_eq!(garbage(&listed, &all([true; 4])), []);
        // Six hours, as with the Java connector.
        let young = lineage([5, 3, 2, 1]);
        let rows: Vec<Lease> = young.iter().map(|shard| row(shard, true)).collect();
        assert_eq!(garbage(&young, &rows), []);
    }

    #[test]
    fn the_row_of_a_finished_shard_that_the_stream_has_dropped_goes_when_its_child_has_one() {
        let shards = lineage([50, 46, 42, 38]);
        let rows: Vec<Lease> = shards.iter().map(|shard| row(shard, shard.id == shards[0].id)).collect();
        assert_eq!(garbage(&shards[1..], &rows), std::slice::from_ref(&shards[0].id));
        let mut part = Listing::after(Some(id(60, "from")));
        part.add(shards[1..].to_vec(), true);
        assert_eq!(finished(&part, &rows, NOW), [], "a part of the stream does not show what is gone");
        assert_eq!(garbage(&[], &rows[1..]), [], "G1: what is not finished is nobody's garbage");
    }
}
