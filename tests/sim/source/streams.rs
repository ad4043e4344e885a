//! A table's streams, one after the other: switched off and on, gone, and of a table that was deleted and made again.

use pulsar_io_dynamodb::{
    error::Kind,
    ports::{Checkpoint, ShardId, StreamArn},
    source::{Settings, StartPosition},
};
use tokio::time::Instant;

use super::{SECOND, duplicates, finish};
use crate::support::source::{Call, Fault, Latest, Run, World, settings};

fn worker(number: u32) -> Settings {
    Settings { worker_id: format!("public/default/orders-{number}"), ..settings() }
}

/// A table whose stream has two shards with 50 records each, which are stored, and the worker running on the table.
async fn following(seed: u64) -> (World, [ShardId; 2], Run) {
    let mut world = World::new(seed);
    world.lock().follows = true;
    let shards = [world.shard(None), world.shard(None)];
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 50));
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    (world, shards, run)
}

/// Shards of the stream that the table has now, with changes of the same items.
fn go_on(world: &World) -> [ShardId; 2] {
    let shards = [world.shard(None), world.shard(None)];
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 30));
    shards
}

/// Switches the stream off and on again.
fn switch(world: &World) -> [ShardId; 2] {
    world.disable();
    world.enable();
    go_on(world)
}

fn stream_of(world: &World, shard: &ShardId) -> Option<StreamArn> {
    world.lock().row(shard).stream.clone()
}

#[tokio::test(start_paused = true)]
async fn o1_d1_a_stream_that_is_switched_off_and_on_is_followed_without_a_restart_once_the_old_one_is_read() {
    for knows_children in [true, false] {
        let (world, old, run) = following(90).await;
        world.lock().knows_children = knows_children;
        let first = world.stream();
        world.lock().receipt_delay = SECOND / 10;
        (1..).zip(&old).for_each(|(item, shard)| world.write(shard, item, 100));
        world.disable();
        let second = world.enable();
        // Switched on with the old one's last records not read yet. The books hold each item's changes in order over both.
        let new = go_on(&world);
        let switched = Instant::now();
        world.until("everything is stored", |state| state.all_stored()).await;
        assert!(switched.elapsed() < 60 * SECOND, "{:?}", switched.elapsed());
        tokio::time::sleep(30 * SECOND).await;
        assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
        for (shards, stream) in [(&old, &first), (&new, &second)] {
            shards.iter().for_each(|shard| assert_eq!(stream_of(&world, shard).as_ref(), Some(stream)));
        }
        assert!(old.iter().all(|shard| world.lock().row(shard).checkpoint == Checkpoint::ShardEnd));
        finish(&world, run).await;
        assert_eq!(duplicates(&world), 0);
    }
}

