//! H1, W3: every way in which a source can make no progress turns health red with the reason, and what heals turns it green again.

use std::time::Duration;

use pulsar_io_dynamodb::{error::Kind, ports::Checkpoint};
use tokio::time::Instant;

use super::{SECOND, finish};
use crate::support::source::{Call, Fault, World, number, settings};

/// The calls without which nothing goes on. A release only matters to whoever comes next.
const VITAL: [Call; 9] = [
    Call::ListShards,
    Call::Children,
    Call::ShardIterator,
    Call::GetRecords,
    Call::ListLeases,
    Call::Create,
    Call::Take,
    Call::Renew,
    Call::Checkpoint,
];

/// Waits until health is red with `reason` in its words, `limit` at most; then it has to stay red.
async fn red(world: &World, what: &str, reason: &str, limit: Duration) {
    let deadline = Instant::now() + limit;
    while !world.health.reasons().values().any(|text| text.contains(reason)) {
        assert!(Instant::now() < deadline, "{what}: not told within {limit:?}: {:?}", world.health.reasons());
        tokio::time::sleep(SECOND / 10).await;
    }
    for tenth in 0..600 {
        assert!(!world.health.reasons().is_empty(), "{what}: green after {} s, and nothing has changed", f64::from(tenth) / 10.0);
        tokio::time::sleep(SECOND / 10).await;
    }
}

async fn green(world: &World, what: &str, limit: Duration) {
    let deadline = Instant::now() + limit;
    while !world.health.reasons().is_empty() {
        assert!(Instant::now() < deadline, "{what}: still red {limit:?} after it has healed: {:?}", world.health.reasons());
        tokio::time::sleep(SECOND / 10).await;
    }
}

