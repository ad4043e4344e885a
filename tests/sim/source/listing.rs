//! DescribeStream: pages that come late, twice, in disorder, with shards left out, or not at all.

use pulsar_io_dynamodb::ports::{Checkpoint, ShardId};
use tokio::time::Instant;

use super::{SECOND, duplicates, finish};
use crate::support::source::{Call, Fault, World, settings};

/// Shards with a record each, in pages of three.
fn shards(world: &World, count: u32) -> Vec<ShardId> {
    let shards: Vec<_> = (0..count).map(|_| world.shard(None)).collect();
    (0..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 1));
    shards
}

#[tokio::test(start_paused = true)]
async fn r10_a_listing_that_is_throttled_goes_on_where_it_was() {
    let mut world = World::new(150);
    shards(&world, 60);
    for _ in 0..20 {
        world.fail(Call::ListShards, Fault::Throttle, 1);
        world.fail(Call::ListShards, Fault::None, 1);
    }
    let run = world.start(settings());
    world.until("everything is read", |state| state.all_stored()).await;
    let calls = world.lock().calls.clone();
    let mut pages: Vec<ShardId> = calls.into_iter().filter(|(call, ..)| *call == Call::ListShards).map(|(_, after, _)| after).collect();
    assert!(pages.len() >= 40, "each page twice: {}", pages.len());
    pages.dedup();
    assert_eq!(pages.len(), 20, "no page is asked for again once it was there");
    finish(&world, run).await;
}

/// connect PR#4737: discovery was all or nothing, and with a budget that ran out nothing was read for days.
#[tokio::test(start_paused = true)]
async fn r10_what_a_listing_has_shown_is_read_while_its_other_pages_do_not_come() {
    let mut world = World::new(151);
    let shards = shards(&world, 30);
    world.fail(Call::ListShards, Fault::None, 4);
    world.fail(Call::ListShards, Fault::Throttle, usize::MAX);
    let run = world.start(settings());
    let began = Instant::now();
    world
        .until("the first pages are read", |state| {
            shards[..6].iter().all(|shard| state.stored.contains(&state.shards[shard].records[0].sequence))
        })
        .await;
    assert!(began.elapsed() < 10 * SECOND, "{:?}", began.elapsed());
    tokio::time::sleep(120 * SECOND).await;
    assert!(world.health.reasons().contains_key("discover"), "H1: {:?}", world.health.reasons());
    world.lock().faults.clear();
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn r11_d1_pages_in_disorder_with_shards_twice_or_left_out_lose_nothing_and_repeat_nothing() {
    for (seed, knows_children) in (152..164).zip([true, false].into_iter().cycle()) {
        let mut world = World::new(seed);
        (world.lock().messy_listings, world.lock().knows_children) = (true, knows_children);
        let mut open = shards(&world, 8);
        let run = world.start(settings());
        for _ in 0..4 {
            for (item, shard) in (0..).zip(&mut open) {
                world.write(shard, item, 5);
                let [child] = world.split(shard);
                *shard = child;
                world.write(shard, item, 5);
            }
            tokio::time::sleep(20 * SECOND).await;
        }
        finish(&world, run).await;
        assert_eq!(duplicates(&world), 0, "seed {seed}");
    }
}

/// The pagination race: the page with the parent was made before it ended, the one with its child after that.
#[tokio::test(start_paused = true)]
async fn s1_a_parent_that_is_listed_as_open_beside_its_child_goes_first() {
    let mut world = World::new(164);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    let child = world.shard(Some(&parent));
    world.write(&child, 1, 50);
    let run = world.start(settings());
    world.until("the parent is read", |state| state.published.len() == 50).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(world.lock().published.len(), 50, "S1");
    world.close(&parent);
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn r12_a_shard_whose_parent_is_trimmed_starts_and_one_whose_parent_is_listed_late_waits_for_it() {
    const OLDER_THAN_THE_STREAM_KEEPS: u64 = 29 * 60 * 60 * 1000;
    let mut world = World::new(165);
    world.lock().next_shard -= OLDER_THAN_THE_STREAM_KEEPS;
    let trimmed = world.shard(None);
    world.lock().next_shard += OLDER_THAN_THE_STREAM_KEEPS;
    let [orphan] = world.split(&trimmed);
    world.write(&orphan, 1, 20);
    world.lock().shards.remove(&trimmed);
    let late = world.shard(None);
    world.write(&late, 2, 20);
    let [waits] = world.split(&late);
    world.write(&waits, 2, 20);
    world.hide(&late, 30 * SECOND);
    let began = Instant::now();
    let run = world.start(settings());
    world.until("the orphan is read", |state| state.stored.len() == 20).await;
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    world.until("the other one is read", |state| state.all_stored()).await;
    assert!(began.elapsed() >= 30 * SECOND, "S1: {:?}", began.elapsed());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn r9_an_endpoint_without_child_shards_is_asked_once_and_then_listed() {
    let mut world = World::new(166);
    world.lock().knows_children = false;
    let mut shard = world.shard(None);
    let run = world.start(settings());
    for _ in 0..5 {
        world.write(&shard, 1, 5);
        world.until("read", |state| state.all_stored()).await;
        let [child] = world.split(&shard);
        shard = child;
        world.write(&shard, 1, 5);
        world.until("the child is read", |state| state.all_stored()).await;
    }
    assert_eq!(world.lock().count(Call::Children), 1);
    let ended = world.lock().rows.values().filter(|row| row.checkpoint == Checkpoint::ShardEnd).count();
    assert_eq!(ended, 5);
    finish(&world, run).await;
}

/// A split has two children, and the stream may show one of them before the other. The slow audit alone would find it after minutes.
#[tokio::test(start_paused = true)]
async fn r9_the_second_child_of_a_split_that_shows_up_late_is_read_within_seconds() {
    for (late, limit) in [(3, 7), (20, 30)] {
        let mut world = World::new(167);
        let shard = world.shard(None);
        let run = world.start(settings());
        // Audits are minutes apart by then.
        tokio::time::sleep(700 * SECOND).await;
        let calls = |world: &World| {
            let state = world.lock();
            state.count(Call::Children) + state.count(Call::ListShards)
        };
        let before = calls(&world);
        let children: [ShardId; 2] = world.split(&shard);
        (1..).zip(&children).for_each(|(item, child)| world.write(child, item, 10));
        world.hide(&children[1], late * SECOND);
        let split = Instant::now();
        world.until("both are read", |state| state.all_stored()).await;
        assert!(split.elapsed() < limit * SECOND, "late by {late} s, read after {:?}", split.elapsed());
        tokio::time::sleep(60 * SECOND).await;
        assert!(calls(&world) - before <= 3, "{} DescribeStream calls", calls(&world) - before);
        finish(&world, run).await;
        assert_eq!(duplicates(&world), 0);
    }
}
