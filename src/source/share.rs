//! Whether the lease table is another connector's already (spec R20). Pure.
//!
//! Two connectors with one `applicationName` share the work if they read the same stream. On different ones the Java connector deletes the other's leases
//! and tries its shards (spec W11).

use super::discover;
use crate::{
    error::{Error, Kind},
    ports::{Checkpoint, Lease, ShardId, StreamArn},
};

/// The rows that another connector may hold: unfinished, owned, of shards that were opened within a day, and of another stream than `stream`. `follows`: earlier
/// streams of its table are ours as well. A row of the Java connector does not name its stream; `is_listed` says whether the shard is in ours. `now`: epoch
/// milliseconds.
pub fn suspects(rows: &[Lease], stream: &StreamArn, follows: bool, is_listed: impl Fn(&ShardId) -> bool, now: i64) -> Vec<Lease> {
    let is_other = |row: &&Lease| match &row.stream {
        Some(of) => of != stream && !(follows && of.table() == stream.table()),
        None => !is_listed(&row.shard),
    };
    let is_in_use = |row: &&Lease| {
        let is_old = discover::created_millis(&row.shard).is_some() && !discover::is_young(&row.shard, now);
        row.checkpoint != Checkpoint::ShardEnd && row.owner.is_some() && !is_old
    };
    rows.iter().filter(is_in_use).filter(is_other).cloned().collect()
}

/// Those of the suspects that somebody has written meanwhile, and holds.
pub fn kept_up<'r>(suspects: &[Lease], rows: &'r [Lease]) -> Vec<&'r Lease> {
    let before = |row: &Lease| suspects.iter().find(|suspect| suspect.shard == row.shard);
    let is_written = |row: &&Lease| row.owner.is_some() && before(row).is_some_and(|before| before.counter != row.counter);
    rows.iter().filter(is_written).collect()
}

/// Why this connector does not start.
pub fn refusal(others: &[&Lease], stream: &StreamArn) -> Option<Error> {
    let first = others.first()?;
    let of = first.stream.as_ref().map_or("a stream that it does not name".to_owned(), ToString::to_string);
    let why = format!(
        "the lease table that applicationName names is in use by a connector on another stream: {} leases are renewed, among them that of {}, by {}, on {of}. \
         Two streams need two names: give this connector an applicationName of its own, or stop the other one for good",
        others.len(),
        first.shard,
        first.owner.as_deref().unwrap_or("nobody"),
    );
    Some(Error::new(Kind::Configuration, format!("read {stream}"), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const HOUR: i64 = 60 * 60 * 1000;

    fn arn(table: &str, day: u32) -> StreamArn {
        StreamArn::new(format!("arn:aws:dynamodb:eu-west-1:000000000000:table/{table}/stream/2026-11-{day:02}T08:00:00.000"))
    }

    fn row(hours: i64, stream: Option<StreamArn>) -> Lease {
        let shard = ShardId::new(format!("shardId-{:020}-a", NOW - hours * HOUR));
        Lease { stream, owner: Some("other".into()), ..Lease::new(shard, Checkpoint::TrimHorizon) }
    }

    #[test]
    fn r20_rows_of_another_stream_are_suspect_unless_they_are_finished_free_old_or_of_a_stream_that_is_followed() {
        let stream = arn("orders", 2);
        let suspects = |row: Lease, follows| suspects(&[row], &stream, follows, |_| false, NOW).len();
        let other = || row(1, Some(arn("customers", 1)));
        assert_eq!((suspects(other(), true), suspects(other(), false)), (1, 1));
        assert_eq!(suspects(row(1, Some(stream.clone())), false), 0, "the same stream is shared");
        assert_eq!((suspects(row(1, Some(arn("orders", 1))), true), suspects(row(1, Some(arn("orders", 1))), false)), (0, 1));
        assert_eq!(suspects(Lease { checkpoint: Checkpoint::ShardEnd, ..other() }, true), 0);
        assert_eq!(suspects(Lease { owner: None, ..other() }, true), 0);
        assert_eq!(suspects(row(25, Some(arn("customers", 1))), true), 0);
        assert_eq!(suspects(row(1, None), true), 1, "a Java worker's, of a shard that is not ours");
        assert_eq!(super::suspects(&[row(1, None)], &stream, true, |_| true, NOW).len(), 0, "a Java worker's, of a shard of ours");
    }

    #[test]
    fn r20_only_what_is_renewed_refuses() {
        let before = [row(1, None), row(2, None)];
        let renewed = Lease { counter: 7, ..before[1].clone() };
        let after = [before[0].clone(), renewed.clone()];
        assert_eq!(kept_up(&before, &after), [&renewed]);
        assert_eq!(kept_up(&before, &before), [] as [&Lease; 0]);
        let released = Lease { counter: 8, owner: None, ..renewed };
        assert_eq!(kept_up(&before, &[released]), [] as [&Lease; 0]);
        assert_eq!(refusal(&[], &arn("orders", 1)), None);
    }
}
