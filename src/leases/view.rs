//! What two looks at the lease table show a person. Pure.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::Serialize;

use crate::{
    ports::{Checkpoint, Lease, ShardId},
    source::discover::may_start,
};

/// What a lease is doing, as far as the rows tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its owner has written the row between the looks.
    Running,
    /// It has an owner, and there was one look only.
    Owned,
    /// Its owner has not written the row between the looks, which were closer together than the failover time.
    Silent,
    /// Its owner has not written the row for the failover time: anybody may take it.
    Expired,
    /// It has no owner: anybody may take it at once.
    Free,
    /// Its parents are not finished (S1).
    Waiting,
    /// SHARD_END: its last record is in Pulsar.
    Finished,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Owned => "owned",
            Self::Silent => "silent",
            Self::Expired => "expired",
            Self::Free => "free",
            Self::Waiting => "waiting",
            Self::Finished => "finished",
        }
    }
}

/// Where a checkpoint stands in its shard, as the stream tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// When the checkpoint's own record was created. Epoch milliseconds.
    pub reached: Option<i64>,
    /// When the oldest record after the checkpoint was created, or that there is none.
    pub next: Next,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Next {
    /// Nobody asked, or nobody can tell.
    #[default]
    Unknown,
    /// The shard has no record after the checkpoint.
    Nothing,
    /// Epoch milliseconds.
    Created(i64),
    /// It lies before the oldest record that the stream still has: records are gone (G1).
    Trimmed,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub shard: String,
    pub state: State,
    pub owner: Option<String>,
    pub checkpoint: String,
    /// How long ago the checkpoint's record was created; `None` where nobody knows.
    pub age_millis: Option<i64>,
    /// How long the oldest record after the checkpoint has been there: 0 where there is none, `None` where nobody knows.
    pub lag_millis: Option<i64>,
    /// The next records are gone from the stream.
    pub trimmed: bool,
    pub parents: Vec<String>,
    pub counter: u64,
    /// Owners since the last checkpoint.
    pub owner_switches: u64,
    pub stream_arn: Option<String>,
    /// Records created before it are left out. Epoch milliseconds.
    pub start_at_millis: Option<i64>,
}

/// The second look, and what the first tells about it. `now` is epoch milliseconds.
pub fn lines(
    first: &[Lease],
    second: &[Lease],
    between: Option<Duration>,
    failover: Duration,
    positions: &BTreeMap<ShardId, Position>,
    now: i64,
) -> Vec<Line> {
    let before: BTreeMap<&ShardId, &Lease> = first.iter().map(|lease| (&lease.shard, lease)).collect();
    let rows: BTreeMap<&ShardId, &Lease> = second.iter().map(|lease| (&lease.shard, lease)).collect();
    let line = |lease: &&Lease| {
        let unchanged = before.get(&lease.shard).is_some_and(|before| before.counter == lease.counter);
        let state = match (&lease.checkpoint, &lease.owner, between) {
            (Checkpoint::ShardEnd, ..) => State::Finished,
            _ if !may_start(lease, |shard| rows.get(shard).copied()) => State::Waiting,
            (_, None, _) => State::Free,
            (_, _, None) => State::Owned,
            (_, _, Some(between)) if unchanged && between > failover => State::Expired,
            _ if unchanged => State::Silent,
            _ => State::Running,
        };
        let position = positions.get(&lease.shard).cloned().unwrap_or_default();
        Line {
            shard: lease.shard.to_string(),
            state,
            owner: lease.owner.clone(),
            checkpoint: checkpoint_text(&lease.checkpoint),
            age_millis: position.reached.map(|reached| (now - reached).max(0)),
            lag_millis: match position.next {
                Next::Created(created) => Some((now - created).max(0)),
                Next::Nothing => Some(0),
                Next::Unknown | Next::Trimmed => None,
            },
            trimmed: position.next == Next::Trimmed,
            parents: lease.parents.iter().map(ToString::to_string).collect(),
            counter: lease.counter,
            owner_switches: lease.owner_switches,
            stream_arn: lease.stream.as_ref().map(ToString::to_string),
            start_at_millis: lease.start_at,
        }
    };
    // By id: a parent has the smaller one, since ids begin with the time.
    rows.values().map(line).collect()
}

/// As in the table.
pub fn checkpoint_text(checkpoint: &Checkpoint) -> String {
    match checkpoint {
        Checkpoint::TrimHorizon => "TRIM_HORIZON".into(),
        Checkpoint::Latest => "LATEST".into(),
        Checkpoint::AtTimestamp => "AT_TIMESTAMP".into(),
        Checkpoint::ShardEnd => "SHARD_END".into(),
        Checkpoint::At(number) => number.to_string(),
    }
}

/// How many leases are in which state, and how many unfinished ones each owner has.
pub fn summary(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "No leases yet: no worker has looked at the stream.".into();
    }
    let (mut states, mut owners) = (BTreeMap::new(), BTreeMap::new());
    for line in lines {
        *states.entry(line.state).or_insert(0) += 1;
        if let (Some(owner), true) = (&line.owner, line.state != State::Finished) {
            *owners.entry(owner).or_insert(0) += 1;
        }
    }
    let states: Vec<String> = states.into_iter().map(|(state, count)| format!("{count} {}", state.word())).collect();
    let owners: Vec<String> = owners.into_iter().map(|(owner, count)| format!("{owner}: {count}")).collect();
    let owners = if owners.is_empty() { "nobody holds one".into() } else { owners.join(", ") };
    let leases = if lines.len() == 1 { "1 lease".into() } else { format!("{} leases", lines.len()) };
    format!("{leases}: {}. Unfinished, by owner: {owners}.", states.join(", "))
}

