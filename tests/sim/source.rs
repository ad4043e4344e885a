//! The source over fakes.

mod errors;
mod faults;
mod fleet;
mod gaps;
mod health;
mod listing;
mod many;
mod messages;
mod metrics;
mod once;
mod poison;
mod random;
mod rollover;
mod shards;
mod share;
mod start;
mod streams;

use std::time::Duration;

use pulsar_io_dynamodb::ports::ShardId;

use crate::support::source::{Run, World, settings};

const SECOND: Duration = Duration::from_secs(1);

/// A world with one shard, 50 records of it stored, and the worker running.
async fn running(seed: u64) -> (World, ShardId, Run) {
    let mut world = World::new(seed);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    (world, shard, run)
}

/// Runs until everything that was written is stored, then stops cleanly and checks the books.
async fn finish(world: &World, run: Run) {
    world.until("everything is stored", |state| state.all_stored()).await;
    run.stopped().await.expect("a clean stop");
    world.check();
}

/// How many messages were published more than once.
fn duplicates(world: &World) -> usize {
    let state = world.lock();
    state.published.len() - state.seen.len()
}

#[tokio::test(start_paused = true)]
async fn d1_every_record_of_every_shard_arrives_once() {
    let mut world = World::new(1);
    let shards: Vec<_> = (0..5).map(|_| world.shard(None)).collect();
    for (item, shard) in shards.iter().enumerate() {
        world.write(shard, item as u32, 300);
    }
    world.lock().page = 100;
    world.lock().empty_pages = true;
    let run = world.start(settings());
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
    let state = world.lock();
    assert!(state.rows.values().all(|row| row.owner.is_none()), "Z1: a clean stop leaves no lease owned");
    assert_eq!(state.rows.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_read_page_after_page_and_the_tip_five_times_a_second() {
    const PAGES: usize = 6;
    let mut world = World::new(2);
    let shard = world.shard(None);
    world.lock().page = 1000;
    world.write(&shard, 1, PAGES * 1000);
    let run = world.start(settings());
    world.until("the backlog is stored", |state| state.all_stored()).await;
    for _ in 0..100 {
        world.write(&shard, 1, 1);
        tokio::time::sleep(SECOND / 20).await;
    }
    finish(&world, run).await;
    let state = world.lock();
    let calls = state.calls.iter().filter(|(call, ..)| *call == crate::support::source::Call::GetRecords);
    let times: Vec<_> = calls.map(|(_, _, at)| *at).collect();
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (backlog, tip) = pauses.split_at(PAGES);
    assert!(backlog.iter().all(|pause| *pause < SECOND / 10), "{backlog:?}");
    assert!(tip.len() > 20 && tip.iter().all(|pause| *pause >= SECOND / 5), "{tip:?}");
}
