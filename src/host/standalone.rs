//! A command line and a file: one worker in this process, with its own Pulsar client.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use super::workers;
use crate::{
    config::{sink::Sink, source::Source},
    error::{Error, Kind, Result},
    metrics::{self, fork::Other, health::Health, http},
    pulsar::client::Settings as PulsarSettings,
    supervisor::{DRAIN_DEADLINE, Signals, supervise},
};

/// Runs a source until it is stopped or cannot go on.
pub fn source(configured: Source, pulsar: PulsarSettings, http_address: Option<SocketAddr>) -> Result<ExitCode> {
    let cloudwatch = workers::cloudwatch(&configured);
    let recorded = cloudwatch.iter().map(|(accumulator, _)| Arc::new(accumulator.clone()) as _).collect();
    host(http_address, recorded, move |health, stop| workers::source(configured, pulsar, cloudwatch, health, stop))
}

/// Runs a sink until it is stopped or cannot go on.
pub fn sink(configured: Sink, pulsar: PulsarSettings, http_address: Option<SocketAddr>) -> Result<ExitCode> {
    host(http_address, Vec::new(), move |health, stop| workers::sink(configured, pulsar, health, stop))
}

/// What every worker has around it: metrics, health, signals. The address is bound before any work starts.
///
/// `recorded`: further exporters of what is recorded.
fn host<F: Future<Output = Result<()>> + Send + 'static>(
    http_address: Option<SocketAddr>,
    recorded: Vec<Arc<dyn Other>>,
    worker: impl FnOnce(Health, CancellationToken) -> F,
) -> Result<ExitCode> {
    let health = Health::default();
    let metrics = metrics::install(&health, recorded)?;
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(Kind::Fatal, "start the runtime", error))?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let listener = match http_address {
            Some(address) => Some(http::bind(address, "--http-address").await?),
            None => None,
        };
        let stop = CancellationToken::new();
        let served = CancellationToken::new();
        let serving = http::serve(listener, metrics, health.clone(), served.clone());
        let working = async {
            let code = supervise(signals, stop.clone(), DRAIN_DEADLINE, worker(health, stop)).await;
            served.cancel();
            code
        };
        Ok(tokio::join!(working, serving).0)
    })
}
