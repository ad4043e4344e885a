//! Which leases to take, and which to ask others for, from what was seen of the rows and when. Pure.
//!
//! Every worker works out the same fair deal from the same rows and does only its own part of it, so that workers that see each other never
//! compete. Only leases that can be read now count: unfinished, and with all parents finished (S1). The deal in full:
//!
//! 1. who holds what: the owners of rows that change, whoever has asked for a row (it is counted as theirs), and this worker;
//! 2. free rows go to whoever has fewest;
//! 3. while somebody has two more than somebody else, one row goes over. So nobody has more than KCL's target, the count of leases
//!    by the count of workers rounded up, and a Java worker, which takes from owners above that alone, never takes one back.
//!
//! Workers that hold nothing yet do not see each other. They take free rows in an order of their own, a part at a time, and look again.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::sightings::{Sighting, Sightings};
use crate::{
    ports::{Checkpoint, Holder, Lease, Moment, ShardId},
    source::discover::may_start,
};

/// Free rows that are taken before the rows are looked at again: so many, or a quarter of them.
const TAKES_AT_ONCE: usize = 16;
/// Leases that may be on their way from others to this worker, so that a large fleet does not stop and start all its shards at once.
const MOVES_AT_ONCE: usize = 32;
/// What the looks of all workers may cost together: half the read capacity of a table that the Java connector has made.
const READ_UNITS_A_SECOND: f64 = 5.0;
/// A scan reads two 4 KB blocks for one unit; a row of a lease table has about 250 bytes.
const ROWS_A_READ_UNIT: f64 = 32.0;

/// Whose rows are taken at once at the start of this worker, without waiting for the failover time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AssumeDead {
    #[default]
    Nobody,
    /// These owners.
    Owners(BTreeSet<String>),
    /// Every owner that is no worker of ours.
    All,
}

/// What does not change while a worker runs.
#[derive(Debug, Clone)]
pub struct Policy {
    pub me: Holder,
    /// A row that did not change for longer belongs to nobody.
    pub failover: Duration,
    /// An owner that was asked and did not hand over in this time is asked again, by whoever wants it then.
    pub ask_limit: Duration,
    /// This worker holds no more leases.
    pub max_leases: usize,
    pub assume_dead: AssumeDead,
}

impl Policy {
    /// After this time a row that its share's worker did not take is anybody's.
    fn patience(&self) -> Duration {
        self.failover / 2
    }
}

/// What to do now.
#[derive(Debug, Default)]
pub struct Plan {
    /// Rows that belong to nobody, or are this worker's own.
    pub take: Vec<Lease>,
    /// There is more to take once these are taken.
    pub more: bool,
    /// Rows of workers of ours, to ask for.
    pub ask: Vec<Lease>,
    /// Rows of Java workers, which cannot be asked.
    pub steal: Vec<Lease>,
    /// Free rows that nobody has taken for long, and that this worker may not take: it holds `max_leases`.
    pub unread: usize,
    /// When time alone makes another plan.
    pub wake: Option<Moment>,
}

/// One start of one worker, as the rows name it. A Java worker has no nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a>(&'a str, Option<&'a str>);

impl<'a> Name<'a> {
    fn of(holder: &'a Holder) -> Self {
        Self(&holder.id, Some(&holder.nonce))
    }
}

/// Whose a row is.
enum Stand<'a> {
    /// `left_by`: who does not renew it any more.
    Free { since: Moment, left_by: Option<Name<'a>> },
    /// Free, as only this worker knows.
    AssumedFree,
    /// This worker's own, but not held: handed over, left by its last start, or by a take whose answer was lost.
    Mine,
    /// Asked for.
    Coming,
    /// `settled`: nobody has asked for it, or not lately.
    Of { name: Name<'a>, settled: bool },
}

fn stand<'a>(row: &'a Sighting, policy: &'a Policy, is_held: bool, now: Moment) -> Stand<'a> {
    let (lease, me) = (&row.lease, &policy.me);
    // What a Java worker holds has at most the note of an owner before.
    let asked = lease.wanted_by.as_ref().filter(|_| lease.nonce.is_some());
    let in_time = now.saturating_sub(row.noted) <= policy.ask_limit;
    if is_held {
        return match asked.filter(|asker| in_time && *asker != me) {
            Some(asker) => Stand::Of { name: Name::of(asker), settled: false },
            None => Stand::Of { name: Name::of(me), settled: true },
        };
    }
    let Some(owner) = &lease.owner else { return Stand::Free { since: row.changed, left_by: None } };
    if me.owns(lease) || (*owner == me.id && row.since_start) {
        return Stand::Mine;
    }
    if row.since_start && is_assumed_dead(lease, owner, &policy.assume_dead) {
        return Stand::AssumedFree;
    }
    if now.saturating_sub(row.changed) > policy.failover {
        let left_by = Some(Name(owner, lease.nonce.as_deref()));
        return Stand::Free { since: row.changed + policy.failover, left_by };
    }
    match asked {
        Some(asker) if asker == me && in_time => Stand::Coming,
        Some(asker) if in_time => Stand::Of { name: Name::of(asker), settled: false },
        _ => Stand::Of { name: Name(owner, lease.nonce.as_deref()), settled: true },
    }
}

fn is_assumed_dead(lease: &Lease, owner: &str, assumed: &AssumeDead) -> bool {
    match assumed {
        AssumeDead::Nobody => false,
        AssumeDead::Owners(owners) => owners.contains(owner),
        AssumeDead::All => lease.nonce.is_none(),
    }
}

/// Who holds how much.
struct Shares<'a> {
    loads: BTreeMap<Name<'a>, Load<'a>>,
    ranks: BTreeSet<(usize, Name<'a>)>,
}

#[derive(Default)]
struct Load<'a> {
    leases: usize,
    /// Those that can be asked for, in the order of their shards.
    settled: Vec<&'a Sighting>,
}

