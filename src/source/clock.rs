//! Where the source's edges read time; decisions get it as a [`Moment`].

use std::{
    fmt,
    future::{Future, poll_fn},
    task::{Context, Poll, ready},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::ports::Moment;

/// The machine that a worker runs on, as far as the worker can feel it. The seam at which the simulation steps wall clocks and
/// freezes workers; the program runs on [`Clock::start`]'s.
pub trait Machine: fmt::Debug + Send + Sync {
    /// The wall clock.
    fn epoch_millis(&self) -> i64;

    /// Ready while the machine runs the worker's tasks, which is always, but for a process that is stopped (SIGSTOP, a suspended
    /// machine). Wakes the task when it may go on.
    fn poll_running(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[derive(Debug)]
struct RealMachine;

impl Machine for RealMachine {
    fn epoch_millis(&self) -> i64 {
        epoch_millis()
    }
}

/// Monotonic time since the worker started, and its machine's wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    machine: &'static dyn Machine,
}

impl Clock {
    pub fn start() -> Self {
        Self::start_on(&RealMachine)
    }

    pub fn start_on(machine: &'static dyn Machine) -> Self {
        Self { started: Instant::now(), machine }
    }

    pub fn now(&self) -> Moment {
        self.started.elapsed()
    }

    pub async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.started + moment).await;
    }

    /// The wall clock in epoch milliseconds: for start positions and lag only, never to compare two machines' leases.
    pub fn epoch_millis(&self) -> i64 {
        self.machine.epoch_millis()
    }

    /// Whatever a worker spawns goes through this: a task gets on only while its machine runs.
    pub fn run<T>(self, task: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
        // Boxed, or each layer around it would hold it twice.
        let mut task = Box::pin(task);
        poll_fn(move |context| {
            ready!(self.machine.poll_running(context));
            task.as_mut().poll(context)
        })
    }
}

/// This machine's wall clock in epoch milliseconds, for what happens before a worker has its [`Clock`].
pub fn epoch_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
