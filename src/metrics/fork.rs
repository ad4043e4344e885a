//! One recording call, several exporters.

use std::{fmt, sync::Arc};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit};

use super::names;

/// Gives everything to Prometheus, without the label [`names::SHARD`]: shards come and go every few hours, and series of theirs would pile
/// up. What the others want, they get as it is.
pub struct Fork<P> {
    prometheus: P,
    others: Vec<Arc<dyn Other>>,
}

/// A further exporter, which takes what it has a use for.
pub trait Other: Send + Sync {
    /// What is to be told of increments of this counter.
    fn counter(&self, key: &Key) -> Option<Arc<dyn CounterFn + Send + Sync>>;
    fn gauge(&self, key: &Key) -> Option<Arc<dyn GaugeFn + Send + Sync>>;
    fn histogram(&self, key: &Key) -> Option<Arc<dyn HistogramFn + Send + Sync>>;
}

impl<P> Fork<P> {
    pub fn new(prometheus: P, others: Vec<Arc<dyn Other>>) -> Self {
        Self { prometheus, others }
    }
}

impl<P> fmt::Debug for Fork<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fork").field("others", &self.others.len()).finish_non_exhaustive()
    }
}

fn without_shard(key: &Key) -> Option<Key> {
    key.labels().any(|label| label.key() == names::SHARD).then(|| {
        let others: Vec<Label> = key.labels().filter(|label| label.key() != names::SHARD).cloned().collect();
        Key::from_parts(key.name_shared(), others)
    })
}

/// A handle's two ends.
struct Both<A, B>(A, Arc<B>)
where
    B: ?Sized;

impl CounterFn for Both<Counter, dyn CounterFn + Send + Sync> {
    fn increment(&self, value: u64) {
        self.0.increment(value);
        self.1.increment(value);
    }

    fn absolute(&self, value: u64) {
        self.0.absolute(value);
        self.1.absolute(value);
    }
}

impl GaugeFn for Both<Gauge, dyn GaugeFn + Send + Sync> {
    fn increment(&self, value: f64) {
        self.0.increment(value);
        self.1.increment(value);
    }

    fn decrement(&self, value: f64) {
        self.0.decrement(value);
        self.1.decrement(value);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
        self.1.set(value);
    }
}

impl HistogramFn for Both<Histogram, dyn HistogramFn + Send + Sync> {
    fn record(&self, value: f64) {
        self.0.record(value);
        self.1.record(value);
    }
}

impl<P: Recorder> Recorder for Fork<P> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.prometheus.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.prometheus.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.prometheus.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let counter = self.prometheus.register_counter(without_shard(key).as_ref().unwrap_or(key), metadata);
        self.others
            .iter()
            .filter_map(|other| other.counter(key))
            .fold(counter, |first, second| Counter::from_arc(Arc::new(Both(first, second))))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let gauge = self.prometheus.register_gauge(without_shard(key).as_ref().unwrap_or(key), metadata);
        self.others.iter().filter_map(|other| other.gauge(key)).fold(gauge, |first, second| Gauge::from_arc(Arc::new(Both(first, second))))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let histogram = self.prometheus.register_histogram(without_shard(key).as_ref().unwrap_or(key), metadata);
        self.others
            .iter()
            .filter_map(|other| other.histogram(key))
            .fold(histogram, |first, second| Histogram::from_arc(Arc::new(Both(first, second))))
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn shards_have_no_series_in_prometheus_but_are_counted() {
        let prometheus = PrometheusBuilder::new().build_recorder();
        let handle = prometheus.handle();
        metrics::with_local_recorder(&Fork::new(prometheus, Vec::new()), || {
            for shard in 0..1_000 {
                metrics::counter!(names::SOURCE_RECORDS, names::SHARD => shard.to_string()).increment(2);
                metrics::counter!(names::ERRORS, "stage" => "shard", "kind" => "Fatal").increment(1);
            }
        });
        let text = handle.render();
        assert!(text.contains("dynamodb_source_records_total 2000\n"), "{text}");
        assert!(text.contains(r#"dynamodb_errors_total{stage="shard",kind="Fatal"} 1000"#), "{text}");
    }
}
