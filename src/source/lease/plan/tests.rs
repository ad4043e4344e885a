use super::*;

const S: Duration = Duration::from_secs(1);
const F: Duration = Duration::from_secs(10);

fn holder(id: &str) -> Holder {
    Holder { id: id.into(), nonce: "1".into() }
}

fn policy(id: &str) -> Policy {
    Policy { me: holder(id), failover: F, ask_limit: 2 * F, max_leases: usize::MAX, assume_dead: AssumeDead::Nobody }
}

fn free(shard: &str) -> Lease {
    Lease { counter: 3, ..Lease::new(ShardId::new(shard), Checkpoint::TrimHorizon) }
}

/// A row of a worker of ours; of a Java worker where its id has a colon.
fn of(shard: &str, owner: &str) -> Lease {
    Lease { owner: Some(owner.into()), nonce: (!owner.contains(':')).then(|| "1".into()), ..free(shard) }
}

fn seen(rows: Vec<Lease>) -> Sightings {
    let mut seen = Sightings::default();
    seen.listed(Vec::new(), Duration::ZERO, Duration::ZERO);
    seen.listed(rows, Duration::ZERO, Duration::ZERO);
    seen
}

fn names(leases: &[Lease]) -> Vec<&str> {
    let mut names: Vec<&str> = leases.iter().map(|lease| lease.shard.as_str()).collect();
    names.sort_unstable();
    names
}

/// What `id` takes, asks for and steals; it holds what its rows say.
fn planned(seen: &Sightings, id: &str, now: Moment) -> Plan {
    let me = holder(id);
    plan(seen, &policy(id), |shard| seen.row(shard).is_some_and(|row| me.owns(row)), now)
}

fn taken(seen: &Sightings, id: &str, now: Moment) -> Vec<String> {
    names(&planned(seen, id, now).take).into_iter().map(str::to_owned).collect()
}

// === what may be taken ===

#[test]
fn l1_anothers_row_is_taken_only_after_the_failover_time_without_change() {
    for owner in ["other", "host:java"] {
        let mut seen = Sightings::default();
        for (now, counter) in [(0, 1), (5, 2), (10, 2), (15, 2)] {
            let now = now * S;
            seen.listed(vec![Lease { counter, ..of("a", owner) }], now, now);
            assert!(taken(&seen, "me", now).is_empty(), "at {now:?}");
        }
        let plan = planned(&seen, "me", 15 * S);
        assert_eq!(plan.wake, Some(15 * S + Duration::from_millis(1)), "without another look");
        assert_eq!(taken(&seen, "me", 15 * S + Duration::from_millis(1)), ["a"]);
    }
}

#[test]
fn free_rows_and_rows_of_an_earlier_start_are_taken_at_once() {
    let mut seen = Sightings::default();
    let before = Lease { nonce: Some("0".into()), ..of("before", "me") };
    seen.listed(vec![free("free"), before, of("lost reply", "me")], F, F);
    let plan = plan(&seen, &policy("me"), |_| false, F);
    assert_eq!(names(&plan.take), ["before", "free", "lost reply"]);
    let plan = super::plan(&seen, &policy("me"), |_| true, F);
    assert!(plan.take.is_empty() && plan.ask.is_empty(), "held leases are not taken again");
}

#[test]
fn a_living_twin_keeps_its_rows() {
    let twin = |counter| Lease { counter, nonce: Some("0".into()), ..of("twin", "me") };
    let mut new = seen(vec![]);
    new.listed(vec![twin(3)], S, S);
    assert!(taken(&new, "me", 2 * S).is_empty());
    let mut changing = Sightings::default();
    changing.listed(vec![twin(3)], Duration::ZERO, Duration::ZERO);
    changing.listed(vec![twin(4)], S, S);
    assert!(taken(&changing, "me", 2 * S).is_empty());
}

#[test]
fn s1_a_child_waits_for_its_parent_and_ended_leases_are_left_alone() {
    let child = Lease { parents: vec![ShardId::new("parent")], ..free("child") };
    let mut seen = seen(vec![child, free("parent")]);
    assert_eq!(taken(&seen, "me", S), ["parent"]);
    seen.saw(Lease { checkpoint: Checkpoint::ShardEnd, ..of("parent", "me") }, F);
    assert_eq!(taken(&seen, "me", S), ["child"]);
    seen.gone(&ShardId::new("parent"));
    assert_eq!(taken(&seen, "me", S), ["child"]);
}

