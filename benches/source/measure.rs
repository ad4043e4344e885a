//! The parts of the benchmark.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    Part, Run,
    process::Process,
    stand_in::{StandIn, record},
    system::{Places, System},
    topic::{Broker, Content},
};

/// How often progress is looked at.
/// Not often: the broker has better to do, and all times come from the messages themselves.
const POLL: Duration = Duration::from_millis(100);
const WARM_UP: &str = "warm-up";
/// Messages that the bare producer repeats.
const SAMPLE: usize = 4_000;
/// A source that has published nothing for so long is done or dead. The Java connector is silent for a minute after a crash.
const SILENCE: Duration = Duration::from_secs(90);

/// One figure of one system in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub system: System,
    pub what: String,
    pub value: f64,
}

pub struct Bench {
    pub run: Run,
    pub places: Places,
    messages: PathBuf,
}

impl Bench {
    pub fn new(run: Run) -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start this by benches/source/run"));
        let folder = PathBuf::from(variable("PARTS_DIR")).join("bench");
        fs::create_dir_all(&folder).expect("target is writable");
        let places = Places {
            broker: Broker { url: variable("PULSAR_URL"), http: variable("PULSAR_HTTP_URL").trim_start_matches("http://").to_owned() },
            dynamodb: variable("DYNAMODB_ENDPOINT"),
            connector: run.connector.clone(),
            nar: run.nar.clone(),
            archive: run.archive.clone(),
            pulsar_home: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/parts/apache-pulsar-4.0.8"),
            folder: folder.clone(),
            more: run.config.clone(),
        };
        Self { run, places, messages: folder.join("messages.jsonl") }
    }

    pub async fn run(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        // Not measured: a broker that has just started spends half of its time on compiling itself. The bare producer gets its messages here.
        if self.run.parts != [Part::Many] {
            self.catch_up(System::Ours, WARM_UP).await;
        }
        for round in 1..=self.run.rounds {
            for &part in &self.run.parts {
                for &system in &self.run.systems {
                    let name = format!("{part:?}-{system:?}-{round}").to_lowercase();
                    let found = match (part, system) {
                        (Part::CatchUp, System::Bare) => self.bare(&name).await,
                        (_, System::Bare) => continue,
                        (Part::CatchUp, _) => self.catch_up(system, &name).await,
                        (Part::Live, _) => self.live(system, &name).await,
                        (Part::Start, _) => self.start(system, &name).await,
                        (Part::Kill, _) => self.kill(system, &name).await,
                        // It takes the Java connector too long.
                        (Part::Many, System::Ours) => self.many(&name).await,
                        (Part::Many, _) => continue,
                    };
                    let shown: Vec<_> = found.iter().map(|(what, value)| format!("{what} {value:.1}")).collect();
                    eprintln!("round {round}, {}: {}", system.name(), shown.join("; "));
                    figures.extend(found.into_iter().map(|(what, value)| Figure { system, what: what.to_owned(), value }));
                }
            }
        }
        figures
    }

    fn full_stream(&self) -> StandIn {
        let stand_in = StandIn::start(self.run.shards, self.run.record_bytes);
        (0..self.run.shards).for_each(|shard| stand_in.state().stream().write(shard, self.run.records));
        stand_in
    }

    async fn catch_up(&self, system: System, name: &str) -> Vec<(&'static str, f64)> {
        let stand_in = self.full_stream();
        let written = stand_in.state().stream().written();
        let mut source = self.places.source(system, name, &stand_in, 60_000);
        let spent = self.follow(&mut source, name, written.iter().sum()).await;
        source.stop();
        let content = self.places.broker.read(name, spent.published, if name == WARM_UP { SAMPLE } else { 0 }).await;
        if name == WARM_UP {
            let lines: Vec<String> = content.sample.iter().map(|message| serde_json::to_string(message).expect("JSON")).collect();
            fs::write(&self.messages, lines.join("\n")).expect("target is writable");
        }
        let mut figures = throughput(&content, &spent);
        figures.extend([
            ("catch-up: peak memory, MB", spent.peak),
            ("catch-up: lost", content.lost(&written) as f64),
            ("catch-up: doubled", content.doubled() as f64),
            ("catch-up: out of order", f64::from(u8::from(!content.in_order))),
        ]);
        figures
    }

    async fn bare(&self, name: &str) -> Vec<(&'static str, f64)> {
        let count = self.run.records * self.run.shards as u64;
        let mut producer = self.places.producer(name, &self.messages, count);
        let spent = self.follow(&mut producer, name, count).await;
        drop(producer);
        let content = self.places.broker.read(name, count, 0).await;
        let mut figures = throughput(&content, &spent);
        figures.push(("catch-up: peak memory, MB", spent.peak));
        figures
    }

    async fn live(&self, system: System, name: &str) -> Vec<(&'static str, f64)> {
        let stand_in = StandIn::start(1, self.run.record_bytes);
        let mut source = self.places.source(system, name, &stand_in, 60_000);
        stand_in.state().stream().write(0, 1);
        self.follow(&mut source, name, 1).await;
        tokio::time::sleep(Duration::from_secs(self.run.idle_seconds)).await;
        let (idle, _) = source.memory();
        let cpu = source.cpu();
        stand_in.state().stream().write_live(0, self.run.rate);
        tokio::time::sleep(Duration::from_secs(self.run.live_seconds)).await;
        stand_in.state().stream().write_live(0, 0);
        let cpu = source.cpu() - cpu;
        let written = stand_in.state().stream().written();
        let spent = self.follow(&mut source, name, written[0]).await;
        source.stop();
        let content = self.places.broker.read(name, spent.published, 0).await;
        let mut latencies: Vec<u64> = content.latencies.iter().skip(1).map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        let at = |share: f64| latencies.get(((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1)));
        let at = |share| at(share).map_or(f64::NAN, |millis| *millis as f64);
        vec![
            ("idle memory, MB", idle),
            ("live: p50, ms", at(0.5)),
            ("live: p99, ms", at(0.99)),
            ("live: max, ms", at(1.0)),
            ("live: cores", cpu.as_secs_f64() / self.run.live_seconds as f64),
            ("live: lost", content.lost(&written) as f64),
            ("live: doubled", content.doubled() as f64),
        ]
    }

    async fn start(&self, system: System, name: &str) -> Vec<(&'static str, f64)> {
        let stand_in = StandIn::start(1, self.run.record_bytes);
        stand_in.state().stream().write(0, 1_000);
        let mut source = self.places.source(system, name, &stand_in, 1_000);
        let first = source.started;
        self.follow(&mut source, name, 1_000).await;
        source.stop();
        stand_in.state().stream().write(0, 1_000);
        let mut source = self.places.source(system, name, &stand_in, 1_000);
        let second = source.started;
        let spent = self.follow(&mut source, name, 2_000).await;
        source.stop();
        let content = self.places.broker.read(name, spent.published, 0).await;
        vec![
            ("start: first record without a lease table, s", first_after(&content, first)),
            ("start: first record after a clean stop, s", first_after(&content, second)),
            ("start: lost", content.lost(&[2_000]) as f64),
            ("start: doubled", content.doubled() as f64),
        ]
    }

    async fn kill(&self, system: System, name: &str) -> Vec<(&'static str, f64)> {
        let stand_in = self.full_stream();
        let written = stand_in.state().stream().written();
        let all = written.iter().sum();
        let mut source = self.places.source(system, name, &stand_in, 1_000);
        self.follow(&mut source, name, all / 2).await;
        source.kill();
        let checkpoints = self.checkpoints(name, &stand_in).await;
        let mut source = self.places.source(system, name, &stand_in, 1_000);
        let restarted = source.started;
        let spent = self.follow(&mut source, name, all).await;
        // What comes again makes the count reach the whole before everything is there.
        let mut published = spent.published;
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = self.places.broker.published(name).await;
            if now == published {
                break;
            }
            published = now;
        }
        source.stop();
        let content = self.places.broker.read(name, published, 0).await;
        let outside = content
            .copies
            .iter()
            .filter(|(record, copies)| **copies > 1 && checkpoints.get(&record.0).is_some_and(|checkpoint| record.1 <= *checkpoint));
        vec![
            ("kill -9: first record after the restart, s", first_after(&content, restarted)),
            ("kill -9: lost", content.lost(&written) as f64),
            ("kill -9: doubled after the checkpoint", content.doubled() as f64),
            ("kill -9: doubled before the checkpoint", outside.count() as f64),
            ("kill -9: out of order", f64::from(u8::from(!content.in_order))),
        ]
    }

    /// The last record of each lineage that the lease table says is done.
    async fn checkpoints(&self, table: &str, stand_in: &StandIn) -> BTreeMap<u64, u64> {
        let rows = self.places.broker.scan(&self.places.dynamodb, table).await;
        let shards: BTreeMap<String, u64> =
            stand_in.state().stream().shards.iter().map(|shard| (shard.id.clone(), shard.lineage)).collect();
        let checkpoint = |row: &serde_json::Value| {
            let lineage = shards.get(row["leaseKey"]["S"].as_str()?)?;
            Some((*lineage, record::number(row["checkpoint"]["S"].as_str()?)?))
        };
        rows.iter().filter_map(checkpoint).collect()
    }

    /// Waits until so many messages are published, or until none is for a long time.
    async fn follow(&self, process: &mut Process, topic: &str, messages: u64) -> Spent {
        let mut spent = Spent::default();
        let (mut seen, mut changed) = (0, Instant::now());
        loop {
            let published = self.places.broker.published(topic).await;
            if published > seen {
                if seen == 0 {
                    spent.first_cpu = process.cpu();
                    spent.first_published = published;
                }
                (seen, changed) = (published, Instant::now());
            }
            let patience = if seen > messages * 9 / 10 { Duration::from_secs(8) } else { SILENCE };
            // The bare producer may end at any moment, and the kernel then forgets its memory.
            spent.last_cpu = process.cpu().max(spent.last_cpu);
            spent.peak = process.memory().1.max(spent.peak);
            if seen >= messages || changed.elapsed() > patience || (!process.is_running() && changed.elapsed() > Duration::from_secs(1)) {
                spent.published = seen;
                return spent;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What a process has used meanwhile.
#[derive(Default)]
struct Spent {
    published: u64,
    /// When the first messages were seen, and how many.
    first_cpu: Duration,
    first_published: u64,
    last_cpu: Duration,
    /// The most memory so far, in MB.
    peak: f64,
}

fn throughput(content: &Content, spent: &Spent) -> Vec<(&'static str, f64)> {
    let records = (content.messages - spent.first_published.min(content.messages - 1)) as f64;
    vec![
        ("catch-up: records/s", content.rate()),
        ("catch-up: CPU a record, µs", (spent.last_cpu - spent.first_cpu).as_secs_f64() * 1e6 / records),
    ]
}

/// Seconds from then to the first publish.
fn first_after(content: &Content, then: SystemTime) -> f64 {
    let then = then.duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as u64;
    let first = content.latencies.iter().map(|(published, _)| *published).filter(|published| *published >= then).min();
    first.map_or(f64::NAN, |first| (first - then) as f64 / 1000.0)
}
