//! Signals, and how the process ends.

use std::{os::unix::process::parent_id, process::ExitCode, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

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

/// What ends the process from outside: SIGTERM and SIGINT, and for a host's child the end of its parent.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Of a host's child.
    parent: Option<u32>,
}

impl Signals {
    /// Listens from now on. Has to be called within the runtime.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::new(Kind::Fatal, "listen for signals", error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())?, parent: None })
    }

    /// As a host's child: the parent's end ends it too, since whoever is killed with -9 cannot tell its children; and a second signal changes
    /// nothing, since a terminal's Ctrl-C reaches parent and child, and then the parent terminates the child.
    ///
    /// The parent is looked for, not listened to: Linux ties its own signal for this to the *thread* that forked, and a virtual machine's threads
    /// come and go.
    pub fn of_a_child(self) -> Self {
        Self { parent: Some(parent_id()), ..self }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = end_of(self.parent) => "the end of the parent process",
        }
    }

    /// The one after the first.
    async fn second(&mut self) -> &'static str {
        match self.parent {
            Some(_) => std::future::pending().await,
            None => self.next().await,
        }
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

/// Runs a worker to its end. The first signal cancels `stop`, so that the worker drains (Z1); a second one (but see [`Signals::of_a_child`]), or
/// `deadline` after the first, ends the process at once.
///
/// The worker is a task of its own: whatever wakes it is done by a thread of the runtime most of the time, and need not wake the one that waits here.
pub async fn supervise(
    mut signals: Signals,
    stop: CancellationToken,
    deadline: Duration,
    worker: impl Future<Output = Result<()>> + Send + 'static,
) -> ExitCode {
    let worker = AbortOnDropHandle::new(tokio::spawn(worker));
    let worker = async { worker.await.unwrap_or_else(|broken| Err(Error::new(Kind::Fatal, "run the worker", broken))) };
    tokio::pin!(worker);
    let outcome = tokio::select! {
        outcome = &mut worker => outcome,
        signal = signals.next() => {
            let then = if signals.parent.is_some() { "" } else { "; a second signal ends at once" };
            tracing::info!(signal, "stopping: finishing what is under way{then}");
            stop.cancel();
            tokio::select! {
                outcome = &mut worker => outcome,
                signal = signals.second() => {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn terminate() {
        let killed = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }

    /// A worker that is told to stop, hears of a second signal while it drains, and then ends well.
    async fn supervised(signals: Signals, mut heard: Signal) -> String {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let worker = async move {
            terminate();
            told.cancelled().await;
            heard.recv().await;
            terminate();
            heard.recv().await;
            // Long enough for whoever ends at once.
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        };
        format!("{:?}", supervise(signals, stop, Duration::from_secs(30), worker).await)
    }

    #[tokio::test]
    async fn z1_a_second_signal_ends_at_once_but_not_a_hosts_child() {
        let listen = || (Signals::listen().expect("signals"), signal(SignalKind::terminate()).expect("signals"));
        let (signals, heard) = listen();
        assert_eq!(supervised(signals, heard).await, format!("{:?}", ExitCode::from(EXIT_INTERRUPTED)));
        let (signals, heard) = listen();
        assert_eq!(supervised(signals.of_a_child(), heard).await, format!("{:?}", ExitCode::SUCCESS));
    }
}
