//! One worker on a stream of a big table. `SHARDS=10000` is the size that is promised; without it fewer, for the time that a debug build takes.

use std::time::Duration;

use pulsar_io_dynamodb::{ports::ShardId, source::Settings};
use tokio::time::Instant;

use super::SECOND;
use crate::support::source::{Call, World, settings};

/// Beyond a third of the failover time, in which a lease is written: a call's way there, and a turn among those under way.
const MARGIN: Duration = Duration::from_millis(1500);
/// Resident memory for each shard, the fakes' part included, and beside that what other tests take meanwhile.
const SHARD_BYTES: usize = 64 * 1024;
const OTHER_BYTES: usize = 100 * 1024 * 1024;

/// Bytes; 0 where nobody says.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// Follows a world through time: what is written down is looked at and thrown away, or it would be more than what is measured.
struct Watch {
    world: World,
    describes: Vec<Instant>,
    longest: Duration,
}

impl Watch {
    fn new(world: &World) -> Self {
        Self { world: world.clone(), describes: Vec::new(), longest: Duration::ZERO }
    }

    /// Lets so much time pass, and notes how long leases that are held were not written.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep(SECOND / 4).await;
            let mut state = self.world.lock();
            self.longest = self.longest.max(state.longest_unwritten());
            let describes = state.calls.iter().filter(|(call, ..)| matches!(call, Call::ListShards | Call::Children));
            self.describes.extend(describes.map(|(_, _, at)| *at));
            state.calls.clear();
            state.log.clear();
        }
    }

    /// Returns how long it took.
    async fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&World) -> bool) -> Duration {
        let began = Instant::now();
        while !done(&self.world) {
            assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
            self.pass(SECOND).await;
        }
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn w19_m1_l2_r10_one_worker_keeps_all_leases_of_a_big_stream_and_goes_through_its_rollover() {
    let shards: usize = std::env::var("SHARDS").map_or(1_000, |text| text.parse().expect("SHARDS is a number"));
    // A minute for ten thousand.
    let limit = 10 * SECOND + shards as u32 * (SECOND / 200);
    let mut world = World::new(140);
    world.lock().shards_in_a_page = 100;
    let mut parents: Vec<ShardId> = (0..shards).map(|_| world.shard(None)).collect();
    let before = resident();
    let run = world.start(Settings { checkpoint_interval: 60 * SECOND, ..settings() });
    let mut watch = Watch::new(&world);
    let all_held = |world: &World| world.lock().held_leases() == shards;
    let bootstrap = watch.until("every shard is held", limit, all_held).await;
    watch.pass(30 * SECOND).await;

    // All of them end within a minute.
    let rolled = Instant::now();
    for (item, parent) in parents.iter_mut().enumerate() {
        let [child] = world.split(parent);
        world.write(&child, item as u32, 1);
        *parent = child;
        if item % shards.div_ceil(240) == 0 {
            watch.pass(SECOND / 4).await;
        }
    }
    let rolling = rolled.elapsed();
    let behind = watch.until("every child is read", 120 * SECOND, |world| world.lock().all_stored()).await;
    watch.pass(30 * SECOND).await;
    let memory = resident().saturating_sub(before);
    let longest = watch.longest;
    eprintln!(
        "{shards} shards: all held after {bootstrap:?}, all ended within {rolling:?}, all children read {behind:?} later; a lease was unwritten for {longest:?} \
         at most; {} DescribeStream calls; {} MB more",
        watch.describes.len(),
        memory / 1024 / 1024
    );
    assert!(longest <= settings().failover / 3 + MARGIN, "L2: a lease was not written for {longest:?}");
    // 20,000 shards are listed at 500 a second. A listing that was begun right before the last end may come first.
    assert!(behind < limit, "children were read {behind:?} after the last end");
    for window in watch.describes.windows(6) {
        assert!(window[5] - window[0] >= SECOND, "R10: six DescribeStream calls within {:?}", window[5] - window[0]);
    }
    assert!(memory < shards * SHARD_BYTES + OTHER_BYTES, "M1: {memory} bytes more");
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    run.stopped().await.expect("a clean stop");
    world.check();
}
