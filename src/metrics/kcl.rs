//! The Java connector's CloudWatch metrics, made from the recordings of our own: same names, units and dimensions (`spec` R18).
//!
//! Its library, KCL 1.x, records one value for each task it does. Here one recording of a stage stands for the same: a page, a call, a look at
//! the lease table. Values of one name are merged to a statistic set until somebody takes them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use metrics::{CounterFn, GaugeFn, HistogramFn, Key};

use super::{fork::Other, names, shards::ShardStatus};

/// Data that are kept at most, here and until they are sent. About 300 bytes each.
pub const MAX_DATA: usize = 20_000;

/// How much is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What alarms are made of.
    Summary,
    /// The duration and success of each kind of call, too.
    Detailed,
}

/// What to put and where; made by `config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The Java connector's: the application's name.
    pub namespace: String,
    pub level: Level,
    /// Whether data about one shard have the dimension `ShardId`.
    pub shard_id: bool,
    /// Instead of the region's own.
    pub endpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Milliseconds,
    Bytes,
}

/// Which series a value belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The dimension `Operation`.
    pub operation: &'static str,
    pub name: &'static str,
    /// The dimension `ShardId`.
    pub shard: Option<String>,
}

impl Series {
    pub fn unit(&self) -> Unit {
        unit(self.name)
    }
}

fn unit(name: &str) -> Unit {
    match name {
        "DataBytesProcessed" => Unit::Bytes,
        "MillisBehindLatest" => Unit::Milliseconds,
        name if name.ends_with("Time") => Unit::Milliseconds,
        _ => Unit::Count,
    }
}

/// The translation, for people.
pub fn markdown() -> String {
    let mut page = String::from(
        "\n## CloudWatch\n\n\
         With `cloudwatchMetrics: summary` or `detailed`: the Java connector's metrics, in the namespace `applicationName`, every 10 seconds, each as a \
         statistic set. The dimension is `Operation`, and for ProcessTask also `ShardId` where `cloudwatchShardId` is true. Permission: \
         `cloudwatch:PutMetricData`. Why it is off by default: [decision 006](decisions/006-cloudwatch-is-off.md).\n\n\
         The Java connector's BlockOnParentShardTask, ShutdownTask and RecordProcessor.initialize.Time do not exist: there is nothing here that \
         they could measure. MillisBehindLatest and the counts of TakeLeases are new: it never puts them.\n\n\
         | operation | metric | unit | level | from |\n|---|---|---|---|---|\n",
    );
    let mut rows: Vec<String> = Vec::new();
    for rule in RULES {
        let labels: Vec<String> = rule
            .labels
            .iter()
            .filter(|(label, _)| *label != "outcome")
            .map(|(label, values)| format!("{label}=~\"{}\"", values.join("\\|")))
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(", ")) };
        let row =
            format!("| {} | {} | {:?} | {:?} | `{}{labels}` |\n", rule.operation, rule.name, unit(rule.name), rule.level, rule.metric);
        // A success and a failure are one metric.
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    for operation in ["ProcessTask", "ApplicationTracker"] {
        rows.push(format!("| {operation} | MillisBehindLatest | Milliseconds | Summary | `{}` |\n", names::SOURCE_SHARD_LAG));
    }
    page += &rows.concat();
    page
}

/// A statistic set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    pub count: f64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