#[test]
fn assume_owner_dead_takes_what_was_there_at_the_start_alone() {
    let rows = || vec![of("a", "host:1"), of("b", "host:2"), of("c", "ours")];
    for (assumed, expected) in [
        (AssumeDead::Nobody, vec![]),
        (AssumeDead::Owners(["host:1".to_string(), "ours".to_string()].into()), vec!["a", "c"]),
        (AssumeDead::All, vec!["a", "b"]),
    ] {
        let policy = Policy { assume_dead: assumed, ..policy("me") };
        let mut seen = Sightings::default();
        seen.listed(rows(), Duration::ZERO, Duration::ZERO);
        assert_eq!(names(&plan(&seen, &policy, |_| false, Duration::ZERO).take), expected);
        // It lives: its rows change.
        seen.listed(rows().into_iter().map(|row| Lease { counter: 4, ..row }).collect(), S, S);
        assert!(plan(&seen, &policy, |_| false, S).take.is_empty());
    }
}

#[test]
fn a_row_that_its_shares_worker_does_not_take_is_anybodys_after_a_while() {
    // Two of ours hold one each, and "a" comes first: the free row is dealt to it.
    let seen = seen(vec![of("1", "a"), of("2", "b"), free("3")]);
    assert_eq!(taken(&seen, "a", S), ["3"]);
    assert!(taken(&seen, "b", 5 * S).is_empty());
    assert_eq!(planned(&seen, "b", 4 * S).wake, Some(5 * S + Duration::from_millis(1)));
    assert_eq!(taken(&seen, "b", 5 * S + Duration::from_millis(1)), ["3"]);
}

#[test]
fn who_has_left_one_row_gets_no_share_of_it() {
    let mut seen = seen(vec![of("1", "me"), of("2", "me"), of("3", "dead"), of("4", "dead")]);
    let renewed = |shard: &str, owner: &str| Lease { counter: 4, ..of(shard, owner) };
    seen.listed(vec![renewed("1", "me"), renewed("2", "me"), of("3", "dead"), renewed("4", "dead")], 3 * S, 3 * S);
    assert_eq!(taken(&seen, "me", 11 * S), ["3"], "although the other has fewer");
}

#[test]
fn h1_the_limit_of_a_worker_is_kept_and_what_nobody_reads_is_told() {
    let limited = Policy { max_leases: 2, ..policy("me") };
    let seen = seen(vec![of("1", "me"), of("2", "other"), of("3", "other"), of("4", "other"), of("5", "other"), free("6"), free("7")]);
    let plan = |now| super::plan(&seen, &limited, |shard| shard.as_str() == "1", now);
    assert_eq!((plan(S).take.len(), plan(S).ask.len(), plan(S).unread), (1, 0, 0));
    let renewed = seen;
    let plan = super::plan(&renewed, &Policy { max_leases: 1, ..policy("me") }, |shard| shard.as_str() == "1", 31 * S);
    assert_eq!((plan.take.len(), plan.unread), (0, 6), "the others' rows are free as well by now, for less long");
}

// === fairness ===

#[test]
fn w25_four_leases_on_three_workers_end_two_one_one() {
    // The third has nothing: the Java connector's own rule leaves it so.
    let seen = seen(vec![of("1", "a"), of("2", "a"), of("3", "b"), of("4", "b")]);
    let plan = planned(&seen, "c", S);
    assert_eq!((names(&plan.ask), plan.take.len(), plan.steal.len()), (vec!["4"], 0, 0));
    for id in ["a", "b"] {
        let plan = planned(&seen, id, S);
        assert!(plan.ask.is_empty() && plan.steal.is_empty(), "{id} has its share");
    }
}

#[test]
fn who_cannot_be_asked_is_stolen_from() {
    let seen = seen(vec![of("1", "host:java"), of("2", "host:java"), of("3", "host:java")]);
    let plan = planned(&seen, "me", S);
    assert_eq!((names(&plan.steal), plan.ask.len()), (vec!["3"], 0));
}

#[test]
fn a_fair_share_is_left_alone_and_finished_leases_do_not_count() {
    let ended = |shard: &str| Lease { checkpoint: Checkpoint::ShardEnd, ..of(shard, "other") };
    let seen = seen(vec![of("1", "me"), of("2", "other"), of("3", "other"), ended("4"), ended("5"), ended("6")]);
    let plan = planned(&seen, "me", S);
    assert!(plan.take.is_empty() && plan.ask.is_empty() && plan.steal.is_empty(), "{plan:?}");
}

#[test]
fn s1_children_that_wait_do_not_distort_the_balance() {
    let child = |shard: &str, parent: &str| Lease { parents: vec![ShardId::new(parent)], ..of(shard, "host:java") };
    // Java takes children that cannot start yet; it has one that can, and so has this worker.
    let mut rows = vec![of("1", "me"), of("2", "host:java")];
    rows.extend(["11", "12", "13", "14"].map(|shard| child(shard, "1")));
    let plan = planned(&seen(rows.clone()), "me", S);
    assert!(plan.steal.is_empty(), "{:?}", plan.steal);
    // A Java worker that holds nothing but such children lives and has a share.
    rows[1] = of("2", "me");
    rows.push(of("3", "me"));
    rows.push(free("4"));
    assert!(taken(&seen(rows), "me", S).is_empty(), "the free one is for the one with fewest");
}

