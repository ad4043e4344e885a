//! The numbers that Pulsar shows of a function, counted from what the worker records anyway, and the last exceptions in words.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{CounterFn, GaugeFn, HistogramFn, Key};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use super::proto::ExceptionInformation;
use crate::metrics::{fork::Other, names};

/// As many as Pulsar's own instances keep of each class.
const KEPT: usize = 10;

/// Whose failure it was, in Pulsar's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A record or message that can never be taken.
    User,
    /// Pulsar, and what belongs to no end.
    System,
    /// Reading the stream.
    Source,
    /// Writing the table.
    Sink,
}

/// Counted since the start, or since some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    pub received: u64,
    pub processed: u64,
    /// By [`Class`].
    pub exceptions: [u64; 4],
    latencies: u64,
    latency_seconds: f64,
}

impl Counts {
    pub fn exceptions(&self, class: Class) -> u64 {
        self.exceptions[class as usize]
    }

    /// Milliseconds; 0 where there is none yet.
    pub fn average_latency(&self) -> f64 {
        if self.latencies == 0 { 0.0 } else { self.latency_seconds * 1000.0 / self.latencies as f64 }
    }

    fn since(self, then: Self) -> Self {
        Self {
            received: self.received - then.received,
            processed: self.processed - then.processed,
            exceptions: std::array::from_fn(|class| self.exceptions[class] - then.exceptions[class]),
            latencies: self.latencies - then.latencies,
            latency_seconds: self.latency_seconds - then.latency_seconds,
        }
    }
}

/// Shared by the recorder, the log and whoever answers; cheap to clone.
#[derive(Clone, Default)]
pub struct Tally(Arc<Inner>);

#[derive(Default)]
struct Inner {
    received: AtomicU64,
    processed: AtomicU64,
    exceptions: [AtomicU64; 4],
    /// How many, and their sum in seconds.
    latency: Mutex<(u64, f64)>,
    /// Epoch milliseconds.
    last_invocation: AtomicI64,
    minute: Mutex<Counts>,
    recent: Mutex<[VecDeque<ExceptionInformation>; 4]>,
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tally").field(&self.counts()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Tally {
    /// Since the start.
    pub fn counts(&self) -> Counts {
        let (latencies, latency_seconds) = *lock(&self.0.latency);
        Counts {
            received: self.0.received.load(Relaxed),
            processed: self.0.processed.load(Relaxed),
            exceptions: std::array::from_fn(|class| self.0.exceptions[class].load(Relaxed)),
            latencies,
            latency_seconds,
        }
    }

    /// Since the last [`Tally::begin_minute`].
    pub fn of_minute(&self) -> Counts {
        let then = *lock(&self.0.minute);
        self.counts().since(then)
    }

    pub fn begin_minute(&self) {
        *lock(&self.0.minute) = self.counts();
    }

    /// Epoch milliseconds; 0 before the first record.
    pub fn last_invocation(&self) -> i64 {
        self.0.last_invocation.load(Relaxed)
    }

    /// The last ones of a class, the oldest first.
    pub fn recent(&self, class: Class) -> Vec<ExceptionInformation> {
        lock(&self.0.recent)[class as usize].iter().cloned().collect()
    }

    /// Keeps the words of a failure; it is counted by the worker's own counters.
    fn keep(&self, class: Class, text: String) {
        let recent = &mut lock(&self.0.recent)[class as usize];
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(ExceptionInformation { exception_string: text, ms_since_epoch: now() });
    }
}

enum What {
    Received,
    Processed,
    Exceptions(Class),
}

struct Count(Tally, What);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        let Self(Tally(inner), what) = self;
        match what {
            What::Received => {
                // A page without records counts nothing.
                if value > 0 {
                    inner.last_invocation.store(now(), Relaxed);
                }
                &inner.received
            }
            What::Processed => &inner.processed,
            What::Exceptions(class) => &inner.exceptions[*class as usize],
        }
        .fetch_add(value, Relaxed);
    }

    /// None of these counters is ever set.
    fn absolute(&self, _: u64) {}
}

struct Latency(Tally);

impl HistogramFn for Latency {
    fn record(&self, value: f64) {
        let (count, sum) = &mut *lock(&self.0.0.latency);
        *count += 1;
        *sum += value;
    }
}

impl Other for Tally {
    fn counter(&self, key: &Key) -> Option<Arc<dyn CounterFn + Send + Sync>> {
        let what = match key.name() {
            names::SOURCE_RECORDS | names::SINK_RECEIVED => What::Received,
            names::SOURCE_PUBLISHED | names::SOURCE_SKIPPED | names::SINK_WRITTEN | names::SINK_COALESCED | names::SINK_SKIPPED => {
                What::Processed
            }
            names::SOURCE_POISON | names::SINK_DEAD_LETTERED => What::Exceptions(Class::User),
            names::ERRORS => {
                let stage = key.labels().find(|label| label.key() == "stage").map(metrics::Label::value).unwrap_or_default();
                What::Exceptions(if matches!(stage, "pulsar" | "cloudwatch" | "host") {
                    Class::System
                } else if stage.starts_with("sink") {
                    Class::Sink
                } else {
                    Class::Source
                })
            }
            _ => return None,
        };
        Some(Arc::new(Count(self.clone(), what)))
    }

