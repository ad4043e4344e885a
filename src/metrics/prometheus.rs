//! Metrics as Prometheus text.

use std::{fmt::Write as _, sync::Arc};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{
    health::Health,
    names, process,
    shards::{self, ShardStatus},
};
use crate::error::{Error, Kind, Result};

/// From a fast local write to one that is in trouble. Seconds.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Shards with a series of their own, however many there are: a label that changes every four hours must not grow anybody's storage.
const SHARDS_SHOWN: usize = 10;

/// Collects metrics; the handle renders them.
pub fn recorder() -> Result<PrometheusRecorder> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS);
    builder.map(PrometheusBuilder::build_recorder).map_err(|error| Error::new(Kind::Fatal, "set up the metrics", error))
}

/// What `/metrics` answers.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    health: Health,
    view: Option<Arc<View>>,
}

/// What a host makes of the text for its own reader.
type View = dyn Fn(&str) -> String + Send + Sync;

impl Exporter {
    /// Whoever holds it has to call [`Exporter::upkeep`] now and then.
    pub fn new(handle: PrometheusHandle, health: Health) -> Self {
        Self { handle, health, view: None }
    }

    /// The same, rendered as `view` makes it of the text.
    pub fn viewed(&self, view: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self { view: Some(Arc::new(view)), ..self.clone() }
    }

    /// Folds up histograms, so that memory stays bounded when nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything, as it is now.
    pub fn render(&self) -> String {
        process::report();
        let shards = self.health.report();
        let mut text = self.handle.render();
        if let Some(shards) = shards {
            text += &shard_lags(&shards);
        }
        match &self.view {
            Some(view) => view(&text),
            None => text,
        }
    }
}

/// A label's value as the text has it.
pub fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// The series of a page of Prometheus text: name, labels and value.
pub fn series(page: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels.trim_end_matches('}')));
        Some((name, labels, value))
    })
}

/// The series of single shards. They are no gauges of the recorder, which would keep those of shards that have ended.
fn shard_lags(shards: &[ShardStatus]) -> String {
    let name = names::SOURCE_SHARD_LAG;
    let mut text = format!("# HELP {name} {}\n# TYPE {name} gauge\n", names::meaning(name));
    for shard in shards::worst(shards, SHARDS_SHOWN) {
        let _ = writeln!(text, "{name}{{shard=\"{}\"}} {}", escaped(&shard.shard), shard.lag_seconds);
    }
    text.push('\n');
    text
}
