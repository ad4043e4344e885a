//! Signals, and how the process ends.

use std::{os::unix::process::parent_id, process::ExitCode, time::Duration};

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
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(12);

/// The exit code that an error stands for.
pub fn exit_code(error: &Error) -> u8 {
    if error.kind() == Kind::Configuration { EXIT_USAGE } else { EXIT_FAILURE }
}

/// How often the parent is looked for.
const PARENT_LOOK: Duration = Duration::from_millis(500);

/// What ends the process from outside: SIGTERM, SIGINT and, where a host wants it, the end of the process that started this one.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    parent: Option<u32>,
}

impl Signals {
    /// Listens from now on. Has to be called within the runtime.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::new(Kind::Fatal, "listen for signals", error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())?, parent: None })
    }

    /// Also listens for the parent's end: whoever is killed with -9 cannot tell its children. The parent is looked for, not listened to, since
    /// Linux ties its own signal for this to the *thread* that forked, and a virtual machine's threads come and go.
    pub fn or_the_parents_end(self) -> Self {
        Self { parent: Some(parent_id()), ..self }
    }

    async fn next(&mut self) -> &'static str {
        let gone = tokio::select! {
            _ = self.terminate.recv() => return "SIGTERM",
            _ = self.interrupt.recv() => return "SIGINT",
            () = end_of(self.parent) => "the end of the parent process",
        };
        // It ends once.
        self.parent = None;
        gone
    }
}

async fn end_of(parent: Option<u32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    let mut look = tokio::time::interval(PARENT_LOOK);
    // Whoever takes over the children of the dead has another number.
    while parent_id() == parent {
        look.tick().await;
    }
}

/// Runs a worker to its end. The first signal cancels `stop`, so that the worker drains (Z1); a second one, or
/// `deadline` after the first, ends the process at once.
pub async fn supervise(
    mut signals: Signals,
    stop: CancellationToken,
    deadline: Duration,
    worker: impl Future<Output = Result<()>>,
) -> ExitCode {
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
                () = tokio::time::sleep(deadline) => {
                    tracing::warn!("stopped after {deadline:?} without finishing; what is not acknowledged comes again");
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
