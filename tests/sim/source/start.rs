//! Starts, stops, kills and start positions.

use pulsar_io_dynamodb::{
    ports::Checkpoint,
    source::{Settings, StartPosition},
};
use tokio::time::Instant;

use super::{SECOND, duplicates, finish};
use crate::support::source::{Call, World, number, settings};

#[tokio::test(start_paused = true)]
async fn d1_kill_and_restart_lose_nothing_and_repeat_at_most_a_checkpoint_interval() {
    let mut world = World::new(3);
    let shard = world.shard(None);
    let run = world.start(settings());
    // 100 a second, for 4.7 s.
    for _ in 0..47 {
        world.write(&shard, 1, 10);
        tokio::time::sleep(SECOND / 10).await;
    }
    let published = world.lock().published.len();
    assert!(published > 300, "{published}");
    world.kill(run).await;
    let killed = Instant::now();
    let run = world.start(settings());
    world.write(&shard, 1, 10);
    world.until("the new start reads", |state| state.published.len() > published).await;
    assert!(killed.elapsed() < 2 * SECOND, "its own lease is taken back at once, not after {:?}", killed.elapsed());
    finish(&world, run).await;
    // One interval, and what a page may hold at that rate.
    assert!(duplicates(&world) <= 150, "{} duplicates", duplicates(&world));
}

/// The Java connector writes one after each batch, and so uses up its table's capacity.
#[tokio::test(start_paused = true)]
async fn w2_a_busy_shard_is_checkpointed_once_an_interval() {
    let mut world = World::new(12);
    let shard = world.shard(None);
    let run = world.start(Settings { checkpoint_interval: 2 * SECOND, ..settings() });
    for _ in 0..600 {
        world.write(&shard, 1, 2);
        tokio::time::sleep(SECOND / 10).await;
    }
    let writes = world.lock().count(Call::Checkpoint);
    assert!((25..=31).contains(&writes), "{writes} checkpoints in 60 s");
    assert_eq!(world.lock().count(Call::Renew), 0, "a checkpoint is a renewal");
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn w18_z1_a_clean_stop_waits_for_receipts_and_the_next_start_repeats_nothing() {
    let mut world = World::new(4);
    let shard = world.shard(None);
    world.write(&shard, 1, 100);
    world.lock().receipt_delay = SECOND / 50;
    let run = world.start(settings());
    world.until("some are on their way", |state| state.published.len() == 100 && state.stored.len() < 50).await;
    run.stopped().await.expect("a clean stop");
    let last = Checkpoint::At(number(world.last(&shard)));
    assert_eq!(world.lock().row(&shard).checkpoint, last);
    assert_eq!(world.lock().row(&shard).owner, None);
    let run = world.start(settings());
    world.write(&shard, 1, 5);
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
}

/// Also while a write of the lease is under way, which is then found again.
#[tokio::test(start_paused = true)]
async fn w15_z1_a_stop_at_any_moment_frees_the_lease_and_repeats_nothing() {
    let mut world = World::new(11);
    let shard = world.shard(None);
    world.lock().receipt_delay = SECOND / 150;
    for moment in 0..60 {
        let run = world.start(Settings { checkpoint_interval: SECOND / 20, ..settings() });
        for _ in 0..10 {
            world.write(&shard, 1, 3);
            tokio::time::sleep(SECOND / 10).await;
        }
        tokio::time::sleep(moment * SECOND / 500).await;
        run.stopped().await.expect("a clean stop");
        let row = world.lock().row(&shard).clone();
        assert_eq!(row.owner, None, "{row:?}");
        assert_eq!(duplicates(&world), 0);
    }
    let run = world.start(settings());
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn z1_a_stop_does_not_wait_for_receipts_for_ever() {
    let mut world = World::new(5);
    let shard = world.shard(None);
    world.write(&shard, 1, 100);
    world.hold_receipts(true);
    let run = world.start(settings());
    world.until("all are on their way", |state| state.published.len() == 100).await;
    let asked = Instant::now();
    run.stopped().await.expect("a stop");
    assert!(asked.elapsed() >= settings().drain_timeout && asked.elapsed() < settings().drain_timeout + 2 * SECOND);
    assert_eq!(world.lock().row(&shard).checkpoint, Checkpoint::TrimHorizon, "C1: nothing was acknowledged");
    assert_eq!(world.lock().row(&shard).owner, None);
}

#[tokio::test(start_paused = true)]
async fn w1_c1_without_receipts_nothing_is_checkpointed_and_a_kill_repeats_it_all() {
    let mut world = World::new(6);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    world.hold_receipts(true);
    let run = world.start(settings());
    world.until("all are on their way", |state| state.published.len() == 50).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(world.lock().row(&shard).checkpoint, Checkpoint::TrimHorizon);
    assert!(world.lock().row(&shard).counter > 5, "the lease is kept meanwhile");
    world.kill(run).await;
    world.hold_receipts(false);
    let run = world.start(settings());
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 50);
}

#[tokio::test(start_paused = true)]
async fn m1_a_topic_that_takes_nothing_stops_the_reading() {
    let mut world = World::new(7);
    let shards: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 400));
    world.hold_receipts(true);
    let run = world.start(Settings { max_in_flight: 300, ..settings() });
    world.until("the window is full", |state| state.published.len() >= 240).await;
    tokio::time::sleep(100 * SECOND).await;
    assert!(world.lock().published.len() <= 300);
    assert!(world.lock().count(Call::GetRecords) <= 4, "a page waits, no further one is read");
    assert!(world.health.reasons().keys().any(|stage| stage.starts_with("publish")), "H1: {:?}", world.health.reasons());
    world.hold_receipts(false);
    finish(&world, run).await;
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
}

