//! Whose turn it is to write, among the consumers of a Failover subscription (`docs/decisions/026`). Pure.
//!
//! The broker says which consumer is the active one, and tells the former one no earlier than the new one. So the active consumer writes only while
//! it also holds a lock, which the former one gives back once none of its writes is unanswered:
//!
//! ```text
//!   waiting ──active──► asking ──granted──► settling ──time──► writing
//!      ▲ ▲                │                     │              │    ▲
//!      │ └──not active────┴─────(gives back)────┘         not active│
//!      │                                                       ▼    │
//!      └──────────────released (gives back)────────────────── leaving
//!                                                 (active again: released leads back to writing)
//! ```

use std::time::Duration;

use crate::ports::Moment;

/// A refused lock is asked for again after this time at first, and after twice as long each time, up to [`SELDOM`]: the broker logs each refusal.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_secs(1);
/// How long what a consumer that is gone had sent to DynamoDB last may take to be stored. Whether the lock was given back or its holder is gone cannot
/// be told apart.
pub const SETTLE: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask for the lock; `granted` or `refused` has to follow.
    Ask,
    /// Messages may be handed on.
    Open,
    /// What was handed on is void: `released` has to follow once no write of it is unanswered.
    Revoke,
    /// Give the lock back.
    GiveBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Another consumer is the active one.
    Waiting,
    /// The active one, without the lock. Asked for, or to be asked for at that time.
    Asking { at: Option<Moment> },
    /// Holds the lock until somebody else's last requests must have been answered.
    Settling { until: Moment },
    /// Holds the lock. Whatever is handed on may be written.
    Writing,
    /// Not the active one, or not yet again; holds the lock while writes are unanswered.
    Leaving { active: bool },
}

/// One consumer's view.
#[derive(Debug)]
pub struct Turn {
    state: State,
    /// An answer to `Ask` is due: there is one question at a time.
    asked: bool,
    /// After the next refusal.
    patience: Duration,
}

impl Turn {
    /// Of a Failover subscription: the broker tells who is active.
    pub fn waiting() -> Self {
        Self { state: State::Waiting, asked: false, patience: ASK_AGAIN }
    }

    /// Of any other subscription: nobody is told anything.
    pub fn always() -> Self {
        Self { state: State::Writing, asked: false, patience: ASK_AGAIN }
    }

    /// When `tick` is due.
    pub fn wake(&self) -> Option<Moment> {
        match self.state {
            State::Asking { at } if !self.asked => at,
            State::Settling { until } => Some(until),
            _ => None,
        }
    }

    /// Whether it waits for another consumer to give the lock back.
    pub fn is_kept_waiting(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// Whether what the broker delivers is for this consumer.
    pub fn is_active(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Leaving { active: false })
    }

    pub fn holds_lock(&self) -> bool {
        matches!(self.state, State::Settling { .. } | State::Writing | State::Leaving { .. })
    }

    /// The broker says whether this is the active consumer. It may say so again.
    pub fn told(&mut self, active: bool) -> Option<Action> {
        let (state, action) = match (self.state, active) {
            (State::Waiting, true) if self.asked => (State::Asking { at: None }, None),
            (State::Waiting, true) => (State::Asking { at: None }, Some(Action::Ask)),
            (State::Asking { .. }, false) => (State::Waiting, None),
            (State::Settling { .. }, false) => (State::Waiting, Some(Action::GiveBack)),
            (State::Writing, false) => (State::Leaving { active }, Some(Action::Revoke)),
            (State::Leaving { .. }, active) => (State::Leaving { active }, None),
            (same, _) => (same, None),
        };
        self.asked |= action == Some(Action::Ask);
        self.state = state;
        action
    }

    /// The lock is this consumer's.
    pub fn granted(&mut self, now: Moment) -> Option<Action> {
        (self.asked, self.patience) = (false, ASK_AGAIN);
        match self.state {
            State::Asking { .. } => {
                self.state = State::Settling { until: now + SETTLE };
                None
            }
            // Not wanted any more.
            _ => Some(Action::GiveBack),
        }
    }

    /// Somebody else has the lock, or is about to have lost it.
    pub fn refused(&mut self, now: Moment) {
        self.asked = false;
        if let State::Asking { at } = &mut self.state {
            *at = Some(now + self.patience);
            self.patience = (self.patience * 2).min(SELDOM);
        }
    }

    /// No write of what was handed on before the last `Revoke` is unanswered.
    pub fn released(&mut self) -> Option<Action> {
        let State::Leaving { active } = self.state else { return None };
        self.state = if active { State::Writing } else { State::Waiting };
        Some(if active { Action::Open } else { Action::GiveBack })
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) -> Option<Action> {
        match self.state {
            State::Asking { at: Some(at) } if at <= now && !self.asked => {
                self.asked = true;
                Some(Action::Ask)
            }
            State::Settling { until } if until <= now => {
                self.state = State::Writing;
                Some(Action::Open)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
