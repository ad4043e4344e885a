//! Random worlds: splits, kills, stops and faults at random moments, from one seed. `SEED=N` repeats a run.

use std::time::Duration;

use pulsar_io_dynamodb::ports::ShardId;

use super::duplicates;
use crate::support::source::{Call, Fault, World, settings};

const ITEMS: u32 = 6;

/// C1, C2, S1, O1 are checked on each write and publish; D1 at the end.
#[test]
fn c1_c2_s1_o1_d1_hold_for_random_schedules() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..150,
    };
    let mut restarted = 0;
    for seed in seeds {
        eprintln!("SEED={seed}");
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        restarted += runtime.block_on(schedule(seed));
    }
    assert!(restarted > 0 || std::env::var("SEED").is_ok());
}

/// Items live in shards as in DynamoDB: each item in one open shard at a time, and in one of its children after a split.
struct Homes(Vec<ShardId>);

async fn schedule(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut world = World::new(seed);
    {
        let mut state = world.lock();
        state.page = random.usize(1..40);
        state.empty_pages = random.bool();
        state.knows_children = random.bool();
        state.receipt_delay = Duration::from_millis(random.u64(0..30));
    }
    let mut homes = Homes((0..ITEMS).map(|_| world.shard(None)).collect());
    let (mut run, mut restarts) = (world.start(settings()), 0);
    for _ in 0..random.usize(10..40) {
        match random.u32(0..100) {
            0..40 => {
                for _ in 0..random.usize(1..8) {
                    let item = random.u32(0..ITEMS);
                    world.write(&homes.0[item as usize], item, random.usize(1..6));
                }
            }
            40..55 => {
                let parent = homes.0[random.usize(0..homes.0.len())].clone();
                let [left, right] = world.split(&parent);
                if random.bool() {
                    world.hide(&right, Duration::from_millis(random.u64(0..40_000)));
                }
                for home in homes.0.iter_mut().filter(|home| **home == parent) {
                    *home = if random.bool() { left.clone() } else { right.clone() };
                }
            }
            55..75 => {
                let fault = [Fault::Throttle, Fault::Down, Fault::LostReply, Fault::Hang][random.usize(0..4)];
                let call = Call::ALL[random.usize(0..Call::ALL.len())];
                // Only writes can land without their reply.
                let read = matches!(call, Call::ListShards | Call::Children | Call::ShardIterator | Call::GetRecords | Call::ListLeases);
                world.fail(call, if read && fault == Fault::LostReply { Fault::Down } else { fault }, random.usize(1..6));
            }
            75..80 => world.expire_iterators(),
            80..85 => {
                let hold = world.lock().hold;
                world.hold_receipts(!hold);
            }
            85..95 => {
                world.kill(run).await;
                run = world.start(settings());
                restarts += 1;
            }
            _ => {
                world.hold_receipts(false);
                run.stopped().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                run = world.start(settings());
                restarts += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..4000))).await;
    }
    world.hold_receipts(false);
    world.until(&format!("everything is stored (SEED={seed})"), |state| state.all_stored()).await;
    run.stopped().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    world.check();
    let (takes, leases) = {
        let state = world.lock();
        (state.count(Call::Take), state.rows.len())
    };
    if restarts == 0 && takes == leases {
        assert_eq!(duplicates(&world), 0, "no restart and no lease lost, no duplicates");
    }
    restarts
}
