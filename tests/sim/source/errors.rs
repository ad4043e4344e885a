//! R15: what the Streams API answers instead of records, one by one.

use metrics_exporter_prometheus::PrometheusBuilder;
use pulsar_io_dynamodb::ports::{Checkpoint, StreamStatus};
use tokio::time::Instant;

use super::{SECOND, duplicates, finish, running};
use crate::support::source::{Call, Fault, World, settings};

#[tokio::test(start_paused = true)]
async fn r15_an_expired_iterator_is_replaced_as_often_as_needed_with_backoff() {
    let (world, shard, run) = running(120).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    world.fail(Call::GetRecords, Fault::Expired, 30);
    world.write(&shard, 1, 20);
    let before = world.lock().count(Call::ShardIterator);
    tokio::time::sleep(20 * SECOND).await;
    let tries = world.lock().count(Call::ShardIterator) - before;
    assert!((4..=12).contains(&tries), "{tries} new iterators in 20 s");
    world.until("read on", |state| state.all_stored()).await;
    let text = metrics.render();
    let expired = text.lines().find(|line| line.starts_with("dynamodb_source_iterators_expired_total{"));
    assert!(expired.is_some_and(|line| line.ends_with(" 30")), "{expired:?}");
    finish(&world, run).await;
    assert_eq!(duplicates(&world), 0);
}

/// connect#4722: the reader asked for ever for a new iterator of a shard that had gone meanwhile.
#[tokio::test(start_paused = true)]
async fn r15_g1_a_shard_that_is_deleted_while_its_iterator_expires_is_gone_and_its_child_goes_on() {
    const OLDER_THAN_THE_STREAM_KEEPS: u64 = 25 * 60 * 60 * 1000;
    let mut world = World::new(121);
    world.lock().next_shard -= OLDER_THAN_THE_STREAM_KEEPS;
    let parent = world.shard(None);
    world.lock().next_shard += OLDER_THAN_THE_STREAM_KEEPS;
    world.write(&parent, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;
    let [child] = world.split(&parent);
    world.write(&child, 1, 20);
    world.expire_iterators();
    world.lock().shards.remove(&parent);
    let gone = Instant::now();
    world.until("the child is read", |state| state.all_stored()).await;
    assert!(gone.elapsed() < 30 * SECOND, "{:?}", gone.elapsed());
    assert_eq!(world.lock().row(&parent).checkpoint, Checkpoint::ShardEnd);
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn r15_c2_a_stream_that_goes_while_an_iterator_expires_ends_no_shard() {
    let (world, shard, run) = running(122).await;
    let stream = world.stream();
    world.expire_iterators();
    world.lock().streams.remove(&stream);
    tokio::time::sleep(300 * SECOND).await;
    assert!(matches!(world.lock().row(&shard).checkpoint, Checkpoint::At(_)), "C2");
    let reasons = world.health.reasons();
    assert!(reasons.values().any(|reason| reason.contains("the stream is gone")), "H1: {reasons:?}");
    world.lock().streams.insert(stream, StreamStatus::Enabled);
    world.write(&shard, 1, 10);
    finish(&world, run).await;
}

/// Two readers of a shard are allowed: a third one, and all of them, get LimitExceeded now and then.
#[tokio::test(start_paused = true)]
async fn r15_limit_exceeded_is_waited_out_and_starves_no_shard() {
    let mut world = World::new(123);
    let shards = [world.shard(None), world.shard(None)];
    let run = world.start(settings());
    for second in 0..120 {
        if second % 4 == 0 {
            world.fail(Call::GetRecords, Fault::Throttle, 4);
            world.fail(Call::ShardIterator, Fault::Throttle, 1);
        }
        (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 2));
        tokio::time::sleep(SECOND).await;
        let state = world.lock();
        let late = shards.iter().filter(|shard| {
            let records = &state.shards[*shard].records;
            records.len() > 60 && !state.stored.contains(&records[records.len() - 60].sequence)
        });
        assert_eq!(late.count(), 0, "a shard is more than 30 s behind after {second} s");
    }
    world.lock().faults.clear();
    finish(&world, run).await;
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    assert_eq!(duplicates(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn r15_h1_expired_credentials_are_told_heal_and_lose_nothing() {
    for call in [Call::GetRecords, Call::ShardIterator, Call::ListShards] {
        let (world, shard, run) = running(124).await;
        world.fail(call, Fault::Token, usize::MAX);
        if call == Call::ShardIterator {
            world.expire_iterators();
        }
        world.write(&shard, 1, 20);
        // A listing is made now and then.
        tokio::time::sleep(330 * SECOND).await;
        let reasons = world.health.reasons();
        assert!(reasons.values().any(|reason| reason.contains("scripted: the token has expired")), "{call:?}: {reasons:?}");
        world.lock().faults.clear();
        world.until("read on", |state| state.all_stored()).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(world.health.reasons().is_empty(), "{call:?}: {:?}", world.health.reasons());
        finish(&world, run).await;
        assert_eq!(duplicates(&world), 0);
    }
}
