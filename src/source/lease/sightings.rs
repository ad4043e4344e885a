//! The lease table as one worker has seen it, and when. Pure.

use std::collections::BTreeMap;

use crate::ports::{Lease, Moment, ShardId};

#[derive(Debug)]
pub(super) struct Sighting {
    pub lease: Lease,
    /// When this worker saw the counter change, by its own clock.
    pub changed: Moment,
    /// When it saw the note of `wanted_by`, or wrote it.
    pub noted: Moment,
    /// Not changed since the first look of this start.
    pub since_start: bool,
    /// When a write has shown the row: a listing that began before may be older.
    written: Option<Moment>,
}

/// The lease table as this worker has seen it.
#[derive(Debug, Default)]
pub struct Sightings {
    pub(super) rows: BTreeMap<ShardId, Sighting>,
    looked: bool,
}

impl Sightings {
    /// A whole listing, which began at `began` and ended at `now`.
    pub fn listed(&mut self, rows: Vec<Lease>, began: Moment, now: Moment) {
        let mut before = std::mem::take(&mut self.rows);
        let first_look = !self.looked;
        self.looked = true;
        for lease in rows {
            let seen = before.remove(&lease.shard);
            let noted = seen.as_ref().filter(|seen| seen.lease.wanted_by == lease.wanted_by).map_or(now, |seen| seen.noted);
            let sighting = match seen {
                Some(seen) if seen.written.is_some_and(|written| written >= began) && seen.lease.counter >= lease.counter => seen,
                Some(seen) if seen.lease.counter == lease.counter => Sighting { lease, noted, written: None, ..seen },
                _ => Sighting { lease, changed: now, noted, since_start: first_look, written: None },
            };
            self.rows.insert(sighting.lease.shard.clone(), sighting);
        }
        // Rows that were made since the listing began.
        before.retain(|_, seen| seen.written.is_some_and(|written| written >= began));
        self.rows.append(&mut before);
    }

    /// One row, as a write has just shown it.
    pub fn saw(&mut self, lease: Lease, now: Moment) {
        let before = self.rows.get(&lease.shard);
        let unchanged = before.filter(|seen| seen.lease.counter == lease.counter);
        let changed = unchanged.map_or(now, |seen| seen.changed);
        let noted = before.filter(|seen| seen.lease.wanted_by == lease.wanted_by).map_or(now, |seen| seen.noted);
        let since_start = unchanged.is_some_and(|seen| seen.since_start);
        self.rows.insert(lease.shard.clone(), Sighting { lease, changed, noted, since_start, written: Some(now) });
    }

    /// One row, as it is after this worker has asked for it.
    pub fn asked(&mut self, lease: Lease, now: Moment) {
        let shard = lease.shard.clone();
        self.saw(lease, now);
        // Also where the same note was there before.
        self.rows.entry(shard).and_modify(|seen| seen.noted = now);
    }

    /// A row that this worker has made. `false` where it has to wait for the next listing: rows of its parents may be there that were not
    /// seen yet, and without them it would look as if it could start (S1).
    pub fn made(&mut self, lease: Lease, now: Moment) -> bool {
        let is_complete = self.looked && lease.parents.iter().all(|parent| self.rows.contains_key(parent));
        if is_complete && !self.rows.contains_key(&lease.shard) {
            self.saw(lease, now);
        }
        is_complete
    }

    pub fn gone(&mut self, shard: &ShardId) {
        self.rows.remove(shard);
    }

    /// Whether the table was listed before.
    pub fn looked(&self) -> bool {
        self.looked
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::Checkpoint;

    const S: Duration = Duration::from_secs(1);

    fn lease(counter: u64) -> Lease {
        Lease { counter, ..Lease::new(ShardId::new("a"), Checkpoint::TrimHorizon) }
    }

    #[test]
    fn a_row_is_as_old_as_its_counter() {
        let mut seen = Sightings::default();
        let changed = |seen: &Sightings| seen.rows[&ShardId::new("a")].changed;
        seen.listed(vec![lease(1)], Duration::ZERO, S);
        seen.listed(vec![lease(1)], 2 * S, 3 * S);
        assert_eq!(changed(&seen), S);
        assert!(seen.rows[&ShardId::new("a")].since_start);
        seen.saw(lease(1), 4 * S);
        assert_eq!(changed(&seen), S, "a write that shows the same counter");
        seen.listed(vec![lease(2)], 5 * S, 6 * S);
        assert_eq!(changed(&seen), 6 * S);
        assert!(!seen.rows[&ShardId::new("a")].since_start);
    }

    #[test]
    fn s1_a_row_that_was_made_waits_until_its_parents_rows_are_known() {
        let mut seen = Sightings::default();
        let child = || Lease { parents: vec![ShardId::new("a")], ..Lease::new(ShardId::new("b"), Checkpoint::TrimHorizon) };
        assert!(!seen.made(child(), S) && !seen.made(lease(0), S), "nothing was seen yet");
        seen.listed(vec![], S, S);
        assert!(!seen.made(child(), S));
        assert!(seen.made(lease(0), S) && seen.made(child(), S));
        seen.saw(lease(7), S);
        assert!(seen.made(lease(0), S));
        assert_eq!(seen.rows().map(|lease| lease.counter).collect::<Vec<_>>(), [7, 0], "what is known is not made older");
    }

    #[test]
    fn a_listing_does_not_undo_what_a_write_has_shown_meanwhile() {
        let mut seen = Sightings::default();
        seen.listed(vec![], Duration::ZERO, S);
        seen.saw(lease(4), 3 * S);
        seen.listed(vec![], 2 * S, 4 * S);
        assert_eq!(seen.row(&ShardId::new("a")), Some(&lease(4)), "made since the listing began");
        seen.listed(vec![lease(3)], 3 * S, 4 * S);
        assert_eq!(seen.row(&ShardId::new("a")), Some(&lease(4)));
        seen.listed(vec![], 5 * S, 6 * S);
        assert_eq!(seen.row(&ShardId::new("a")), None);
    }
}
