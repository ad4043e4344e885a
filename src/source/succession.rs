//! Which stream of a table is read next. Pure.
//!
//! A stream that is switched off keeps its ARN and can be read for 24 hours; one that is switched on again, or that a table of the same
//! name gets, has another ARN. The rows of all of them are in one lease table and say whose they are.

use std::collections::BTreeSet;

use super::StartPosition;
use crate::ports::{Checkpoint, Lease, StreamArn};

/// Whether the row is one of this stream. A row of the Java connector does not say whose it is, and counts as one.
pub fn is_of(row: &Lease, stream: &StreamArn) -> bool {
    row.stream.as_ref().is_none_or(|of| of == stream)
}

/// The stream to read now: the oldest of the table that somebody has begun and nobody has finished, so that the changes of an item stay in
/// order (O1), then the latest one. `None`: they are all `over`.
pub fn next(rows: &[Lease], latest: &StreamArn, over: &BTreeSet<StreamArn>) -> Option<StreamArn> {
    let unfinished = rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd).filter_map(|row| row.stream.as_ref());
    let earlier = unfinished.filter(|stream| stream.precedes(latest) && !over.contains(*stream)).min_by_key(|stream| stream.label());
    earlier.or_else(|| Some(latest).filter(|latest| !over.contains(*latest))).cloned()
}

/// Where a stream's reading starts: at its beginning if it follows one that was read, since the start position was that one's.
pub fn start(rows: &[Lease], stream: &StreamArn, over: &BTreeSet<StreamArn>, configured: StartPosition) -> StartPosition {
    let mut read = rows.iter().filter_map(|row| row.stream.as_ref()).chain(over);
    if read.any(|other| other.precedes(stream)) { StartPosition::TrimHorizon } else { configured }
}

/// The rows of streams that come before `stream` which nobody needs any more: those of `lost` streams, and finished ones of which the
/// shards are gone as well.
pub fn left_behind<'r>(
    rows: &'r [Lease],
    stream: &'r StreamArn,
    lost: &'r BTreeSet<StreamArn>,
    is_gone: impl Fn(&Lease) -> bool + 'r,
) -> impl Iterator<Item = &'r Lease> {
    let earlier = rows.iter().filter(|row| row.stream.as_ref().is_some_and(|of| of.precedes(stream)));
    earlier.filter(move |row| {
        let is_lost = row.stream.as_ref().is_some_and(|of| lost.contains(of));
        is_lost || row.checkpoint == Checkpoint::ShardEnd && is_gone(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::ShardId;

    fn arn(table: &str, day: u32) -> StreamArn {
        StreamArn::new(format!("arn:aws:dynamodb:eu-west-1:000000000000:table/{table}/stream/2026-11-{day:02}T08:00:00.000"))
    }

    fn row(stream: Option<&StreamArn>, checkpoint: Checkpoint) -> Lease {
        Lease { stream: stream.cloned(), ..Lease::new(ShardId::new("shardId-1"), checkpoint) }
    }

    #[test]
    fn o1_the_oldest_stream_that_is_not_finished_comes_first_and_the_latest_last() {
        let (first, second, third) = (arn("orders", 1), arn("orders", 2), arn("orders", 3));
        let rows = [
            row(Some(&second), Checkpoint::TrimHorizon),
            row(Some(&first), Checkpoint::Latest),
            row(Some(&arn("customers", 1)), Checkpoint::TrimHorizon),
            row(None, Checkpoint::TrimHorizon),
        ];
        let mut over = BTreeSet::new();
        for stream in [&first, &second, &third] {
            assert_eq!(next(&rows, &third, &over).as_ref(), Some(stream));
            over.insert(stream.clone());
        }
        assert_eq!(next(&rows, &third, &over), None);
        let finished = [row(Some(&first), Checkpoint::ShardEnd)];
        assert_eq!(next(&finished, &third, &BTreeSet::new()), Some(third));
    }

    #[test]
    fn d1_a_stream_that_follows_another_is_read_whole() {
        let (first, second) = (arn("orders", 1), arn("orders", 2));
        let none = BTreeSet::new();
        let start = |rows: &[Lease], over: &BTreeSet<StreamArn>| start(rows, &second, over, StartPosition::Latest);
        assert_eq!(start(&[], &none), StartPosition::Latest);
        assert_eq!(start(&[row(Some(&second), Checkpoint::Latest), row(None, Checkpoint::Latest)], &none), StartPosition::Latest);
        assert_eq!(start(&[row(Some(&arn("customers", 1)), Checkpoint::Latest)], &none), StartPosition::Latest, "another table's");
        assert_eq!(start(&[row(Some(&first), Checkpoint::ShardEnd)], &none), StartPosition::TrimHorizon);
        assert_eq!(start(&[], &BTreeSet::from([first])), StartPosition::TrimHorizon);
    }

    #[test]
    fn rows_of_an_earlier_stream_go_when_it_is_lost_or_long_over() {
        let (first, second) = (arn("orders", 1), arn("orders", 2));
        let rows = [
            row(Some(&first), Checkpoint::TrimHorizon),
            row(Some(&first), Checkpoint::ShardEnd),
            row(Some(&second), Checkpoint::ShardEnd),
            row(Some(&arn("customers", 1)), Checkpoint::ShardEnd),
            row(None, Checkpoint::ShardEnd),
        ];
        let count = |lost: &BTreeSet<StreamArn>, gone: bool| left_behind(&rows, &second, lost, |_| gone).count();
        let (none, lost) = (BTreeSet::new(), BTreeSet::from([first.clone()]));
        assert_eq!((count(&none, false), count(&none, true), count(&lost, false)), (0, 1, 2));
    }
}
