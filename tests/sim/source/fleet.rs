//! Several workers on one lease table.

use metrics_exporter_prometheus::PrometheusBuilder;
use pulsar_io_dynamodb::{ports::Checkpoint, source::Settings};
use tokio::time::Instant;

use super::{SECOND, duplicates, finish};
use crate::support::source::{Call, State, World, number, settings};

fn worker(number: u32) -> Settings {
    Settings { worker_id: format!("public/default/orders-{number}"), ..settings() }
}

/// How many unfinished leases each worker of ours has, fewest first.
fn shares(state: &State) -> Vec<usize> {
    let mut shares = std::collections::BTreeMap::<_, usize>::new();
    for row in state.rows.values().filter(|row| row.checkpoint != Checkpoint::ShardEnd) {
        *shares.entry(row.owner.clone()).or_default() += 1;
    }
    let free = shares.remove(&None);
    let mut shares: Vec<usize> = shares.into_values().collect();
    shares.sort_unstable();
    if free.is_some() { Vec::new() } else { shares }
}

#[tokio::test(start_paused = true)]
async fn w25_three_workers_share_four_shards_two_one_one_without_duplicates() {
    let mut world = World::new(70);
    let shards: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
    let mut runs = Vec::new();
    for (number, expected) in [(0, vec![4]), (1, vec![2, 2]), (2, vec![1, 1, 2])] {
        runs.push(world.start(worker(number)));
        let began = Instant::now();
        while shares(&world.lock()) != expected {
            (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 2));
            tokio::time::sleep(SECOND / 10).await;
            assert!(began.elapsed() < 10 * SECOND, "{:?} instead of {expected:?}", shares(&world.lock()));
        }
    }
    world.until("everything is stored", |state| state.all_stored()).await;
    assert_eq!(duplicates(&world), 0, "a lease is handed over, not torn away");
    assert_eq!(world.lock().count(Call::HandOver), 3);
    tokio::time::sleep(120 * SECOND).await;
    assert_eq!(world.lock().count(Call::HandOver), 3, "a fair fleet does not move");
    for run in runs {
        run.stopped().await.expect("a clean stop");
    }
    world.check();
}

#[tokio::test(start_paused = true)]
async fn z1_after_a_clean_stop_another_worker_reads_on_within_a_second_without_duplicates() {
    let mut world = World::new(71);
    let shards: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
    let (first, second) = (world.start(worker(0)), world.start(worker(1)));
    world.until("they share", |state| shares(state) == [2, 2]).await;
    let write = |world: &World| (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 5));
    write(&world);
    world.until("read", |state| state.all_stored()).await;
    let asked = Instant::now();
    first.stop.cancel();
    write(&world);
    world.until("everything is read", |state| state.all_stored()).await;
    assert!(asked.elapsed() <= SECOND, "{:?}", asked.elapsed());
    first.ended().await.expect("a clean stop");
    finish(&world, second).await;
    assert_eq!(duplicates(&world), 0);
}

/// Who held everything looks at the table seldom. Once it has given something away it looks after whom it gave it to.
#[tokio::test(start_paused = true)]
async fn z1_who_has_just_handed_shards_over_has_them_back_within_a_second_of_a_clean_stop() {
    let mut world = World::new(79);
    let shards: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
    let first = world.start(worker(0));
    world.until("the first has all", |state| shares(state) == [4]).await;
    let second = world.start(worker(1));
    world.until("they share", |state| shares(state) == [2, 2]).await;
    let asked = Instant::now();
    second.stop.cancel();
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 5));
    world.until("everything is read", |state| state.all_stored()).await;
    assert!(asked.elapsed() <= SECOND, "{:?}", asked.elapsed());
    second.ended().await.expect("a clean stop");
    finish(&world, first).await;
    assert_eq!(duplicates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn l1_a_killed_workers_shards_are_read_on_within_twelve_seconds() {
    for seed in 72..76 {
        let mut world = World::new(seed);
        let shards: Vec<_> = (0..4).map(|_| world.shard(None)).collect();
        let (first, second) = (world.start(worker(0)), world.start(worker(1)));
        world.until("they share", |state| shares(state) == [2, 2]).await;
        tokio::time::sleep(SECOND * (seed as u32 - 70)).await;
        world.kill(first).await;
        let killed = Instant::now();
        (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 5));
        world.until("everything is read", |state| state.all_stored()).await;
        assert!(killed.elapsed() <= 12 * SECOND, "{:?}", killed.elapsed());
        finish(&world, second).await;
    }
}

