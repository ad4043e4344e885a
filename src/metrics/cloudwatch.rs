//! Puts the metrics of [`kcl`] to CloudWatch, with the worker's credentials. The only user of its SDK.
//!
//! Nothing here can hold the data path up: recording only adds to a bounded map, and whatever goes wrong with CloudWatch is told in the log
//! and counted, no more. Health stays as it is.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use aws_sdk_cloudwatch::{
    Client, config,
    primitives::DateTime,
    types::{Dimension, MetricDatum, StandardUnit, StatisticSet},
};
use aws_types::SdkConfig;
use metrics::counter;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use super::{
    health::Health,
    kcl::{Accumulator, MAX_DATA, Series, Settings, Statistics, Unit},
    names,
};
use crate::{
    dynamodb::failure::classify,
    error::{Error, Kind, Result, Retry},
    source::clock::epoch_millis,
};

/// As KCL does.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// Data in one call. CloudWatch takes 1,000 and 1 MB; 20, as KCL sends, was its limit until 2022. A datum takes up to 500 bytes.
const DATA_PER_CALL: usize = 500;
/// An endpoint that hangs is given up for this time.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// At the end of a drain: nobody waits longer than this for metrics.
const LAST_LIMIT: Duration = Duration::from_secs(2);

const STAGE: &str = "cloudwatch";

/// Takes what was recorded every ten seconds, and sends it until CloudWatch has it.
#[derive(Debug)]
pub struct Exporter {
    client: Client,
    namespace: String,
    accumulator: Accumulator,
    health: Health,
    /// Oldest first, [`MAX_DATA`] at most.
    waiting: VecDeque<MetricDatum>,
    /// Whether the last call failed: the log tells the first failure and the end of them.
    failing: bool,
    /// Whether data were dropped since everything was sent: told once.
    overflowed: bool,
}

impl Exporter {
    pub fn new(config: &SdkConfig, settings: &Settings, accumulator: Accumulator, health: Health) -> Self {
        let mut builder = config::Builder::from(config);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let client = Client::from_conf(builder.build());
        let namespace = settings.namespace.clone();
        Self { client, namespace, accumulator, health, waiting: VecDeque::new(), failing: false, overflowed: false }
    }

    /// Until it is dropped. Cancel-safe but for data that are on their way: they may be counted twice.
    pub async fn run(&mut self) -> Infallible {
        let mut ticks = interval_at(tokio::time::Instant::now() + FLUSH_INTERVAL, FLUSH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.flush().await;
        }
    }

    /// What is left, at the end.
    pub async fn finish(mut self) {
        if timeout(LAST_LIMIT, self.flush()).await.is_err() {
            tracing::warn!(data = self.waiting.len(), "the last metrics did not reach CloudWatch within {LAST_LIMIT:?}");
        }
    }

    /// Data that CloudWatch does not have yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes what was recorded and sends what waits, until the first call that fails.
    pub async fn flush(&mut self) {
        let at = DateTime::from_millis(epoch_millis());
        for (series, statistics) in self.accumulator.take(&self.health.shards().status()) {
            self.waiting.push_back(datum(&series, &statistics, at));
        }
        let too_many = self.waiting.len().saturating_sub(MAX_DATA);
        self.waiting.drain(..too_many);
        let dropped = too_many + self.accumulator.take_dropped();
        if dropped > 0 && !self.overflowed {
            tracing::warn!(dropped, "more than {MAX_DATA} metrics wait for CloudWatch: some are dropped, here and until it has caught up");
            self.overflowed = true;
        }
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(DATA_PER_CALL);
            match self.put(count).await {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("metrics reach CloudWatch again");
                    }
                }
                Err(error) => {
                    counter!(names::ERRORS, "stage" => STAGE, "kind" => format!("{:?}", error.kind())).increment(1);
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "metrics do not reach CloudWatch; records are not affected");
                    }
                    // Nothing makes CloudWatch take these; the others are tried with the next flush.
                    if error.retry() == Retry::Never {
                        self.waiting.drain(..count);
                    }
                    return;
                }
            }
            self.waiting.drain(..count);
        }
        self.overflowed = false;
    }

    /// The first `count` of those that wait.
    async fn put(&self, count: usize) -> Result<()> {
        let doing = || format!("put metrics to CloudWatch (cloudwatch:PutMetricData, namespace {})", self.namespace);
        let data = self.waiting.iter().take(count).cloned().collect();
        let call = self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data)).send();
        match timeout(CALL_LIMIT, call).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(classify(doing(), error)),
            Err(_) => Err(Error::new(Kind::Unavailable, doing(), format!("no answer within {CALL_LIMIT:?}"))),
        }
    }
}

fn datum(series: &Series, statistics: &Statistics, at: DateTime) -> MetricDatum {
    let unit = match series.unit() {
        Unit::Count => StandardUnit::Count,
        Unit::Milliseconds => StandardUnit::Milliseconds,
        Unit::Bytes => StandardUnit::Bytes,
    };
    let values =
        StatisticSet::builder().sample_count(statistics.count).sum(statistics.sum).minimum(statistics.min).maximum(statistics.max).build();
    let dimensions: Vec<Dimension> = [("Operation", Some(series.operation)), ("ShardId", series.shard.as_deref())]
        .into_iter()
        .filter_map(|(name, value)| Some(Dimension::builder().name(name).value(value?).build()))
        .collect();
    MetricDatum::builder()
        .metric_name(series.name)
        .set_dimensions(Some(dimensions))
        .timestamp(at)
        .unit(unit)
        .statistic_values(values)
        .build()
}
