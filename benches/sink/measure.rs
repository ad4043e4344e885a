//! The settings of the benchmark, and how each is measured.

use std::{
    collections::HashMap,
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    Run,
    items::Keys,
    process::Process,
    stub::{Faults, Stub},
    system::{Places, System},
    topic,
};

const POLL: Duration = Duration::from_millis(10);
/// Nothing comes any more once nothing has come for so long: a late copy that would overwrite a newer item has its time.
const QUIET: Duration = Duration::from_secs(3);
/// A sink that stores nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(60);

/// One figure of one system in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub system: System,
    pub what: String,
    pub value: f64,
}

struct Setting {
    name: &'static str,
    keys: Keys,
    faults: Faults,
    /// How many items Flink gets: not more than these.
    flink: u64,
}

const fn faults(millis: u64) -> Faults {
    Faults { delay: Duration::from_millis(millis), reorder: false, throttled: 0.0, unprocessed: 0.0 }
}

const SETTINGS: &[Setting] = &[
    Setting { name: "unique keys, 0 ms", keys: Keys::Unique, faults: faults(0), flink: 300_000 },
    Setting { name: "unique keys, 5 ms", keys: Keys::Unique, faults: faults(5), flink: 300_000 },
    Setting { name: "unique keys, 20 ms", keys: Keys::Unique, faults: faults(20), flink: 300_000 },
    Setting {
        name: "unique keys, 5 ms, 5 % throttled",
        keys: Keys::Unique,
        faults: Faults { throttled: 5.0, ..faults(5) },
        flink: 200_000,
    },
    Setting {
        name: "unique keys, 5 ms, 1 % unprocessed",
        keys: Keys::Unique,
        faults: Faults { unprocessed: 1.0, ..faults(5) },
        flink: 60_000,
    },
    Setting {
        name: "unique keys, 5 ms, 10 % unprocessed",
        keys: Keys::Unique,
        faults: Faults { unprocessed: 10.0, ..faults(5) },
        flink: 20_000,
    },
    Setting { name: "1,000 hot keys, 5 ms", keys: Keys::Hot, faults: faults(5), flink: 200_000 },
    Setting {
        name: "1,000 hot keys, answers reordered within 5 ms",
        keys: Keys::Hot,
        faults: Faults { reorder: true, ..faults(5) },
        flink: 200_000,
    },
    Setting {
        name: "1,000 hot keys, 5 ms, 5 % throttled",
        keys: Keys::Hot,
        faults: Faults { throttled: 5.0, ..faults(5) },
        flink: 200_000,
    },
    Setting {
        name: "1,000 hot keys, 5 ms, 1 % unprocessed",
        keys: Keys::Hot,
        faults: Faults { unprocessed: 1.0, ..faults(5) },
        flink: 60_000,
    },
    Setting {
        name: "1,000 hot keys, 5 ms, 10 % unprocessed",
        keys: Keys::Hot,
        faults: Faults { unprocessed: 10.0, ..faults(5) },
        flink: 20_000,
    },
    Setting {
        name: "Zipf keys, answers reordered within 5 ms",
        keys: Keys::Zipf,
        faults: Faults { reorder: true, ..faults(5) },
        flink: 200_000,
    },
];

pub struct Bench {
    pub run: Run,
    places: Places,
}