/// A worker needs this call, and it fails in this way: told, then healed, and nothing is lost.
async fn fails(call: Call, fault: Fault, reason: &str, limit: Duration) {
    let what = format!("{call:?} {fault:?}");
    let mut world = World::new(80);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    // Needed before anything is read, or after a shard's end, or all the time.
    let before = matches!(call, Call::ListShards | Call::ShardIterator | Call::ListLeases | Call::Create | Call::Take);
    if before {
        world.fail(call, fault, usize::MAX);
    }
    let run = world.start(settings());
    if !before {
        world.until("running", |state| state.all_stored()).await;
        world.fail(call, fault, usize::MAX);
    }
    if call == Call::Renew {
        // A checkpoint is a renewal as well.
        world.fail(Call::Checkpoint, fault, usize::MAX);
    }
    if call == Call::Checkpoint {
        world.write(&parent, 1, 1);
    }
    if call == Call::Children {
        let [child] = world.split(&parent);
        world.write(&child, 1, 10);
    }
    red(&world, &what, reason, limit).await;
    world.lock().faults.clear();
    world.until("it goes on", |state| state.all_stored()).await;
    green(&world, &what, 60 * SECOND).await;
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn h1_w3_a_denied_call_is_told_at_once_stays_told_and_heals() {
    for call in VITAL {
        fails(call, Fault::Denied, "scripted denial", 15 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn h1_w3_an_outage_is_told_after_a_minute_stays_told_and_heals() {
    for call in VITAL {
        fails(call, Fault::Down, "scripted outage", 90 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn h1_w3_throttling_without_end_is_told_and_heals() {
    for call in VITAL {
        fails(call, Fault::Throttle, "scripted throttling", 90 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn h1_w3_a_call_that_hangs_is_told_and_heals() {
    for call in VITAL {
        fails(call, Fault::Hang, "no answer", 120 * SECOND).await;
    }
}

/// The Java connector gives up after `numRetries` with a line in the log, and sleeps in between while nothing is read.
#[tokio::test(start_paused = true)]
async fn w16_a_checkpoint_that_fails_is_tried_until_it_is_written_and_holds_up_no_records() {
    let mut world = World::new(84);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    world.fail(Call::Checkpoint, Fault::Throttle, 40);
    world.write(&shard, 1, 1);
    world.until("it fails", |state| state.count(Call::Checkpoint) > 3).await;
    let failing = Instant::now();
    world.write(&shard, 1, 50);
    world.until("records go on", |state| state.all_stored()).await;
    assert!(failing.elapsed() < 2 * SECOND, "{:?}", failing.elapsed());
    let last = Checkpoint::At(number(world.last(&shard)));
    assert_ne!(world.lock().row(&shard).checkpoint, last, "it still fails");
    world.until("it is written", |state| state.row(&shard).checkpoint == last).await;
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn h1_the_trouble_with_a_lease_is_over_when_another_worker_has_it() {
    let mut world = World::new(85);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    for call in [Call::Renew, Call::Checkpoint] {
        world.fail(call, Fault::Denied, usize::MAX);
    }
    red(&world, "no renewals", "scripted denial", 15 * SECOND).await;
    for _ in 0..30 {
        {
            let mut state = world.lock();
            let row = state.rows.get_mut(&shard).expect("a row");
            row.owner = Some("host:java".into());
            row.counter += 1;
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    run.stopped().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn h1_w9_a_topic_that_acknowledges_nothing_is_told_and_heals() {
    let mut world = World::new(81);
    let shard = world.shard(None);
    world.hold_receipts(true);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    red(&world, "no receipts", "Pulsar has not acknowledged a record", 75 * SECOND).await;
    let reasons = world.health.reasons();
    assert!(reasons.values().any(|text| text.contains(shard.as_str())), "{reasons:?}");
    world.hold_receipts(false);
    green(&world, "no receipts", SECOND).await;
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn h1_a_disabled_stream_is_told_while_what_is_in_it_is_read() {
    for follows in [false, true] {
        let mut world = World::new(82);
        world.lock().follows = follows;
        let shard = world.shard(None);
        world.write(&shard, 1, 50);
        world.disable();
        world.hold_receipts(true);
        let run = world.start(settings());
        let then = if follows { "the table's next stream follows" } else { "then the source ends" };
        red(&world, "disabled", then, 60 * SECOND).await;
        world.hold_receipts(false);
        world.until("it is read to its end", |state| state.row(&shard).checkpoint == Checkpoint::ShardEnd).await;
        if follows {
            tokio::time::sleep(60 * SECOND).await;
            red(&world, "nothing follows", "the table has no other stream yet", SECOND).await;
            run.stopped().await.expect("a clean stop");
        } else {
            run.ended().await.expect_err("there is nothing left to do");
        }
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn h1_w3_a_task_that_dies_ends_the_worker_with_an_error() {
    let mut world = World::new(83);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    world.fail(Call::GetRecords, Fault::Panic, 1);
    let error = run.ended().await.expect_err("the process has to end");
    assert_eq!(error.kind(), Kind::Fatal);
    assert!(error.to_string().contains("scripted panic"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn h1_a_deleted_lease_is_made_again() {
    let mut world = World::new(84);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    world.lock().rows.remove(&shard);
    world.write(&shard, 1, 10);
    world.until("read on", |state| state.all_stored()).await;
    tokio::time::sleep(600 * SECOND).await;
    world.write(&shard, 1, 10);
    green(&world, "a deleted row", 60 * SECOND).await;
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn h1_shards_that_wait_for_an_unlisted_ancestor_are_told_and_heal() {
    let mut world = World::new(86);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    let [child] = world.split(&parent);
    world.write(&child, 1, 10);
    world.hide(&parent, 300 * SECOND);
    let run = world.start(settings());
    red(&world, "postponed", "does not list an ancestor", 90 * SECOND).await;
    assert!(world.health.reasons().values().any(|reason| reason.contains(child.as_str())), "{:?}", world.health.reasons());
    world.until("both are read", |state| state.all_stored()).await;
    green(&world, "postponed", 30 * SECOND).await;
    finish(&world, run).await;
}
