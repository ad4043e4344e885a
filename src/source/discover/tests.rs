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

/// Of a complete listing.
fn all_missing(shards: &[Shard], leases: &[Lease], start: StartPosition, times: Times) -> Missing {
    let mut listing = Listing::default();
    listing.add(shards.to_vec(), true);
    missing(&listing, &Rows::new(leases.to_vec()), start, times)
}

fn names(missing: &Missing) -> Vec<(&ShardId, &Checkpoint, Option<i64>)> {
    missing.generations.iter().flatten().map(|lease| (&lease.shard, &lease.checkpoint, lease.start_at)).collect()
}

#[test]
fn trim_horizon_takes_everything_that_is_left_parents_first() {
    let ([a, b, c], shards) = lineage_of_three();
    let found = all_missing(&shards, &[], StartPosition::TrimHorizon, TIMES);
    let all = [(&a, &Checkpoint::TrimHorizon, None), (&b, &Checkpoint::TrimHorizon, None), (&c, &Checkpoint::TrimHorizon, None)];
    assert_eq!(names(&found), all);
    assert_eq!(found.generations[1][0].parents, [a]);
}

#[test]
fn latest_takes_the_open_shards_from_now_on() {
    let ([_, _, c], shards) = lineage_of_three();
    assert_eq!(names(&all_missing(&shards, &[], StartPosition::Latest, TIMES)), [(&c, &Checkpoint::Latest, Some(NOW))]);
}

#[test]
fn a_shard_that_closed_after_the_start_time_belongs_to_it() {
    let ([_, b, c], shards) = lineage_of_three();
    let start = NOW - 6 * HOUR;
    let found = all_missing(&shards, &[], StartPosition::AtTimestamp(start), TIMES);
    assert_eq!(names(&found), [(&b, &Checkpoint::AtTimestamp, Some(start)), (&c, &Checkpoint::AtTimestamp, Some(start))]);
}

#[test]
fn d1_the_start_time_of_the_first_start_stays() {
    let ([_, b, c], shards) = lineage_of_three();
    // The first start got as far as one lease, before the last split.
    let first = Lease { start_at: Some(NOW - 6 * HOUR), ..leased(&b, None, Checkpoint::Latest) };
    let other = id(3, "other");
    let shards: Vec<_> = shards.into_iter().chain([shard(&other, None, false)]).collect();
    let found = all_missing(&shards, &[first], StartPosition::Latest, TIMES);
    let start_at = Some(NOW - 6 * HOUR);
    assert_eq!(names(&found), [(&other, &Checkpoint::Latest, start_at), (&c, &Checkpoint::TrimHorizon, start_at)]);
}

/// The Java connector's rows do not say when the first start was. What has no leased relative was opened while nobody looked.
#[test]
fn d1_beside_rows_without_a_start_time_latest_is_read_whole() {
    let ([_, b, c], shards) = lineage_of_three();
    let other = id(3, "other");
    let shards: Vec<_> = shards.into_iter().chain([shard(&other, None, false)]).collect();
    let found = all_missing(&shards, &[leased(&b, None, Checkpoint::TrimHorizon)], StartPosition::Latest, TIMES);
    assert_eq!(names(&found), [(&other, &Checkpoint::TrimHorizon, None), (&c, &Checkpoint::TrimHorizon, None)]);
}

#[test]
fn d1_what_follows_a_leased_shard_is_read_whole_also_for_latest() {
    let ([a, b, c], shards) = lineage_of_three();
    let found = all_missing(&shards, &[leased(&a, None, Checkpoint::ShardEnd)], StartPosition::Latest, TIMES);
    assert_eq!(names(&found), [(&b, &Checkpoint::TrimHorizon, None), (&c, &Checkpoint::TrimHorizon, None)]);
}

#[test]
fn a_shard_with_a_leased_descendant_gets_no_lease_again() {
    let ([_, _, c], shards) = lineage_of_three();
    let found = all_missing(&shards, &[leased(&c, None, Checkpoint::TrimHorizon)], StartPosition::TrimHorizon, TIMES);
    assert_eq!(found, Missing::default());
}