#[test]
fn l2_what_is_asked_for_counts_as_the_askers_until_it_is_overdue_and_is_asked_for_again() {
    let asked = |shard: &str, by: &str| Lease { wanted_by: Some(holder(by)), ..of(shard, "a") };
    let rows = || vec![of("1", "a"), of("2", "a"), asked("3", "b"), asked("4", "b")];
    // A third sees the second, although no row is its own yet.
    let mut seen = seen(rows());
    assert_eq!(planned(&seen, "c", S).ask.len(), 1);
    assert_eq!(planned(&seen, "b", S).ask.len(), 0, "it is on its way");
    // The owner lives and does not heed it.
    for second in 0..=21 {
        seen.listed(rows().into_iter().map(|row| Lease { counter: 10 + second, ..row }).collect(), S, S);
        seen.listed(rows().into_iter().map(|row| Lease { counter: 11 + second, ..row }).collect(), second as u32 * S, second as u32 * S);
    }
    assert!(planned(&seen, "b", 20 * S).ask.is_empty());
    let plan = planned(&seen, "b", 21 * S);
    assert_eq!((names(&plan.ask), plan.take.len(), plan.steal.len()), (vec!["3", "4"], 0, 0), "never by force: it may be publishing");
    plan.ask.into_iter().for_each(|row| seen.asked(row, 21 * S));
    assert!(planned(&seen, "b", 22 * S).ask.is_empty(), "and waits again");
}

#[test]
fn a_note_that_is_not_heeded_is_not_in_the_way_of_another() {
    let asked = |shard: &str| Lease { wanted_by: Some(holder("dead")), ..of(shard, "a") };
    let mut seen = seen(vec![]);
    for second in 0..=21 {
        let now = second as u32 * S;
        seen.listed(["1", "2", "3"].map(|shard| Lease { counter: second, ..asked(shard) }).into(), now, now);
    }
    let plan = planned(&seen, "c", 21 * S);
    assert_eq!((names(&plan.ask), plan.steal.len()), (vec!["3"], 0));
}

/// The workers of a fleet, each with its own sightings, in rounds: all look, all plan, and what they want happens in random order.
struct Fleet {
    rows: BTreeMap<ShardId, Lease>,
    seen: BTreeMap<String, Sightings>,
    moves: usize,
    takes: usize,
}

impl Fleet {
    fn new(leases: usize, workers: usize) -> Self {
        let rows = (0..leases).map(|at| free(&format!("{at:05}"))).map(|lease| (lease.shard.clone(), lease)).collect();
        let seen = (0..workers).map(|at| (format!("worker-{at}"), Sightings::default())).collect();
        Self { rows, seen, moves: 0, takes: 0 }
    }

    fn round(&mut self, random: &mut fastrand::Rng, now: Moment) {
        let mut acts = Vec::new();
        for (id, seen) in &mut self.seen {
            // Everybody alive has renewed meanwhile; that the counters change is all that matters here.
            seen.listed(self.rows.values().cloned().collect(), now, now);
            let plan = planned(seen, id, now);
            acts.extend(plan.take.into_iter().map(|lease| (lease, id.clone(), false)));
            acts.extend(plan.ask.into_iter().chain(plan.steal).map(|lease| (lease, id.clone(), true)));
        }
        random.shuffle(&mut acts);
        for (lease, id, moved) in acts {
            let row = self.rows.get_mut(&lease.shard).expect("a row");
            if *row == lease {
                *row = Lease { counter: row.counter + 1, owner: Some(id), nonce: Some("1".into()), ..lease };
                self.moves += usize::from(moved);
                self.takes += usize::from(!moved);
            }
        }
        self.rows.values_mut().for_each(|row| row.counter += 1);
    }

    fn shares(&self) -> Vec<usize> {
        let mut shares: Vec<usize> =
            self.seen.keys().map(|id| self.rows.values().filter(|row| row.owner.as_ref() == Some(id)).count()).collect();
        shares.sort_unstable();
        shares
    }

    fn is_fair(&self) -> bool {
        let shares = self.shares();
        self.rows.values().all(|row| row.owner.is_some()) && shares[shares.len() - 1] - shares[0] <= 1
    }
}