/// The table as text.
pub fn table(lines: &[Line]) -> String {
    let header = ["SHARD", "STATE", "OWNER", "CHECKPOINT", "AGE", "LAG", "PARENTS"].map(String::from);
    let known = |millis: Option<i64>| millis.map_or("-".into(), duration);
    let cells = lines.iter().map(|line| {
        [
            line.shard.clone(),
            line.state.word().into(),
            line.owner.clone().unwrap_or_else(|| "-".into()),
            line.checkpoint.clone(),
            known(line.age_millis),
            if line.trimmed { "records gone".into() } else { known(line.lag_millis) },
            if line.parents.is_empty() { "-".into() } else { line.parents.join(" ") },
        ]
    });
    let cells: Vec<[String; 7]> = std::iter::once(header).chain(cells).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &cells {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    text
}

/// `850 ms` is `0 s`: the stream tells whole seconds.
pub fn duration(millis: i64) -> String {
    let seconds = millis / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SequenceNumber;

    const F: Duration = Duration::from_secs(10);

    fn lease(shard: &str, owner: Option<&str>, counter: u64, checkpoint: Checkpoint) -> Lease {
        Lease { owner: owner.map(Into::into), counter, ..Lease::new(ShardId::new(shard), checkpoint) }
    }

    fn at(number: &str) -> Checkpoint {
        Checkpoint::At(SequenceNumber::parse(number).expect("digits"))
    }

    #[test]
    fn states_are_told_from_two_looks() {
        let child = |parent: &str, lease: Lease| Lease { parents: vec![ShardId::new(parent)], ..lease };
        let rows = |counter| {
            vec![
                lease("a-running", Some("w"), counter, at("1")),
                lease("b-silent", Some("dead"), 7, at("1")),
                lease("c-free", None, 7, Checkpoint::TrimHorizon),
                child("a-running", lease("d-waiting", None, 0, Checkpoint::TrimHorizon)),
                lease("e-finished", Some("w"), 9, Checkpoint::ShardEnd),
                child("e-finished", lease("f-free", None, 0, Checkpoint::TrimHorizon)),
            ]
        };
        let states = |between| -> Vec<&str> {
            let lines = lines(&rows(1), &rows(2), between, F, &BTreeMap::new(), 0);
            lines.iter().map(|line| line.state.word()).collect()
        };
        assert_eq!(states(Some(Duration::from_secs(4))), ["running", "silent", "free", "waiting", "finished", "free"]);
        assert_eq!(states(Some(Duration::from_secs(11)))[1], "expired");
        assert_eq!(states(None)[..3], ["owned", "owned", "free"]);
    }

    #[test]
    fn a_row_that_is_new_or_has_changed_hands_is_running() {
        let second = vec![lease("a", Some("w"), 1, at("1")), lease("b", Some("w2"), 5, at("1"))];
        let shown = lines(&[lease("b", Some("w1"), 4, at("1"))], &second, Some(F), F, &BTreeMap::new(), 0);
        assert!(shown.iter().all(|line| line.state == State::Running), "{shown:?}");
    }

    #[test]
    fn the_table_says_what_is_known_and_no_more() {
        let rows = vec![
            Lease { parents: vec![ShardId::new("p")], ..lease("s1", Some("ns/o-0"), 3, at("100")) },
            lease("s2", None, 3, at("200")),
            lease("s3", None, 3, at("300")),
            lease("s4", None, 0, Checkpoint::Latest),
        ];
        let positions = BTreeMap::from([
            (ShardId::new("s1"), Position { reached: Some(1_000), next: Next::Created(61_000) }),
            (ShardId::new("s2"), Position { reached: Some(3_500_000), next: Next::Nothing }),
            (ShardId::new("s3"), Position { reached: None, next: Next::Trimmed }),
        ]);
        let lines = lines(&rows, &rows, None, F, &positions, 3_600_000);
        let expected = "\
SHARD  STATE  OWNER   CHECKPOINT  AGE          LAG           PARENTS
s1     owned  ns/o-0  100         59 min 59 s  58 min 59 s   p
s2     free   -       200         1 min 40 s   0 s           -
s3     free   -       300         -            records gone  -
s4     free   -       LATEST      -            -             -
";
        assert_eq!(table(&lines), expected);
        assert_eq!(summary(&lines[..1]), "1 lease: 1 owned. Unfinished, by owner: ns/o-0: 1.");
        assert!(summary(&[]).starts_with("No leases yet"));
        assert_eq!(summary(&lines), "4 leases: 1 owned, 3 free. Unfinished, by owner: ns/o-0: 1.");
        let json = serde_json::to_value(&lines[1]).expect("JSON");
        assert_eq!((&json["lagMillis"], &json["ageMillis"], &json["state"]), (&0.into(), &100_000.into(), &"free".into()));
    }

    #[test]
    fn durations_read_well() {
        for (millis, text) in [(0, "0 s"), (59_999, "59 s"), (60_000, "1 min 0 s"), (7_380_000, "2 h 3 min"), (90_000_000, "1 d 1 h")] {
            assert_eq!(duration(millis), text);
        }
    }
}
