//! What of one shard is safely in Pulsar: the contiguous prefix of its receipts (C1, C2). Pure.

use std::collections::VecDeque;

use super::lease::mark;
use crate::ports::{Checkpoint, Mark, SequenceNumber};

/// Stands for one record on its way; given out in reading order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// Follows one shard's records from reading to receipt, for as long as its lease is held.
#[derive(Debug)]
pub struct Tracker {
    /// Records read and not yet covered by the prefix, in reading order; `true` once stored or skipped.
    waiting: VecDeque<(SequenceNumber, bool)>,
    /// The ticket of the first one waiting: as many records of the epoch are covered.
    first: u64,
    /// The last record of the prefix.
    reached: Option<SequenceNumber>,
    /// What the lease row says; its number is that of the last record before the first ticket.
    written: Mark,
    epoch: u64,
    /// The row's checkpoint was written by somebody else and is passed again, so it is to be written with its number.
    adopting: bool,
    /// All records were read, and the children have leases.
    ended: bool,
}

impl Tracker {
    /// Goes on after the row's mark.
    pub fn new(written: Mark) -> Self {
        let (first, epoch) = (written.ordinal, written.epoch);
        Self { waiting: VecDeque::new(), first, reached: None, written, epoch, adopting: false, ended: false }
    }

    /// Starts before the row's checkpoint, which somebody else wrote: nothing is due before the records up to it are passed again.
    pub fn adopting(written: Mark) -> Self {
        Self { adopting: true, ..Self::new(written) }
    }

    /// A record was handed on. Records come in the shard's order.
    pub fn begin(&mut self, sequence: SequenceNumber) -> Ticket {
        debug_assert!(!self.ended, "C2: a record after the end of the shard");
        debug_assert!(
            self.waiting.back().map(|(last, _)| last).or(self.reached.as_ref()).is_none_or(|last| *last < sequence),
            "C2: {sequence} comes after a later record"
        );
        self.waiting.push_back((sequence, false));
        Ticket(self.first + self.waiting.len() as u64 - 1)
    }

    /// The record is stored in Pulsar, or policy skipped it.
    pub fn done(&mut self, ticket: Ticket) {
        if let Some(entry) = ticket.0.checked_sub(self.first).and_then(|at| self.waiting.get_mut(usize::try_from(at).ok()?)) {
            entry.1 = true;
        }
        while self.waiting.front().is_some_and(|(_, done)| *done) {
            self.reached = self.waiting.pop_front().map(|(sequence, _)| sequence);
            self.first += 1;
        }
    }

    /// The number of the record that is handed on next.
    pub fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64 + 1
    }

    /// What the lease row says.
    pub fn written(&self) -> &Mark {
        &self.written
    }

    /// The epoch of the numbers from the next record on. The row may not have it yet.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Records before the next one are gone (G1), and how many nobody knows: from here on the numbers are others than those that an owner before
    /// gave, even where they look the same. `now`: epoch milliseconds.
    pub fn begin_epoch(&mut self, now: i64) {
        // Nobody has numbered anything from there on where the shard is read from its beginning.
        if matches!(self.written.checkpoint, Checkpoint::At(_)) {
            self.epoch = mark::after(Some(&self.written), now);
        }
    }

    /// No record follows, and whatever has to exist before SHARD_END exists.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Records handed on and not yet covered by the prefix.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The checkpoint to write with its number, where it is further than the written one, or its epoch is another.
    pub fn due(&self) -> Option<Mark> {
        let reached = match &self.reached {
            _ if self.ended && self.waiting.is_empty() => Checkpoint::ShardEnd,
            Some(reached) => Checkpoint::At(reached.clone()),
            None => self.written.checkpoint.clone(),
        };
        let renewed = self.epoch != self.written.epoch || (self.adopting && self.reached.is_some());
        let due = is_ahead(&reached, &self.written.checkpoint) || (renewed && reached == self.written.checkpoint);
        debug_assert!(
            !due || self.waiting.front().is_none_or(|(next, _)| match &reached {
                Checkpoint::At(sequence) => sequence < next,
                _ => false,
            }),
            "C1: {reached:?} passes a record without receipt"
        );
        due.then_some(Mark { epoch: self.epoch, ordinal: self.first, checkpoint: reached })
    }

    pub fn wrote(&mut self, mark: &Mark) {
        debug_assert!(!is_ahead(&self.written.checkpoint, &mark.checkpoint), "C2: {mark:?} after {:?}", self.written);
        self.written = mark.clone();
        self.adopting = false;
    }
}