#[test]
fn ten_takers_of_a_hundred_free_leases_agree_within_three_rounds() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut fleet = Fleet::new(100, 10);
        for round in 1..=3 {
            fleet.round(&mut random, round * S);
        }
        assert!(fleet.is_fair(), "SEED={seed}: {:?}", fleet.shares());
        assert_eq!(fleet.takes, 100, "SEED={seed}: each is taken once");
    }
}

#[test]
fn any_fleet_becomes_fair_and_stays_as_it_is_without_a_steal_storm() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (leases, workers) = (random.usize(1..150), random.usize(1..12));
        let mut fleet = Fleet::new(leases, workers);
        // Some are there before, with everything.
        let joining: Vec<String> = fleet.seen.keys().skip(random.usize(1..=workers)).cloned().collect();
        let late: Vec<_> = joining.iter().filter_map(|id| fleet.seen.remove_entry(id)).collect();
        for round in 1..=20 {
            fleet.round(&mut random, round * S);
        }
        assert!(fleet.is_fair(), "SEED={seed}: {:?}", fleet.shares());
        fleet.moves = 0;
        fleet.seen.extend(late);
        for round in 21..=40 {
            fleet.round(&mut random, round * S);
        }
        assert!(fleet.is_fair(), "SEED={seed}: {leases} on {workers}: {:?}", fleet.shares());
        // What has to move: the shares of those who join.
        let needed = joining.len() * leases.div_ceil(workers);
        assert!(fleet.moves <= needed + workers, "SEED={seed}: {leases} on {workers}: {} moves where {needed} are needed", fleet.moves);
        let (moves, takes) = (fleet.moves, fleet.takes);
        for round in 41..=50 {
            fleet.round(&mut random, round * S);
        }
        assert_eq!((fleet.moves, fleet.takes), (moves, takes), "SEED={seed}: a fair fleet does not move");
    }
}

#[test]
fn moves_under_way_are_bounded() {
    let rows: Vec<Lease> = (0..10_000).map(|at| of(&format!("{at:05}"), if at % 2 == 0 { "a" } else { "host:java" })).collect();
    let plan = planned(&seen(rows), "me", S);
    assert_eq!(plan.ask.len() + plan.steal.len(), MOVES_AT_ONCE);
    let asked = |at: usize| Lease { wanted_by: (at < 30).then(|| holder("me")), ..of(&format!("{at:05}"), "a") };
    assert_eq!(planned(&seen((0..1000).map(asked).collect()), "me", S).ask.len(), 2, "30 are on their way");
}

// === when to look ===

#[test]
fn small_tables_are_looked_at_four_times_a_second_and_large_ones_as_often_as_the_promise_needs() {
    let look = |rows: usize, workers: usize| {
        let rows = (0..rows).map(|at| of(&format!("{at:05}"), &format!("worker-{}", at % workers))).collect();
        pause(&seen(rows), |shard| shard.as_str() == "00000", S, F)
    };
    assert_eq!(look(4, 2), F / 40);
    assert_eq!(look(4, 4), F / 25, "five units a second, all of them together");
    assert_eq!(look(64, 2), Duration::from_millis(800));
    assert_eq!(look(10_000, 10), Duration::from_millis(1500), "a dead owner's lease is taken within 12 s");
    assert_eq!(pause(&seen(vec![of("a", "me")]), |_| true, S, F), F, "there is nothing that others could leave");
}

#[test]
fn the_census_counts_what_is_there() {
    let ended = Lease { checkpoint: Checkpoint::ShardEnd, ..of("4", "b") };
    let seen = seen(vec![of("1", "a"), of("2", "host:java"), free("3"), ended]);
    assert_eq!(census(&seen, S, F), Census { leases: 3, free: 1, workers: 2 });
    assert_eq!(census(&seen, 11 * S, F), Census { leases: 3, free: 3, workers: 0 });
}

#[test]
fn one_worker_of_a_fleet_does_the_slow_audit() {
    let mut seen = Sightings::default();
    let is = |seen: &Sightings, name: &str, now: Duration| is_auditor(seen, &holder(name), now, F);
    assert!(is(&seen, "me", F), "nobody else is there");
    let rows = |counter| ["a", "me", "z"].map(|owner| Lease { counter, ..of(&format!("of {owner}"), owner) });
    seen.listed(rows(1).into(), F, F);
    assert_eq!(["a", "me", "z"].map(|name| is(&seen, name, F)), [true, false, false]);
    // The first one dies.
    let [dead, ..] = rows(1);
    let [_, me, z] = rows(2);
    seen.listed(vec![dead, me, z], 2 * F, 2 * F);
    assert_eq!(["me", "z"].map(|name| is(&seen, name, 2 * F + S)), [true, false]);
    seen.saw(of("d", "Java:worker"), 2 * F);
    assert!(is(&seen, "me", 2 * F + S), "a Java worker does not audit");
}
