use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 60 * 60 * 1000;
const NOW: i64 = 1_700_000_000_000;
const TIMES: Times = Times { started: NOW, now: NOW };

/// A shard that was opened so many hours ago.
fn id(hours: i64, name: &str) -> ShardId {
    ShardId::new(format!("shardId-{:020}-{name}", NOW - hours * HOUR))
}

fn shard(id: &ShardId, parent: Option<&ShardId>, closed: bool) -> Shard {
    Shard { id: id.clone(), parent: parent.cloned(), closed }
}

fn leased(id: &ShardId, parent: Option<&ShardId>, checkpoint: Checkpoint) -> Lease {
    Lease { checkpoint, ..unowned(&shard(id, parent, false)) }
}

/// Three generations, eight hours apart: what is listed of one partition.
fn lineage_of_three() -> ([ShardId; 3], Vec<Shard>) {
    let [a, b, c] = [id(20, "a"), id(12, "b"), id(4, "c")];
    let shards = vec![shard(&c, Some(&b), false), shard(&a, Some(&id(28, "trimmed")), true), shard(&b, Some(&a), true)];
    ([a, b, c], shards)
}

fn names(missing: &Missing) -> Vec<(&ShardId, &Checkpoint, Option<i64>)> {
    missing.leases.iter().map(|lease| (&lease.shard, &lease.checkpoint, lease.start_at)).collect()
}

#[test]
fn trim_horizon_takes_everything_that_is_left_parents_first() {
    let ([a, b, c], shards) = lineage_of_three();
    let found = missing(&shards, &[], StartPosition::TrimHorizon, TIMES);
    let all = [(&a, &Checkpoint::TrimHorizon, None), (&b, &Checkpoint::TrimHorizon, None), (&c, &Checkpoint::TrimHorizon, None)];
    assert_eq!(names(&found), all);
    assert_eq!(found.leases[1].parents, [a]);
}

#[test]
fn latest_takes_the_open_shards_from_now_on() {
    let ([_, _, c], shards) = lineage_of_three();
    assert_eq!(names(&missing(&shards, &[], StartPosition::Latest, TIMES)), [(&c, &Checkpoint::Latest, Some(NOW))]);
}

#[test]
fn a_shard_that_closed_after_the_start_time_belongs_to_it() {
    let ([_, b, c], shards) = lineage_of_three();
    let start = NOW - 6 * HOUR;
    let found = missing(&shards, &[], StartPosition::AtTimestamp(start), TIMES);
    assert_eq!(names(&found), [(&b, &Checkpoint::AtTimestamp, Some(start)), (&c, &Checkpoint::AtTimestamp, Some(start))]);
}

#[test]
fn d1_the_start_time_of_the_first_start_stays() {
    let ([_, b, c], shards) = lineage_of_three();
    // The first start got as far as one lease, before the last split.
    let first = Lease { start_at: Some(NOW - 6 * HOUR), ..leased(&b, None, Checkpoint::Latest) };
    let other = id(3, "other");
    let shards: Vec<_> = shards.into_iter().chain([shard(&other, None, false)]).collect();
    let found = missing(&shards, &[first], StartPosition::Latest, TIMES);
    let start_at = Some(NOW - 6 * HOUR);
    assert_eq!(names(&found), [(&other, &Checkpoint::Latest, start_at), (&c, &Checkpoint::TrimHorizon, start_at)]);
}

#[test]
fn d1_what_follows_a_leased_shard_is_read_whole_also_for_latest() {
    let ([a, b, c], shards) = lineage_of_three();
    let found = missing(&shards, &[leased(&a, None, Checkpoint::ShardEnd)], StartPosition::Latest, TIMES);
    assert_eq!(names(&found), [(&b, &Checkpoint::TrimHorizon, None), (&c, &Checkpoint::TrimHorizon, None)]);
}

#[test]
fn a_shard_with_a_leased_descendant_gets_no_lease_again() {
    let ([_, _, c], shards) = lineage_of_three();
    let found = missing(&shards, &[leased(&c, None, Checkpoint::TrimHorizon)], StartPosition::TrimHorizon, TIMES);
    assert_eq!(found, Missing::default());
}

