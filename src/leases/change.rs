//! Gives leases up, or moves them, when an operator says so. Each write is conditional on the row as it was seen (L1).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::Context;
use crate::{
    cli::Wanted,
    config::source::epoch_millis as read_time,
    error::{Error, Kind, Result},
    ports::{Checkpoint, Claim, Lease, LeaseTable as _, Shard, ShardId, StreamReader as _},
    source::clock::epoch_millis,
};

/// How often the rows are looked at while it is found out whether their owners live.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// A living owner renews between our look and our write now and then: so often it is tried again.
const TRIES: usize = 5;
/// With an answer that is no yes.
const DECLINED: u8 = 1;

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    checkpoint: Checkpoint,
    /// Records created before it are left out. Epoch milliseconds.
    start_at: Option<i64>,
}

impl Position {
    /// A time becomes "the oldest, without what is older than that": KCL 1.x cannot read an AT_TIMESTAMP row (spec W5), but it can read this one.
    fn read(text: &str, now: i64) -> Result<Self> {
        Ok(match text.trim() {
            "TRIM_HORIZON" => Self { checkpoint: Checkpoint::TrimHorizon, start_at: None },
            "LATEST" => Self { checkpoint: Checkpoint::Latest, start_at: Some(now) },
            time => {
                let millis = read_time(time).ok_or_else(|| {
                    let why = format!("{time:?} is neither TRIM_HORIZON nor LATEST nor a time such as 2026-11-21T08:00:00Z");
                    Error::new(Kind::Configuration, "read --to", why)
                })?;
                Self { checkpoint: Checkpoint::TrimHorizon, start_at: Some(millis) }
            }
        })
    }

    /// What happens to the records.
    fn meaning(&self) -> &'static str {
        match (&self.checkpoint, self.start_at) {
            (Checkpoint::Latest, _) => "Records that are not published yet are SKIPPED: reading goes on with what is written from now on.",
            (_, None) => "Every record that the stream still has of them, 24 hours at most, is published again.",
            (_, Some(_)) => {
                "Records created since that time are published again; older ones that are not published yet are SKIPPED. \
                 A Java worker that takes such a lease publishes the older ones too."
            }
        }
    }
}

/// The rows that are meant, parents before children.
fn chosen(rows: &[Lease], wanted: &Wanted) -> Result<Vec<Lease>> {
    let known: BTreeMap<&str, &Lease> = rows.iter().map(|lease| (lease.shard.as_str(), lease)).collect();
    let unknown: Vec<&str> = wanted.shards.iter().map(String::as_str).filter(|shard| !known.contains_key(shard)).collect();
    if !unknown.is_empty() {
        let why = format!("there is no lease of {}; `leases` shows all", unknown.join(", "));
        return Err(Error::new(Kind::Configuration, "find the leases", why));
    }
    let is_meant = |lease: &&&Lease| wanted.all || wanted.shards.iter().any(|shard| shard == lease.shard.as_str());
    let mut chosen: Vec<Lease> = known.values().filter(is_meant).map(|lease| (*lease).clone()).collect();
    chosen.sort_by_key(|lease| depth(lease, &known));
    Ok(chosen)
}

/// How many leased ancestors a lease has. A circle, which no stream has, ends too.
fn depth(lease: &Lease, rows: &BTreeMap<&str, &Lease>) -> usize {
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<&Lease> = vec![lease];
    while let Some(lease) = waiting.pop() {
        let parents = lease.parents.iter().filter_map(|parent| rows.get(parent.as_str()));
        waiting.extend(parents.filter(|parent| seen.insert(parent.shard.clone())));
    }
    seen.len()
}

/// `leases release`.
pub async fn release(context: &Context, wanted: &Wanted) -> Result<ExitCode> {
    let rows = context.table.list().await?;
    let targets: Vec<Lease> = chosen(&rows, wanted)?.into_iter().filter(|lease| lease.owner.is_some()).collect();
    if targets.is_empty() {
        println!("Nothing to do: none of these leases has an owner.");
        return Ok(ExitCode::SUCCESS);
    }
    let targets = settled(context, targets, wanted.force).await?;
    let meaning = "Any worker may take them at once. Nothing is lost; what was published after the last checkpoint is published again.";
    if !confirmed(context, "release", &targets, meaning, wanted.yes)? {
        return Ok(ExitCode::from(DECLINED));
    }
    let mut complete = true;
    for lease in targets {
        complete &= written(&lease, wanted.force, "released", async |seen| context.table.release(seen).await).await?;
    }
    Ok(outcome(complete))
}

