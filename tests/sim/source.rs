//! The source over fakes.

mod faults;
mod fleet;
mod health;
mod messages;
mod metrics;
mod random;
mod rollover;
mod shards;
mod start;
mod streams;

use std::time::Duration;

use crate::support::source::{Run, World, settings};

const SECOND: Duration = Duration::from_secs(1);

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
async fn never_more_than_five_get_records_a_second_for_one_shard() {
    let mut world = World::new(2);
    let shard = world.shard(None);
    world.lock().page = 1000;
    world.write(&shard, 1, 6000);
    let run = world.start(settings());
    finish(&world, run).await;
    let state = world.lock();
    let times: Vec<_> =
        state.calls.iter().filter(|(call, ..)| *call == crate::support::source::Call::GetRecords).map(|(_, _, at)| *at).collect();
    assert!(times.len() >= 6);
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= SECOND / 5, "{:?} between two calls", pair[1] - pair[0]);
    }
}
