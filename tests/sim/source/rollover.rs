//! How long a child waits for its parent's end, and what that costs.

use std::time::Duration;

use pulsar_io_dynamodb::ports::ShardId;
use tokio::time::Instant;

use super::{SECOND, finish};
use crate::support::source::{Call, World, settings};

/// One end of a shard and the first record of its child.
struct Rollover {
    sequence: u64,
    /// When the child could be read at the earliest.
    ready: Instant,
}

/// Closes a shard; its child has a record, and the stream shows it after `late`.
fn roll(world: &World, parent: &ShardId, item: u32, late: Duration, rollovers: &mut Vec<Rollover>) -> ShardId {
    let [child] = world.split(parent);
    if late > Duration::ZERO {
        world.hide(&child, late);
    }
    world.write(&child, item, 1);
    rollovers.push(Rollover { sequence: world.last(&child), ready: Instant::now() + late });
    child
}

/// The gaps in order, from the moment that a child could be read to the publishing of its first record.
fn gaps(world: &World, rollovers: &[Rollover]) -> Vec<Duration> {
    let state = world.lock();
    let mut gaps: Vec<Duration> =
        rollovers.iter().map(|rollover| state.published_at[&rollover.sequence].saturating_duration_since(rollover.ready)).collect();
    gaps.sort();
    gaps
}

fn percentile(gaps: &[Duration], percent: usize) -> Duration {
    gaps[(gaps.len() * percent / 100).min(gaps.len() - 1)]
}

fn describes(world: &World) -> usize {
    let state = world.lock();
    state.count(Call::Children) + state.count(Call::ListShards)
}

/// At most five DescribeStream calls in any second.
fn assert_budget(world: &World) {
    let state = world.lock();
    let calls: Vec<Instant> =
        state.calls.iter().filter(|(call, ..)| matches!(call, Call::ListShards | Call::Children)).map(|(_, _, at)| *at).collect();
    for window in calls.windows(6) {
        assert!(window[5] - window[0] >= SECOND, "R10: six DescribeStream calls within {:?}", window[5] - window[0]);
    }
}

/// W20, R9: 100 shards that end at random moments of ten minutes, their children visible at once or seconds late.
#[tokio::test(start_paused = true)]
async fn r9_w20_a_rollover_takes_less_than_two_seconds_at_p99() {
    fastrand::seed(60);
    let mut random = fastrand::Rng::with_seed(60);
    let mut world = World::new(60);
    world.lock().shards_in_a_page = 100;
    let mut shards: Vec<ShardId> = (0..100).map(|_| world.shard(None)).collect();
    let run = world.start(settings());
    world.until("all are read", |state| state.rows.values().filter(|row| row.owner.is_some()).count() == 100).await;
    let mut rollovers = Vec::new();
    for _ in 0..400 {
        tokio::time::sleep(Duration::from_millis(random.u64(0..3000))).await;
        let item = random.usize(0..shards.len());
        let late = if random.u8(0..10) == 0 { Duration::from_millis(random.u64(0..5000)) } else { Duration::ZERO };
        shards[item] = roll(&world, &shards[item].clone(), item as u32, late, &mut rollovers);
    }
    finish(&world, run).await;
    let gaps = gaps(&world, &rollovers);
    let (p50, p99, most) = (percentile(&gaps, 50), percentile(&gaps, 99), gaps[gaps.len() - 1]);
    eprintln!("{} rollovers: p50 {p50:?}, p99 {p99:?}, longest {most:?}", gaps.len());
    assert!(p99 < 2 * SECOND, "p99 {p99:?}");
    assert_budget(&world);
}

/// All shards of a stream end within the same second.
#[tokio::test(start_paused = true)]
async fn r9_many_shards_that_end_at_once_share_their_calls() {
    for knows_children in [true, false] {
        let mut world = World::new(61);
        world.lock().shards_in_a_page = 100;
        world.lock().knows_children = knows_children;
        let shards: Vec<ShardId> = (0..200).map(|_| world.shard(None)).collect();
        let run = world.start(settings());
        world.until("all are read", |state| state.rows.values().filter(|row| row.owner.is_some()).count() == 200).await;
        let before = describes(&world);
        let mut rollovers = Vec::new();
        for (item, shard) in shards.iter().enumerate() {
            roll(&world, shard, item as u32, Duration::ZERO, &mut rollovers);
        }
        finish(&world, run).await;
        let gaps = gaps(&world, &rollovers);
        eprintln!("{} rollovers at once: p99 {:?}, longest {:?}", gaps.len(), percentile(&gaps, 99), gaps[gaps.len() - 1]);
        assert!(gaps[gaps.len() - 1] < 6 * SECOND, "{:?}", gaps[gaps.len() - 1]);
        let calls = describes(&world) - before;
        assert!(calls < 60, "{calls} DescribeStream calls for 200 shards");
        assert_budget(&world);
    }
}