/// `leases reset`.
pub async fn reset(context: &Context, wanted: &Wanted, to: &str) -> Result<ExitCode> {
    let to = Position::read(to, epoch_millis())?;
    let rows = context.table.list().await?;
    // Nothing is written to a shard that has ended.
    let stays = |lease: &Lease| wanted.all && to.checkpoint == Checkpoint::Latest && lease.checkpoint == Checkpoint::ShardEnd;
    let targets: Vec<Lease> = chosen(&rows, wanted)?.into_iter().filter(|lease| !stays(lease)).collect();
    // Shards that were finished so long ago that their leases are deleted, but whose records are still there.
    let deleted = if wanted.all && to.checkpoint == Checkpoint::TrimHorizon { unleased(context, &rows).await? } else { Vec::new() };
    if targets.is_empty() && deleted.is_empty() {
        println!("Nothing to do: there is no such lease.");
        return Ok(ExitCode::SUCCESS);
    }
    let targets = settled(context, targets, wanted.force).await?;
    let mut meaning = to.meaning().to_owned();
    if !deleted.is_empty() {
        meaning += &format!(" That goes for {} finished shards without a lease too: they get one.", deleted.len());
    }
    let begun = begun_children(&rows, &targets);
    if !begun.is_empty() {
        meaning += &format!(
            " {} is not reset and has been read already: changes of an item may be published after later ones of it. Name it too, or use --all.",
            begun.join(", ")
        );
    }
    if !confirmed(context, "reset", &targets, &meaning, wanted.yes)? {
        return Ok(ExitCode::from(DECLINED));
    }
    // Ancestors first: a child waits for each parent that has a lease and is not finished (S1).
    for shard in deleted {
        let parents = shard.parent.into_iter().collect();
        let stream = context.stream.as_ref().ok().cloned();
        let (checkpoint, start_at) = (to.checkpoint.clone(), to.start_at);
        let lease = Lease { parents, start_at, stream, ..Lease::new(shard.id, checkpoint) };
        if context.table.create(&lease).await? {
            println!("{}: created", lease.shard);
        }
    }
    let mut complete = true;
    for lease in targets {
        let write = async |seen: &Lease| context.table.reset(seen, &to.checkpoint, to.start_at).await;
        complete &= written(&lease, wanted.force, "reset", write).await?;
    }
    Ok(outcome(complete))
}