impl Bench {
    pub fn new(run: Run) -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start this by benches/sink/run"));
        let folder = PathBuf::from(variable("PARTS_DIR")).join("bench");
        fs::create_dir_all(&folder).expect("target is writable");
        let places = Places {
            pulsar_url: variable("PULSAR_URL"),
            connector: run.connector.clone(),
            class_path: run.class_path.clone(),
            java: run.java.clone(),
            folder,
            more: run.config.clone(),
        };
        Self { run, places }
    }

    pub async fn run(&self) -> Vec<Figure> {
        let settings = || SETTINGS.iter().filter(|setting| setting.name.contains(&self.run.only));
        let mut filled = Vec::new();
        // Not measured: a broker that has just started compiles itself.
        if let Some(first) = settings().next().filter(|_| self.run.systems.contains(&System::Ours)) {
            self.fill(first.keys, &mut filled).await;
            self.measure(System::Ours, first, "warm-up").await;
        }
        let mut figures = Vec::new();
        for round in 1..=self.run.rounds {
            for (number, setting) in settings().enumerate() {
                self.fill(setting.keys, &mut filled).await;
                for &system in &self.run.systems {
                    let found =
                        self.measure(system, setting, &format!("{}-{number}-{round}", system.name().replace([' ', '\''], ""))).await;
                    let shown: Vec<_> = found.iter().map(|(what, value)| format!("{what} {value:.1}")).collect();
                    eprintln!("round {round}, {}, {}: {}", setting.name, system.name(), shown.join("; "));
                    let figure = |(what, value)| Figure { system, what: format!("{}: {what}", setting.name), value };
                    figures.extend(found.into_iter().map(figure));
                }
            }
        }
        figures
    }

    /// Right before it is read for the first time: the broker deletes a topic that nobody uses for a minute.
    async fn fill(&self, keys: Keys, filled: &mut Vec<Keys>) {
        if !filled.contains(&keys) && self.run.systems.contains(&System::Ours) {
            topic::fill(&self.places.pulsar_url, keys.name(), keys, self.run.items).await;
            filled.push(keys);
        }
    }

    async fn measure(&self, system: System, setting: &Setting, name: &str) -> Vec<(&'static str, f64)> {
        let stub = Stub::start(setting.faults, self.run.seed);
        let (items, mut process) = match system {
            System::Ours => (self.run.items, self.places.ours(name, setting.keys.name(), &stub)),
            System::Flink => {
                let items = setting.flink.min(self.run.items);
                (items, self.places.flink(name, setting.keys, items, &stub))
            }
        };
        let spent = follow(&mut process, &stub, items, system).await;
        process.stop();
        let stored = stub.stored();
        let mut last: HashMap<u64, u64> = HashMap::new();
        last.extend(setting.keys.all(items).into_iter().zip(0..));
        let wrong = last.iter().filter(|(key, place)| stored.last.get(key) != Some(place)).count();
        let handled = (spent.reached - spent.half) as f64;
        vec![
            ("items/s", handled / spent.took.as_secs_f64()),
            ("CPU an item, µs", spent.cpu.as_secs_f64() * 1e6 / handled),
            ("peak memory, MB", spent.peak),
            ("writes of 100 items", stored.items as f64 * 100.0 / items as f64),
            ("keys with a wrong item", wrong as f64),
        ]
    }
}

/// What the second half has taken, but for its end: by then, a virtual machine has compiled what it needs. The last items of all wait for the delays of the
/// unluckiest of them, which a topic that goes on does not have.
#[derive(Default)]
struct Spent {
    /// The places where it began and ended.
    half: u64,
    reached: u64,
    took: Duration,
    cpu: Duration,
    /// Of the whole, in MB.
    peak: f64,
}

/// Waits until everything is stored and nothing comes any more.
async fn follow(process: &mut Process, stub: &Stub, items: u64, system: System) -> Spent {
    let mut spent = Spent::default();
    let began = Instant::now();
    let (mut half, mut requests) = (None, 0);
    let end = items * 95 / 100;
    loop {
        let (highest, now_requests, at) = {
            let stored = stub.stored();
            (stored.highest, stored.requests, stored.at)
        };
        if now_requests > requests {
            requests = now_requests;
            let cpu = process.cpu();
            spent.peak = process.memory().1.max(spent.peak);
            if half.is_none() && highest >= items / 2 {
                half = Some((Instant::now(), cpu));
                (spent.half, spent.reached) = (highest, highest);
            }
            if let Some((since, before)) = half.filter(|_| spent.reached < end) {
                (spent.took, spent.cpu, spent.reached) = (since.elapsed(), cpu.saturating_sub(before), highest);
            }
        }
        let quiet = at.unwrap_or(began).elapsed();
        // Flink's ends by itself.
        let is_done = system == System::Ours && highest + 1 >= items && quiet > QUIET;
        if is_done || quiet > SILENCE || !process.is_running() {
            return spent;
        }
        tokio::time::sleep(POLL).await;
    }
}
