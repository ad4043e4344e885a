//! Workers of ours and real KCL 1.13.3 workers (`tests/java/KclWorker.java`) on one lease table (spec §7, test 3): no shard owned twice, none
//! left, shared fairly, nothing lost, each item's changes in order, through Java only → mixed → ours only → back to Java.

use super::{
    Random, lab, seed,
    workers::{Fleet, is_java, is_ours},
};
use crate::support::java;

const SHARDS: usize = 4;
/// Changes a second of each shard.
const RATE: u64 = 40;
/// So much waits in a shard that has children, whose rows are there: ours read it in 2 s, a KCL worker in 10 s. A child that does not wait for its parent comes first.
const BACKLOG: u64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn l1_l3_o1_d1_a_fleet_of_kcl_workers_and_ours() {
    let Some(lab) = lab("mixed-fleet").await else { return };
    if java::program("mixed-fleet", "KclWorker").is_none() {
        return;
    }
    let mut random = Random::new(seed("mixed-fleet"));
    let mut fleet = Fleet::new("mixed-fleet", &lab, SHARDS, RATE);

    fleet.start_java("java-1");
    fleet.start_java("java-2");
    fleet.settles("Java only").await;

    fleet.start_ours("ours-1").await;
    fleet.start_ours("ours-2").await;
    let victim = fleet.pick(&mut random, is_java).await;
    fleet.kill(&victim);
    fleet.settles("mixed, after a KCL worker's death").await;
    let shard = random.below(SHARDS as u64) as usize;
    fleet.split(shard, BACKLOG, RATE).await;
    fleet.settles("mixed, after a split").await;
    let victim = fleet.pick(&mut random, is_ours).await;
    fleet.kill(&victim);
    fleet.settles("mixed, after the death of one of ours").await;
    fleet.start_ours("ours-3").await;

    let last = fleet.pick(&mut random, is_java).await;
    if random.below(2) == 0 {
        fleet.kill(&last);
    } else {
        fleet.stop(&last).await;
    }
    fleet.settles("ours only").await;
    println!("mixed-fleet: every shard rolls");
    fleet.stream.state().stream().roll();
    fleet.settles("ours only, after a roll").await;

    fleet.start_java("java-3");
    let victim = fleet.pick(&mut random, is_ours).await;
    fleet.kill(&victim);
    fleet.settles("mixed on the way back").await;
    let last = fleet.pick(&mut random, is_ours).await;
    fleet.stop(&last).await;
    fleet.settles("back to Java").await;

    fleet.drains().await;
    fleet.check();
}
