//! One worker, thousands of shards: what it takes of memory, whether every lease is written in time, and how long the children of a rollover
//! wait. Only ours: the Java connector needs a minute for a few hundred.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{measure::Bench, process::Process, stand_in::StandIn, system::System};

/// In the configuration. Each lease is written three times in this time, and one DynamoDB Local has to take that beside everything else here.
const FAILOVER: Duration = Duration::from_secs(60);
/// How often the lease table is read, by somebody who has no part in the work. A lease's age is known to this.
const LOOK: Duration = Duration::from_secs(5);
/// All shards are ended within this time, one after the other.
const ROLLOVER: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(250);
/// So long everything is held, before and after the rollover.
const STEADY: Duration = Duration::from_secs(60);
/// Whatever has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the lease table has shown so far.
#[derive(Default)]
struct Leases {
    /// Of rows that are owned and not finished: the counter, and since when it has been seen.
    counters: HashMap<String, (String, Instant)>,
    longest: Duration,
}

impl Leases {
    /// Returns how many are held.
    fn saw(&mut self, rows: &[Value]) -> usize {
        let now = Instant::now();
        let held = rows.iter().filter(|row| row["leaseOwner"]["S"].is_string() && row["checkpoint"]["S"] != "SHARD_END");
        let mut counters = HashMap::new();
        for row in held {
            let (Some(key), Some(counter)) = (row["leaseKey"]["S"].as_str(), row["leaseCounter"]["N"].as_str()) else { continue };
            let since = match self.counters.get(key) {
                Some((before, since)) if before == counter => *since,
                _ => now,
            };
            self.longest = self.longest.max(now - since);
            counters.insert(key.to_owned(), (counter.to_owned(), since));
        }
        self.counters = counters;
        self.counters.len()
    }
}

/// The worker under test and those who watch it.
struct Watch<'b> {
    bench: &'b Bench,
    name: &'b str,
    source: Process,
    leases: Leases,
    looked: Instant,
    peak: f64,
}

impl Watch<'_> {
    async fn look(&mut self) -> usize {
        let rows = self.bench.places.broker.scan(&self.bench.places.dynamodb, self.name).await;
        self.looked = Instant::now();
        self.peak = self.source.memory().1.max(self.peak);
        assert!(self.source.is_running(), "the source has ended: see its log");
        self.leases.saw(&rows)
    }

    /// Lets so much time pass.
    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        if self.looked.elapsed() >= LOOK {
            self.look().await;
        }
    }

    /// A minute in which nothing happens.
    async fn steady(&mut self) {
        let until = Instant::now() + STEADY;
        while Instant::now() < until {
            self.pass(LOOK).await;
        }
    }

    /// Until so many records are published. Returns how long it took; fails where it takes too long.
    async fn published(&mut self, records: u64) -> Duration {
        let began = Instant::now();
        while self.bench.places.broker.published(self.name).await < records {
            assert!(began.elapsed() < PATIENCE, "{records} records are not published within {PATIENCE:?}");
            self.pass(Duration::from_millis(500)).await;
        }
        began.elapsed()
    }
}

impl Bench {
    pub async fn many(&self, name: &str) -> Vec<(&'static str, f64)> {
        let shards = self.run.many;
        let stand_in = StandIn::start(shards, self.run.record_bytes);
        (0..shards).for_each(|shard| stand_in.state().stream().write(shard, 1));
        let more = [format!("failoverTime: {}", FAILOVER.as_millis())];
        let source = self.places.source_with(System::Ours, name, &stand_in, 60_000, &more);
        let began = Instant::now();
        let mut watch = Watch { bench: self, name, source, leases: Leases::default(), looked: began, peak: 0.0 };

        let mut held = 0;
        while held < shards {
            assert!(began.elapsed() < PATIENCE, "{held} of {shards} leases are held after {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
            held = watch.look().await;
        }
        let all_held = began.elapsed();
        watch.published(shards as u64).await;
        let all_read = began.elapsed();
        let (before, cpu) = (watch.source.memory().0, watch.source.cpu());
        watch.steady().await;
        let idle = watch.source.memory().0;
        let idle_cores = (watch.source.cpu() - cpu).as_secs_f64() / STEADY.as_secs_f64();

        let steps = (ROLLOVER.as_millis() / STEP.as_millis()) as usize;
        for step in 0..steps {
            for shard in shards * step / steps..shards * (step + 1) / steps {
                let mut state = stand_in.state();
                let child = state.stream().split(shard, 1, Duration::ZERO);
                child.into_iter().for_each(|child| state.stream().write(child, 1));
            }
            watch.pass(STEP).await;
        }
        let behind = watch.published(2 * shards as u64).await;
        watch.steady().await;
        let described = stand_in.state().calls("DescribeStream");
        let (longest, peak, last) = (watch.leases.longest, watch.peak, watch.source.memory().0);
        let began = Instant::now();
        watch.source.stop();
        let stopped = began.elapsed();
        let written = stand_in.state().stream().written();
        let content = self.places.broker.read(name, 2 * shards as u64, 0).await;
        vec![
            ("many: every lease held after, s (to 5 s)", all_held.as_secs_f64()),
            ("many: every shard's record published after, s", all_read.as_secs_f64()),
            ("many: memory then, MB", before),
            ("many: memory a minute later, MB", idle),
            ("many: cores when idle", idle_cores),
            ("many: last child's record published after the last end, s", behind.as_secs_f64()),
            ("many: memory a minute after the rollover, MB", last),
            ("many: peak memory, MB", peak),
            ("many: a lease not written for, s (to 5 s; failover 60 s)", longest.as_secs_f64()),
            ("many: DescribeStream calls", described as f64),
            ("many: clean stop, s", stopped.as_secs_f64()),
            ("many: lost", content.lost(&written) as f64),
            ("many: doubled", content.doubled() as f64),
            ("many: out of order", f64::from(u8::from(!content.in_order))),
        ]
    }
}
