//! The sink over fakes.

mod failover;
mod random;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use pulsar_io_dynamodb::error::{Kind, Limit};

use crate::{
    sim::seeds::{repeated, text},
    support::sink::{
        World,
        dead_topic::{Mode, property},
        delete, eventually, poison, put, refused,
        table::Fault,
    },
};

/// One random schedule in its own runtime: the calls of the table, and how it ended.
fn one<T>(seed: u64, schedule: impl AsyncFnOnce(u64, World) -> T) -> (Vec<String>, Result<T, String>) {
    // The worker's own delays come from here.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let world = World::new();
    let table = world.table.clone();
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(schedule(seed, world)))).map_err(|panic| text(&*panic));
    (table.log(), result)
}

/// Where `SEED` asks for one schedule, that one is run, with its calls printed.
fn is_repeated<T>(schedule: impl AsyncFnOnce(u64, World) -> T) -> bool {
    let Some(seed) = repeated() else { return false };
    let (log, result) = one(seed, schedule);
    eprintln!("{}", log.join("\n"));
    result.unwrap_or_else(|why| panic!("SEED={seed}: {why}"));
    true
}

#[tokio::test(start_paused = true)]
async fn the_last_message_of_each_key_wins() {
    let world = World::new();
    world.broker.publish([put(1, 1), put(1, 2), delete(1)]);
    world.broker.publish([put(2, 3), delete(2), put(2, 4), put(3, 5)]);
    world.broker.publish([delete(4), put(4, 6)]);
    let running = world.start();
    world.all_acked().await;
    assert_eq!(world.table.versions().into_iter().collect::<Vec<_>>(), [(2, 4), (3, 5), (4, 6)]);
    world.assert_last_message_wins();
    running.stop().await.expect("a clean stop");
    assert!(world.broker.is_closed());
}

#[tokio::test(start_paused = true)]
async fn batches_are_full_and_several_are_under_way() {
    let mut world = World::new();
    world.settings.max_in_flight = 3;
    world.table.hold();
    world.broker.publish((0..130).map(|key| put(key, key)));
    let running = world.start();
    eventually("all slots are taken", || world.table.most_at_once() == 3).await;
    world.table.release();
    world.all_acked().await;
    assert_eq!(world.table.calls(), [25, 25, 25, 25, 25, 5]);
    assert_eq!(world.table.most_at_once(), 3);
    world.assert_last_message_wins();
    running.stop().await.expect("a clean stop");
}

/// K1 (checked by the table) and A1 (checked by the broker), each fault alone, with a newer write of the same items behind it.
#[tokio::test(start_paused = true)]
async fn k1_a1_no_fault_loses_or_reorders() {
    for fault in [Fault::Unprocessed(0b101), Fault::Throttle(Limit::Unknown), Fault::LostReply, Fault::LostRequest, Fault::Denied] {
        for coalesce in [true, false] {
            let mut world = World::new();
            world.settings.coalesce = coalesce;
            world.table.script([fault, Fault::Fine, fault]);
            world.broker.publish((0..5).map(|key| put(key, key)));
            let running = world.start();
            eventually("the first batch is sent", || !world.table.calls().is_empty()).await;
            world.broker.publish((0..5).map(|key| if key == 3 { delete(key) } else { put(key, 10 + key) }));
            world.all_acked().await;
            world.assert_last_message_wins();
            running.stop().await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        }
    }
}

/// A1: one message of an entry is stuck. The entry is not acknowledged, others are; a crash loses nothing and brings nothing back.
#[tokio::test(start_paused = true)]
async fn a1_an_entry_with_one_message_stuck_survives_a_crash() {
    let world = World::new();
    world.table.stick(7);
    world.broker.publish((0..10).map(|key| put(key, key)));
    world.broker.publish([put(20, 20)]);
    world.broker.publish([put(3, 30)]);
    world.broker.publish([delete(4)]);
    let running = world.start();
    eventually("the others are written", || world.table.versions().get(&3) == Some(&30) && world.table.versions().len() == 9).await;
    eventually("the unrelated entry is acknowledged", || world.broker.unacked() == [0, 2, 3]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.broker.unacked(), [0, 2, 3], "entries of items of the stuck entry wait for it");
    assert!(world.health.reasons().contains_key("sink/write"), "H1: {:?}", world.health.reasons());
    running.kill(&world.table).await;

    world.table.unstick(7);
    let running = world.start();
    world.all_acked().await;
    world.assert_last_message_wins();
    eventually("health is green", || world.health.reasons().is_empty()).await;
    running.stop().await.expect("a clean stop");
}

