//! The log: on standard error, for a person or a machine.

use tracing::Level;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    cli::LogFormat,
    error::{Error, Kind, Result},
    pulsar::LOG_TARGET,
};

/// What gets every line as well.
pub type More = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts to log; once for the whole process. `level` is as in `--log-level`.
pub fn start(level: &str, format: LogFormat, mut layers: Vec<More>) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Error::new(Kind::Configuration, "set up the log (--log-level)", error);
    let filter = EnvFilter::try_new(level).map_err(|error| wrong(&error))?;
    // The Pulsar library's traces have whole protocol messages in them, the token with them.
    let no_secrets = filter_fn(|metadata| !(metadata.target().starts_with(LOG_TARGET) && *metadata.level() == Level::TRACE));
    let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    layers.push(match format {
        LogFormat::Text => output.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => output.json().flatten_event(true).boxed(),
    });
    tracing_subscriber::registry().with(layers).with(filter).with(no_secrets).init();
    Ok(())
}
