//! Random schedules of a sink over a table full of faults, in every mode, from one seed.
//!
//! `SEED=N` repeats one schedule and prints the calls in it; `SIM_SEEDS=N` says how many schedules are run, from `SIM_FIRST` on.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    sim::{
        seeds::{all, wanted},
        sink::{is_repeated, one},
    },
    support::sink::{
        Effect, Message, World,
        broker::PulsarIo,
        delete,
        model::{RULES, Rule},
        poison, put, refused,
    },
};

/// Enough to see most mistakes, in a few seconds. `.ci/run` asks for more.
const SEEDS: u64 = 300;
/// In so many schedules, everything happens.
const MANY: u64 = 400;

/// What happened, by name.
type Counts = BTreeMap<&'static str, u64>;

/// K1 is checked by the table at each call, A1 by the broker at each acknowledgment, the final table against the model; M1 and Z1 on the way.
#[test]
fn k1_a1_m1_z1_hold_for_random_schedules_in_every_mode() {
    if is_repeated(schedule) {
        return;
    }
    let wanted = wanted(SEEDS);
    let seeds = wanted.end - wanted.start;
    let counts: Counts = all(
        wanted,
        |seed| one(seed, schedule).1,
        |sum: &mut Counts, counts| counts.into_iter().for_each(|(what, times)| *sum.entry(what).or_default() += times),
    );
    eprintln!("{seeds} schedules of the sink: {counts:?}");
    if seeds >= MANY {
        for what in [
            "sinks of the archive",
            "kills",
            "stops",
            "redeliveries",
            "dead letters",
            "unprocessed",
            "throttled",
            "lost replies",
            "lost requests",
            "late landings",
            "denied",
        ] {
            assert!(counts.get(what).is_some_and(|times| *times > 0), "no {what} in {seeds} schedules: they show nothing about them");
        }
    }
}

/// A seed is worth something only if it repeats everything.
#[test]
fn a_sinks_seed_repeats_every_call() {
    for seed in 1_000_000..1_000_010 {
        let (first, second) = (one(seed, schedule).0, one(seed, schedule).0);
        assert_eq!(first, second, "SEED={seed}");
        assert!(!first.is_empty(), "SEED={seed}: something happens");
    }
}

/// Random messages, faults and delays; at random moments the worker is killed or stopped and another one started, or everything that is not
/// acknowledged comes again.
async fn schedule(seed: u64, mut world: World) -> Counts {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut counts = Counts::new();
    let mut count = |what| *counts.entry(what).or_default() += 1;
    let rule = RULES[rng.usize(0..RULES.len())];
    world.follow(rule);
    world.settings.coalesce = rng.bool();
    world.settings.max_batch = rng.usize(1..=25);
    world.settings.max_in_flight = rng.usize(1..=6);
    world.settings.max_buffered = rng.usize(2..=60);
    world.settings.max_buffered_bytes = rng.usize(200..=4000);
    world.settings.max_write_capacity = rng.bool().then(|| rng.u64(50..5000));
    world.table.randomly(Some(rng.fork()));
    if rng.u8(0..3) == 0 {
        count("sinks of the archive");
        world.broker.like_pulsar_io(PulsarIo { credit: rng.usize(1..=60), gaps: rng.bool() });
    }
    let keys = rng.u64(1..=12);
    let mut version = 0;
    let mut running = world.start();
    for _ in 0..rng.usize(1..=6) {
        for _ in 0..rng.usize(1..=8) {
            let size = if rng.bool() { 1 } else { rng.usize(2..=12) };
            world.broker.publish((0..size).map(|_| message(&mut rng, rule, keys, &mut version)));
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..200))).await;
        match rng.u8(0..4) {
            0 => {
                count("kills");
                running.kill(&world.table).await;
                running = world.start();
            }
            1 => {
                count("stops");
                running.stop().await.expect("a clean stop");
                running = world.start();
            }
            _ => {
                count("redeliveries");
                world.broker.redeliver();
            }
        }
    }
    world.table.randomly(None);
    world.all_acked().await;
    // What the client still has of a redelivery must change nothing, and neither must what lands late.
    tokio::time::sleep(Duration::from_secs(60)).await;
    running.stop().await.expect("a clean stop");
    world.assert_last_message_wins();
    counts.insert("dead letters", world.dead_topic.stored().len() as u64);
    counts.extend(world.table.met());
    counts
}

fn message(rng: &mut fastrand::Rng, rule: Rule, keys: u64, version: &mut u64) -> Message {
    *version += 1;
    let key = rng.u64(0..keys);
    let message = match rng.u8(0..20) {
        0 => poison(key),
        1 => refused(key, *version),
        2..6 => delete(key),
        6..14 => Message { effect: Effect::Set(*version), ..put(key, *version) },
        _ => put(key, *version),
    };
    // In no order, and each once.
    let sequence = if rule == Rule::Newest { *version * 7919 % 10_007 + 1 } else { 0 };
    Message { sequence, ..message }
}