impl<'a> Shares<'a> {
    fn of(loads: BTreeMap<Name<'a>, Load<'a>>) -> Self {
        let ranks = loads.iter().map(|(name, load)| (load.leases, *name)).collect();
        Self { loads, ranks }
    }

    fn change(&mut self, name: Name<'a>, by: isize) {
        let Some(load) = self.loads.get_mut(&name) else { return };
        let is_ranked = self.ranks.remove(&(load.leases, name));
        load.leases = load.leases.saturating_add_signed(by);
        if is_ranked {
            self.ranks.insert((load.leases, name));
        }
    }

    fn leave_out(&mut self, name: Name<'a>) {
        if let Some(load) = self.loads.get(&name) {
            self.ranks.remove(&(load.leases, name));
        }
    }

    /// Gives a free row to whoever has fewest.
    fn deal(&mut self) -> Option<Name<'a>> {
        let (_, name) = *self.ranks.first()?;
        self.change(name, 1);
        Some(name)
    }

    /// The next row that goes over to make the shares equal, and to whom.
    fn move_one(&mut self) -> Option<(&'a Sighting, Name<'a>)> {
        loop {
            let ((fewest, to), (most, from)) = (*self.ranks.first()?, *self.ranks.last()?);
            if most - fewest < 2 {
                return None;
            }
            // The youngest shard: the oldest will soon end.
            let Some(row) = self.loads.get_mut(&from)?.settled.pop() else {
                self.ranks.remove(&(most, from));
                continue;
            };
            self.change(from, -1);
            self.change(to, 1);
            return Some((row, to));
        }
    }
}

