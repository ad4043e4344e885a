//! R20, W11: one `applicationName`, two streams.

use pulsar_io_dynamodb::{
    error::Kind,
    ports::{Checkpoint, Lease, ShardId, StreamArn},
    source::Settings,
};
use tokio::time::Instant;

use super::{SECOND, finish};
use crate::support::source::{Run, World, settings};

fn worker(number: u32) -> Settings {
    Settings { worker_id: format!("public/default/orders-{number}"), ..settings() }
}

/// A connector that reads the stream of another table, into the same lease table.
async fn another(world: &mut World) -> (ShardId, StreamArn, Run) {
    let stream = world.enable_at("customers");
    let shard = world.shard(None);
    world.write(&shard, 7, 50);
    let run = world.start(worker(7));
    world.until("the other one reads", |state| state.all_stored()).await;
    (shard, stream, run)
}

/// A lease that a Java worker holds: it does not say of which stream.
fn java(world: &World, shard: &ShardId) {
    let mut row = Lease::new(shard.clone(), Checkpoint::TrimHorizon);
    (row.owner, row.counter) = (Some("host:java".into()), 77);
    world.lock().rows.insert(shard.clone(), row);
}

/// As a living worker does.
fn renew(world: &World, shard: &ShardId) {
    world.lock().rows.get_mut(shard).expect("a row").counter += 1;
}

#[tokio::test(start_paused = true)]
async fn r20_w11_a_second_stream_under_the_same_name_is_refused_and_the_first_goes_on() {
    for follows in [false, true] {
        let mut world = World::new(130);
        let (theirs, other, first) = another(&mut world).await;
        world.enable_at("orders");
        world.lock().follows = follows;
        let shard = world.shard(None);
        world.write(&shard, 1, 50);
        let began = Instant::now();
        let error = world.start(worker(0)).ended().await.expect_err("refused");
        assert!(began.elapsed() < 11 * SECOND, "{:?}", began.elapsed());
        assert_eq!(error.kind(), Kind::Configuration, "exit code 64");
        for words in [theirs.as_str(), other.as_str(), "public/default/orders-7", "applicationName of its own"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(!world.lock().rows.contains_key(&shard), "nothing was written");
        first.stopped().await.expect("a clean stop");
        assert_eq!(world.lock().published.len(), 50);
    }
}

#[tokio::test(start_paused = true)]
async fn r20_leases_of_another_stream_that_nobody_renews_are_left_alone() {
    let mut world = World::new(131);
    let (theirs, _, first) = another(&mut world).await;
    world.kill(first).await;
    let row = world.lock().row(&theirs).clone();
    world.enable_at("orders");
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let began = Instant::now();
    let run = world.start(worker(0));
    world.until("ours is read", |state| state.all_stored()).await;
    assert!(began.elapsed() < 15 * SECOND, "{:?}", began.elapsed());
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(world.lock().row(&theirs), &row);
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn r20_a_java_worker_on_another_stream_refuses_and_a_dead_ones_leases_are_left_alone() {
    for lives in [true, false] {
        let mut world = World::new(132);
        let shard = world.shard(None);
        world.write(&shard, 1, 50);
        // Of a stream that is not ours.
        world.lock().next_shard += 1000;
        let theirs = ShardId::new(format!("shardId-{:020}-java", world.lock().next_shard));
        java(&world, &theirs);
        let run = world.start(worker(0));
        for _ in 0..20 {
            if lives {
                renew(&world, &theirs);
            }
            tokio::time::sleep(3 * SECOND).await;
        }
        if lives {
            let error = run.ended().await.expect_err("refused");
            assert!(error.to_string().contains("host:java") && error.kind() == Kind::Configuration, "{error}");
            assert!(world.lock().published.is_empty());
        } else {
            assert!(world.lock().all_stored());
            assert_eq!(world.lock().row(&theirs).counter, 77);
            assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
            finish(&world, run).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r20_a_java_worker_on_the_same_stream_is_shared_with_at_once() {
    let mut world = World::new(133);
    let [shard, theirs] = [world.shard(None), world.shard(None)];
    world.write(&shard, 1, 50);
    java(&world, &theirs);
    let began = Instant::now();
    let run = world.start(worker(0));
    world.until("ours is read", |state| state.all_stored()).await;
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    finish(&world, run).await;
}

/// The fleet is on the old stream yet, and renews: that is no other connector.
#[tokio::test(start_paused = true)]
async fn r20_a_worker_that_follows_its_table_is_not_refused() {
    let mut world = World::new(134);
    world.lock().follows = true;
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let first = world.start(worker(0));
    world.until("running", |state| state.all_stored()).await;
    world.hold_receipts(true);
    world.write(&shard, 1, 50);
    world.disable();
    world.enable();
    let next = world.shard(None);
    world.write(&next, 1, 50);
    let second = world.start(worker(1));
    tokio::time::sleep(30 * SECOND).await;
    assert!(!second.task.is_finished());
    world.hold_receipts(false);
    world.until("everything is stored", |state| state.all_stored()).await;
    first.stopped().await.expect("a clean stop");
    finish(&world, second).await;
}
