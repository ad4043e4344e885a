//! Which leases to take, from what was seen of the rows and when. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Me;
use crate::{
    ports::{Checkpoint, Lease, Moment, ShardId},
    source::discover::may_start,
};

#[derive(Debug)]
struct Sighting {
    lease: Lease,
    /// When this worker saw the counter change, by its own clock.
    changed: Moment,
    /// Not changed since the first look of this start.
    since_start: bool,
}

/// The lease table as this worker has seen it.
#[derive(Debug, Default)]
pub struct Sightings {
    rows: BTreeMap<ShardId, Sighting>,
    looked: bool,
}

impl Sightings {
    /// A whole listing, which ended at `now`.
    pub fn listed(&mut self, rows: Vec<Lease>, now: Moment) {
        let mut before = std::mem::take(&mut self.rows);
        let first_look = !self.looked;
        self.looked = true;
        for lease in rows {
            let sighting = match before.remove(&lease.shard) {
                Some(seen) if seen.lease.counter == lease.counter => Sighting { lease, ..seen },
                _ => Sighting { lease, changed: now, since_start: first_look },
            };
            self.rows.insert(sighting.lease.shard.clone(), sighting);
        }
    }

    /// One row, as a write has just shown it.
    pub fn saw(&mut self, lease: Lease, now: Moment) {
        self.rows.insert(lease.shard.clone(), Sighting { lease, changed: now, since_start: false });
    }

    pub fn gone(&mut self, shard: &ShardId) {
        self.rows.remove(shard);
    }

    /// How many rows there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn row(&self, shard: &ShardId) -> Option<&Lease> {
        self.rows.get(shard).map(|seen| &seen.lease)
    }

    pub fn rows(&self) -> impl Iterator<Item = &Lease> {
        self.rows.values().map(|seen| &seen.lease)
    }
}

/// The leases to take now: those that may start (S1), are not `held` already, and belong to nobody:
///
/// - rows without owner, at once;
/// - rows of this very start, at once: a take whose reply was lost, or a lease that ran out here and was not taken by anybody;
/// - rows of an earlier start of the same worker, at once, unless they change: then a twin lives;
/// - rows of others when they have not changed for longer than `failover`.
pub fn to_take(seen: &Sightings, me: &Me, held: impl Fn(&ShardId) -> bool, now: Moment, failover: Duration) -> Vec<Lease> {
    seen.rows
        .values()
        .filter(|row| !held(&row.lease.shard) && may_start(&row.lease, |shard| seen.row(shard)))
        .filter(|row| {
            let own = row.lease.owner.as_ref() == Some(&me.id);
            row.lease.owner.is_none() || me.owns(&row.lease) || (own && row.since_start) || now.saturating_sub(row.changed) > failover
        })
        .map(|row| row.lease.clone())
        .collect()
}

/// What the table holds, of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Shards that are not finished.
    pub leases: usize,
    /// Those of them that nobody holds: without owner, or unchanged for longer than the failover time.
    pub free: usize,
    /// Those who hold the others.
    pub workers: usize,
}

pub fn census(seen: &Sightings, now: Moment, failover: Duration) -> Census {
    let unfinished = || seen.rows.values().filter(|row| row.lease.checkpoint != Checkpoint::ShardEnd);
    let is_held = |row: &&Sighting| row.lease.owner.is_some() && now.saturating_sub(row.changed) <= failover;
    let workers: BTreeSet<_> = unfinished().filter(is_held).map(|row| &row.lease.owner).collect();
    let (leases, held) = (unfinished().count(), unfinished().filter(is_held).count());
    Census { leases, free: leases - held, workers: workers.len() }
}

/// Whether the slow audit of the stream is this worker's: it is the first by name of those who hold leases. The Java connector's
/// workers, which leave no nonce, do not do any.
pub fn is_auditor(seen: &Sightings, me: &Me, now: Moment, failover: Duration) -> bool {
    let living = |row: &&Sighting| row.lease.nonce.is_some() && now.saturating_sub(row.changed) <= failover;
    let unfinished = |row: &&Sighting| row.lease.checkpoint != Checkpoint::ShardEnd;
    let mut owners = seen.rows.values().filter(unfinished).filter(living).filter_map(|row| row.lease.owner.as_ref());
    owners.all(|owner| *owner >= me.id)
}