pub fn plan(seen: &Sightings, policy: &Policy, held: impl Fn(&ShardId) -> bool, now: Moment) -> Plan {
    let me = Name::of(&policy.me);
    let mut loads = BTreeMap::from([(me, Load::default())]);
    let (mut take, mut free, mut silent, mut coming) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut wake: Option<Moment> = None;
    let mut wake_at = |moment: Moment| {
        // Just after: the bounds are exclusive.
        let moment = moment + Duration::from_millis(1);
        if moment > now {
            wake = Some(wake.map_or(moment, |earlier| earlier.min(moment)));
        }
    };
    for row in seen.rows.values().filter(|row| row.lease.checkpoint != Checkpoint::ShardEnd) {
        let is_held = held(&row.lease.shard);
        let is_readable = is_held || may_start(&row.lease, |shard| seen.row(shard));
        match stand(row, policy, is_held, now) {
            Stand::Of { name, settled } => {
                // Who holds a lease that has to wait for its parent lives, too.
                let load = loads.entry(name).or_default();
                if is_readable {
                    load.leases += 1;
                    if settled {
                        load.settled.push(row);
                    }
                    if !is_held {
                        wake_at(row.changed + policy.failover);
                    }
                }
            }
            _ if !is_readable => {}
            Stand::Free { since, left_by } => {
                free.push((row, Some(since)));
                silent.extend(left_by);
            }
            Stand::AssumedFree => free.push((row, None)),
            Stand::Mine => {
                take.push(row.lease.clone());
                loads.entry(me).or_default().leases += 1;
            }
            Stand::Coming => {
                coming += 1;
                wake_at(row.noted + policy.ask_limit);
                loads.entry(me).or_default().leases += 1;
            }
        }
    }
    let mut room = policy.max_leases.saturating_sub(loads.get(&me).map_or(0, |load| load.leases));
    let mut shares = Shares::of(loads);
    // Who has left one row will leave its others.
    silent.into_iter().for_each(|name| shares.leave_out(name));

    let (mut mine, mut late) = (Vec::new(), Vec::new());
    for (row, since) in free {
        if shares.deal() == Some(me) {
            mine.push(row);
            continue;
        }
        match since {
            Some(since) if now.saturating_sub(since) <= policy.patience() => wake_at(since + policy.patience()),
            _ => late.push(row),
        }
    }
    mine.sort_by_cached_key(|row| own_order(&policy.me, row));
    late.sort_by_cached_key(|row| own_order(&policy.me, row));
    mine.append(&mut late);
    let wanted = mine.len();
    let is_unread = |row: &&&Sighting| now.saturating_sub(row.changed) > policy.failover + policy.ask_limit;
    let unread = mine.iter().skip(room).filter(is_unread).count();
    mine.truncate(room);
    let allowed = mine.len();
    mine.truncate(TAKES_AT_ONCE.max(wanted / 4));
    room -= allowed;
    take.extend(mine.iter().map(|row| row.lease.clone()));
    let more = mine.len() < allowed;

    let mut plan = Plan { take, more, unread, wake, ..Plan::default() };
    while let Some((row, to)) = shares.move_one() {
        if to != me || room == 0 || coming + plan.ask.len() + plan.steal.len() >= MOVES_AT_ONCE {
            continue;
        }
        room -= 1;
        // Only a Java worker is stolen from: until its next renewal it does not know, and goes on. One of ours that lives keeps its promise (L2)
        // to publish nothing of another's because it is asked, however often.
        let moves = if row.lease.nonce.is_some() { &mut plan.ask } else { &mut plan.steal };
        moves.push(row.lease.clone());
    }
    plan
}

/// The order in which a worker takes free rows: each has its own, so that those who do not see each other seldom want the same.
fn own_order(me: &Holder, row: &Sighting) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&me.id, &me.nonce, row.lease.shard.as_str()).hash(&mut hasher);
    hasher.finish()
}

/// How long to wait before the table is read again.
///
/// A row that was released is seen within this pause, and a dead owner's is taken within it and the failover time. Up to two workers read a small
/// table four times a second (of 10 s failover time), so that a hand-over takes less than one second even where it is seen in two parts: a stop
/// releases one row after the other. Larger tables and fleets are read less often, so that the looks of all workers together stay within
/// [`READ_UNITS_A_SECOND`], but often enough to keep the promise about dead owners. Who holds all that can be read waits for the failover
/// time: others ask it by a note that its next renewal shows.
pub fn pause(seen: &Sightings, held: impl Fn(&ShardId) -> bool, now: Moment, failover: Duration) -> Duration {
    if !others_work(seen, held) {
        return failover;
    }
    let units = (seen.rows.len() as f64 / ROWS_A_READ_UNIT).max(0.5);
    let workers = census(seen, now, failover).workers.max(1) as f64;
    Duration::from_secs_f64(units * workers / READ_UNITS_A_SECOND).clamp(failover / 40, failover * 3 / 20)
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
    let workers: BTreeSet<_> = unfinished().filter(is_held).map(|row| (&row.lease.owner, &row.lease.nonce)).collect();
    let (leases, held) = (unfinished().count(), unfinished().filter(is_held).count());
    Census { leases, free: leases - held, workers: workers.len() }
}

/// Whether the slow audit of the stream is this worker's: it is the first by name of those who hold leases. The Java connector's
/// workers, which leave no nonce, do not do any.
pub fn is_auditor(seen: &Sightings, me: &Holder, now: Moment, failover: Duration) -> bool {
    let living = |row: &&Sighting| row.lease.nonce.is_some() && now.saturating_sub(row.changed) <= failover;
    let unfinished = |row: &&Sighting| row.lease.checkpoint != Checkpoint::ShardEnd;
    let mut owners = seen.rows.values().filter(unfinished).filter(living).filter_map(|row| row.lease.owner.as_ref());
    owners.all(|owner| *owner >= me.id)
}

/// Whether another worker may yet die and leave something to this one: unfinished rows that are neither held here nor wait for a parent.
fn others_work(seen: &Sightings, held: impl Fn(&ShardId) -> bool) -> bool {
    seen.rows().any(|lease| lease.checkpoint != Checkpoint::ShardEnd && !held(&lease.shard) && may_start(lease, |shard| seen.row(shard)))
}

#[cfg(test)]
mod tests;
