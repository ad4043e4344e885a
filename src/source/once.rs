//! Publishing each record once (D2): by whom and under which number the broker is told that a record is sent, and when it may be. Pure.
//!
//! A broker with deduplication on knows the greatest number that it has of each producer, by the producer's name, and drops what is not greater. So
//! whoever reads a shard on after a crash publishes it under the name and the numbers of the owner before, which the lease row keeps. Three things about brokers and
//! clients (Pulsar 4.0.8: `MessageDeduplication`, `ProducerImpl`, `PulsarSink`) decide the rest:
//!
//! - **Of a batch, the broker looks at the first number alone**, and the client puts what it has already sent in an earlier life together with what is new. A
//!   record that may be there already is therefore sent alone: after the receipt of the one before it, and before the one after it. There are
//!   few of them, since never more than [`Once::most_unwritten`] records are published beyond the checkpoint in the row.
//! - **A name can be connected once**, and Pulsar IO keeps a producer as long as its instance runs. A lease that is given up with nothing left
//!   to be published again ends its epoch, so that the next owner has another name; one that is lost ends the process, and with it the instance. While there are
//!   doubtful records the epoch cannot end, so such a shard is not handed over.
//! - **The numbers have to mean the same records.** They do not after a gap (G1), which begins a new epoch. Before the first checkpoint nobody would notice a gap
//!   at the beginning of the shard: so the first record has a name of its own, with its sequence number, and the next one waits for its checkpoint.

use std::sync::Arc;

use crate::ports::{Checkpoint, Mark, Place, SequenceNumber, ShardId, StreamArn};

/// What [`Once::most_unwritten`] is where nobody says otherwise.
pub const MOST_UNWRITTEN: u64 = 500;

/// How a source publishes each record once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The lease table's name: two sources that publish a stream's changes to one topic do not take the other's for their own.
    pub application: Arc<str>,
    /// Records that may be published beyond the checkpoint that is written, for each shard; at least 1, and the same for all workers. After a crash so many
    /// are sent one by one, at some 10 ms each, and while a backlog is read there is a write of the lease for each half of them.
    pub most_unwritten: u64,
}

/// How one shard's records are published, for as long as its lease is held.
#[derive(Debug, Clone)]
pub struct Numbering {
    /// The producer's name without the epoch.
    name: String,
    /// The last number under which the owner before may have published.
    doubtful: u64,
    most_unwritten: u64,
}

/// What a record's turn depends on.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The record's number, and the epoch that it belongs to.
    pub number: u64,
    pub epoch: u64,
    /// What the lease row says.
    pub written: &'a Mark,
    /// Records before it without a receipt.
    pub waiting: usize,
}

/// Why a record may not be sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For the receipts of the records before it.
    Receipts,
    /// For a checkpoint that is further, to be written as soon as there is one.
    Checkpoint,
}

impl Numbering {
    /// `goes_on`: an owner before may have published records after the mark.
    pub fn new(once: &Once, stream: &StreamArn, shard: &ShardId, from: &Mark, goes_on: bool) -> Self {
        let stream = stream.as_str().split_once(":table/").map_or(stream.as_str(), |(_, table_and_label)| table_and_label);
        let name = format!("{}/{stream}/{shard}", once.application);
        let mut numbering = Self { name, doubtful: 0, most_unwritten: once.most_unwritten };
        if goes_on {
            numbering.doubtful = numbering.furthest(from);
        }
        numbering
    }

    /// The place of a record that may be sent now.
    pub fn place(&self, turn: Turn, sequence: &SequenceNumber) -> Result<Place, Wait> {
        // Nobody would go on under a name that the row does not have.
        if turn.number > self.furthest(turn.written) || turn.epoch != turn.written.epoch {
            return Err(Wait::Checkpoint);
        }
        // The one after the last doubtful one is new, and must not be in a batch with it.
        if turn.waiting > 0 && turn.number <= self.doubtful + 1 {
            return Err(Wait::Receipts);
        }
        let (name, epoch) = (&self.name, turn.epoch);
        let producer = if has_begun(turn.written) { format!("{name}/{epoch}") } else { format!("{name}/{epoch}/{sequence}") };
        Ok(Place { producer: producer.into(), sequence: turn.number })
    }

    /// From here on, the names are new ones.
    pub fn begin_epoch(&mut self) {
        self.doubtful = 0;
    }

    /// Whether all that an owner before may have published is passed. `next`: the number of the next record.
    pub fn is_past_doubt(&self, next: u64) -> bool {
        next > self.doubtful
    }

