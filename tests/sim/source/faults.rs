//! What services do to a worker.

use pulsar_io_dynamodb::ports::{Checkpoint, StreamStatus};

use super::{SECOND, duplicates, finish, running};
use crate::support::source::{Call, Fault, World, number, settings};

#[tokio::test(start_paused = true)]
async fn d1_expired_iterators_are_replaced_without_loss_or_duplicates() {
    let (world, shard, run) = running(40).await;
    for _ in 0..3 {
        world.expire_iterators();
        world.write(&shard, 1, 20);
        world.until("read on", |state| state.all_stored()).await;
    }
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_and_outages_of_every_call_heal() {
    let mut world = World::new(41);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    for call in Call::ALL {
        world.fail(call, Fault::Throttle, 2);
        world.fail(call, Fault::Down, 2);
    }
    let [left, right] = world.split(&parent);
    world.write(&left, 1, 50);
    world.write(&right, 2, 50);
    let run = world.start(settings());
    world.until("everything is stored", |state| state.all_stored()).await;
    tokio::time::sleep(20 * SECOND).await;
    assert!(world.health.reasons().is_empty(), "healed: {:?}", world.health.reasons());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn l1_a_write_whose_reply_is_lost_costs_no_lease() {
    let (world, shard, run) = running(42).await;
    for round in 0..6 {
        let call = [Call::Renew, Call::Checkpoint][round % 2];
        world.fail(call, Fault::LostReply, 1);
        world.write(&shard, 1, 10);
        tokio::time::sleep(10 * SECOND).await;
    }
    let taken = world.lock().count(Call::Take);
    assert_eq!(taken, 1, "the lease was never lost");
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
}

/// A lease is kept from a write on whose time is known. This renewal is done at once and never answered; the next try finds it done,
/// and has written nothing itself.
#[tokio::test(start_paused = true)]
async fn l2_a_renewal_that_is_found_done_keeps_the_lease_from_its_own_time_only() {
    let (world, shard, run) = running(54).await;
    world.fail(Call::Renew, Fault::Mute, 1);
    let tries = world.lock().count(Call::Renew);
    world.until("it is tried again", |state| state.count(Call::Renew) >= tries + 2).await;
    tokio::time::sleep(SECOND / 20).await;
    for call in [Call::Renew, Call::Checkpoint, Call::ListLeases] {
        world.fail(call, Fault::Down, usize::MAX);
    }
    for _ in 0..60 {
        world.write(&shard, 1, 1);
        tokio::time::sleep(SECOND / 5).await;
    }
    world.lock().faults.clear();
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn a_take_and_a_creation_whose_replies_are_lost_are_found_again() {
    let mut world = World::new(43);
    world.fail(Call::Create, Fault::LostReply, 1);
    world.fail(Call::Take, Fault::LostReply, 1);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_answer_hold_nothing_up_for_ever() {
    for call in [Call::GetRecords, Call::ShardIterator, Call::Renew, Call::Checkpoint, Call::ListLeases, Call::Take, Call::ListShards] {
        let mut world = World::new(44);
        let shard = world.shard(None);
        world.write(&shard, 1, 20);
        world.fail(call, Fault::Hang, 1);
        let run = world.start(settings());
        tokio::time::sleep(60 * SECOND).await;
        world.write(&shard, 1, 20);
        finish(&world, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn d1_a_young_shard_that_a_listing_leaves_out_is_not_taken_for_trimmed() {
    let (world, shard, run) = running(48).await;
    let hidden = world.lock().shards.remove(&shard).expect("the shard");
    tokio::time::sleep(60 * SECOND).await;
    assert!(matches!(world.lock().row(&shard).checkpoint, Checkpoint::At(_)), "no SHARD_END on a listing's word");
    assert!(!world.health.reasons().is_empty(), "H1");
    world.lock().shards.insert(shard.clone(), hidden);
    world.write(&shard, 1, 20);
    world.until("it is read on", |state| state.all_stored()).await;
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn w23_c2_h1_a_stream_that_is_gone_ends_no_shard_and_turns_health_red() {
    let (world, shard, run) = running(47).await;
    let stream = world.stream();
    world.lock().streams.remove(&stream);
    tokio::time::sleep(120 * SECOND).await;
    assert!(matches!(world.lock().row(&shard).checkpoint, Checkpoint::At(_)));
    let reasons = world.health.reasons();
    assert!(reasons.values().any(|reason| reason.contains("the stream is gone")), "{reasons:?}");
    world.lock().streams.insert(stream, StreamStatus::Enabled);
    world.write(&shard, 1, 10);
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn l2_who_cannot_renew_stops_publishing_before_the_failover_time() {
    for fault in [Fault::Down, Fault::Hang] {
        let (world, shard, run) = running(48).await;
        // Nothing of the lease table answers any more, and the topic has room.
        for call in [Call::Renew, Call::Checkpoint, Call::ListLeases, Call::Take] {
            world.fail(call, fault, usize::MAX);
        }
        let last = world.lock().row(&shard).counter;
        // A renewal is under way when the time is over.
        tokio::time::sleep(5 * SECOND).await;
        let mut published = Vec::new();
        for _ in 0..60 {
            world.write(&shard, 1, 1);
            tokio::time::sleep(SECOND / 2).await;
            published.push(world.lock().published.len());
        }
        assert_eq!(world.lock().row(&shard).counter, last);
        assert_eq!(published[7], published[59], "{fault:?}: no publishing from 8 s on: {published:?}");
        assert!(published[3] > 50, "{fault:?}: and publishing before that: {published:?}");
        world.lock().faults.clear();
        finish(&world, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn l1_a_lease_that_another_worker_takes_is_let_go() {
    let (world, shard, run) = running(49).await;
    {
        let mut state = world.lock();
        let row = state.rows.get_mut(&shard).expect("a row");
        row.owner = Some("host:java".into());
        row.counter += 1;
    }
    tokio::time::sleep(4 * SECOND).await;
    let published = world.lock().published.len();
    world.write(&shard, 1, 10);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.lock().published.len(), published);
    assert_eq!(world.lock().row(&shard).owner.as_deref(), Some("host:java"));
    // The other one dies: nobody writes the row any more.
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn h1_a_missing_permission_is_told_at_once_and_heals_without_a_restart() {
    for call in [Call::GetRecords, Call::ListShards, Call::ListLeases, Call::Create, Call::Take] {
        let mut world = World::new(50);
        let shard = world.shard(None);
        world.write(&shard, 1, 10);
        world.fail(call, Fault::Denied, usize::MAX);
        let run = world.start(settings());
        tokio::time::sleep(5 * SECOND).await;
        let reasons = world.health.reasons();
        assert!(reasons.values().any(|reason| reason.contains("scripted denial")), "{call:?}: {reasons:?}");
        world.lock().faults.clear();
        world.until("it goes on", |state| state.all_stored()).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(world.health.reasons().is_empty(), "{call:?}: {:?}", world.health.reasons());
        finish(&world, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn h1_an_outage_is_told_after_a_minute() {
    let (world, shard, run) = running(51).await;
    world.fail(Call::GetRecords, Fault::Down, usize::MAX);
    tokio::time::sleep(50 * SECOND).await;
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(world.health.reasons().keys().collect::<Vec<_>>(), [&format!("shard {shard}")]);
    world.lock().faults.clear();
    world.write(&shard, 1, 1);
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn w9_c1_a_receipt_that_fails_stops_the_worker_and_nothing_later_is_checkpointed() {
    let (world, shard, run) = running(53).await;
    let last = world.last(&shard);
    world.lock().fail_at = Some(last + 4);
    world.write(&shard, 1, 10);
    let error = run.ended().await.expect_err("it stops");
    assert!(error.to_string().contains("the topic was terminated"), "{error}");
    let state = world.lock();
    assert_eq!(state.row(&shard).checkpoint, Checkpoint::At(number(last + 3)));
    assert!(state.violations.is_empty(), "{:?}", state.violations);
}
