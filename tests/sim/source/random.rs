//! Random schedules: fleets of workers, with everything that can happen to them, from one seed.
//!
//! `SEED=N` repeats one schedule and prints what happens in it; `SIM_SEEDS=N` says how many schedules are run.

mod outcome;
mod schedule;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use self::{outcome::Outcome, schedule::schedule};
use crate::{
    sim::seeds::{all, repeated, text, wanted},
    support::source::World,
};

/// Enough to see most mistakes, in a few seconds. `.ci/run` asks for more.
const SEEDS: u64 = 100;
/// In so many schedules, everything happens.
const MANY: u64 = 400;

/// C1, C2, L1, L2, S1, O1 and M1 are checked on each write, read and publish; D1, G1, Z1 and H1 at the end.
#[test]
fn c1_c2_l1_l2_s1_o1_d1_g1_m1_z1_h1_hold_for_random_schedules() {
    hold(false);
}

/// The same with a broker that deduplicates: nothing is stored twice, but for what was read before a gap.
#[test]
fn d2_each_record_is_stored_once_in_random_schedules() {
    hold(true);
}

fn hold(is_once: bool) {
    if let Some(seed) = repeated() {
        let replay = replay(seed, is_once);
        eprintln!("{}", replay.log.join("\n"));
        return replay.result.unwrap_or_else(|why| panic!("SEED={seed}: {why}"));
    }
    let wanted = wanted(SEEDS);
    let seeds = wanted.end - wanted.start;
    let reported = |seed| {
        let (world, result) = one(seed, is_once);
        result.map_err(|why| format!("{why}\n{}", world.map(|world| world.report()).unwrap_or_default()))
    };
    let outcome = all(wanted, reported, |sum: &mut Outcome, outcome| sum.add(&outcome));
    eprintln!("{seeds} schedules: {outcome:?}");
    if seeds >= MANY {
        let Outcome { kills, freezes, stops, twins, refusals, ended, splits, takes, gaps, letters, .. } = outcome;
        assert_eq!(ended > 0, is_once, "{ended} workers have ended for others");
        for (what, times) in [
            ("kills", kills),
            ("freezes", freezes),
            ("stops", stops),
            ("twins", twins),
            ("refusals", refusals),
            ("dead letters", letters),
            ("splits", splits),
            ("takes", takes),
            ("gaps", gaps),
        ] {
            assert!(times > 0, "no {what} in {seeds} schedules: they show nothing about them");
        }
    }
}

/// A seed is worth something only if it repeats everything.
#[test]
fn a_seed_repeats_every_event() {
    for seed in 1_000_000..1_000_010 {
        let is_once = seed % 2 == 0;
        let (first, second) = (replay(seed, is_once), replay(seed, is_once));
        let differs = first.log.iter().zip(&second.log).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first.log[at], &second.log[at])), None, "SEED={seed}");
        assert_eq!(first.log.len(), second.log.len(), "SEED={seed}");
        assert!(first.log.len() > 100, "SEED={seed}: something happens");
    }
}

struct Replay {
    log: Vec<String>,
    result: Result<(), String>,
}

fn replay(seed: u64, is_once: bool) -> Replay {
    let (world, result) = one(seed, is_once);
    let log = world.map(|world| world.lock().log.iter().map(ToString::to_string).collect()).unwrap_or_default();
    Replay { log, result: result.map(drop) }
}

/// One schedule, in its own runtime. The world is there for its report, unless it could not be made.
fn one(seed: u64, is_once: bool) -> (Option<World>, Result<Outcome, String>) {
    // Delays and nonces of the workers come from here.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let gaps = Gaps::default();
    let mut made = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        metrics::with_local_recorder(&gaps, || runtime.block_on(schedule(seed, is_once, &gaps, |world| made = Some(world.clone()))))
    }));
    let result = result.unwrap_or_else(|panic| Err(format!("panics: {}", text(&*panic))));
    (made, result)
}

/// Counts gaps (G1) and nothing else.
#[derive(Default)]
struct Gaps(Arc<AtomicU64>);

impl Gaps {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Recorder for Gaps {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == pulsar_io_dynamodb::metrics::names::SOURCE_GAPS { Counter::from_arc(self.0.clone()) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