impl Statistics {
    fn of(value: f64) -> Self {
        Self { count: 1.0, sum: value, min: value, max: value }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

#[derive(Debug, Clone, Copy)]
enum Value {
    /// As it was recorded.
    Given,
    /// Recorded in seconds.
    Millis,
    /// Whatever was recorded.
    Is(f64),
}

impl Value {
    fn of(self, recorded: f64) -> f64 {
        match self {
            Value::Given => recorded,
            Value::Millis => recorded * 1000.0,
            Value::Is(value) => value,
        }
    }
}

/// Recordings of `metric`, with one of the values of `label`, become `operation`'s `name`.
struct Rule {
    level: Level,
    operation: &'static str,
    name: &'static str,
    value: Value,
    metric: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
}

macro_rules! rules {
    ($($level:ident $operation:literal $name:literal = $value:expr, $metric:ident $([$label:literal: $($is:literal)|+])*;)*) => {
        &[$(Rule {
            level: Level::$level,
            operation: $operation,
            name: $name,
            value: $value,
            metric: names::$metric,
            labels: &[$(($label, &[$($is),+])),*],
        }),*]
    };
}

use Value::{Given, Is, Millis};

/// The whole translation, but for `MillisBehindLatest`. A call that nobody waited for any more is neither success nor failure.
const RULES: &[Rule] = rules! {
    Summary "ProcessTask" "RecordsProcessed" = Given, SOURCE_RECORDS;
    Summary "ProcessTask" "DataBytesProcessed" = Given, SOURCE_RECORD_BYTES;
    Summary "ProcessTask" "Time" = Millis, SOURCE_PAGE_SECONDS;
    Summary "ProcessTask" "Success" = Is(1.0), SOURCE_GET_RECORDS ["outcome": "full" | "partial" | "empty"];
    Summary "ProcessTask" "Success" = Is(0.0), SOURCE_GET_RECORDS ["outcome": "error"];
    Summary "ProcessTask" "ExpiredIterator" = Given, SOURCE_ITERATORS_EXPIRED;
    Detailed "ProcessTask" "KinesisDataFetcher.getRecords.Time" = Millis, SOURCE_CALL_SECONDS ["call": "get_records"] ["outcome": "ok" | "error"];
    Detailed "ProcessTask" "KinesisDataFetcher.getRecords.Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "get_records"] ["outcome": "ok"];
    Detailed "ProcessTask" "KinesisDataFetcher.getRecords.Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "get_records"] ["outcome": "error"];
    Detailed "ProcessTask" "RecordProcessor.processRecords.Time" = Millis, SOURCE_HAND_ON_SECONDS;
    Detailed "ProcessTask" "UpdateLease.Time" = Millis, SOURCE_CALL_SECONDS ["call": "checkpoint"] ["outcome": "ok" | "error"];
    Detailed "ProcessTask" "UpdateLease.Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "checkpoint"] ["outcome": "ok"];
    Detailed "ProcessTask" "UpdateLease.Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "checkpoint"] ["outcome": "error"];
    Detailed "InitializeTask" "Time" = Millis, SOURCE_CALL_SECONDS ["call": "get_iterator"] ["outcome": "ok" | "error"];
    Detailed "InitializeTask" "Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "get_iterator"] ["outcome": "ok"];
    Detailed "InitializeTask" "Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "get_iterator"] ["outcome": "error"];
    Detailed "InitializeTask" "KinesisDataFetcher.getIterator.Time" = Millis, SOURCE_CALL_SECONDS ["call": "get_iterator"] ["outcome": "ok" | "error"];
    Detailed "InitializeTask" "KinesisDataFetcher.getIterator.Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "get_iterator"] ["outcome": "ok"];
    Detailed "InitializeTask" "KinesisDataFetcher.getIterator.Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "get_iterator"] ["outcome": "error"];
    Detailed "ShardSyncTask" "Time" = Millis, SOURCE_CALL_SECONDS ["call": "list_shards" | "children"] ["outcome": "ok" | "error"];
    Detailed "ShardSyncTask" "Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "list_shards" | "children"] ["outcome": "ok"];
    Detailed "ShardSyncTask" "Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "list_shards" | "children"] ["outcome": "error"];
    Detailed "ShardSyncTask" "CreateLease.Time" = Millis, SOURCE_CALL_SECONDS ["call": "create_lease"] ["outcome": "ok" | "error"];
    Detailed "ShardSyncTask" "CreateLease.Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "create_lease"] ["outcome": "ok"];
    Detailed "ShardSyncTask" "CreateLease.Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "create_lease"] ["outcome": "error"];
    Summary "RenewAllLeases" "CurrentLeases" = Given, SOURCE_LEASES_HELD;
    Summary "RenewAllLeases" "LostLeases" = Given, SOURCE_LEASES_LOST;
    Summary "RenewAllLeases" "Time" = Millis, SOURCE_CALL_SECONDS ["call": "renew_lease"] ["outcome": "ok" | "error"];
    Summary "RenewAllLeases" "Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "renew_lease"] ["outcome": "ok"];
    Summary "RenewAllLeases" "Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "renew_lease"] ["outcome": "error"];
    Detailed "RenewAllLeases" "RenewLease.Time" = Millis, SOURCE_CALL_SECONDS ["call": "renew_lease"] ["outcome": "ok" | "error"];
    Detailed "RenewAllLeases" "RenewLease.Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "renew_lease"] ["outcome": "ok"];
    Detailed "RenewAllLeases" "RenewLease.Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "renew_lease"] ["outcome": "error"];
    Summary "TakeLeases" "TotalLeases" = Given, SOURCE_LEASES;
    Summary "TakeLeases" "ExpiredLeases" = Given, SOURCE_LEASES_FREE;
    Summary "TakeLeases" "NumWorkers" = Given, SOURCE_WORKERS;
    Summary "TakeLeases" "TakenLeases" = Given, SOURCE_LEASES_TAKEN;
    Summary "TakeLeases" "Time" = Millis, SOURCE_CALL_SECONDS ["call": "list_leases"] ["outcome": "ok" | "error"];
    Summary "TakeLeases" "Success" = Is(1.0), SOURCE_CALL_SECONDS ["call": "list_leases"] ["outcome": "ok"];
    Summary "TakeLeases" "Success" = Is(0.0), SOURCE_CALL_SECONDS ["call": "list_leases"] ["outcome": "error"];
};

/// Told as 0 while nothing happens, so that an alarm on them has data: KCL counts them in each of its rounds.
const ALWAYS: &[(&str, &str)] = &[("RenewAllLeases", "LostLeases"), ("TakeLeases", "TakenLeases")];

/// Merges recordings until they are taken. Clones share everything.
#[derive(Debug, Clone)]
pub struct Accumulator {
    settings: Arc<Settings>,
    window: Arc<Mutex<Window>>,
    dropped: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Window {
    values: BTreeMap<Series, Statistics>,
    /// The last value of each gauge: sampled when the window is taken.
    gauges: BTreeMap<Series, Arc<AtomicU64>>,
}

impl Accumulator {
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), window: Arc::default(), dropped: Arc::default() }
    }

