//! What a shard's stages share about how far it is, and who of them waits for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{
    checkpoint::{Ticket, Tracker},
    once::{Numbering, Turn, Wait},
};
use crate::{
    metrics::shards::Meter,
    ports::{Mark, Place, SequenceNumber},
};

/// How far one shard is, for as long as its lease is held.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<State>,
    changed: Notify,
    /// What the next record waits for may have come.
    moved: Notify,
    meter: Meter,
}

#[derive(Debug)]
struct State {
    tracker: Tracker,
    /// Where each record is to be published once.
    numbering: Option<Numbering>,
    /// What the next record waits for.
    waits: Option<Wait>,
    /// A record was given its place: Pulsar may have a producer for this shard from then on.
    placed: bool,
}

impl State {
    /// A checkpoint is to be written as soon as there is one.
    fn is_pressing(&self) -> bool {
        let is_far = |numbering: &Numbering| numbering.is_far(self.tracker.next(), self.tracker.written());
        self.waits == Some(Wait::Checkpoint) || self.numbering.as_ref().is_some_and(is_far)
    }
}

impl Progress {
    /// `numbering`: each record is to be published once.
    pub fn new(tracker: Tracker, numbering: Option<Numbering>, meter: Meter) -> Self {
        let state = State { tracker, numbering, waits: None, placed: false };
        Self { state: Mutex::new(state), changed: Notify::new(), moved: Notify::new(), meter }
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A record that needs no publishing.
    pub fn skip(&self, sequence: SequenceNumber) {
        let ticket = self.begin(sequence);
        self.done(ticket);
    }

    /// A record was handed on. Records come in the shard's order.
    pub(super) fn begin(&self, sequence: SequenceNumber) -> Ticket {
        self.lock().tracker.begin(sequence)
    }

    /// The place of the record that is handed on next, once it may be sent; `None` where a record may be published twice.
    pub async fn place(&self, sequence: &SequenceNumber) -> Option<Place> {
        loop {
            match self.place_now(sequence)? {
                Ok(place) => return Some(place),
                Err(_) => self.moved.notified().await,
            }
        }
    }

    fn place_now(&self, sequence: &SequenceNumber) -> Option<Result<Place, Wait>> {
        let mut state = self.lock();
        let State { tracker, numbering, .. } = &*state;
        let turn = Turn { number: tracker.next(), epoch: tracker.epoch(), written: tracker.written(), waiting: tracker.waiting() };
        let place = numbering.as_ref()?.place(turn, sequence);
        state.waits = place.as_ref().err().copied();
        state.placed |= place.is_ok();
        if state.waits == Some(Wait::Checkpoint) {
            self.changed.notify_one();
        }
        Some(place)
    }

    /// Whether Pulsar may have a producer for this shard, which another owner could not have beside this one.
    pub fn has_producer(&self) -> bool {
        self.lock().placed
    }

    /// Whether records are published once, and all that an owner before may have published is passed: its name is needed no more.
    pub fn is_past_doubt(&self) -> bool {
        let state = self.lock();
        state.numbering.as_ref().is_some_and(|numbering| numbering.is_past_doubt(state.tracker.next()))
    }

    /// Records before the next one are gone (G1). `now`: epoch milliseconds.
    pub fn gap(&self, now: i64) {
        let mut state = self.lock();
        state.tracker.begin_epoch(now);
        if let Some(numbering) = &mut state.numbering {
            numbering.begin_epoch();
        }
    }

    /// All records are handed on, and the children have leases: SHARD_END may be written once all receipts are there.
    pub fn end(&self) {
        self.lock().tracker.end();
        self.changed.notify_one();
    }

    pub fn due(&self) -> Option<Mark> {
        self.lock().tracker.due()
    }

    /// Whether what is due is to be written at once, because a record waits for it or soon will.
    pub fn is_pressing(&self) -> bool {
        self.lock().is_pressing()
    }

    pub fn wrote(&self, mark: &Mark) {
        let mut state = self.lock();
        state.tracker.wrote(mark);
        self.meter.checkpointed(state.tracker.due().is_some());
        if state.waits.is_some() {
            self.moved.notify_one();
        }
    }

    pub fn waiting(&self) -> usize {
        self.lock().tracker.waiting()
    }

    /// Something has become due.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn done(&self, ticket: Ticket) {
        let mut state = self.lock();
        let was_due = state.tracker.due().is_some();
        state.tracker.done(ticket);
        let is_due = state.tracker.due().is_some();
        if !was_due && is_due {
            self.meter.unwritten(true);
        }
        if is_due && (!was_due || state.is_pressing()) {
            self.changed.notify_one();
        }
        if state.waits == Some(Wait::Receipts) && state.tracker.waiting() == 0 {
            self.moved.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
