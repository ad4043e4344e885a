//! A lease table that throttles, in front of real workers (spec §7, test 10): all its calls for longer than the failover time, then by chance. Who
//! cannot renew stops in time, nobody goes on with what another may have, nothing is lost, and all of it goes on by itself.

use std::time::Duration;

use super::{
    Random, eventually, lab, seed,
    workers::{Fleet, is_ours, now},
};
use crate::support::throttle::Throttle;

const SHARDS: usize = 4;
/// Changes a second of each shard.
const RATE: u64 = 100;
const FAILOVER: Duration = Duration::from_secs(3);
/// Of a hundred calls, while it is by chance.
const SOME: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn l1_l2_d1_o1_a_lease_table_that_throttles_stops_and_delays_but_loses_nothing() {
    let Some(lab) = lab("throttle").await else { return };
    let mut random = Random::new(seed("throttle"));
    let mut fleet = Fleet::new("throttle", &lab, SHARDS, RATE);
    let throttle = Throttle::start(&lab.dynamodb_endpoint, fleet.application(), move |bound| random.below(bound)).await;
    fleet.leases_at(&throttle.endpoint(), FAILOVER);
    fleet.start_ours("ours-1").await;
    fleet.start_ours("ours-2").await;
    fleet.settles("two workers").await;

    // Everything, for longer than any lease lasts.
    throttle.refuse(100);
    let begun = now();
    let silence = begun + FAILOVER.as_millis() as u64;
    eventually("the time of throttling", FAILOVER * 4, async || (now() > silence + silence_needed()).then_some(())).await;
    let (refused, passed) = throttle.refuse(0);
    let ended = now();
    fleet.settles("the table answers again").await;
    let late = fleet.emissions().all.iter().filter(|emission| (silence..ended).contains(&emission.at)).count();
    let repeated = fleet.emissions().repeated();
    println!("throttle: {refused} calls refused, {passed} passed, {repeated} records repeated");
    assert!(refused > 0, "the table was asked");
    assert_eq!((late, passed), (0, 0), "L2: nothing is published that another may own");
    // What was published since the last checkpoint (`checkpointInterval`: 1 s) until the leases ran out, and a second for a slow machine.
    let window = SHARDS as u64 * RATE * (FAILOVER.as_secs() + 2);
    assert!(repeated as u64 <= window, "{repeated} records are repeated, and {window} can have been published without a checkpoint");

    // By chance, which costs no lease: each call is tried again in time.
    let before = fleet.owners().await;
    throttle.refuse(SOME);
    let begun = now();
    eventually("the time of chance", FAILOVER * 4, async || (now() > begun + 2 * FAILOVER.as_millis() as u64).then_some(())).await;
    let (refused, passed) = throttle.refuse(0);
    println!("throttle: {refused} calls refused by chance, {passed} passed");
    assert!(refused > 0 && passed > 0);
    assert_eq!(fleet.owners().await, before, "L1: every lease stays where it is");

    let one = fleet.pick(&mut Random::new(1), is_ours).await;
    fleet.stop(&one).await;
    fleet.settles("one worker").await;
    fleet.drains().await;
    fleet.check();
}

/// Long enough to see that it is silent.
fn silence_needed() -> u64 {
    (FAILOVER / 2).as_millis() as u64
}
