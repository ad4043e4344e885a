//! Where the numbers of a lease's records go on (D2). Pure.
//!
//! A record's number is its place among those that were read of its shard. Checkpoint and number are written in one update, so whoever reads
//! the shard again from there gives each record the same number. A checkpoint that somebody else wrote says nothing about numbers: it
//! begins a new epoch, as a reset does, and a gap, and a lease that was given up with nothing left to be published again.

use std::time::Duration;

use crate::ports::{Checkpoint, Lease, Mark};

/// The mark to go on from: the row's own, or the begin of a new epoch. `now`: epoch milliseconds.
pub fn go_on(lease: &Lease, now: i64) -> Mark {
    match &lease.mark {
        Some(mark) if goes_on(lease) => mark.clone(),
        // A row that was deleted and made again is newer as well.
        void => Mark { epoch: after(void.as_ref(), now), ordinal: 0, checkpoint: lease.checkpoint.clone() },
    }
}

/// Whether the row's numbers go on: records after its checkpoint may have been published under them.
pub fn goes_on(lease: &Lease) -> bool {
    lease.mark.as_ref().is_some_and(|mark| mark.checkpoint == lease.checkpoint)
}

/// The epoch after that of a mark: later than any before, even where a clock was set back.
pub fn after(mark: Option<&Mark>, now: i64) -> u64 {
    mark.map_or(0, |mark| mark.epoch + 1).max(u64::try_from(now).unwrap_or(0))
}

/// What is left of a mark when its lease is given up with nothing to be published again: its epoch. No lease that can still be read has this checkpoint.
pub fn closed(mark: Mark) -> Mark {
    Mark { checkpoint: Checkpoint::ShardEnd, ..mark }
}

/// Whether a worker of ours wrote the row's checkpoint, or it was never written.
pub fn is_ours(lease: &Lease) -> bool {
    !matches!(lease.checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd) || goes_on(lease)
}

/// Whether reading starts before the checkpoint: the Java connector checkpoints records that Pulsar may not have (spec W1).
/// Such a row keeps its void mark until the checkpoint is passed again, so that a crash meanwhile begins anew.
pub fn is_rewound(lease: &Lease, rewind: Duration) -> bool {
    !rewind.is_zero() && matches!(lease.checkpoint, Checkpoint::At(_)) && !is_ours(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{SequenceNumber, ShardId};

    fn at(n: u64) -> Checkpoint {
        Checkpoint::At(SequenceNumber::parse(&n.to_string()).expect("digits"))
    }

    fn lease(checkpoint: Checkpoint, mark: Option<Mark>) -> Lease {
        Lease { checkpoint, mark, ..Lease::new(ShardId::new("shard"), Checkpoint::TrimHorizon) }
    }

    #[test]
    fn d2_numbers_go_on_after_our_own_checkpoint() {
        let mark = Mark { epoch: 5, ordinal: 9, checkpoint: at(100) };
        assert_eq!(go_on(&lease(at(100), Some(mark.clone())), 1_000), mark);
        // Never checkpointed, and read before: the same records come again, with the same numbers.
        let begun = Mark { epoch: 5, ordinal: 0, checkpoint: Checkpoint::TrimHorizon };
        assert_eq!(go_on(&lease(Checkpoint::TrimHorizon, Some(begun.clone())), 1_000), begun);
    }

    #[test]
    fn d2_a_checkpoint_of_somebody_else_and_a_reset_begin_a_new_epoch() {
        let mark = |epoch| Some(Mark { epoch, ordinal: 9, checkpoint: at(100) });
        for checkpoint in [at(101), at(99), Checkpoint::TrimHorizon, Checkpoint::ShardEnd] {
            let new = |epoch| Mark { epoch, ordinal: 0, checkpoint: checkpoint.clone() };
            assert_eq!(go_on(&lease(checkpoint.clone(), mark(5)), 1_000), new(1_000));
            assert_eq!(go_on(&lease(checkpoint.clone(), mark(5_000)), 1_000), new(5_001), "the clock was set back");
            assert_eq!(go_on(&lease(checkpoint.clone(), None), 1_000), new(1_000));
        }
    }

    #[test]
    fn d2_a_lease_that_was_given_up_with_everything_published_begins_a_new_epoch() {
        for checkpoint in [at(100), Checkpoint::TrimHorizon] {
            let mark = Mark { epoch: 5_000, ordinal: 9, checkpoint: checkpoint.clone() };
            let row = lease(checkpoint.clone(), Some(closed(mark)));
            assert!(!goes_on(&row));
            assert_eq!(go_on(&row, 1_000), Mark { epoch: 5_001, ordinal: 0, checkpoint });
        }
    }

    #[test]
    fn w1_only_a_checkpoint_of_somebody_else_is_rewound() {
        let mark = Some(Mark { epoch: 5, ordinal: 9, checkpoint: at(100) });
        let five = Duration::from_secs(300);
        assert!(is_rewound(&lease(at(101), mark.clone()), five));
        assert!(is_rewound(&lease(at(101), None), five));
        assert!(!is_rewound(&lease(at(101), None), Duration::ZERO), "off by default");
        assert!(!is_rewound(&lease(at(100), mark.clone()), five));
        for checkpoint in [Checkpoint::TrimHorizon, Checkpoint::Latest, Checkpoint::AtTimestamp, Checkpoint::ShardEnd] {
            assert!(!is_rewound(&lease(checkpoint, None), five), "nothing was read, or it is over");
        }
    }
}
