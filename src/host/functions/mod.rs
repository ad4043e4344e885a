//! A process that Pulsar's functions worker, `functions localrun` or Function Mesh has started: no virtual machine, our own Pulsar client, and
//! the state told as those hosts ask for it.
//!
//! ```text
//! -instance-conf JSON        ─► conf ──┐
//!                                      ├─► Given ─► Instance ─► plan ─► a worker's configuration, and how to reach Pulsar
//! --function_details JSON …  ─► flags ─┘
//!
//! worker ─► recorder ─► tally ─► control (gRPC, for status and stats)
//!                          └───► page (metricsPort)
//!        ─► log ─► tally (the last exceptions), lines (the log topic)
//! ```

pub mod conf;
pub mod control;
pub mod details;
pub mod flags;
pub mod instance;
pub mod lines;
pub mod numbers;
pub mod page;
pub mod plan;
pub mod proto;
pub mod secrets;
pub mod tally;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::counter;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use self::{
    control::Control,
    instance::Instance,
    page::Labels,
    plan::{Plan, Worker, plan},
    tally::{Exceptions, Tally},
};
use super::workers::{self, Cloudwatch};
use crate::{
    cli::LogFormat,
    error::{Error, Kind, Result},
    logging,
    metrics::{self as meters, fork::Other, health::Health, http, names},
    pulsar::DEFAULT_LOG_FILTER,
    supervisor::{Signals, supervise},
};

/// Pulsar's process runtime kills ten seconds after SIGTERM.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// How long a worker that cannot go on shows why before the process ends and its host starts another one. Pulsar shows nothing of a process
/// that is gone, and looks every 30 seconds.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Runs the worker that a command line which [`instance::is_meant`] asks for, until it is stopped or cannot go on.
pub fn run(arguments: &[String], environment: &BTreeMap<String, String>) -> Result<ExitCode> {
    let instance = Instance::parse(arguments, environment)?;
    let plan = plan(&instance, environment);
    let tally = Tally::default();
    let mut layers: Vec<logging::More> = vec![Box::new(Exceptions(tally.clone()))];
    let log_topic = plan.as_ref().ok().and_then(|plan| Some((plan.log_topic.clone()?, plan.pulsar.clone())));
    let served = CancellationToken::new();
    let log_topic = log_topic.map(|(topic, pulsar)| {
        let (layer, lines) = lines::lines();
        layers.push(layer);
        lines::publish(lines, topic, pulsar, lines::whose(&instance), served.clone())
    });
    let (level, format) = log_settings(environment);
    logging::start(&level, format, layers)?;
    tracing::info!(name = instance.full_name(), instance = instance.id, version = env!("CARGO_PKG_VERSION"), "started by a functions host");

    let health = Health::default();
    let cloudwatch = match plan.as_ref().map(|plan| &plan.worker) {
        Ok(Worker::Source(source)) => workers::cloudwatch(source),
        _ => None,
    };
    let mut recorded: Vec<Arc<dyn Other>> = vec![Arc::new(tally.clone())];
    recorded.extend(cloudwatch.iter().map(|(accumulator, _)| Arc::new(accumulator.clone()) as _));
    let metrics = meters::install(&health, recorded)?;
    let control = Control {
        instance_id: instance.id,
        tally: tally.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
        failure: Arc::default(),
    };
    let labels = Labels::of(&instance);
    let metrics = metrics.viewed(move |text| labels.page(text, &tally));

    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(Kind::Fatal, "start the runtime", error))?;
    runtime.block_on(async {
        let signals = Signals::listen()?.of_a_child();
        // Who is asked for its state in Kubernetes is asked over the network, and Pulsar's worker fetches metrics by its host's own name.
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let asked = http::bind(everywhere(instance.port), "the port for InstanceControl,").await?;
        let listener = match instance.metrics_port {
            Some(port) => Some(http::bind(everywhere(port), "the metrics port,").await?),
            None => None,
        };
        let stop = CancellationToken::new();
        let failure = control.failure.clone();
        let answering = control::serve(asked, control, served.clone());
        let serving = http::serve(listener, metrics, health.clone(), served.clone());
        let working = async {
            let worker = work(plan, cloudwatch, failure, health, stop.clone());
            let code = supervise(signals, stop.clone(), DRAIN_DEADLINE, worker).await;
            served.cancel();
            code
        };
        let logging = async {
            if let Some(log_topic) = log_topic {
                log_topic.await;
            }
        };
        Ok(tokio::join!(working, answering, serving, logging).0)
    })
}

/// Runs the worker. When it cannot go on, or cannot begin, the status says why: until somebody stops it where only another configuration
/// helps, else for a while.
async fn work(
    plan: Result<Plan>,
    cloudwatch: Cloudwatch,
    failure: Arc<OnceLock<String>>,
    health: Health,
    stop: CancellationToken,
) -> Result<()> {
    let outcome = match plan {
        Ok(Plan { worker: Worker::Source(source), pulsar, .. }) => workers::source(*source, pulsar, cloudwatch, health, stop.clone()).await,
        Ok(Plan { worker: Worker::Sink(sink), pulsar, .. }) => workers::sink(*sink, pulsar, health, stop.clone()).await,
        Err(error) => Err(error),
    };
    let Err(error) = &outcome else { return outcome };
    if stop.is_cancelled() {
        return outcome;
    }
    counter!(names::ERRORS, "stage" => "host", "kind" => format!("{:?}", error.kind())).increment(1);
    tracing::error!(%error, "cannot go on");
    let _ = failure.set(error.to_string());
    if error.kind() == Kind::Configuration {
        stop.cancelled().await;
    } else {
        let _ = tokio::time::timeout(LAST_WORDS, stop.cancelled()).await;
    }
    outcome
}

/// The command line is the host's: the environment says how to log, `LOGGING_LEVEL` is Function Mesh's variable.
fn log_settings(environment: &BTreeMap<String, String>) -> (String, LogFormat) {
    let own = environment.get("PULSAR_IO_DYNAMODB_LOG").cloned();
    let of_the_mesh = || {
        let level = environment.get("LOGGING_LEVEL")?.to_ascii_lowercase();
        ["error", "warn", "info", "debug", "trace"].contains(&&*level).then(|| format!("{DEFAULT_LOG_FILTER},pulsar_io_dynamodb={level}"))
    };
    let level = own.or_else(of_the_mesh).unwrap_or_else(|| DEFAULT_LOG_FILTER.into());
    let json = environment.get("PULSAR_IO_DYNAMODB_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"));
    (level, if json { LogFormat::Json } else { LogFormat::Text })
}
