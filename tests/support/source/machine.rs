//! The machine that a worker runs on: its wall clock can be stepped, and it can be frozen, also at a certain step of the worker.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use pulsar_io_dynamodb::source::clock::Machine;
use tokio::time::Instant;

/// What the wall clocks show when a world begins.
pub const BEGIN_MILLIS: i64 = 1_760_000_000_000;

#[derive(Debug)]
pub struct FakeMachine {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    step_millis: i64,
    frozen: bool,
    /// It freezes once its worker's tasks were polled so many times more.
    freeze_after: Option<u32>,
    asleep: Vec<Waker>,
}

impl FakeMachine {
    pub fn new(began: Instant) -> Self {
        Self { began, state: Mutex::default() }
    }

    /// Moves the wall clock.
    pub fn step(&self, millis: i64) {
        self.lock().step_millis += millis;
    }

    /// SIGSTOP: no task of the worker gets on any more, from between any two awaits on: once the worker's tasks were polled so many times more.
    pub fn freeze_after(&self, polls: u32) {
        self.lock().freeze_after = Some(polls);
    }

    pub fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        let mut state = self.lock();
        (state.frozen, state.freeze_after) = (false, None);
        state.asleep.drain(..).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine for FakeMachine {
    fn epoch_millis(&self) -> i64 {
        wall_millis(self.began) + self.lock().step_millis
    }

    fn poll_running(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if let Some(left) = &mut state.freeze_after {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => (state.frozen, state.freeze_after) = (true, None),
            }
        }
        if !state.frozen {
            return Poll::Ready(());
        }
        state.asleep.push(context.waker().clone());
        Poll::Pending
    }
}

/// A clock that nobody steps: it goes with the virtual time.
pub fn wall_millis(began: Instant) -> i64 {
    let since: Duration = began.elapsed();
    BEGIN_MILLIS + i64::try_from(since.as_millis()).expect("a short test")
}