    /// Whether a checkpoint is to be written soon, so that nothing waits for it. `next`: the number of the next record.
    pub fn is_far(&self, next: u64, written: &Mark) -> bool {
        next > written.ordinal + self.most_unwritten / 2
    }

    /// The last number that may be published beyond a mark.
    fn furthest(&self, written: &Mark) -> u64 {
        written.ordinal + if has_begun(written) { self.most_unwritten } else { 1 }
    }
}

fn has_begun(written: &Mark) -> bool {
    matches!(written.checkpoint, Checkpoint::At(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> SequenceNumber {
        SequenceNumber::parse(&n.to_string()).expect("digits")
    }

    fn mark(ordinal: u64, checkpoint: Checkpoint) -> Mark {
        Mark { epoch: 7, ordinal, checkpoint }
    }

    fn numbering(from: &Mark, goes_on: bool) -> Numbering {
        let stream = StreamArn::new("arn:aws:dynamodb:eu-west-1:1:table/orders/stream/2026");
        Numbering::new(
            &Once { application: "app".into(), most_unwritten: MOST_UNWRITTEN },
            &stream,
            &ShardId::new("shard-1"),
            from,
            goes_on,
        )
    }

    fn place(numbering: &Numbering, number: u64, written: &Mark, waiting: usize) -> Result<(String, u64), Wait> {
        let place = numbering.place(Turn { number, epoch: 7, written, waiting }, &at(500 + number));
        place.map(|Place { producer, sequence }| (producer.to_string(), sequence))
    }

    #[test]
    fn d2_what_may_be_there_already_is_sent_alone_and_so_is_the_one_after_it() {
        let written = mark(20, Checkpoint::At(at(520)));
        let numbering = numbering(&written, true);
        assert_eq!(place(&numbering, 21, &written, 0), Ok(("app/orders/stream/2026/shard-1/7".into(), 21)));
        for doubtful in [21, 20 + MOST_UNWRITTEN] {
            assert_eq!(place(&numbering, doubtful, &written, 1), Err(Wait::Receipts));
            assert!(place(&numbering, doubtful, &written, 0).is_ok());
        }
        // Meanwhile checkpoints are written; what was doubtful at the beginning stays so.
        let written = mark(500, Checkpoint::At(at(1000)));
        assert_eq!(place(&numbering, 21 + MOST_UNWRITTEN, &written, 1), Err(Wait::Receipts));
        assert!(place(&numbering, 22 + MOST_UNWRITTEN, &written, 1).is_ok());
    }

    #[test]
    fn d2_a_new_name_has_no_doubtful_records() {
        let written = mark(20, Checkpoint::At(at(520)));
        assert!(place(&numbering(&written, false), 22, &written, 1).is_ok());
        let mut after_a_gap = numbering(&written, true);
        after_a_gap.begin_epoch();
        assert!(place(&after_a_gap, 22, &written, 1).is_ok());
        let unwritten = Turn { number: 22, epoch: 8, written: &written, waiting: 0 };
        assert_eq!(after_a_gap.place(unwritten, &at(522)), Err(Wait::Checkpoint), "the row has to know the name first");
    }

    #[test]
    fn d2_as_many_are_beyond_the_checkpoint_as_the_next_owner_takes_for_doubtful() {
        for goes_on in [false, true] {
            let written = mark(20, Checkpoint::At(at(520)));
            let numbering = numbering(&written, goes_on);
            assert!(place(&numbering, 20 + MOST_UNWRITTEN, &written, 0).is_ok());
            assert_eq!(place(&numbering, 21 + MOST_UNWRITTEN, &written, 0), Err(Wait::Checkpoint));
        }
    }

    #[test]
    fn d2_a_first_record_has_a_name_of_its_own_and_the_second_one_waits_for_its_checkpoint() {
        for checkpoint in [Checkpoint::TrimHorizon, Checkpoint::Latest, Checkpoint::AtTimestamp] {
            let written = mark(0, checkpoint);
            let numbering = numbering(&written, true);
            assert_eq!(place(&numbering, 1, &written, 0), Ok(("app/orders/stream/2026/shard-1/7/501".into(), 1)));
            assert_eq!(place(&numbering, 2, &written, 0), Err(Wait::Checkpoint));
            let written = mark(1, Checkpoint::At(at(501)));
            assert_eq!(place(&numbering, 2, &written, 0), Ok(("app/orders/stream/2026/shard-1/7".into(), 2)));
        }
    }
}
