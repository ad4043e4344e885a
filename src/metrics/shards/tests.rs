use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::advance;

use super::*;
use crate::source::clock::epoch_millis;

const SECOND: Duration = Duration::from_secs(1);

/// The id of a shard that was opened so many seconds ago.
fn opened(seconds: i64) -> ShardId {
    ShardId::new(format!("shardId-{:020}-0a1b2c3d", epoch_millis() - seconds * 1000))
}

/// Lag, time to trim, and the age of the oldest record without receipt; in whole seconds.
fn ages(shards: &Shards) -> (i64, i64, i64) {
    let status = shards.status().into_iter().next().expect("a shard");
    (status.lag_seconds.round() as i64, status.time_to_trim_seconds.round() as i64, status.unacked_seconds.round() as i64)
}

fn empty_page(meter: &Meter) {
    meter.page(Instant::now(), true, None);
}

fn page(meter: &Meter, seconds_old: i64) {
    meter.page(Instant::now(), false, Some(epoch_millis() - seconds_old * 1000));
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_an_idle_shard_is_zero_while_its_pages_are_empty_and_fresh() {
    let shards = Shards::default();
    let meter = shards.enter(&opened(7_200), &[]);
    advance(2 * SECOND).await;
    assert_eq!(ages(&shards), (2, 86_400 - 7_202, 0), "no page yet: nobody knows more");
    for _ in 0..100 {
        empty_page(&meter);
        assert_eq!(ages(&shards), (0, 86_400, 0));
        advance(SECOND).await;
    }
    advance(59 * SECOND).await;
    assert_eq!(ages(&shards), (60, 86_340, 0), "an empty page of a minute ago says nothing about now");
    empty_page(&meter);
    assert_eq!(ages(&shards), (0, 86_400, 0));
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_busy_shard_is_the_age_of_what_was_read_last() {
    let shards = Shards::default();
    let meter = shards.enter(&opened(7_200), &[]);
    page(&meter, 3_600);
    assert_eq!(ages(&shards), (3_600, 82_800, 0));
    advance(100 * SECOND).await;
    assert_eq!(ages(&shards), (3_700, 82_700, 0), "it grows while no page comes");
    page(&meter, 5);
    assert_eq!(ages(&shards), (5, 86_395, 0));
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_shard_that_pulsar_blocks_is_the_age_of_what_waits_although_the_tip_was_read() {
    let shards = Shards::default();
    let meter = shards.enter(&opened(7_200), &[]);
    let (sent, waiting) = (meter.sent(100), meter.sent(50));
    meter.waits_for(Some((Instant::now(), Some(epoch_millis() - 4_000))));
    for _ in 0..60 {
        advance(SECOND).await;
        empty_page(&meter);
    }
    assert_eq!(ages(&shards), (64, 86_336, 60));
    let in_flight = |shards: &Shards| shards.status().iter().map(|shard| (shard.in_flight_records, shard.in_flight_bytes)).next();
    assert_eq!(in_flight(&shards), Some((2, 150)));
    drop(sent);
    assert_eq!(in_flight(&shards), Some((1, 50)));
    drop(waiting);
    meter.waits_for(None);
    assert_eq!((ages(&shards), in_flight(&shards)), ((0, 86_400, 0), Some((0, 0))));
}

#[tokio::test(start_paused = true)]
async fn what_no_checkpoint_covers_ages_from_its_first_receipt_on() {
    let shards = Shards::default();
    let meter = shards.enter(&opened(1), &[]);
    let age = || shards.status()[0].checkpoint_age_seconds.round();
    for _ in 0..10 {
        meter.unwritten(true);
        advance(SECOND).await;
    }
    assert_eq!(age(), 10.0);
    meter.checkpointed(true);
    advance(SECOND).await;
    assert_eq!(age(), 1.0, "what came while the checkpoint was written");
    meter.checkpointed(false);
    advance(SECOND).await;
    assert_eq!(age(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_shard_that_has_ended() {
    let shards = Shards::default();
    let parent = opened(7_200);
    let first = shards.enter(&parent, &[]);
    // The lease is taken again before the old task is gone.
    let again = shards.enter(&parent, &[]);
    drop(first);
    assert_eq!(shards.status().len(), 1);
    again.ended();
    advance(STALLED_FOR).await;
    assert_eq!((ages(&shards), shards.stalled()), ((0, 86_400, 0), Vec::new()), "nothing is unread");
    drop(again);
    assert_eq!(shards.status(), []);
}

const STALLED_FOR: Duration = Duration::from_millis(STALLED as u64);

#[tokio::test(start_paused = true)]
async fn h1_a_shard_without_pages_stands_still_whatever_the_reason() {
    let shards = Shards::default();
    let meter = shards.enter(&opened(1), &[]);
    advance(STALLED_FOR - SECOND).await;
    assert_eq!(shards.stalled(), []);
    advance(SECOND).await;
    assert_eq!(shards.stalled(), [(meter.shard.clone(), STALLED_FOR)]);
    empty_page(&meter);
    assert_eq!(shards.stalled(), []);
}

#[tokio::test(start_paused = true)]
async fn the_gap_at_a_rollover_is_from_the_parents_end_to_the_childs_first_call() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (shards, parent) = (Shards::default(), opened(7_200));
    let meter = shards.enter(&parent, &[]);
    empty_page(&meter);
    meter.ended();
    drop(meter);
    advance(SECOND).await;
    let child = shards.enter(&opened(1), std::slice::from_ref(&parent));
    let called = Instant::now();
    advance(5 * SECOND).await;
    child.page(called, false, None);
    child.page(Instant::now(), true, None);
    let text = recorder.handle().render();
    assert!(text.contains("dynamodb_source_rollover_gap_seconds_sum 1\n"), "{text}");
    assert!(text.contains("dynamodb_source_rollover_gap_seconds_count 1\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_shards_that_lag_most_come_first_and_are_few() {
    let shards = Shards::default();
    let meters: Vec<_> = (0..30).map(|n| shards.enter(&opened(100_000 + n), &[])).collect();
    for (n, meter) in meters.iter().enumerate() {
        page(meter, n as i64 * 10);
    }
    let all = shards.status();
    let lags: Vec<_> = worst(&all, 3).into_iter().map(|shard| shard.lag_seconds.round()).collect();
    assert_eq!(lags, [290.0, 280.0, 270.0]);
}