/// The Java connector's one queue fills up with the records of a slow partition, and every shard waits behind it.
#[tokio::test(start_paused = true)]
async fn w13_m1_a_slow_partition_holds_back_only_its_shards() {
    let mut world = World::new(13);
    let shards: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
    (0..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 400));
    world.change(|state| {
        state.partitions = 2;
        state.slow.insert(0);
    });
    let run = world.start(Settings { max_in_flight: 100, ..settings() });
    let shards_of_the_other: Vec<_> = shards.iter().skip(1).step_by(2).collect();
    let began = Instant::now();
    for shard in &shards_of_the_other {
        let last = Checkpoint::At(number(world.last(shard)));
        world
            .until("the other partition's shards are read", |state| state.rows.get(*shard).is_some_and(|row| row.checkpoint == last))
            .await;
    }
    assert!(began.elapsed() < 30 * SECOND, "{:?}", began.elapsed());
    assert_eq!(world.lock().stored.len(), 800);
    world.change(|state| state.slow.clear());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn w6_latest_starts_at_the_first_start_whatever_is_restarted() {
    let mut world = World::new(8);
    let shard = world.shard(None);
    let started = world.now_millis();
    world.write_before_start(&shard, 1, 40, started - 60_000);
    let settings = || Settings { start: StartPosition::Latest, ..settings() };
    let run = world.start(settings());
    world.until("the lease is there", |state| state.rows.len() == 1).await;
    let row = world.lock().row(&shard).clone();
    assert_eq!(row.checkpoint, Checkpoint::Latest, "L3: KCL's own sentinel");
    assert!((started..started + 60_000).contains(&row.start_at.expect("a start time")));
    // Before anything was checkpointed: the start time must not move.
    world.kill(run).await;
    world.write_at(&shard, 1, 20, started + 1000);
    tokio::time::sleep(3600 * SECOND).await;
    let run = world.start(settings());
    finish(&world, run).await;
    let state = world.lock();
    assert_eq!(state.seen.len(), 20, "what was there before the first start is left out");
    assert_eq!(state.row(&shard).start_at, row.start_at);
}

#[tokio::test(start_paused = true)]
async fn w5_at_timestamp_keeps_the_records_of_its_own_second() {
    let mut world = World::new(9);
    let shard = world.shard(None);
    world.write_before_start(&shard, 1, 10, 1_700_000_009_000);
    world.write_at(&shard, 1, 10, 1_700_000_010_000);
    let run = world.start(Settings { start: StartPosition::AtTimestamp(1_700_000_010_900), ..settings() });
    finish(&world, run).await;
    assert_eq!(world.lock().seen.len(), 10);
    assert_eq!(world.lock().row(&shard).start_at, Some(1_700_000_010_900));
}

/// The Java connector never gets further than this row, and keeps no time in it.
#[tokio::test(start_paused = true)]
async fn w5_a_java_connectors_at_timestamp_row_is_read_from_the_configured_time() {
    for (sentinel, start, expected) in [
        (Checkpoint::AtTimestamp, StartPosition::AtTimestamp(1_700_000_010_900), 10),
        // Nobody knows from when: all of it.
        (Checkpoint::Latest, StartPosition::Latest, 20),
    ] {
        let mut world = World::new(12);
        let shard = world.shard(None);
        world.write_before_start(&shard, 1, 10, 1_700_000_009_000);
        world.write_at(&shard, 1, 10, 1_700_000_010_000);
        let run = world.start(settings());
        world.until("the lease is there", |state| state.rows.len() == 1).await;
        world.kill(run).await;
        {
            let mut state = world.lock();
            let row = state.rows.get_mut(&shard).expect("a row");
            (row.owner, row.nonce, row.checkpoint) = (None, None, sentinel);
            state.seen.clear();
        }
        let run = world.start(Settings { start, ..settings() });
        world.until("read", |state| state.seen.len() >= expected).await;
        finish(&world, run).await;
        assert_eq!(world.lock().seen.len(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn l1_a_java_workers_lease_is_taken_once_it_is_silent_for_the_failover_time() {
    let mut world = World::new(10);
    let shard = world.shard(None);
    world.write(&shard, 1, 30);
    let run = world.start(settings());
    world.until("half an interval", |state| state.all_stored()).await;
    run.stopped().await.expect("a clean stop");
    {
        let mut state = world.lock();
        let row = state.rows.get_mut(&shard).expect("a row");
        row.owner = Some("host:java".into());
        row.nonce = None;
        row.counter += 1;
    }
    world.write(&shard, 1, 5);
    let run = world.start(settings());
    tokio::time::sleep(10 * SECOND).await;
    assert!(!world.lock().all_stored(), "the owner may still live");
    tokio::time::sleep(4 * SECOND).await;
    finish(&world, run).await;
    assert_eq!(world.lock().row(&shard).owner_switches, 0, "a checkpoint sets it to 0");
    assert_eq!(duplicates(&world), 0);
}
