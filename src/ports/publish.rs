//! The seam to the topics that are published to.

use std::{borrow::Cow, fmt, future::Future, sync::Arc};

use tokio::sync::oneshot;

use crate::error::{Error, Kind, Result};

/// A message on its way to Pulsar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboundMessage {
    /// A full topic name; `None` for the publisher's own topic.
    pub topic: Option<Arc<str>>,
    pub key: Option<String>,
    /// The key is base64 of raw bytes.
    pub key_is_base64: bool,
    pub ordering_key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    pub properties: Vec<(Cow<'static, str>, String)>,
    /// Epoch milliseconds.
    pub event_time: Option<u64>,
    pub while_held: WhileHeld,
    /// Its number, where it is to be stored once whatever is repeated (D2).
    pub place: Option<Place>,
}

/// By what a broker with deduplication on knows that it has a message already: the producer that sent it and its number among what that one sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Of one shard and one epoch of its numbering (see [`Mark`](super::Mark)).
    pub producer: Arc<str>,
    /// Greater than those of all earlier messages of the producer, and the same each time that the record is read.
    pub sequence: u64,
}

/// Until when a message may be sent. A publisher asks right before it sends, since a message may have waited for its batch (L2). Once `false`, it
/// stays so, or a later message could overtake. No content of the message: all are equal.
#[derive(Clone, Default)]
pub struct WhileHeld(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl WhileHeld {
    pub fn new(may_send: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(may_send)))
    }

    /// `true` where nothing limits it.
    pub fn may_send(&self) -> bool {
        self.0.as_ref().is_none_or(|may_send| may_send())
    }
}

impl fmt::Debug for WhileHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.may_send() { "WhileHeld(yes)" } else { "WhileHeld(no)" })
    }
}

impl PartialEq for WhileHeld {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for WhileHeld {}

/// Why a message is not stored, and never will be.
#[derive(Debug)]
pub struct Refusal {
    pub error: Error,
    /// The message, where it is to blame itself, with the topic that did not take it.
    pub message: Option<Box<OutboundMessage>>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, message: None }
    }
}

/// Tells when a message is stored. A dropped sender counts as "not stored".
#[derive(Debug)]
pub struct Receipt(pub oneshot::Receiver<Result<(), Refusal>>);

impl Receipt {
    /// Resolves once Pulsar has acknowledged the message, or never will.
    pub async fn stored(self) -> Result<(), Refusal> {
        self.0.await.unwrap_or_else(|_| Err(Error::new(Kind::Fatal, "publish a message", "the publisher has stopped").into()))
    }
}

/// Publishes to topics.
///
/// Messages with the same key (and all messages of one topic partition) are stored in the order in which `publish` accepted
/// them (O1): the publisher retries what time can heal by itself, for as long as it takes, and sends nothing later meanwhile.
///
/// A message that may not be sent any more ([`WhileHeld`]) is not, and its receipt fails with `LeaseLost`.
///
/// A message that is refused for its own sake comes back, from `publish` or with its receipt, and the later ones go on. Any other receipt that
/// fails is final, and so are those of all later messages of that partition.
pub trait Publisher: Clone + Send + Sync + 'static {
    /// Waits for room (bounded in messages and bytes, M1), then accepts the message.
    fn publish(&self, message: OutboundMessage) -> impl Future<Output = Result<Receipt, Refusal>> + Send;
}