/// Whether another worker may yet die and leave something to this one: unfinished rows that are neither held here nor wait for a parent.
pub fn others_work(seen: &Sightings, held: impl Fn(&ShardId) -> bool) -> bool {
    seen.rows().any(|lease| lease.checkpoint != Checkpoint::ShardEnd && !held(&lease.shard) && may_start(lease, |shard| seen.row(shard)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Duration = Duration::from_secs(10);

    fn me() -> Me {
        Me { id: "me".into(), nonce: "2".into() }
    }

    fn lease(shard: &str, owner: Option<(&str, &str)>, counter: u64) -> Lease {
        Lease {
            shard: ShardId::new(shard),
            owner: owner.map(|(id, _)| id.into()),
            counter,
            checkpoint: Checkpoint::TrimHorizon,
            owner_switches: 0,
            parents: Vec::new(),
            start_at: None,
            nonce: owner.map(|(_, nonce)| nonce.into()),
            stream: None,
        }
    }

    fn taken(seen: &Sightings, now: u64) -> Vec<String> {
        to_take(seen, &me(), |_| false, Duration::from_secs(now), F).into_iter().map(|lease| lease.shard.to_string()).collect()
    }

    #[test]
    fn the_census_counts_unfinished_rows_and_those_who_keep_theirs() {
        let mut seen = Sightings::default();
        let finished = Lease { checkpoint: Checkpoint::ShardEnd, ..lease("old", Some(("gone", "x")), 1) };
        let rows = |counter| {
            vec![lease("a", Some(("me", "2")), counter), lease("b", Some(("java", "x")), 1), lease("c", None, 1), finished.clone()]
        };
        seen.listed(rows(1), Duration::ZERO);
        assert_eq!(census(&seen, Duration::ZERO, F), Census { leases: 3, free: 1, workers: 2 });
        seen.listed(rows(2), Duration::from_secs(11));
        assert_eq!(census(&seen, Duration::from_secs(11), F), Census { leases: 3, free: 2, workers: 1 }, "java is gone");
    }

    #[test]
    fn l1_anothers_row_is_taken_only_after_the_failover_time_without_change() {
        let mut seen = Sightings::default();
        for (now, counter) in [(0, 1), (5, 2), (10, 2), (15, 2)] {
            seen.listed(vec![lease("a", Some(("java", "x")), counter)], Duration::from_secs(now));
            assert!(taken(&seen, now).is_empty(), "at {now} s");
        }
        assert_eq!(taken(&seen, 16), ["a"]);
    }

    #[test]
    fn free_rows_and_rows_of_an_earlier_start_are_taken_at_once() {
        let mut seen = Sightings::default();
        seen.listed(vec![lease("free", None, 3), lease("mine", Some(("me", "1")), 3), lease("now", Some(("me", "2")), 3)], F);
        assert_eq!(taken(&seen, 10), ["free", "mine", "now"]);
        assert!(to_take(&seen, &me(), |_| true, F, F).is_empty(), "held leases are not taken again");
    }

    #[test]
    fn a_living_twin_keeps_its_rows() {
        let mut seen = Sightings::default();
        seen.listed(vec![], Duration::ZERO);
        seen.listed(vec![lease("twin", Some(("me", "1")), 3)], Duration::from_secs(1));
        assert!(taken(&seen, 2).is_empty());
        let mut seen = Sightings::default();
        seen.listed(vec![lease("twin", Some(("me", "1")), 3)], Duration::ZERO);
        seen.listed(vec![lease("twin", Some(("me", "1")), 4)], Duration::from_secs(1));
        assert!(taken(&seen, 2).is_empty());
    }

    #[test]
    fn one_worker_of_a_fleet_does_the_slow_audit() {
        let mut seen = Sightings::default();
        assert!(is_auditor(&seen, &me(), F, F), "nobody else is there");
        let rows = |counter| {
            vec![lease("a", Some(("a", "1")), counter), lease("b", Some(("me", "2")), counter), lease("c", Some(("z", "3")), counter)]
        };
        seen.listed(rows(1), F);
        let of = |seen: &Sightings, name: &str, now: Duration| is_auditor(seen, &Me { id: name.into(), nonce: "2".into() }, now, F);
        assert_eq!(["a", "me", "z"].map(|name| of(&seen, name, F)), [true, false, false]);
        // The first one dies.
        seen.listed(vec![rows(1).remove(0), rows(2).remove(1), rows(2).remove(2)], 2 * F);
        assert_eq!(["me", "z"].map(|name| of(&seen, name, 2 * F + Duration::from_secs(1))), [true, false]);
        seen.saw(Lease { nonce: None, ..lease("d", Some(("Java:worker", "")), 1) }, 2 * F);
        assert!(of(&seen, "me", 2 * F + Duration::from_secs(1)), "a Java worker does not audit");
    }

    #[test]
    fn s1_a_child_waits_for_its_parent_and_ended_leases_are_left_alone() {
        let child = Lease { parents: vec![ShardId::new("parent")], ..lease("child", None, 0) };
        let mut seen = Sightings::default();
        seen.listed(vec![child, lease("parent", None, 0)], Duration::ZERO);
        assert_eq!(taken(&seen, 1), ["parent"]);
        seen.saw(Lease { checkpoint: Checkpoint::ShardEnd, ..lease("parent", Some(("me", "2")), 9) }, F);
        assert_eq!(taken(&seen, 1), ["child"]);
        seen.gone(&ShardId::new("parent"));
        assert_eq!(taken(&seen, 1), ["child"]);
    }
}