/// Whether `a` lies further than `b`. The sentinels of a lease that has not begun are all at the start.
pub fn is_ahead(a: &Checkpoint, b: &Checkpoint) -> bool {
    fn rank(checkpoint: &Checkpoint) -> (u8, Option<&SequenceNumber>) {
        match checkpoint {
            Checkpoint::TrimHorizon | Checkpoint::Latest | Checkpoint::AtTimestamp => (0, None),
            Checkpoint::At(sequence) => (1, Some(sequence)),
            Checkpoint::ShardEnd => (2, None),
        }
    }
    rank(a) > rank(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(n: u64) -> SequenceNumber {
        SequenceNumber::parse(&format!("{n:021}")).expect("digits")
    }

    fn mark(checkpoint: Checkpoint) -> Mark {
        Mark { epoch: 1, ordinal: 0, checkpoint }
    }

    fn due(tracker: &Tracker) -> Option<Checkpoint> {
        tracker.due().map(|mark| mark.checkpoint)
    }

    #[test]
    fn c1_the_prefix_stops_before_the_first_record_without_receipt() {
        let mut tracker = Tracker::new(mark(Checkpoint::TrimHorizon));
        let tickets: Vec<_> = (1..=3).map(|n| tracker.begin(at(n))).collect();
        assert_eq!(due(&tracker), None);
        tracker.done(tickets[1]);
        tracker.done(tickets[2]);
        assert_eq!(due(&tracker), None, "record 1 has no receipt");
        tracker.done(tickets[0]);
        assert_eq!(due(&tracker), Some(Checkpoint::At(at(3))));
    }

    #[test]
    fn what_is_written_is_not_due_again() {
        let mut tracker = Tracker::new(mark(Checkpoint::At(at(5))));
        let ticket = tracker.begin(at(6));
        tracker.done(ticket);
        tracker.done(ticket);
        tracker.wrote(&mark(Checkpoint::At(at(6))));
        assert_eq!(due(&tracker), None);
    }

    #[test]
    fn c2_shard_end_waits_for_the_last_receipt() {
        let mut tracker = Tracker::new(mark(Checkpoint::Latest));
        let (one, two) = (tracker.begin(at(1)), tracker.begin(at(2)));
        tracker.end();
        tracker.done(one);
        assert_eq!(due(&tracker), Some(Checkpoint::At(at(1))));
        tracker.done(two);
        assert_eq!(due(&tracker), Some(Checkpoint::ShardEnd));
    }

    #[test]
    fn d2_numbers_go_on_where_the_row_says() {
        let mut tracker = Tracker::new(Mark { epoch: 9, ordinal: 40, checkpoint: Checkpoint::At(at(5)) });
        let (one, two) = (tracker.begin(at(6)), tracker.begin(at(8)));
        tracker.done(one);
        assert_eq!(tracker.due(), Some(Mark { epoch: 9, ordinal: 41, checkpoint: Checkpoint::At(at(6)) }));
        tracker.done(two);
        tracker.end();
        assert_eq!(tracker.due(), Some(Mark { epoch: 9, ordinal: 42, checkpoint: Checkpoint::ShardEnd }));
    }

    #[test]
    fn w1_an_adopted_checkpoint_is_written_once_it_is_passed_again_and_not_before() {
        let mut tracker = Tracker::adopting(mark(Checkpoint::At(at(5))));
        let tickets: Vec<_> = (3..=5).map(|n| tracker.begin(at(n))).collect();
        for ticket in &tickets[..2] {
            tracker.done(*ticket);
            assert_eq!(tracker.due(), None, "C2: it is behind the row's checkpoint");
        }
        tracker.done(tickets[2]);
        let adopted = Mark { epoch: 1, ordinal: 3, checkpoint: Checkpoint::At(at(5)) };
        assert_eq!(tracker.due(), Some(adopted.clone()));
        tracker.wrote(&adopted);
        assert_eq!(tracker.due(), None);
    }

    #[test]
    fn c2_an_empty_shard_ends_too() {
        let mut tracker = Tracker::new(mark(Checkpoint::TrimHorizon));
        tracker.end();
        assert_eq!(due(&tracker), Some(Checkpoint::ShardEnd));
        tracker.wrote(&mark(Checkpoint::ShardEnd));
        assert_eq!(due(&tracker), None);
    }

    proptest! {
        /// C1 and C2 for receipts in any order: what is due is always the longest prefix of receipts, and never goes back.
        #[test]
        fn c1_c2_any_order_of_receipts(order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(), write_every in 1..7usize) {
            let mut tracker = Tracker::new(mark(Checkpoint::TrimHorizon));
            let tickets: Vec<_> = (0..40).map(|n| tracker.begin(at(n))).collect();
            let mut stored = [false; 40];
            for (step, &n) in order.iter().enumerate() {
                tracker.done(tickets[n]);
                stored[n] = true;
                let prefix = stored.iter().take_while(|s| **s).count();
                let due = tracker.due();
                if let Some(Mark { checkpoint, ordinal, epoch }) = &due {
                    prop_assert_eq!((checkpoint, *ordinal, *epoch), (&Checkpoint::At(at(prefix as u64 - 1)), prefix as u64, 1), "D2");
                }
                prop_assert_eq!(tracker.waiting(), 40 - prefix);
                if step % write_every == 0 && let Some(due) = due {
                    tracker.wrote(&due);
                    prop_assert_eq!(tracker.due(), None);
                }
            }
            tracker.end();
            prop_assert_eq!(due(&tracker), Some(Checkpoint::ShardEnd));
        }
    }
}