/// A redelivery of what is in work is neither written twice nor acknowledged early.
#[tokio::test(start_paused = true)]
async fn a1_redelivery_while_in_work() {
    let mut world = World::new();
    world.settings.coalesce = false;
    world.table.hold();
    world.broker.publish((0..5).map(|key| put(key, key)));
    world.broker.publish((0..5).map(|key| put(key, 10 + key)));
    let running = world.start();
    eventually("all is received", || world.broker.received() == 10).await;
    world.broker.redeliver();
    eventually("all is received again", || world.broker.received() == 20).await;
    world.table.release();
    world.all_acked().await;
    world.assert_last_message_wins();
    assert_eq!(world.table.calls().iter().sum::<usize>(), 10, "each item twice, not four times");
    running.stop().await.expect("a clean stop");
}

/// The copy of an older message waits in the client while it and a newer one of the same item are written and acknowledged.
#[tokio::test(start_paused = true)]
async fn k1_a_late_copy_does_not_stand_over_what_is_newer() {
    let mut world = World::new();
    // Full with both: the copy has to wait.
    world.settings.max_buffered = 2;
    world.table.hold();
    world.broker.publish([put(1, 1)]);
    world.broker.publish([put(1, 2)]);
    let running = world.start();
    eventually("both are in work", || world.broker.received() == 2 && world.table.calls().len() == 1).await;
    world.broker.redeliver_only(0);
    world.table.release();
    world.all_acked().await;
    eventually("the copy is received", || world.broker.received() == 3).await;
    running.stop().await.expect("a clean stop");
    assert_eq!(world.table.versions().into_iter().collect::<Vec<_>>(), [(1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn poison_goes_to_the_dead_letter_topic_and_blocks_nobody() {
    let mut world = World::new();
    world.settings.coalesce = false;
    world.broker.publish((0..25).map(|key| if key == 13 { refused(key, key) } else { put(key, key) }));
    world.broker.publish([poison(30), put(31, 31)]);
    world.broker.publish([put(13, 40)]);
    let running = world.start();
    world.all_acked().await;
    world.assert_last_message_wins();
    let mut copies = world.dead_topic.stored();
    copies.sort_by_key(|copy| property(copy, "dlq.reason").map(str::to_owned));
    let properties = |name| copies.iter().map(|copy| property(copy, name)).collect::<Vec<_>>();
    assert_eq!(properties("dlq.reason"), [Some("NOT_PARSEABLE"), Some("REJECTED")]);
    assert_eq!(properties("dlq.originMessageId"), [Some("1:1:0"), Some("1:0:13")]);
    assert_eq!(properties("dlq.itemKey"), [None, Some(r#"{"pk":{"N":"13"}}"#)]);
    assert_eq!(properties("EVENT_NAME"), [Some("TEST"); 2]);
    assert_eq!(copies[0].payload, poison(30).payload());
    running.stop().await.expect("a clean stop");
}

/// A1: a message counts as dead-lettered by its receipt, not by its sending.
#[tokio::test(start_paused = true)]
async fn a1_a_dead_letter_without_a_receipt_is_not_acknowledged() {
    let mut world = World::new();
    world.settings.coalesce = false;
    world.dead_topic.mode(Mode::Hold);
    world.broker.publish([refused(1, 1)]);
    world.broker.publish([put(1, 2)]);
    world.broker.publish([put(2, 3)]);
    let running = world.start();
    eventually("the copy is sent", || world.dead_topic.held() == 1).await;
    eventually("others go on", || world.broker.unacked() == [0, 1]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.broker.unacked(), [0, 1]);
    assert!(world.health.reasons().contains_key("sink/dead_letter"), "H1: {:?}", world.health.reasons());
    world.dead_topic.release();
    world.all_acked().await;
    world.assert_last_message_wins();
    running.stop().await.expect("a clean stop");
}

/// Without a dead-letter topic the worker ends and names the message; writes under way are finished and acknowledged first.
#[tokio::test(start_paused = true)]
async fn a1_poison_without_a_dead_letter_topic_stops_the_worker() {
    for bad in [poison(9), refused(9, 9)] {
        let mut world = World::new();
        world.with_dead_topic = false;
        world.broker.publish((0..5).map(|key| put(key, key)));
        world.broker.publish([put(6, 6), bad, put(7, 7)]);
        let error = world.start().ended().await.expect_err("poison");
        assert_eq!(error.kind(), Kind::Poison);
        let text = error.to_string();
        assert!(text.contains("message 1:1:1 of persistent://public/default/changes to table copies"), "{text}");
        assert!(text.contains("configure a dead-letter topic"), "{text}");
        assert_eq!(world.broker.unacked(), [1]);
        assert!(world.broker.is_closed());
        assert!((0..5).all(|key| world.table.versions().contains_key(&key)), "writes under way are finished");
    }
}

#[tokio::test(start_paused = true)]
async fn a1_a_failing_dead_letter_topic_stops_the_worker() {
    let world = World::new();
    world.dead_topic.mode(Mode::Fail);
    world.broker.publish([put(1, 1)]);
    world.broker.publish([put(2, 2), poison(9)]);
    let error = world.start().ended().await.expect_err("no dead-letter topic");
    assert!(error.to_string().contains("1:1:1") && error.to_string().contains("the topic is gone"), "{error}");
    assert_eq!(world.broker.unacked(), [1]);

    world.dead_topic.mode(Mode::Store);
    let running = world.start();
    world.all_acked().await;
    running.stop().await.expect("a clean stop");
}

/// M1: nothing more is received while the buffer is full, in messages or in bytes.
#[tokio::test(start_paused = true)]
async fn m1_a_slow_table_stops_the_receiving() {
    for (messages, bytes, bound) in [(10, 1 << 20, 10), (1000, 200, 9)] {
        let mut world = World::new();
        (world.settings.max_buffered, world.settings.max_buffered_bytes) = (messages, bytes);
        world.table.hold();
        (0..40).for_each(|key| world.broker.publish([put(key, 4 * key)]));
        let running = world.start();
        eventually("the buffer fills", || world.broker.received() > 0).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(world.broker.received() <= bound, "{} received", world.broker.received());
        assert!(world.health.reasons()["sink/write"].contains("unanswered"), "H1");
        world.table.release();
        world.all_acked().await;
        world.assert_last_message_wins();
        running.stop().await.expect("a clean stop");
    }
}

/// Z1: a stop takes no more messages, and ends once all in work are written and acknowledged.
#[tokio::test(start_paused = true)]
async fn z1_a_stop_drains() {
    let mut world = World::new();
    world.settings.flush_timeout = Duration::from_secs(3600);
    world.table.script([Fault::Throttle(Limit::Unknown), Fault::LostReply, Fault::Unprocessed(1)]);
    world.broker.publish((0..10).map(|key| put(key, key)));
    let running = world.start();
    eventually("all is received", || world.broker.received() == 10).await;
    assert!(world.table.calls().is_empty(), "the batch waits for more");
    running.stop().await.expect("a clean stop");
    assert!(world.broker.unacked().is_empty() && world.broker.is_closed());
    world.assert_last_message_wins();
}

/// Z1: the drain has a deadline; what is not answered by then stays unacknowledged.
#[tokio::test(start_paused = true)]
async fn z1_a_drain_ends_at_its_deadline() {
    let world = World::new();
    world.table.hold();
    world.broker.publish([put(1, 1)]);
    let running = world.start();
    eventually("it is sent", || world.table.in_flight() == 1).await;
    let before = tokio::time::Instant::now();
    running.stop().await.expect("a stop");
    assert!(before.elapsed() >= world.settings.drain_timeout && before.elapsed() < world.settings.drain_timeout * 2);
    assert_eq!(world.broker.unacked(), [0]);
    assert!(world.broker.is_closed());
}

/// H1: without permission nothing is dead-lettered and nothing acknowledged; health is red with the reason until a person has healed it.
#[tokio::test(start_paused = true)]
async fn h1_no_permission_turns_health_red_and_heals() {
    let world = World::new();
    world.table.describe_fails([Kind::NotFound, Kind::Unavailable]);
    world.table.script([Fault::Denied; 6]);
    world.broker.publish((0..100).map(|key| put(key, key)));
    let running = world.start();
    eventually("red: no table", || world.health.reasons().contains_key("sink/table")).await;
    eventually("red: no permission", || world.health.reasons().get("sink/write").is_some_and(|why| why.contains("BatchWriteItem"))).await;
    assert!(!world.health.reasons().contains_key("sink/table"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.health.reasons().contains_key("sink/write"), "red until a write succeeds");
    assert_eq!(world.broker.unacked(), [0]);
    world.all_acked().await;
    eventually("green", || world.health.reasons().is_empty()).await;
    assert!(world.dead_topic.stored().is_empty());
    assert_eq!(world.table.calls().len(), 6 + 4, "one call at a time while it is not healed");
    running.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_healed_ends_the_worker() {
    let world = World::new();
    world.table.describe_fails([Kind::Configuration]);
    assert_eq!(world.start().ended().await.map_err(|error| error.kind()), Err(Kind::Configuration));
    assert!(world.broker.is_closed());

    let world = World::new();
    world.table.script([Fault::Fatal]);
    world.broker.publish([put(1, 1)]);
    assert_eq!(world.start().ended().await.map_err(|error| error.kind()), Err(Kind::Fatal));
    assert_eq!(world.broker.unacked(), [0]);

    let world = World::new();
    world.broker.publish([put(1, 1)]);
    let running = world.start();
    world.all_acked().await;
    world.broker.fail();
    assert!(running.ended().await.expect_err("no subscription").to_string().contains("it is gone"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_table_is_there_is_clean() {
    let world = World::new();
    world.table.describe_fails([Kind::NotFound; 1000]);
    let running = world.start();
    eventually("red", || !world.health.reasons().is_empty()).await;
    assert!(running.is_running());
    running.stop().await.expect("a clean stop");
    assert!(world.broker.is_closed());
}
