//! What the worker tells about itself while services do what they do.

use metrics_exporter_prometheus::PrometheusRecorder;
use pulsar_io_dynamodb::metrics::{fork::Fork, prometheus};

use super::{SECOND, finish};
use crate::support::source::{Call, Fault, World, settings};

/// The worst lag, the least time to trim, and the oldest record without receipt; in whole seconds.
fn ages(world: &World) -> (u64, u64, u64) {
    let all = world.health.shards().status();
    assert!(!all.is_empty(), "no shard is read");
    let worst = |of: fn(&pulsar_io_dynamodb::metrics::shards::ShardStatus) -> f64| all.iter().map(of).fold(0.0, f64::max) as u64;
    let to_trim = all.iter().map(|shard| shard.time_to_trim_seconds).fold(f64::INFINITY, f64::min) as u64;
    (worst(|shard| shard.lag_seconds), to_trim, worst(|shard| shard.unacked_seconds))
}

/// What the process collects, as `install` wires it.
fn recording() -> (Fork<PrometheusRecorder>, metrics_exporter_prometheus::PrometheusHandle) {
    let recorder = prometheus::recorder().expect("a recorder");
    let handle = recorder.handle();
    (Fork::new(recorder, Vec::new()), handle)
}

#[tokio::test(start_paused = true)]
async fn lag_is_true_of_idle_busy_and_blocked_shards() {
    let mut world = World::new(60);
    let shard = world.shard(None);
    world.write(&shard, 1, 50);
    let run = world.start(settings());
    world.until("running", |state| state.all_stored()).await;

    tokio::time::sleep(120 * SECOND).await;
    assert_eq!(ages(&world), (0, 86_400, 0), "idle");

    for _ in 0..50 {
        world.write(&shard, 1, 5);
        tokio::time::sleep(SECOND / 5).await;
    }
    let (lag, to_trim, unacked) = ages(&world);
    assert!(lag <= 2 && to_trim >= 86_398 && unacked <= 1, "busy: {:?}", ages(&world));

    // Pulsar takes everything and acknowledges nothing: reading goes on at the tip.
    world.hold_receipts(true);
    world.write(&shard, 1, 5);
    tokio::time::sleep(100 * SECOND).await;
    let (lag, to_trim, unacked) = ages(&world);
    assert!(
        (99..=101).contains(&lag) && (86_299..=86_301).contains(&to_trim) && (98..=100).contains(&unacked),
        "blocked: {:?}",
        ages(&world)
    );
    world.hold_receipts(false);
    world.until("stored", |state| state.all_stored()).await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(ages(&world), (0, 86_400, 0), "healed");

    // The stream does not answer: nobody knows what is unread.
    world.fail(Call::GetRecords, Fault::Down, usize::MAX);
    tokio::time::sleep(100 * SECOND).await;
    let (lag, to_trim, unacked) = ages(&world);
    assert!((98..=102).contains(&lag) && to_trim <= 86_302 && unacked == 0, "no answer: {:?}", ages(&world));
    world.lock().faults.clear();
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn series_of_ended_shards_disappear() {
    let (recorder, handle) = recording();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(61);
    let parent = world.shard(None);
    world.write(&parent, 1, 50);
    let run = world.start(settings());
    let exporter = prometheus::Exporter::new(handle.clone(), world.health.clone());
    world.until("running", |state| state.all_stored()).await;
    let mut generation = vec![parent];
    for round in 2..6 {
        let text = exporter.render();
        for shard in &generation {
            assert!(text.contains(&format!("dynamodb_source_shard_lag_seconds{{shard=\"{shard}\"}} ")), "round {round}: {text}");
        }
        let children: Vec<_> = generation.iter().flat_map(|parent| world.split::<2>(parent)).collect();
        for (item, child) in children.iter().enumerate() {
            world.write(child, 100 * round + item as u32, 10);
        }
        world.until("the children are read", |state| state.all_stored()).await;
        tokio::time::sleep(5 * SECOND).await;
        let text = exporter.render();
        for parent in &generation {
            assert!(!text.contains(parent.as_str()), "round {round}: {parent} has ended: {text}");
        }
        assert!(text.matches("shard=\"shardId-").count() <= 10, "bounded: {text}");
        generation = children;
    }
    // Of the parents' gaps: two children for each of 1 + 2 + 4 + 8.
    let text = exporter.render();
    assert!(text.contains("dynamodb_source_rollover_gap_seconds_count 30\n"), "{text}");
    assert!(text.contains("dynamodb_source_leases_held 16\n"), "{text}");
    finish(&world, run).await;
    assert!(!exporter.render().contains("shardId-"), "nothing is left after the stop");
}