    /// What was recorded since the last time; `shards` is how far each shard is now.
    pub fn take(&self, shards: &[ShardStatus]) -> Vec<(Series, Statistics)> {
        let mut behind: Vec<(Series, f64)> = Vec::new();
        for shard in shards {
            let series = Series { operation: "ProcessTask", name: "MillisBehindLatest", shard: self.shard(&shard.shard) };
            behind.push((series, shard.lag_seconds * 1000.0));
        }
        let worst = shards.iter().map(|shard| shard.lag_seconds * 1000.0).fold(0.0, f64::max);
        behind.push((Series { operation: "ApplicationTracker", name: "MillisBehindLatest", shard: None }, worst));
        for (series, value) in behind {
            self.add(&series, value);
        }
        let gauges: Vec<_> = self.lock().gauges.iter().map(|(series, bits)| (series.clone(), f64::from_bits(bits.load(Relaxed)))).collect();
        for (series, value) in gauges {
            self.add(&series, value);
        }
        for (operation, name) in ALWAYS {
            self.add(&Series { operation, name, shard: None }, 0.0);
        }
        std::mem::take(&mut self.lock().values).into_iter().collect()
    }

    /// Values that found no room since the last time.
    pub fn take_dropped(&self) -> usize {
        self.dropped.swap(0, Relaxed)
    }

    fn shard(&self, shard: &str) -> Option<String> {
        self.settings.shard_id.then(|| shard.to_owned())
    }

    fn add(&self, series: &Series, value: f64) {
        let mut window = self.lock();
        if let Some(statistics) = window.values.get_mut(series) {
            statistics.add(value);
        } else if window.values.len() < MAX_DATA {
            window.values.insert(series.clone(), Statistics::of(value));
        } else {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// What becomes of recordings under this key.
    fn targets(&self, key: &Key) -> Vec<(Series, Value)> {
        let label = |name: &str| key.labels().find(|label| label.key() == name).map(|label| label.value());
        let applies = |rule: &&Rule| {
            rule.metric == key.name()
                && rule.level <= self.settings.level
                && rule.labels.iter().all(|(name, values)| label(name).is_some_and(|value| values.contains(&value)))
        };
        let target = |rule: &Rule| {
            let shard = label(names::SHARD).and_then(|shard| self.shard(shard));
            (Series { operation: rule.operation, name: rule.name, shard }, rule.value)
        };
        RULES.iter().filter(applies).map(target).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handle {
    accumulator: Accumulator,
    targets: Vec<(Series, Value)>,
}

impl Handle {
    fn of(accumulator: &Accumulator, key: &Key) -> Option<Arc<Self>> {
        let targets = accumulator.targets(key);
        (!targets.is_empty()).then(|| Arc::new(Self { accumulator: accumulator.clone(), targets }))
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        self.record(value as f64);
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Handle {
    fn record(&self, value: f64) {
        for (series, of) in &self.targets {
            self.accumulator.add(series, of.of(value));
        }
    }
}

/// The stages only ever set the gauges that are translated.
struct Last(Arc<AtomicU64>);

impl GaugeFn for Last {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

impl Other for Accumulator {
    fn counter(&self, key: &Key) -> Option<Arc<dyn CounterFn + Send + Sync>> {
        Handle::of(self, key).map(|handle| handle as _)
    }

    fn gauge(&self, key: &Key) -> Option<Arc<dyn GaugeFn + Send + Sync>> {
        let (series, _) = self.targets(key).into_iter().next()?;
        let bits = self.lock().gauges.entry(series).or_default().clone();
        Some(Arc::new(Last(bits)))
    }

    fn histogram(&self, key: &Key) -> Option<Arc<dyn HistogramFn + Send + Sync>> {
        Handle::of(self, key).map(|handle| handle as _)
    }
}