#[test]
fn s1_d1_a_shard_whose_ancestor_cannot_be_trimmed_yet_waits_for_it() {
    let (hidden, child) = (id(5, "hidden"), id(1, "child"));
    let shards = [shard(&child, Some(&hidden), false)];
    let found = missing(&shards, &[], StartPosition::TrimHorizon, TIMES);
    assert_eq!((found.leases.len(), found.postponed), (0, vec![child.clone()]));
    // A day later it can be.
    let later = Times { now: NOW + 20 * HOUR, ..TIMES };
    assert_eq!(missing(&shards, &[], StartPosition::TrimHorizon, later).leases.len(), 1);
    // With a lease it is known, listed or not.
    let found = missing(&shards, &[leased(&hidden, None, Checkpoint::ShardEnd)], StartPosition::TrimHorizon, TIMES);
    assert_eq!(found.leases.len(), 1);
}

#[test]
fn a_circle_and_a_shard_listed_twice_do_no_harm() {
    let (a, b) = (id(2, "a"), id(1, "b"));
    let shards = [shard(&a, Some(&b), false), shard(&b, Some(&a), false), shard(&a, Some(&b), false)];
    assert_eq!(missing(&shards, &[], StartPosition::TrimHorizon, TIMES).leases.len(), 2);
}

#[test]
fn s1_a_lease_may_start_when_its_parents_have_ended_or_are_unknown() {
    let (parent, child) = (id(2, "parent"), id(1, "child"));
    let lease = leased(&child, Some(&parent), Checkpoint::TrimHorizon);
    for (checkpoint, may) in [(Checkpoint::TrimHorizon, false), (Checkpoint::ShardEnd, true)] {
        let row = leased(&parent, None, checkpoint);
        assert_eq!(may_start(&lease, |id| (*id == parent).then_some(&row)), may);
    }
    assert!(may_start(&lease, |_| None));
    assert!(!may_start(&leased(&child, None, Checkpoint::ShardEnd), |_| None));
}

/// A forest of splits: each shard's parent is an earlier one, or none.
fn forest() -> impl Strategy<Value = Vec<Shard>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..30).prop_map(|draws| {
        let ids: Vec<ShardId> = (0..draws.len()).map(|n| id(20 - n as i64 / 2, &format!("{n:08}"))).collect();
        let parents: Vec<Option<usize>> =
            draws.iter().enumerate().map(|(n, (index, root))| (n > 0 && !root).then(|| index.index(n))).collect();
        (0..draws.len()).map(|n| shard(&ids[n], parents[n].map(|p| &ids[p]), parents.contains(&Some(n)))).collect()
    })
}

proptest! {
    /// S1, D1: a creation that stops anywhere and is taken up again, with any listing order, ends with a lease for every shard, and no
    /// child is ever leased before its parent.
    #[test]
    fn s1_d1_a_crash_between_creations_leaves_nothing_out(shards in forest().prop_shuffle(), stops in prop::collection::vec(0..8usize, 0..5)) {
        let parents: HashMap<&ShardId, Option<&ShardId>> = shards.iter().map(|shard| (&shard.id, shard.parent.as_ref())).collect();
        let mut leases: Vec<Lease> = Vec::new();
        for stop in stops.into_iter().chain([usize::MAX]) {
            for lease in missing(&shards, &leases.clone(), StartPosition::TrimHorizon, TIMES).leases.into_iter().take(stop) {
                if let Some(parent) = parents[&lease.shard] {
                    prop_assert!(leases.iter().any(|known| known.shard == *parent), "{} before its parent", lease.shard);
                }
                leases.push(lease);
            }
        }
        prop_assert_eq!(leases.len(), shards.len());
        prop_assert_eq!(missing(&shards, &leases, StartPosition::TrimHorizon, TIMES), Missing::default());
    }

    /// S1 again: whatever has ended, only shards whose whole lineage has ended may start.
    #[test]
    fn s1_reading_in_any_order_ends_parents_first(shards in forest(), picks in prop::collection::vec(any::<prop::sample::Index>(), 60)) {
        let mut rows: BTreeMap<ShardId, Lease> =
            missing(&shards, &[], StartPosition::TrimHorizon, TIMES).leases.into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
        for pick in picks {
            let ready: Vec<ShardId> = rows.values().filter(|lease| may_start(lease, |id| rows.get(id))).map(|lease| lease.shard.clone()).collect();
            if ready.is_empty() {
                break;
            }
            let next = &ready[pick.index(ready.len())];
            let parents = rows[next].parents.clone();
            prop_assert!(parents.iter().all(|parent| rows[parent].checkpoint == Checkpoint::ShardEnd));
            rows.get_mut(next).expect("a row").checkpoint = Checkpoint::ShardEnd;
        }
        prop_assert!(rows.values().all(|lease| lease.checkpoint == Checkpoint::ShardEnd));
    }
}
