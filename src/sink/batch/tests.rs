mod heat;
mod leave;

use std::collections::HashSet;

use proptest::{prelude::*, test_runner::TestCaseError};

use super::*;
use crate::{
    dynamodb::attribute::{Item, ItemKey, Value},
    error::Kind,
    ports::{KeySchema, KeyType},
    sink::mode::Version,
};

const FLUSH: Duration = Duration::from_millis(100);

fn at(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

fn schema() -> KeySchema {
    KeySchema { partition: ("p".into(), KeyType::N), sort: None }
}

/// The put of version `v` of item `key`; every third version is a delete instead.
fn mapped(key: u64, v: u64) -> Shaped {
    let mut item = Item::from([("p".into(), Value::N(key.to_string()))]);
    let target = Target { table: "copies".into(), key: ItemKey::of(&item, &schema()).expect("a key") };
    let write = |action| Write { table: "copies".into(), action, condition: None };
    if v % 3 == 2 {
        return Shaped { write: write(Action::Delete(item)), key: target, version: None };
    }
    item.insert("v".into(), Value::N(v.to_string()));
    Shaped { write: write(Action::Put(item)), key: target, version: None }
}

impl Batches {
    /// The batch is stored, but for the writes at `unprocessed`.
    fn written(&mut self, batch: u64, unprocessed: &[usize], now: Moment, retry_at: Moment) -> Vec<Done> {
        let count = self.in_flight[&batch].len();
        let settled = (0..count).map(|at| if unprocessed.contains(&at) { Settled::Again } else { Settled::Stored });
        self.answered(batch, settled.collect(), now, |_| retry_at)
    }
}

/// The position of the message with this number.
fn place(number: u64) -> Place {
    (EntryId { topic: "persistent://public/default/in".into(), ledger: 1, entry: number / 3, batch_index: None }, (number % 3) as u32)
}

fn batches(coalesce: bool, max_batch: usize) -> Batches {
    Batches::new(Limits { max_batch, max_bytes: max_bytes(Vehicle::Batch), coalesce, flush: FLUSH, remember: 1000 })
}

fn done(ticket: Ticket, outcome: Outcome) -> Done {
    Done { ticket, outcome }
}

fn refusal() -> Error {
    Error::new(Kind::Invalid, "write a batch", "ValidationException")
}

#[test]
fn batches_split_at_their_size_and_nothing_is_sent_for_nothing() {
    let mut b = batches(true, 25);
    assert!(b.next(at(0), true, usize::MAX).is_none());
    for key in 0..26 {
        b.add(key, place(key), mapped(key, 0), at(0));
    }
    assert_eq!(b.next(at(0), false, usize::MAX).map(|batch| batch.writes.len()), Some(25));
    assert!(b.next(at(99), false, usize::MAX).is_none(), "one write waits for more");
    assert_eq!(b.next_due(), Some(at(100)));
    assert_eq!(b.next(at(100), false, usize::MAX).map(|batch| batch.writes.len()), Some(1));
}

#[test]
fn a_batch_is_bounded_in_bytes_and_one_large_write_goes_alone() {
    let mut b = Batches::new(Limits {
        max_batch: 25,
        max_bytes: 2 * wire_size(mapped(1, 0).write.item()),
        coalesce: true,
        flush: FLUSH,
        remember: 1000,
    });
    for key in 0..5 {
        b.add(key, place(key), mapped(key, 0), at(0));
    }
    let sizes: Vec<usize> = std::iter::from_fn(|| b.next(at(0), true, usize::MAX)).map(|batch| batch.writes.len()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    let mut b = Batches::new(Limits { max_batch: 25, max_bytes: 1, coalesce: true, flush: FLUSH, remember: 1000 });
    b.add(0, place(0), mapped(0, 0), at(0));
    assert_eq!(b.next(at(0), true, usize::MAX).map(|batch| batch.writes.len()), Some(1));
}

/// K1: while a key is in flight, its next writes wait; together they become one.
#[test]
fn k1_waiting_writes_of_a_key_become_one() {
    let mut b = batches(true, 25);
    b.add(0, place(0), mapped(7, 0), at(0));
    let first = b.next(at(0), true, usize::MAX).expect("ready");
    for v in 1..=3 {
        b.add(v, place(v), mapped(7, v), at(0));
    }
    assert!(b.next(at(500), true, usize::MAX).is_none(), "K1");
    assert_eq!(b.written(first.id, &[], at(500), at(500)), [done(0, Outcome::Put)]);
    let second = b.next(at(500), true, usize::MAX).expect("ready");
    assert_eq!(*second.writes[0], mapped(7, 3).write);
    let all = [done(1, Outcome::Coalesced), done(2, Outcome::Coalesced), done(3, Outcome::Put)];
    assert_eq!(b.written(second.id, &[], at(500), at(500)), all);
    assert!(b.lanes.is_empty());
}

#[test]
fn without_coalescing_each_version_is_written_in_turn() {
    let mut b = batches(false, 25);
    for v in 0..3 {
        b.add(v, place(v), mapped(7, v), at(0));
    }
    for v in 0..3 {
        let batch = b.next(at(0), true, usize::MAX).expect("ready");
        assert_eq!(batch.writes.len(), 1);
        assert_eq!(*batch.writes[0], mapped(7, v).write);
        b.failed(batch.id, at(0), |_| at(0), false);
        let again = b.next(at(0), true, usize::MAX).expect("again");
        assert_eq!(*again.writes[0], mapped(7, v).write, "the same version");
        assert_eq!(b.written(again.id, &[], at(0), at(0)).len(), 1);
    }
    assert!(b.lanes.is_empty());
}

/// K1: an unprocessed write is replaced by a newer one, after its delay; other keys of the batch are done.
#[test]
fn k1_unprocessed_and_failed_writes_go_out_again_in_their_newest_form() {
    for lost in [false, true] {
        let mut b = batches(true, 25);
        b.add(0, place(0), mapped(1, 0), at(0));
        b.add(1, place(1), mapped(2, 0), at(0));
        let first = b.next(at(0), true, usize::MAX).expect("ready");
        b.add(2, place(2), mapped(1, 1), at(0));
        if lost {
            b.failed(first.id, at(0), |_| at(50), false);
        } else {
            assert_eq!(b.written(first.id, &[0], at(0), at(50)), [done(1, Outcome::Put)]);
        }
        assert!(b.next(at(49), true, usize::MAX).is_none(), "not before its delay");
        assert_eq!(b.next_due(), Some(at(50)));
        assert_eq!(b.failing(), Some((if lost { 2 } else { 1 }, at(0))));
        let again = b.next(at(50), false, usize::MAX).expect("due, without waiting for more");
        assert_eq!(again.attempts, 1);
        assert_eq!(*again.writes[0], mapped(1, 1).write);
        let over = b.written(again.id, &[], at(60), at(60));
        assert_eq!(over[..2], [done(0, Outcome::Coalesced), done(2, Outcome::Put)]);
        assert!(b.lanes.is_empty() && b.failing().is_none());
    }
}

/// One write that fails again and again must not hold up the others that are returned with it.
#[test]
fn each_write_waits_by_its_own_failures() {
    let retry_at = |attempts: u32| at(10 << attempts);
    let mut b = batches(true, 25);
    b.add(0, place(0), mapped(1, 0), at(0));
    for due in [0, 10, 20] {
        let batch = b.next(at(due), true, usize::MAX).expect("due");
        b.answered(batch.id, vec![Settled::Again], at(0), retry_at);
    }
    b.add(1, place(1), mapped(2, 0), at(40));
    let both = b.next(at(40), true, usize::MAX).expect("due");
    assert_eq!((both.writes.len(), both.attempts, both.retried), (2, 3, 1));
    b.failed(both.id, at(0), retry_at, false);
    let younger = b.next(at(10), true, usize::MAX).expect("due, as after one failure");
    assert_eq!(*younger.writes[0], mapped(2, 0).write);
    assert!(b.next(at(79), true, usize::MAX).is_none());
    assert!(b.next(at(80), true, usize::MAX).is_some());
}

#[test]
fn a_refused_batch_is_halved_until_the_culprit_is_alone() {
    let mut b = batches(true, 25);
    for key in 0..25 {
        b.add(key, place(key), mapped(key, 0), at(0));
    }
    let (mut stored, mut calls) = (Vec::new(), 0);
    while let Some(batch) = b.next(at(0), true, usize::MAX) {
        calls += 1;
        if batch.writes.iter().any(|write| write.item() == mapped(13, 0).write.item()) {
            b.refused(batch.id, &refusal(), at(0));
        } else {
            stored.extend(b.written(batch.id, &[], at(0), at(0)));
        }
    }
    assert_eq!(stored.len(), 24);
    assert!(calls <= 11, "{calls} calls");
    let grave = b.next_grave().expect("the culprit");
    assert_eq!(grave.ticket, 13);
    assert!(b.next_grave().is_none());
    b.buried(grave.key, at(0));
    assert!(b.lanes.is_empty());
}

/// The last writable message wins: what a refused write had replaced is written after all, before anything is dead-lettered.
#[test]
fn a_refused_write_gives_way_to_the_older_one_that_it_replaced() {
    let mut b = batches(true, 25);
    b.add(0, place(0), mapped(7, 0), at(0));
    b.add(1, place(1), mapped(7, 1), at(0));
    let both = b.next(at(0), true, usize::MAX).expect("ready");
    b.refused(both.id, &refusal(), at(0));
    b.add(2, place(2), mapped(7, 2), at(0));
    assert!(b.next_grave().is_none(), "in message order");
    let older = b.next(at(0), true, usize::MAX).expect("the older one");
    assert_eq!(*older.writes[0], mapped(7, 0).write);
    assert_eq!(b.written(older.id, &[], at(0), at(0)), [done(0, Outcome::Put)]);
    let grave = b.next_grave().expect("the refused one");
    assert_eq!(grave.ticket, 1);
    assert!(b.next(at(0), true, usize::MAX).is_none(), "the key waits for the burial");
    b.buried(grave.key, at(0));
    let newest = b.next(at(0), true, usize::MAX).expect("released");
    assert_eq!(b.written(newest.id, &[], at(0), at(0)), [done(2, Outcome::Deleted)]);
    assert!(b.lanes.is_empty());
}

/// A redelivery: what is older than a write in work is replaced by it, in flight or not.
#[test]
fn k1_an_older_message_never_replaces_a_newer_one() {
    for in_flight in [false, true] {
        for coalesce in [false, true] {
            let mut b = batches(coalesce, 25);
            b.add(5, place(5), mapped(7, 4), at(0));
            let sent = in_flight.then(|| b.next(at(0), true, usize::MAX).expect("ready"));
            b.add(6, place(3), mapped(7, 3), at(0));
            b.add(7, place(5), mapped(7, 4), at(0));
            let batch = sent.or_else(|| b.next(at(0), true, usize::MAX)).expect("ready");
            assert_eq!(*batch.writes[0], mapped(7, 4).write);
            let mut over: Vec<Ticket> = b.written(batch.id, &[], at(0), at(0)).iter().map(|done| done.ticket).collect();
            over.sort_unstable();
            assert_eq!(over, [5, 6, 7]);
            assert!(b.lanes.is_empty());
        }
    }
}

/// One step of the model: a message comes, a batch goes out, or one of the unanswered batches is answered.
#[derive(Debug, Clone)]
enum Step {
    Add {
        key: u64,
        bad: bool,
    },
    /// A message comes again while it, or a newer one of its key, is in work.
    Again {
        pick: usize,
    },
    Send,
    Answer {
        pick: usize,
        how: Answer,
    },
    Bury,
}

#[derive(Debug, Clone)]
enum Answer {
    Written {
        unprocessed: u32,
    },
    /// Each write landed or did not.
    Failed {
        landed: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u64, prop::bool::weighted(0.1)).prop_map(|(key, bad)| Step::Add { key, bad }),
        1 => any::<usize>().prop_map(|pick| Step::Again { pick }),
        2 => Just(Step::Send),
        2 => (any::<usize>(), any::<u32>()).prop_map(|(pick, unprocessed)| Step::Answer { pick, how: Answer::Written { unprocessed } }),
        1 => (any::<usize>(), any::<u32>()).prop_map(|(pick, landed)| Step::Answer { pick, how: Answer::Failed { landed } }),
        1 => Just(Step::Bury),
    ]
}

/// A table that refuses a batch with a bad write in it, and checks K1.
#[derive(Default)]
struct Model {
    table: HashMap<String, Item>,
    /// Versions written, by key and in order, repetitions left out.
    history: HashMap<String, Vec<Write>>,
    bad: HashSet<u64>,
    unanswered: Vec<(Batch, HashSet<String>)>,
    sent: Vec<(u64, Ticket, Write)>,
    /// Tickets of messages that came again, and which.
    again: HashMap<Ticket, u64>,
    done: Vec<Ticket>,
    buried: Vec<Ticket>,
    graves: Vec<Grave>,
    now: u64,
}

fn name(write: &Write) -> String {
    format!("{:?}", write.item()["p"])
}

fn version(write: &Write) -> Option<u64> {
    match write.item().get("v") {
        Some(Value::N(v)) => v.parse().ok(),
        _ => None,
    }
}

impl Model {
    /// A message that may come again: the newest good one of its key that is not done, or an older one.
    fn repeatable(&self, pick: usize) -> Option<u64> {
        let in_work = |key: u64, from: u64| {
            let mut newer = self.sent[from as usize..].iter().filter(move |(k, ..)| *k == key);
            newer.any(|(_, ticket, _)| !self.bad.contains(ticket) && !self.done.contains(ticket))
        };
        let all: Vec<u64> = self.sent.iter().filter(|(key, ticket, _)| in_work(*key, *ticket)).map(|(_, ticket, _)| *ticket).collect();
        (!all.is_empty()).then(|| all[pick % all.len()])
    }

    fn is_bad(&self, write: &Write) -> bool {
        version(write).is_some_and(|v| self.bad.contains(&v))
    }

    fn store(&mut self, write: &Write) {
        match &write.action {
            Action::Put(item) => self.table.insert(name(write), item.clone()),
            Action::Delete(_) => self.table.remove(&name(write)),
            Action::Update { .. } => unreachable!("no updates here"),
        };
        let history = self.history.entry(name(write)).or_default();
        if history.last() != Some(write) {
            history.push(write.clone());
        }
    }

    fn send(&mut self, b: &mut Batches) -> Result<bool, TestCaseError> {
        let Some(batch) = b.next(at(self.now), true, usize::MAX) else { return Ok(false) };
        let keys: HashSet<String> = batch.writes.iter().map(|write| name(write)).collect();
        prop_assert_eq!(keys.len(), batch.writes.len(), "one write for a key in a batch");
        prop_assert!(self.unanswered.iter().all(|(_, others)| others.is_disjoint(&keys)), "K1");
        self.unanswered.push((batch, keys));
        Ok(true)
    }

    fn answer(&mut self, b: &mut Batches, pick: usize, how: &Answer) {
        if self.unanswered.is_empty() {
            return;
        }
        let (batch, _) = self.unanswered.swap_remove(pick % self.unanswered.len());
        let now = at(self.now);
        if batch.writes.iter().any(|write| self.is_bad(write)) {
            return b.refused(batch.id, &refusal(), now);
        }
        let (mask, failed) = match how {
            Answer::Written { unprocessed } => (*unprocessed, false),
            Answer::Failed { landed } => (!landed, true),
        };
        let missing: Vec<usize> = (0..batch.writes.len()).filter(|index| mask >> index & 1 == 1).collect();
        for (index, write) in batch.writes.iter().enumerate() {
            if !missing.contains(&index) {
                self.store(write);
            }
        }
        if failed {
            b.failed(batch.id, now, |_| now + at(5), false);
        } else {
            self.done.extend(b.written(batch.id, &missing, now, now + at(5)).iter().map(|done| done.ticket));
        }
    }

    fn bury(&mut self, b: &mut Batches) -> bool {
        self.graves.extend(std::iter::from_fn(|| b.next_grave()));
        let Some(grave) = self.graves.pop() else { return false };
        self.done.push(grave.ticket);
        self.buried.push(grave.ticket);
        b.buried(grave.key, at(self.now));
        true
    }
}

#[test]
fn k1_a_message_that_is_older_than_what_is_stored_is_over_at_once() {
    let mut stored = Stored::default();
    let key = |number| mapped(number, 0).key;
    stored.remember(&key(7), place(5), 2);
    assert!(stored.covers(&key(7), &place(4)) && stored.covers(&key(7), &place(5)));
    assert!(!stored.covers(&key(7), &place(6)) && !stored.covers(&key(8), &place(4)));
    let other = EntryId { topic: "another".into(), ..place(4).0 };
    assert!(!stored.covers(&key(7), &(other, 0)), "partitions have no order");
    stored.remember(&key(8), place(6), 2);
    stored.remember(&key(7), place(7), 2);
    stored.remember(&key(9), place(8), 2);
    assert!(!stored.covers(&key(8), &place(6)), "what was stored longest ago is forgotten");
    assert!(stored.covers(&key(7), &place(7)) && stored.newest.len() == 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// K1 against a model: whatever is delayed, lost, unprocessed or refused, no key is in two unanswered requests, the last writable
    /// message of each key wins, every message is done exactly once and in order for its key, and only bad ones are buried.
    #[test]
    fn k1_the_last_writable_message_wins(
        steps in prop::collection::vec(step(), 1..120),
        coalesce in any::<bool>(),
        max_batch in 1..5_usize,
    ) {
        let mut b = batches(coalesce, max_batch);
        let mut model = Model::default();
        for step in &steps {
            model.now += 1;
            match step {
                Step::Add { key, bad } => {
                    let ticket = model.sent.len() as u64;
                    let mapped = mapped(*key, ticket);
                    if *bad && version(&mapped.write).is_some() {
                        model.bad.insert(ticket);
                    }
                    model.sent.push((*key, ticket, mapped.write.clone()));
                    prop_assert_eq!(b.add(ticket, place(ticket), mapped, at(model.now)), None, "a new message has to be written");
                }
                Step::Again { pick } => {
                    if let Some(number) = model.repeatable(*pick) {
                        let ticket = 1_000_000 + model.again.len() as u64;
                        model.again.insert(ticket, number);
                        let over = b.add(ticket, place(number), mapped(model.sent[number as usize].0, number), at(model.now));
                        model.done.extend(over.map(|done| done.ticket));
                    }
                }
                Step::Send => { model.send(&mut b)?; }
                Step::Answer { pick, how } => model.answer(&mut b, *pick, how),
                Step::Bury => { model.bury(&mut b); }
            }
        }
        let mut rounds = 0;
        while !b.lanes.is_empty() {
            model.now += 10;
            rounds += 1;
            prop_assert!(rounds < 10_000, "no progress: {b:?}");
            while model.send(&mut b)? {}
            model.answer(&mut b, 0, &Answer::Written { unprocessed: 0 });
            model.bury(&mut b);
        }
        prop_assert!(b.ready.is_empty() && b.delayed.is_empty() && b.suspects.is_empty() && b.in_flight.is_empty());
        let mut once = model.done.clone();
        once.sort_unstable();
        let mut all: Vec<Ticket> = (0..model.sent.len() as u64).chain(model.again.keys().copied()).collect();
        all.sort_unstable();
        prop_assert_eq!(once, all, "each message once");
        let number = |ticket: &Ticket| model.again.get(ticket).copied().unwrap_or(*ticket);
        prop_assert!(model.buried.iter().all(|ticket| model.bad.contains(&number(ticket))), "only bad ones are buried");
        prop_assert!(coalesce || model.bad.iter().all(|ticket| model.buried.contains(ticket)), "each bad one is tried");
        for key in 0..6 {
            let of_key = || model.sent.iter().filter(|(k, ..)| *k == key);
            let order: Vec<Ticket> =
                model.done.iter().copied().filter(|t| model.sent.get(*t as usize).is_some_and(|(k, ..)| *k == key)).collect();
            prop_assert!(order.is_sorted(), "in message order: {order:?}");
            let writable: Vec<&Write> = of_key().filter(|(_, t, _)| !model.bad.contains(t)).map(|(.., write)| write).collect();
            let Some(last) = writable.last() else { continue };
            let stored = model.table.get(&name(last));
            let expected = match &last.action {
                Action::Put(item) => Some(item),
                Action::Delete(_) | Action::Update { .. } => None,
            };
            prop_assert_eq!(stored, expected);
            if !coalesce && model.again.is_empty() {
                let mut versions: Vec<Write> = writable.into_iter().cloned().collect();
                versions.dedup();
                prop_assert_eq!(&model.history[&name(&versions[0])], &versions, "every version, in order");
            }
        }
    }
}

/// Put `v` of item 7, as version `version`.
fn versioned(v: u64, version: u64) -> Shaped {
    Shaped { version: Some(Version::Text(format!("{version:03}"))), ..mapped(7, 3 * v) }
}

/// 13, 28: of versions that wait, the greatest is sent, whatever came last; a stale copy of it is not taken for stored.
#[test]
fn s28_the_greatest_version_stands_for_all_that_wait() {
    let mut b = batches(true, 25);
    for (ticket, version) in [(0, 5), (1, 9), (2, 9), (3, 2)] {
        b.add(ticket, place(ticket), versioned(ticket, version), at(0));
    }
    let batch = b.next(at(0), true, usize::MAX).expect("a batch");
    assert_eq!(*batch.writes[0], versioned(2, 9).write, "of two equal ones, the last");
    let done = b.answered(batch.id, vec![Settled::Stored], at(1), |_| at(1));
    let written: Vec<_> = done.iter().filter(|done| done.outcome == Outcome::Put).map(|done| done.ticket).collect();
    assert_eq!((done.len(), written), (4, vec![2]));
    assert_eq!(b.add(9, place(0), versioned(0, 10), at(1)), None, "a message that is older in its topic may be newer by its version");
}

/// Of versions that wait, one that is refused does not take the others with it.
#[test]
fn a_refused_version_releases_its_key() {
    let mut b = batches(true, 25);
    b.add(0, place(0), versioned(0, 9), at(0));
    b.add(1, place(1), versioned(1, 5), at(0));
    let batch = b.next(at(0), true, usize::MAX).expect("a batch");
    assert_eq!(*batch.writes[0], versioned(0, 9).write);
    b.refused(batch.id, &Error::new(Kind::Invalid, "write", "no"), at(1));
    let grave = b.next_grave().expect("the culprit");
    assert_eq!(grave.ticket, 0);
    b.buried(grave.key, at(2));
    let batch = b.next(at(2), true, usize::MAX).expect("the other one");
    assert_eq!(*batch.writes[0], versioned(1, 5).write);
}

/// 32: a transaction that is cancelled for one of its writes is sent again at once without it.
#[test]
fn s32_what_was_rolled_back_is_sent_again_at_once() {
    let mut b = batches(true, 3);
    for key in 0..3 {
        b.add(key, place(key), mapped(key, 0), at(0));
    }
    let batch = b.next(at(0), true, usize::MAX).expect("a batch");
    let culprit = Settled::Refused(Poison::new(super::super::poison::Reason::Rejected, "no"));
    b.answered(batch.id, vec![Settled::AtOnce, culprit, Settled::AtOnce], at(1), |_| at(1000));
    let again = b.next(at(1), false, usize::MAX).expect("at once");
    assert_eq!((again.writes.len(), again.attempts), (2, 0));
    assert_eq!((&*again.writes[0], &*again.writes[1]), (&mapped(0, 0).write, &mapped(2, 0).write), "in their order");
}

fn update(v: u64, name: &str) -> Shaped {
    let Shaped { write, key, .. } = mapped(7, 3 * v);
    let Action::Put(item) = write.action else { unreachable!("a put") };
    let (only, mut set): (Item, Item) = item.into_iter().partition(|(name, _)| name == "p");
    set.insert(name.into(), Value::Bool(true));
    Shaped { write: Write { action: Action::Update { key: only, set, remove: Default::default() }, ..write }, key, version: None }
}

/// One update of several that were merged is to blame: only that one is buried. A late copy of a refused one blames nobody.
#[test]
fn a_merged_update_that_is_refused_is_taken_apart() {
    for copy_comes in [false, true] {
        let mut b = batches(true, 25);
        b.add(0, place(0), update(0, "bad"), at(0));
        b.add(1, place(1), update(1, "good"), at(0));
        if copy_comes {
            b.add(2, place(0), update(0, "bad"), at(0));
        }
        let (mut buried, mut stored) = (Vec::new(), Vec::new());
        while let Some(batch) = b.next(at(1000), true, usize::MAX) {
            let Action::Update { set, .. } = &batch.writes[0].action else { panic!("no update") };
            if set.contains_key("bad") {
                b.refused(batch.id, &Error::new(Kind::Invalid, "write", "no"), at(1000));
            } else {
                stored.extend(b.answered(batch.id, vec![Settled::Stored], at(1000), |_| at(1000)).into_iter().map(|done| done.ticket));
            }
            while let Some(grave) = b.next_grave() {
                buried.push(grave.ticket);
                b.buried(grave.key, at(1000));
            }
        }
        assert!(b.lanes.is_empty() && stored.contains(&1) && !buried.contains(&1), "{copy_comes}: {stored:?} {buried:?}");
        assert!(buried.contains(&0), "{copy_comes}: {stored:?} {buried:?}");
    }
}