/// The shards of the stream without a lease, parents before children.
async fn unleased(context: &Context, rows: &[Lease]) -> Result<Vec<Shard>> {
    let reader = (context.reader)(context.stream.as_ref().map_err(Clone::clone)?);
    let leased: BTreeSet<&ShardId> = rows.iter().map(|lease| &lease.shard).collect();
    let (mut shards, mut after) = (Vec::new(), None);
    loop {
        let page = reader.list_shards(after.as_ref()).await?;
        shards.extend(page.shards.into_iter().filter(|shard| !leased.contains(&shard.id)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // An id begins with the time of the shard's opening.
    shards.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(shards)
}

/// Shards that are not reset, although a parent of theirs is, and that have been read: order is lost there.
fn begun_children(rows: &[Lease], targets: &[Lease]) -> Vec<String> {
    let reset: BTreeSet<&ShardId> = targets.iter().map(|lease| &lease.shard).collect();
    let has_begun = |lease: &Lease| matches!(lease.checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd);
    let left = rows.iter().filter(|lease| !reset.contains(&lease.shard) && has_begun(lease));
    left.filter(|lease| lease.parents.iter().any(|parent| reset.contains(parent))).map(|lease| lease.shard.to_string()).collect()
}

/// Finds out whether the owners live, which takes the failover time where they do not. Returns the rows as they are now; refuses where one
/// lives. With `force`, nothing of that.
async fn settled(context: &Context, targets: Vec<Lease>, force: bool) -> Result<Vec<Lease>> {
    let owned = |lease: &Lease| lease.owner.is_some() && lease.checkpoint != Checkpoint::ShardEnd;
    if force || !targets.iter().any(owned) {
        return Ok(targets);
    }
    eprintln!("Looking whether their owners are alive, for up to {} s.", context.failover.as_secs());
    let deadline = Instant::now() + context.failover + LOOK_PAUSE;
    loop {
        let now: BTreeMap<ShardId, Lease> = context.table.list().await?.into_iter().map(|lease| (lease.shard.clone(), lease)).collect();
        let alive: Vec<&Lease> = targets
            .iter()
            .filter(|seen| owned(seen))
            .filter_map(|seen| now.get(&seen.shard).filter(|row| row.counter != seen.counter && row.owner.is_some()))
            .collect();
        if !alive.is_empty() {
            return Err(refusal(&alive));
        }
        if Instant::now() >= deadline {
            return Ok(targets.into_iter().filter_map(|seen| now.get(&seen.shard).cloned()).collect());
        }
        sleep(LOOK_PAUSE).await;
    }
}

fn refusal(alive: &[&Lease]) -> Error {
    let owners: BTreeSet<&str> = alive.iter().filter_map(|lease| lease.owner.as_deref()).collect();
    let owners = Vec::from_iter(owners).join(", ");
    let shards: Vec<&str> = alive.iter().map(|lease| lease.shard.as_str()).collect();
    let why = format!(
        "{owners} is alive and holds {}; stop it first, or use --force: it then loses these leases at its next renewal, within 4 seconds, and until \
         then it and whoever takes them publish the same records",
        shards.join(", ")
    );
    Error::new(Kind::LeaseLost, "change the leases", why)
}

/// Tells what will happen, and asks where nobody has said yes yet.
fn confirmed(context: &Context, verb: &str, targets: &[Lease], meaning: &str, yes: bool) -> Result<bool> {
    println!(
        "Going to {verb} {} of table {}:",
        if targets.len() == 1 { "1 lease".into() } else { format!("{} leases", targets.len()) },
        context.table_name
    );
    for lease in targets {
        let owner = lease.owner.as_deref().unwrap_or("nobody");
        println!("  {}  owner {owner}, checkpoint {}", lease.shard, super::view::checkpoint_text(&lease.checkpoint));
    }
    println!("{meaning}");
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Error::new(Kind::Configuration, format!("{verb} leases"), "nobody can be asked here: use --yes"));
    }
    print!("Type yes to go on: ");
    let mut answer = String::new();
    let asked = io::stdout().flush().and_then(|()| io::stdin().read_line(&mut answer));
    asked.map_err(|error| Error::new(Kind::Fatal, "ask", error))?;
    let confirmed = answer.trim().eq_ignore_ascii_case("yes");
    if !confirmed {
        println!("Nothing was changed.");
    }
    Ok(confirmed)
}

/// Writes one row, again where `force` is given and its owner was faster. Whether it was written.
async fn written(seen: &Lease, force: bool, done: &str, write: impl AsyncFn(&Lease) -> Result<Claim>) -> Result<bool> {
    let mut row = seen.clone();
    for _ in 0..if force { TRIES } else { 1 } {
        match write(&row).await? {
            Claim::Held(_) | Claim::Landed(_) => {
                println!("{}: {done}", seen.shard);
                return Ok(true);
            }
            Claim::Lost(Some(now)) => row = now,
            Claim::Lost(None) => {
                println!("{}: its row is gone; nothing was written", seen.shard);
                return Ok(false);
            }
        }
    }
    let owner = row.owner.as_deref().unwrap_or("somebody");
    println!("{}: NOT {done}: {owner} has written it meanwhile", seen.shard);
    Ok(false)
}

fn outcome(complete: bool) -> ExitCode {
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SequenceNumber;

    fn lease(shard: &str, parent: Option<&str>, checkpoint: Checkpoint) -> Lease {
        Lease { parents: parent.map(ShardId::new).into_iter().collect(), ..Lease::new(ShardId::new(shard), checkpoint) }
    }

    fn wanted(shards: &[&str]) -> Wanted {
        Wanted { shards: shards.iter().map(ToString::to_string).collect(), all: shards.is_empty(), yes: false, force: false }
    }

    #[test]
    fn s1_parents_are_changed_before_their_children() {
        let rows = [
            lease("a-grandchild", Some("b-child"), Checkpoint::TrimHorizon),
            lease("b-child", Some("c-parent"), Checkpoint::TrimHorizon),
            lease("c-parent", Some("trimmed"), Checkpoint::ShardEnd),
        ];
        let order: Vec<String> = chosen(&rows, &wanted(&[])).expect("all").iter().map(|lease| lease.shard.to_string()).collect();
        assert_eq!(order, ["c-parent", "b-child", "a-grandchild"]);
    }

    #[test]
    fn a_shard_without_a_lease_is_named() {
        let rows = [lease("a", None, Checkpoint::TrimHorizon)];
        let error = chosen(&rows, &wanted(&["a", "x", "y"])).expect_err("unknown");
        assert_eq!(error.kind(), Kind::Configuration);
        assert!(error.to_string().contains("x, y"), "{error}");
    }

    #[test]
    fn o1_children_that_have_been_read_are_warned_of() {
        let read = Checkpoint::At(SequenceNumber::parse("7").expect("digits"));
        let rows = [
            lease("parent", None, Checkpoint::ShardEnd),
            lease("new", Some("parent"), Checkpoint::TrimHorizon),
            lease("read", Some("parent"), read),
            lease("other", None, Checkpoint::ShardEnd),
        ];
        assert_eq!(begun_children(&rows, &rows[..1]), ["read"]);
        assert!(begun_children(&rows, &rows).is_empty());
    }

    #[test]
    fn positions_are_those_that_kcl_can_read_too_l3() {
        let position = |text: &str| Position::read(text, 5).map(|position| (position.checkpoint, position.start_at));
        assert_eq!(position("TRIM_HORIZON").expect("known"), (Checkpoint::TrimHorizon, None));
        assert_eq!(position("LATEST").expect("known"), (Checkpoint::Latest, Some(5)));
        assert_eq!(position("1970-01-01T00:00:01Z").expect("a time"), (Checkpoint::TrimHorizon, Some(1_000)));
        assert!(position("yesterday").expect_err("no time").to_string().contains("TRIM_HORIZON nor LATEST"));
    }
}