    fn gauge(&self, _: &Key) -> Option<Arc<dyn GaugeFn + Send + Sync>> {
        None
    }

    fn histogram(&self, key: &Key) -> Option<Arc<dyn HistogramFn + Send + Sync>> {
        matches!(key.name(), names::SOURCE_PUBLISH_SECONDS | names::SINK_WRITE_SECONDS)
            .then(|| Arc::new(Latency(self.clone())) as Arc<dyn HistogramFn + Send + Sync>)
    }
}

/// Keeps the words of failures that the log tells.
pub struct Exceptions(pub Tally);

impl<S: Subscriber> Layer<S> for Exceptions {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut told = Told::default();
        event.record(&mut told);
        let (class, why) = match (told.poison, told.error) {
            (Some(poison), _) => (Class::User, poison),
            (None, Some(error)) if metadata.target().contains("::source") => (Class::Source, error),
            (None, Some(error)) if metadata.target().contains("::sink") => (Class::Sink, error),
            (None, Some(error)) => (Class::System, error),
            (None, None) => return,
        };
        self.0.keep(class, format!("{}: {why}", told.message));
    }
}

/// The fields of an event that tell a failure.
#[derive(Default)]
struct Told {
    message: String,
    error: Option<String>,
    poison: Option<String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "error" => self.error = Some(format!("{value:?}")),
            "poison" => self.poison = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::metrics::fork::Fork;

    fn recording(tally: &Tally, record: impl FnOnce()) {
        let fork = Fork::new(PrometheusBuilder::new().build_recorder(), vec![Arc::new(tally.clone())]);
        metrics::with_local_recorder(&fork, record);
    }

    #[test]
    fn each_counter_counts_where_pulsar_shows_it() {
        let tally = Tally::default();
        recording(&tally, || metrics::counter!(names::SOURCE_RECORDS).increment(0));
        assert_eq!(tally.last_invocation(), 0, "nothing was received");
        recording(&tally, || {
            metrics::counter!(names::SOURCE_RECORDS, names::SHARD => "s").increment(7);
            metrics::counter!(names::SOURCE_PUBLISHED).increment(4);
            metrics::counter!(names::SOURCE_SKIPPED, "reason" => "filter").increment(1);
            metrics::counter!(names::SOURCE_POISON, "policy" => "skip").increment(2);
            for (stage, times) in [("pulsar", 1), ("source/poll", 2), ("sink/write", 3)] {
                metrics::counter!(names::ERRORS, "stage" => stage, "kind" => "x").increment(times);
            }
            metrics::counter!(names::SOURCE_CHECKPOINTS).increment(9);
            metrics::histogram!(names::SOURCE_PUBLISH_SECONDS).record(0.25);
            metrics::histogram!(names::SOURCE_PUBLISH_SECONDS).record(0.75);
        });
        let counts = tally.counts();
        assert_eq!((counts.received, counts.processed, counts.average_latency()), (7, 5, 500.0));
        let of = |class| counts.exceptions(class);
        assert_eq!((of(Class::User), of(Class::System), of(Class::Source), of(Class::Sink)), (2, 1, 2, 3));
        assert!((now() - tally.last_invocation()).abs() < 60_000, "{}", tally.last_invocation());
    }

    #[test]
    fn a_minute_begins_with_nothing_and_the_total_goes_on() {
        let tally = Tally::default();
        recording(&tally, || metrics::counter!(names::SINK_RECEIVED).increment(7));
        tally.begin_minute();
        assert_eq!(tally.of_minute(), Counts::default());
        recording(&tally, || metrics::counter!(names::SINK_RECEIVED).increment(2));
        assert_eq!((tally.of_minute().received, tally.counts().received), (2, 9));
    }

    #[test]
    fn the_last_ten_failures_of_each_class_are_kept_in_words() {
        let tally = Tally::default();
        let log = tracing_subscriber::registry().with(Exceptions(tally.clone()));
        tracing::subscriber::with_default(log, || {
            for number in 0..12 {
                tracing::warn!(target: "pulsar_io_dynamodb::sink::worker", error = %format_args!("no {number}"), "a batch failed");
            }
            tracing::warn!(target: "pulsar_io_dynamodb::source::poll", error = "x", "a page failed");
            tracing::error!(target: "pulsar_io_dynamodb::pulsar::client", error = "x", "trying again");
            tracing::warn!(target: "pulsar_io_dynamodb::sink::worker", poison = "x", "a message goes away");
            tracing::warn!(target: "pulsar_io_dynamodb::sink::worker", "no failure");
            tracing::info!(target: "pulsar_io_dynamodb::sink::worker", error = "x", "no failure either");
        });
        let kept = tally.recent(Class::Sink);
        let ends = [kept.first(), kept.last()].map(|end| end.map(|kept| kept.exception_string.as_str()));
        assert_eq!((kept.len(), ends), (10, [Some("a batch failed: no 2"), Some("a batch failed: no 11")]));
        for class in [Class::Source, Class::System, Class::User] {
            assert_eq!(tally.recent(class).len(), 1, "{class:?}");
        }
    }
}