#[test]
fn s1_d1_a_shard_whose_ancestor_cannot_be_trimmed_yet_waits_for_it() {
    let (hidden, child) = (id(5, "hidden"), id(1, "child"));
    let shards = [shard(&child, Some(&hidden), false)];
    let found = all_missing(&shards, &[], StartPosition::TrimHorizon, TIMES);
    assert_eq!((found.generations.len(), found.postponed), (0, vec![child.clone()]));
    // A day later it can be.
    let later = Times { now: NOW + 20 * HOUR, ..TIMES };
    assert_eq!(all_missing(&shards, &[], StartPosition::TrimHorizon, later).generations.concat().len(), 1);
    // With a lease it is known, listed or not.
    let found = all_missing(&shards, &[leased(&hidden, None, Checkpoint::ShardEnd)], StartPosition::TrimHorizon, TIMES);
    assert_eq!(found.generations.concat().len(), 1);
}

#[test]
fn a_circle_and_a_shard_listed_twice_do_no_harm() {
    let (a, b) = (id(2, "a"), id(1, "b"));
    let shards = [shard(&a, Some(&b), false), shard(&b, Some(&a), false), shard(&a, Some(&b), false)];
    assert_eq!(all_missing(&shards, &[], StartPosition::TrimHorizon, TIMES).generations.concat().len(), 2);
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
            // Those of a generation are created at once, so that any of them may be the last.
            let mut generations = all_missing(&shards, &leases, StartPosition::TrimHorizon, TIMES).generations;
            for generation in &mut generations {
                let first = stop % generation.len();
                generation.rotate_left(first);
            }
            for lease in generations.concat().into_iter().take(stop) {
                if let Some(parent) = parents[&lease.shard] {
                    prop_assert!(leases.iter().any(|known| known.shard == *parent), "{} before its parent", lease.shard);
                }
                leases.push(lease);
            }
        }
        prop_assert_eq!(leases.len(), shards.len());
        prop_assert_eq!(all_missing(&shards, &leases, StartPosition::TrimHorizon, TIMES), Missing::default());
    }

    /// S1 again: whatever has ended, only shards whose whole lineage has ended may start.
    #[test]
    fn s1_reading_in_any_order_ends_parents_first(shards in forest(), picks in prop::collection::vec(any::<prop::sample::Index>(), 60)) {
        let mut rows: BTreeMap<ShardId, Lease> =
            all_missing(&shards, &[], StartPosition::TrimHorizon, TIMES).generations.concat().into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
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

/// The first page of a listing.
fn page(shards: &[Shard]) -> Listing {
    let mut listing = Listing::default();
    listing.add(shards.to_vec(), false);
    listing
}

#[test]
fn r10_the_first_page_of_an_unknown_stream_is_read_at_once() {
    let ([a, b, c], shards) = lineage_of_three();
    let mut in_order = shards.clone();
    in_order.sort_by(|a, b| a.id.cmp(&b.id));
    let mut rows = Rows::new(Vec::new());
    let first = missing(&page(&in_order[..2]), &rows, StartPosition::TrimHorizon, TIMES);
    assert_eq!(names(&first).iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [&a, &b]);
    first.generations.concat().into_iter().for_each(|lease| rows.created(lease));
    let mut whole = page(&in_order[..2]);
    whole.add(in_order[2..].to_vec(), true);
    let rest = missing(&whole, &rows, StartPosition::TrimHorizon, TIMES);
    assert_eq!(names(&rest).iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [&c]);
}

#[test]
fn with_a_start_time_a_closed_shard_waits_for_the_page_with_its_children() {
    let ([_, b, _], shards) = lineage_of_three();
    let closed: Vec<Shard> = shards.into_iter().filter(|shard| shard.id == b).map(|shard| Shard { parent: None, ..shard }).collect();
    let rows = Rows::default();
    assert_eq!(missing(&page(&closed), &rows, StartPosition::Latest, TIMES), Missing::default());
    assert_eq!(missing(&page(&closed), &rows, StartPosition::TrimHorizon, TIMES).generations.concat().len(), 1);
}

#[test]
fn a_page_says_nothing_of_shards_whose_descendants_may_be_leased() {
    let ([a, b, c], shards) = lineage_of_three();
    // The row of `c` says that `a` and `b` are over, and only the listing of `b` says how.
    let rows = Rows::new(vec![leased(&c, Some(&b), Checkpoint::TrimHorizon)]);
    let first: Vec<Shard> = shards.iter().filter(|shard| shard.id == a).cloned().collect();
    assert_eq!(missing(&page(&first), &rows, StartPosition::TrimHorizon, TIMES), Missing::default());
}

#[test]
fn r10_the_child_of_a_leased_shard_needs_no_further_page() {
    let ([_, b, c], shards) = lineage_of_three();
    let rows = Rows::new(vec![leased(&b, None, Checkpoint::ShardEnd)]);
    let tail: Vec<Shard> = shards.iter().filter(|shard| shard.id == c).cloned().collect();
    let mut listing = Listing::after(Some(b.clone()));
    listing.add(tail, false);
    assert_eq!(names(&missing(&listing, &rows, StartPosition::Latest, TIMES)), [(&c, &Checkpoint::TrimHorizon, None)]);
}

#[test]
fn d1_a_parent_outside_of_what_was_listed_is_not_taken_for_trimmed() {
    let (old, child) = (id(30, "old"), id(1, "child"));
    let shards = [shard(&child, Some(&old), false)];
    let mut tail = Listing::after(Some(id(20, "from")));
    tail.add(shards.to_vec(), true);
    assert_eq!(missing(&tail, &Rows::default(), StartPosition::TrimHorizon, TIMES).postponed, [child]);
    assert_eq!(
        all_missing(&shards, &[], StartPosition::TrimHorizon, TIMES).generations.concat().len(),
        1,
        "R12: trimmed, so the child starts"
    );
}

/// Pages in another order than the shards': the parent comes last, and is read all the same.
#[test]
fn d1_a_parent_that_is_listed_after_its_child_is_read() {
    let (parent, child) = (id(30, "parent"), id(25, "child"));
    let mut listing = page(&[shard(&child, Some(&parent), false)]);
    let mut rows = Rows::default();
    for lease in missing(&listing, &rows, StartPosition::TrimHorizon, TIMES).generations.concat() {
        rows.created(lease);
    }
    listing.add(vec![shard(&parent, None, true), shard(&child, Some(&parent), false)], true);
    for lease in missing(&listing, &rows, StartPosition::TrimHorizon, TIMES).generations.concat() {
        rows.created(lease);
    }
    assert!(rows.all().any(|lease| lease.shard == parent));
}

#[test]
fn r10_an_audit_starts_before_the_oldest_shard_that_is_not_finished() {
    let [a, b, c, d] = [id(20, "a"), id(12, "b"), id(8, "c"), id(0, "d")];
    let row = |id: &ShardId, checkpoint: &Checkpoint| leased(id, None, checkpoint.clone());
    let (end, open) = (&Checkpoint::ShardEnd, &Checkpoint::TrimHorizon);
    assert_eq!(audit_from(&[row(&d, end), row(&c, open), row(&a, end), row(&b, end)], NOW), Some(&b));
    assert_eq!(audit_from(&[row(&a, end), row(&b, end), row(&c, end), row(&d, end)], NOW), Some(&c), "a sibling may come late");
    assert_eq!(audit_from(&[row(&a, open), row(&b, end)], NOW), None, "nothing older is known");
    assert_eq!(audit_from(&[row(&a, end), row(&ShardId::new("odd"), open)], NOW), None);
    assert_eq!(audit_from(&[], NOW), None);
}

#[test]
fn s1_a_family_is_told_when_no_page_can_add_to_it() {
    let (parent, later) = (id(4, "parent"), id(0, "later"));
    let twins = [id(1, "left"), id(1, "right")];
    let mut listing = Listing::after(Some(parent.clone()));
    listing.add(vec![shard(&twins[0], Some(&parent), false)], false);
    let waits = |shard: &ShardId| *shard == parent;
    assert!(families(&listing, waits).is_empty(), "the other half of the split may come");
    listing.add(vec![shard(&twins[1], Some(&parent), false), shard(&later, None, false)], false);
    assert_eq!(families(&listing, waits)[&parent].len(), 2);
    assert!(families(&listing, |_| false).is_empty());
}
