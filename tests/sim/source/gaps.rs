//! G1: records that are gone before they were read, and what `onTrimmed` makes of them.

use std::{
    io,
    sync::{Arc, Mutex},
};

use metrics_exporter_prometheus::PrometheusBuilder;
use pulsar_io_dynamodb::{
    error::Kind,
    ports::{Checkpoint, Lease, ShardId},
    source::{Settings, gap::OnTrimmed},
};
use tracing_subscriber::layer::SubscriberExt;

use super::{SECOND, duplicates, finish};
use crate::support::source::{Latest, Run, World, number, settings};

const OLDER_THAN_THE_STREAM_KEEPS: u64 = 25 * 60 * 60 * 1000;

fn failing() -> Settings {
    Settings { on_trimmed: OnTrimmed::Fail, ..settings() }
}

/// What is logged from now on, by this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn keep(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || log.clone());
        tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
    }

    /// A line of code that another test has reached for the first time while this log began may have been noted as of no interest to anybody.
    fn miss_nothing(&self) {
        tracing::callsite::rebuild_interest_cache();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

/// A shard with 50 records stored and 30 more written, of which the first 20 are trimmed, and no worker running.
async fn trimmed(world: &mut World, shard: &ShardId, item: u32) {
    world.write(shard, item, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    run.stopped().await.expect("a clean stop");
    world.write(shard, item, 30);
    world.lock().shards.get_mut(shard).expect("a shard").trimmed = 70;
}

/// The bounds of that gap, as they are told.
fn bounds(world: &World, shard: &ShardId) -> String {
    let state = world.lock();
    let records = &state.shards[shard].records;
    format!("the records after {} and before {}", number(records[49].sequence), number(records[70].sequence))
}

/// A shard that was opened before all that the stream keeps, with 50 records stored.
async fn old(world: &mut World, settings: Settings) -> (ShardId, Run) {
    world.lock().next_shard -= OLDER_THAN_THE_STREAM_KEEPS;
    let shard = world.shard(None);
    world.lock().next_shard += OLDER_THAN_THE_STREAM_KEEPS;
    world.write(&shard, 1, 50);
    let run = world.start(settings);
    world.until("running", |state| state.all_stored()).await;
    (shard, run)
}

#[tokio::test(start_paused = true)]
async fn w23_g1_trimmed_records_are_counted_told_with_their_bounds_and_reading_goes_on() {
    let log = Log::default();
    let _kept = log.keep();
    let mut world = World::new(45);
    let shard = world.shard(None);
    trimmed(&mut world, &shard, 1).await;
    log.miss_nothing();
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let run = world.start(settings());
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
    assert!(metrics.render().contains("dynamodb_source_gaps_total 1"), "{}", metrics.render());
    let bounds = bounds(&world, &shard);
    assert!(log.text().lines().any(|line| line.contains(&bounds) && line.contains(shard.as_str())), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn w23_g1_a_trimmed_shard_ends_and_its_children_go_on() {
    let log = Log::default();
    let _kept = log.keep();
    let mut world = World::new(46);
    let (parent, run) = old(&mut world, settings()).await;
    run.stopped().await.expect("a clean stop");
    log.miss_nothing();
    let last = number(world.last(&parent));
    let [child] = world.split(&parent);
    world.write(&child, 1, 20);
    world.lock().shards.remove(&parent);
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let run = world.start(settings());
    world.until("the child is read", |state| state.all_stored()).await;
    assert_eq!(world.lock().row(&parent).checkpoint, Checkpoint::ShardEnd);
    finish(&world, run).await;
    assert!(metrics.render().contains("dynamodb_source_gaps_total 1"), "{}", metrics.render());
    assert!(log.text().contains(&format!("the records after {last} and up to its end")), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn g1_h1_with_fail_the_shard_stops_and_is_told_others_go_on_and_a_reset_heals_without_a_restart() {
    let mut world = World::new(110);
    let [shard, other] = [world.shard(None), world.shard(None)];
    trimmed(&mut world, &shard, 1).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let run = world.start(failing());
    for _ in 0..30 {
        world.write(&other, 2, 5);
        tokio::time::sleep(10 * SECOND).await;
    }
    let bounds = bounds(&world, &shard);
    let reasons = world.health.reasons();
    let reason = reasons.values().find(|reason| reason.contains(shard.as_str())).expect("H1");
    for words in [bounds.as_str(), &format!("leases reset {shard} --to TRIM_HORIZON --force"), "onTrimmed: continue"] {
        assert!(reason.contains(words), "{reason}");
    }
    assert!(metrics.render().contains("dynamodb_source_gaps_total 1"), "{}", metrics.render());
    {
        let mut state = world.lock();
        assert_eq!(state.published.len(), 50 + 150, "the other shard alone was read");
        let row = state.rows.get_mut(&shard).expect("a row");
        assert!(matches!(row.checkpoint, Checkpoint::At(_)) && row.owner.is_some(), "{row:?}");
        (row.checkpoint, row.counter, row.owner, row.nonce) = (Checkpoint::TrimHorizon, row.counter + 1, None, None);
    }
    world.until("it is read on", |state| state.all_stored()).await;
    tokio::time::sleep(10 * SECOND).await;
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn g1_h1_with_fail_a_worker_that_has_nothing_else_to_read_ends_with_the_bounds() {
    let mut world = World::new(111);
    let shard = world.shard(None);
    trimmed(&mut world, &shard, 1).await;
    let before = world.lock().row(&shard).checkpoint.clone();
    let run = world.start(failing());
    let error = run.ended().await.expect_err("it cannot recover");
    assert_eq!(error.kind(), Kind::TrimmedData);
    assert!(error.to_string().contains(&bounds(&world, &shard)), "{error}");
    let state = world.lock();
    assert_eq!(state.published.len(), 50);
    assert_eq!((&state.row(&shard).checkpoint, &state.row(&shard).owner), (&before, &None));
}

#[tokio::test(start_paused = true)]
async fn g1_c2_with_fail_a_shard_that_has_vanished_gets_no_shard_end() {
    let mut world = World::new(112);
    let (parent, run) = old(&mut world, failing()).await;
    let last = number(world.last(&parent));
    let [child] = world.split(&parent);
    world.write(&child, 1, 20);
    world.expire_iterators();
    world.lock().shards.remove(&parent);
    let error = run.ended().await.expect_err("it cannot recover");
    assert!(error.to_string().contains(&format!("the records after {last} and up to its end")), "{error}");
    assert_eq!(world.lock().row(&parent).checkpoint, Checkpoint::At(last));
    assert_eq!(world.lock().published.len(), 50, "S1");
}

#[tokio::test(start_paused = true)]
async fn g1_c2_with_fail_a_stream_that_is_gone_ends_the_source_although_another_follows() {
    let mut world = World::new(113);
    world.lock().follows = true;
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(failing());
    world.until("running", |state| state.all_stored()).await;
    let stream = world.stream();
    world.lock().latest = Latest::NoTable;
    world.drop_stream(&stream);
    world.enable();
    let error = run.ended().await.expect_err("it is for a person to decide");
    for words in [stream.as_str(), shard.as_str(), "onTrimmed: continue"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(matches!(world.lock().row(&shard).checkpoint, Checkpoint::At(_)));
}

/// A Java checkpoint that the stream has passed: going back before it finds nothing, and what came after it may be missing.
#[tokio::test(start_paused = true)]
async fn g1_w1_a_gap_at_the_adoption_of_a_java_checkpoint_is_counted() {
    let mut world = World::new(114);
    let shard = world.shard(None);
    world.write(&shard, 1, 80);
    let checkpoint = Checkpoint::At(number(world.lock().shards[&shard].records[49].sequence));
    let mut row = Lease::new(shard.clone(), checkpoint);
    (row.owner, row.counter) = (Some("host:java".into()), 77);
    world.lock().rows.insert(shard.clone(), row);
    world.lock().shards.get_mut(&shard).expect("a shard").trimmed = 70;
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let run = world.start(Settings { rewind_on_adopt: 300 * SECOND, ..settings() });
    finish(&world, run).await;
    assert!(metrics.render().contains("dynamodb_source_gaps_total 1"), "{}", metrics.render());
}