/// Pulsar acknowledges nothing: the owner gives up to wait and hands over; what was not acknowledged comes again.
#[tokio::test(start_paused = true)]
async fn a_handover_does_not_wait_for_receipts_for_ever() {
    let mut world = World::new(76);
    let shards: Vec<_> = (0..2).map(|_| world.shard(None)).collect();
    let first = world.start(worker(0));
    world.until("both are held", |state| shares(state) == [2]).await;
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 20));
    world.hold_receipts(true);
    world.until("on their way", |state| state.published.len() == 40).await;
    let second = world.start(worker(1));
    let began = Instant::now();
    world.until("shared", |state| shares(state) == [1, 1]).await;
    assert!(began.elapsed() <= settings().drain_timeout + 5 * SECOND, "{:?}", began.elapsed());
    world.hold_receipts(false);
    world.until("everything is stored", |state| state.all_stored()).await;
    first.stopped().await.expect("a clean stop");
    finish(&world, second).await;
}

#[tokio::test(start_paused = true)]
async fn assume_owner_dead_reads_on_at_once() {
    let mut world = World::new(77);
    let shard = world.shard(None);
    world.write(&shard, 1, 30);
    let run = world.start(settings());
    world.until("read", |state| state.all_stored()).await;
    run.stopped().await.expect("a clean stop");
    {
        let mut state = world.lock();
        let row = state.rows.get_mut(&shard).expect("a row");
        (row.owner, row.counter) = (Some("host:java".into()), row.counter + 1);
    }
    world.write(&shard, 1, 5);
    let began = Instant::now();
    let run = world.start(Settings { assume_dead: pulsar_io_dynamodb::source::lease::plan::AssumeDead::All, ..settings() });
    world.until("read on", |state| state.all_stored()).await;
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    finish(&world, run).await;
}

/// The Java connector checkpoints what it has queued: after a crash the last records before its checkpoint are missing in Pulsar.
#[tokio::test(start_paused = true)]
async fn w1_rewind_on_adopt_closes_the_hole_before_a_java_checkpoint() {
    let rewinding = || Settings { rewind_on_adopt: 300 * SECOND, ..settings() };
    let mut world = World::new(78);
    let shard = world.shard(None);
    let time = 1_800_000_000_000;
    // Older than the rewind: they are not wanted again. Then what Java has lost.
    world.write_before_start(&shard, 1, 20, time - 400_000);
    world.write_at(&shard, 1, 20, time);
    let java = Checkpoint::At(number(world.last(&shard)));
    {
        let mut state = world.lock();
        let mut row = pulsar_io_dynamodb::ports::Lease::new(shard.clone(), java.clone());
        (row.owner, row.counter) = (Some("host:java".into()), 77);
        state.rows.insert(shard.clone(), row);
    }
    // A crash on the way begins anew.
    world.hold_receipts(true);
    let run = world.start(rewinding());
    world.until("on their way", |state| state.published.len() == 20).await;
    world.kill(run).await;
    world.hold_receipts(false);
    let run = world.start(rewinding());
    world.until("the hole is closed", |state| state.all_stored()).await;
    let published = world.lock().published.len();
    world.until("it is ours", |state| state.row(&shard).mark.as_ref().is_some_and(|mark| mark.checkpoint == java)).await;
    world.kill(run).await;
    // From now on it is our checkpoint.
    let run = world.start(rewinding());
    world.write_at(&shard, 1, 5, time + 1000);
    finish(&world, run).await;
    assert_eq!(world.lock().published.len(), published + 5);
}

#[tokio::test(start_paused = true)]
async fn leases_taken_are_counted_by_whose_they_were() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(80);
    (0..4).for_each(|_| drop(world.shard(None)));
    let mut first = world.start(worker(0));
    world.until("the first has all", |state| shares(state) == [4]).await;
    let second = world.start(worker(1));
    world.until("they share", |state| shares(state) == [2, 2]).await;
    world.kill(first).await;
    first = world.start(worker(0));
    tokio::time::sleep(5 * SECOND).await;
    world.kill(second).await;
    world.until("the first has all again", |state| shares(state) == [4]).await;
    first.stopped().await.expect("a clean stop");

    let java = "host:java";
    world.lock().rows.values_mut().for_each(|row| (row.owner, row.nonce) = (Some(java.into()), None));
    let third = world.start(worker(2));
    let renew = |state: &mut State| {
        state.rows.values_mut().filter(|row| row.owner.as_deref() == Some(java)).for_each(|row| row.counter += 1);
        shares(state)
    };
    while renew(&mut world.lock()) != [2, 2] {
        tokio::time::sleep(SECOND).await;
    }
    third.stopped().await.expect("a clean stop");
    for (from, leases) in [("nobody", 4), ("asked", 2), ("self", 2), ("silent", 2), ("living", 2)] {
        let line = format!("dynamodb_source_leases_taken_total{{from=\"{from}\"}} {leases}\n");
        assert!(metrics.render().contains(&line), "{line}{}", metrics.render());
    }
}
