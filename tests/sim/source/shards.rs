//! Splits, ends and children.

use pulsar_io_dynamodb::ports::Checkpoint;
use tokio::time::Instant;

use super::{SECOND, duplicates, finish};
use crate::support::source::{World, settings};

#[tokio::test(start_paused = true)]
async fn s1_o1_children_wait_for_the_last_receipt_of_their_parent() {
    let mut world = World::new(20);
    let parent = world.shard(None);
    world.write(&parent, 1, 100);
    world.write(&parent, 2, 100);
    world.hold_receipts(true);
    let run = world.start(settings());
    world.until("the parent is read", |state| state.published.len() == 200).await;
    let [left, right] = world.split(&parent);
    world.write(&left, 1, 100);
    world.write(&right, 2, 100);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(world.lock().published.len(), 200, "S1");
    assert_eq!(world.lock().row(&parent).checkpoint, Checkpoint::TrimHorizon, "C2");
    world.hold_receipts(false);
    finish(&world, run).await;
    assert_eq!(world.lock().row(&parent).checkpoint, Checkpoint::ShardEnd);
    assert_eq!(world.lock().row(&left).parents, [parent]);
    assert_eq!(duplicates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn a_child_starts_within_two_seconds_of_its_parents_end() {
    let mut world = World::new(21);
    let mut shard = world.shard(None);
    let run = world.start(settings());
    for _ in 0..5 {
        world.write(&shard, 1, 10);
        world.until("read", |state| state.all_stored()).await;
        let [child] = world.split(&shard);
        let closed = Instant::now();
        world.write(&child, 1, 1);
        world.until("the child is read", |state| state.all_stored()).await;
        assert!(closed.elapsed() < 2 * SECOND, "{:?}", closed.elapsed());
        shard = child;
    }
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_lineage_that_is_there_before_the_start_is_read_in_order() {
    for knows_children in [true, false] {
        let mut world = World::new(22);
        world.lock().knows_children = knows_children;
        let mut shard = world.shard(None);
        for _ in 0..6 {
            world.write(&shard, 1, 20);
            let [child, other] = world.split(&shard);
            world.write(&other, 2, 20);
            shard = child;
        }
        world.write(&shard, 1, 20);
        let run = world.start(settings());
        finish(&world, run).await;
        assert_eq!(duplicates(&world), 0);
        assert_eq!(world.lock().rows.len(), 13);
    }
}

#[tokio::test(start_paused = true)]
async fn children_that_show_up_late_are_found() {
    for (knows_children, seconds) in [(true, 3), (true, 40), (false, 3), (false, 40)] {
        let mut world = World::new(23);
        world.lock().knows_children = knows_children;
        let parent = world.shard(None);
        world.write(&parent, 1, 20);
        let run = world.start(settings());
        world.until("read", |state| state.all_stored()).await;
        let [child] = world.split(&parent);
        world.hide(&child, seconds * SECOND);
        world.write(&child, 1, 20);
        finish(&world, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_listed_before_its_parent_ends_waits() {
    let mut world = World::new(24);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    let child = world.shard(Some(&parent));
    world.write(&child, 1, 20);
    let run = world.start(settings());
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(world.lock().published.len(), 50, "S1");
    assert_eq!(world.lock().row(&child).owner, None);
    world.close(&parent);
    finish(&world, run).await;
}