/// LATEST is from the first start on: what a stream has that follows another one came later.
#[tokio::test(start_paused = true)]
async fn d1_the_next_stream_is_read_from_its_beginning_whatever_the_start_position() {
    for down in [false, true] {
        let mut world = World::new(91);
        world.lock().follows = true;
        let shard = world.shard(None);
        let latest = || Settings { start: StartPosition::Latest, started_at: i64::MAX, ..settings() };
        let mut run = world.start(Settings { start: StartPosition::Latest, ..settings() });
        world.write(&shard, 1, 50);
        world.until("running", |state| state.all_stored()).await;
        if down {
            run.stopped().await.expect("a clean stop");
            switch(&world);
            run = world.start(latest());
        } else {
            switch(&world);
        }
        finish(&world, run).await;
        assert_eq!(duplicates(&world), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn d1_what_is_left_in_the_old_stream_at_a_start_is_read_before_the_new_one() {
    let (mut world, old, run) = following(92).await;
    world.kill(run).await;
    (1..).zip(&old).for_each(|(item, shard)| world.write(shard, item, 20));
    switch(&world);
    let run = world.start(settings());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_goes_to_the_next_stream_together() {
    for seed in 93..97 {
        let mut world = World::new(seed);
        world.lock().follows = true;
        let old: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
        // The third one has nothing to read.
        let runs: Vec<_> = (0..3).map(|number| world.start(Settings { max_leases: 2, ..worker(number) })).collect();
        (1..).zip(&old).for_each(|(item, shard)| world.write(shard, item, 50));
        world.until("running", |state| state.all_stored()).await;
        world.lock().receipt_delay = SECOND / 20;
        (1..).zip(&old).for_each(|(item, shard)| world.write(shard, item, 100));
        world.disable();
        world.enable();
        let new: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
        (1..).zip(&new).for_each(|(item, shard)| world.write(shard, item, 50));
        world.until("everything is stored", |state| state.all_stored()).await;
        tokio::time::sleep(60 * SECOND).await;
        (1..).zip(&new).for_each(|(item, shard)| world.write(shard, item, 5));
        world.until("everything is stored", |state| state.all_stored()).await;
        assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
        for run in runs {
            run.stopped().await.expect("a clean stop");
        }
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_with_a_lease_of_the_old_stream_leaves_nothing_unread() {
    let (mut world, old, first) = following(97).await;
    let second = world.start(worker(1));
    world.until("they share", |state| state.rows.values().filter(|row| row.owner == Some(worker(1).worker_id)).count() == 1).await;
    (1..).zip(&old).for_each(|(item, shard)| world.write(shard, item, 20));
    switch(&world);
    world.kill(first).await;
    finish(&world, second).await;
}

#[tokio::test(start_paused = true)]
async fn h1_a_stream_named_by_its_arn_ends_the_source_once_it_is_read_and_says_what_to_do() {
    for knows_children in [true, false] {
        let mut world = World::new(98);
        world.lock().knows_children = knows_children;
        let shard = world.shard(None);
        world.write(&shard, 1, 50);
        // One that nobody reads: all is finished before anything is held.
        let run = world.start(settings());
        world.until("running", |state| state.all_stored()).await;
        let spare = world.start(worker(1));
        world.write(&shard, 1, 20);
        world.disable();
        let disabled = Instant::now();
        for run in [run, spare] {
            let error = run.ended().await.expect_err("nothing more will come");
            assert_eq!(error.kind(), Kind::Fatal);
            for words in ["is disabled and everything in it is published", "table:NAME", world.stream().as_str()] {
                assert!(error.to_string().contains(words), "{error}");
            }
        }
        assert!(disabled.elapsed() < 60 * SECOND, "{:?}", disabled.elapsed());
        world.check();
        assert_eq!(world.lock().row(&shard).checkpoint, Checkpoint::ShardEnd);
        assert_eq!(world.lock().row(&shard).owner, None);
        // Again at each start.
        let run = world.start(settings());
        run.ended().await.expect_err("nothing more will come");
        assert_eq!(duplicates(&world), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn d1_a_disabled_stream_is_not_over_while_a_shard_is_listed_late() {
    let mut world = World::new(99);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    let [child] = world.split(&parent);
    world.write(&child, 1, 20);
    world.hide(&child, 15 * SECOND);
    world.disable();
    run.ended().await.expect_err("nothing more will come");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn h1_a_table_without_a_stream_and_one_that_is_gone_are_told_until_a_stream_follows() {
    for (latest, reason) in [(Latest::NoStream, "the table has no stream"), (Latest::NoTable, "no such table")] {
        let (world, _, run) = following(100).await;
        world.disable();
        world.lock().latest = latest;
        tokio::time::sleep(120 * SECOND).await;
        let reasons = world.health.reasons();
        assert!(reasons.values().any(|text| text.contains(reason)), "{reasons:?}");
        world.enable();
        go_on(&world);
        world.until("the next stream is read", |state| state.all_stored()).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
        finish(&world, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c2_g1_a_table_that_is_deleted_with_its_stream_and_made_again_is_followed_and_the_gap_is_told() {
    let (world, old, run) = following(101).await;
    let first = world.stream();
    world.lock().latest = Latest::NoTable;
    world.drop_stream(&first);
    tokio::time::sleep(120 * SECOND).await;
    let reasons = world.health.reasons();
    assert!(reasons.values().any(|text| text.contains("the stream is gone")), "{reasons:?}");
    assert!(old.iter().all(|shard| matches!(world.lock().row(shard).checkpoint, Checkpoint::At(_))), "C2: no SHARD_END");
    let second = world.enable();
    let new = go_on(&world);
    world.until("the new table's stream is read", |state| state.all_stored()).await;
    assert!(new.iter().all(|shard| stream_of(&world, shard).as_ref() == Some(&second)));
    world.until("the old rows are deleted", |state| old.iter().all(|shard| !state.rows.contains_key(shard))).await;
    tokio::time::sleep(60 * SECOND).await;
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_switched_on_and_off_again_is_not_left_out() {
    let (world, _, run) = following(102).await;
    switch(&world);
    world.until("the second one is begun", |state| state.rows.len() == 4).await;
    switch(&world);
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn looking_for_another_stream_may_fail_while_this_one_is_read() {
    let (world, old, run) = following(103).await;
    world.fail(Call::DescribeTable, Fault::Denied, usize::MAX);
    for _ in 0..20 {
        (1..).zip(&old).for_each(|(item, shard)| world.write(shard, item, 5));
        tokio::time::sleep(10 * SECOND).await;
        assert!(world.lock().all_stored());
    }
    let reasons = world.health.reasons();
    assert!(reasons.values().any(|text| text.contains("scripted denial")), "H1: {reasons:?}");
    world.lock().faults.clear();
    tokio::time::sleep(60 * SECOND).await;
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    switch(&world);
    finish(&world, run).await;
}
