//! Signals, and how the process ends.

use std::{process::ExitCode, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};

/// Cannot go on; the last log line says why.
pub const EXIT_FAILURE: u8 = 1;
/// `EX_USAGE`: the command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 64;
/// Stopped by a second signal, without draining.
pub const EXIT_INTERRUPTED: u8 = 130;

/// A worker drains within its own, shorter deadline; this one is for what hangs.
const DRAIN_DEADLINE: Duration = Duration::from_secs(12);

/// The exit code that an error stands for.
pub fn exit_code(error: &Error) -> u8 {
    if error.kind() == Kind::Configuration { EXIT_USAGE } else { EXIT_FAILURE }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on. Has to be called within the runtime.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::new(Kind::Fatal, "listen for signals", error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs a worker to its end. The first signal cancels `stop`, so that the worker drains (Z1); a second one ends the process at once.
pub async fn supervise(mut signals: Signals, stop: CancellationToken, worker: impl Future<Output = Result<()>>) -> ExitCode {
    tokio::pin!(worker);
    let outcome = tokio::select! {
        outcome = &mut worker => outcome,
        signal = signals.next() => {
            tracing::info!(signal, "stopping: finishing what is under way; a second signal ends at once");
            stop.cancel();
            tokio::select! {
                outcome = &mut worker => outcome,
                signal = signals.next() => {
                    tracing::warn!(signal, "stopped without finishing; what is not acknowledged comes again");
                    return ExitCode::from(EXIT_INTERRUPTED);
                }
                () = tokio::time::sleep(DRAIN_DEADLINE) => {
                    tracing::warn!("stopped after {DRAIN_DEADLINE:?} without finishing; what is not acknowledged comes again");
                    return ExitCode::from(EXIT_FAILURE);
                }
            }
        }
    };
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "stopped: cannot go on");
            ExitCode::from(exit_code(&error))
        }
    }
}
