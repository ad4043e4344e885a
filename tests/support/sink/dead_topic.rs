//! A dead-letter topic in memory.

use std::sync::{Arc, Mutex, MutexGuard};

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{OutboundMessage, Publisher, Receipt, Refusal},
};
use tokio::sync::oneshot;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Store,
    /// No receipts until `release`.
    Hold,
    Fail,
}

/// Shared by all its clones.
#[derive(Clone, Default)]
pub struct DeadTopic(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    mode: Mode,
    stored: Vec<OutboundMessage>,
    held: Vec<(OutboundMessage, oneshot::Sender<Result<(), Refusal>>)>,
}

impl DeadTopic {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn mode(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// Stores what is held, and everything from now on.
    pub fn release(&self) {
        let mut state = self.lock();
        state.mode = Mode::Store;
        for (message, receipt) in std::mem::take(&mut state.held) {
            state.stored.push(message);
            let _ = receipt.send(Ok(()));
        }
    }

    pub fn stored(&self) -> Vec<OutboundMessage> {
        self.lock().stored.clone()
    }

    /// Whether a copy of the message with this id is stored.
    pub fn has(&self, id: &str) -> bool {
        self.lock().stored.iter().any(|copy| property(copy, "dlq.originMessageId") == Some(id))
    }
}

pub fn property<'a>(message: &'a OutboundMessage, name: &str) -> Option<&'a str> {
    message.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl Publisher for DeadTopic {
    async fn publish(&self, message: OutboundMessage) -> Result<Receipt, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        match state.mode {
            Mode::Hold => state.held.push((message, sender)),
            Mode::Fail => drop(sender.send(Err(Error::new(Kind::NotFound, "publish to topic dead", "the topic is gone").into()))),
            Mode::Store => {
                state.stored.push(message);
                drop(sender.send(Ok(())));
            }
        }
        Ok(Receipt(receiver))
    }
}
