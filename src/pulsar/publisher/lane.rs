//! One topic partition: a queue, and one unanswered batch of what stands first in it.
//!
//! ```text
//!   queue ──► staged ── prefix ──► attempt ── stored ──► receipts, and the next batch may be larger
//!                         ▲           ├────── refused ─► half of it again; alone: the message goes back, the next one follows
//!                         └───────────┴────── failed ──► the same again, later (O1)
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use super::{Batching, Options, entry::Entry, producer::Producer, stopped, too_large};
use crate::{
    error::{Error, Kind, Result},
    ports::{OutboundMessage, Receipt, Refusal},
    pulsar::client::{Attempts, Client},
};

/// The sending side.
pub(super) struct LaneFront {
    topic: Arc<str>,
    queue: mpsc::Sender<Queued>,
    /// Why the lane has ended, once it has.
    ended: Arc<OnceLock<Error>>,
}

impl LaneFront {
    /// Accepts a message once there is a place in the queue; `room` is free again when it is answered.
    pub(super) async fn send(&self, message: OutboundMessage, room: OwnedSemaphorePermit) -> Result<Receipt> {
        let (receipt, stored) = oneshot::channel();
        let queued = Queued { bytes: size(&message), message, receipt, _room: room };
        let ended = |_| self.ended.get().cloned().unwrap_or_else(|| stopped(&self.topic));
        self.queue.send(queued).await.map_err(ended)?;
        Ok(Receipt(stored))
    }
}

/// A lane, and the task behind it, which ends once its front is dropped and everything is answered.
pub(super) fn new(
    client: Client,
    topic: String,
    options: &Options,
    attempts: Attempts,
) -> (LaneFront, impl Future<Output = ()> + Send + use<>) {
    let bound = Bound::of(options, client.max_message_size());
    // What is not queued is in the batch.
    let (queue, queued) = mpsc::channel(options.max_pending.saturating_sub(bound.messages).max(1));
    let ended = Arc::<OnceLock<Error>>::default();
    let front = LaneFront { topic: topic.as_str().into(), queue, ended: ended.clone() };
    let wire = Wire { client, topic, options: options.clone(), producer: None, cut: (fastrand::u64(..), 0) };
    let delay = options.batching.map_or(Duration::ZERO, |batching| batching.max_delay);
    let lane = Lane { wire, delay, attempts, ended };
    (front, lane.run(queued))
}

/// What a message needs in memory and on the wire, about; never less.
pub(super) fn size(message: &OutboundMessage) -> usize {
    let properties = message.properties.iter().map(|(name, value)| name.len() + value.len() + 12).sum::<usize>();
    let keys = message.key.as_ref().map_or(0, String::len) + message.ordering_key.as_ref().map_or(0, Vec::len);
    message.payload.len() + keys + properties + 64
}

struct Queued {
    message: OutboundMessage,
    bytes: usize,
    receipt: oneshot::Sender<Result<(), Refusal>>,
    _room: OwnedSemaphorePermit,
}

/// How much may go in one batch. One message always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    messages: usize,
    bytes: usize,
}

impl Bound {
    fn of(options: &Options, max_message_size: usize) -> Self {
        let Batching { max_messages: messages, max_bytes: bytes, .. } =
            options.batching.unwrap_or(Batching { max_messages: 1, ..Batching::default() });
        Self { messages: messages.min(options.max_pending), bytes: bytes.min(max_message_size) }
    }

    /// How many of messages of these sizes go together, from the first one on.
    fn prefix(self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut bytes = 0usize;
        let fits = |size: &usize| {
            bytes = bytes.saturating_add(*size);
            bytes <= self.bytes
        };
        sizes.into_iter().take(self.messages).take_while(fits).count().max(1)
    }

    /// Not more than there is to have.
    fn within(self, limit: Self) -> Self {
        Self { messages: self.messages.min(limit.messages), bytes: self.bytes.min(limit.bytes) }
    }

    /// Half of a batch that was refused.
    fn half(of: usize, bytes: usize) -> Self {
        Self { messages: (of / 2).max(1), bytes: bytes / 2 }
    }

    /// A step back to what there is to have. Small: where a topic takes less than its broker (its `maxMessageSize` policy), each try of a larger batch
    /// is a round trip for nothing.
    fn grown(self, limit: Self) -> Self {
        let step = |now: usize, limit: usize| (now + limit / 64 + 1).min(limit);
        Self { messages: step(self.messages, limit.messages), bytes: step(self.bytes, limit.bytes) }
    }
}

/// The receiving side.
struct Lane {
    wire: Wire,
    /// How long a batch that is not full waits for more.
    delay: Duration,
    attempts: Attempts,
    ended: Arc<OnceLock<Error>>,
}

impl Lane {
    async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut staged = VecDeque::new();
        let mut bound = self.wire.bound();
        loop {
            if staged.is_empty() {
                let Some(first) = self.wire.next(&mut queue).await else { break };
                staged.push_back(first);
            }
            self.fill(&mut staged, &mut queue, bound).await;
            // What nobody waits for any more is left out: its lease was lost or given up, and another worker publishes it (L2).
            staged.retain(|queued| !queued.receipt.is_closed());
            refuse_late(&mut staged);
            self.refuse_large(&mut staged);
            if staged.is_empty() {
                continue;
            }
            bound = bound.within(self.wire.bound());
            let batch = bound.prefix(staged.iter().map(|queued| queued.bytes));
            let bytes = staged.range(..batch).map(|queued| queued.bytes).sum();
            let attempt = self.wire.attempt(staged.range(..batch).map(|queued| &queued.message), bytes);
            match self.attempts.watch(attempt).await {
                Ok(()) => {
                    self.attempts.succeeded();
                    bound = bound.grown(self.wire.bound());
                    for queued in staged.drain(..batch) {
                        // Nobody waits any more: that is the receiver's choice.
                        let _ = queued.receipt.send(Ok(()));
                    }
                }
                Err(Failure::Batch(_)) if batch > 1 => {
                    bound = Bound::half(batch, bytes);
                }
                Err(Failure::Batch(error)) => self.give_back(staged.drain(..batch), &error),
                Err(Failure::Topic(error)) => {
                    self.attempts.tell(&error);
                    self.give_back(staged.drain(..batch), &error);
                }
                Err(Failure::Late) => {}
                Err(Failure::Call(error)) => {
                    // Dropped with whatever it still holds: a fresh one starts with this batch.
                    self.wire.producer = None;
                    if let Err(error) = self.attempts.failed(error).await {
                        tracing::error!(topic = self.wire.topic, %error, "publishing stops");
                        return self.refuse(staged, queue, &error).await;
                    }
                }
            }
        }
        self.wire.close().await;
    }

    /// Stages what is queued, and waits for more as long as configured where that is less than a batch.
    async fn fill(&mut self, staged: &mut VecDeque<Queued>, queue: &mut mpsc::Receiver<Queued>, bound: Bound) {
        let mut bytes: usize = staged.iter().map(|queued| queued.bytes).sum();
        let mut deadline = None;
        while staged.len() < bound.messages && bytes < bound.bytes {
            let next = match queue.try_recv() {
                Ok(next) => next,
                Err(_) if self.delay.is_zero() => return,
                Err(_) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.delay);
                    let Ok(Some(next)) = tokio::time::timeout_at(deadline, self.wire.next(queue)).await else { return };
                    next
                }
            };
            bytes += next.bytes;
            staged.push_back(next);
        }
    }

    /// Gives back what a broker took when it was accepted, and the one that there is now does not take: it would close the connection each time.
    fn refuse_large(&self, staged: &mut VecDeque<Queued>) {
        if self.wire.options.chunking {
            return;
        }
        let limit = self.wire.client.max_message_size();
        while let Some(at) = staged.iter().position(|queued| queued.bytes > limit) {
            let error = too_large(&self.wire.topic, staged[at].bytes, limit);
            self.give_back(staged.remove(at).into_iter(), &error);
        }
    }

    fn give_back(&self, messages: impl Iterator<Item = Queued>, error: &Error) {
        for Queued { mut message, receipt, .. } in messages {
            message.topic.get_or_insert_with(|| self.wire.topic.as_str().into());
            let _ = receipt.send(Err(Refusal { error: error.clone(), message: Some(Box::new(message)) }));
        }
    }

    /// Refuses what was accepted and all that comes: what is later must not be stored before it (O1).
    async fn refuse(self, accepted: VecDeque<Queued>, mut queue: mpsc::Receiver<Queued>, error: &Error) {
        self.ended.get_or_init(|| error.clone());
        let refuse = |queued: Queued| {
            let _ = queued.receipt.send(Err(error.clone().into()));
        };
        accepted.into_iter().for_each(refuse);
        queue.close();
        while let Some(queued) = queue.recv().await {
            refuse(queued);
        }
    }
}

/// Leaves out what may not be sent any more: its lease has run out, and another worker publishes it (L2).
fn refuse_late(staged: &mut VecDeque<Queued>) {
    if staged.iter().all(|queued| queued.message.while_held.may_send()) {
        return;
    }
    let (in_time, late): (VecDeque<_>, VecDeque<_>) = staged.drain(..).partition(|queued| queued.message.while_held.may_send());
    *staged = in_time;
    for Queued { receipt, .. } in late {
        let error = Error::new(Kind::LeaseLost, "publish a record", "its lease ran out while it waited for its batch");
        let _ = receipt.send(Err(error.into()));
    }
}

/// Why a batch is not stored.
enum Failure {
    /// The broker refuses it for good; without one of its messages, or in parts, it may take it.
    Batch(Error),
    /// The broker refuses the producer for what it would send: all of it.
    Topic(Error),
    /// It may be stored or not.
    Call(Error),
    /// Nothing was sent: the producer took its time, and some of it may not be sent any more, or is too large for the broker that it has come to.
    Late,
}

/// The producer.
struct Wire {
    client: Client,
    topic: String,
    options: Options,
    producer: Option<Producer>,
    /// Names the message that is cut into chunks: this lane's own number, and how many there were before. Each try has the same name, so that who reads begins anew.
    cut: (u64, u64),
}

impl Wire {
    fn bound(&self) -> Bound {
        Bound::of(&self.options, self.client.max_message_size())
    }

    /// Takes the next message from the queue. Meanwhile the producer is kept, or given up where the broker has closed it: the next batch makes a new one.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Queued>) -> Option<Queued> {
        while let Some(producer) = &mut self.producer {
            tokio::select! {
                biased;
                next = queue.recv() => return next,
                ended = producer.idle() => {
                    tracing::debug!(topic = self.topic, error = %ended, "the producer has ended");
                    self.producer = None;
                }
            }
        }
        queue.recv().await
    }

    /// Sends one batch of about so many bytes and waits until the broker has stored it.
    async fn attempt<'m>(
        &mut self,
        batch: impl ExactSizeIterator<Item = &'m OutboundMessage> + Clone,
        bytes: usize,
    ) -> Result<(), Failure> {
        let doing = || format!("publish to topic {}", self.topic);
        let producer = match &mut self.producer {
            Some(producer) => producer,
            empty => {
                let refused = |error: Error| match error.kind() {
                    Kind::Poison => Failure::Topic(Error::new(Kind::Invalid, doing(), error.why())),
                    _ => Failure::Call(error),
                };
                // On the heap: what a connection's start holds would be in every lane for ever.
                empty.insert(Box::pin(Producer::open(&self.client, &self.topic)).await.map_err(refused)?)
            }
        };
        let limit = self.client.max_message_size();
        // Then it is one message.
        let is_cut = bytes > limit;
        if is_cut && !self.options.chunking {
            return Err(Failure::Late);
        }
        let (compression, mut messages) = (self.options.compression, batch.clone());
        let entry = match messages.next() {
            Some(message) if is_cut || self.options.batching.is_none() => Entry::alone(message, compression),
            _ => Entry::batch(batch.clone(), bytes, compression),
        };
        let entry = entry.map_err(|error| Failure::Call(Error::new(Kind::Fatal, doing(), error)))?;
        if !batch.clone().all(|message| message.while_held.may_send()) {
            return Err(Failure::Late);
        }
        let failed = |error: Error| match error.kind() {
            Kind::Poison | Kind::Invalid => Failure::Batch(Error::new(Kind::Invalid, doing(), error.why())),
            _ => Failure::Call(error),
        };
        if !is_cut {
            return producer.send(&entry).await.map_err(failed);
        }
        let uuid = format!("{:x}-{}", self.cut.0, self.cut.1);
        let chunks = entry.chunks(limit, &uuid).ok_or_else(|| Failure::Batch(too_large(&self.topic, bytes, limit)))?;
        for chunk in chunks {
            producer.send(&chunk).await.map_err(failed)?;
        }
        self.cut.1 += 1;
        Ok(())
    }

    async fn close(self) {
        if let Some(producer) = self.producer
            && let Err(error) = producer.close().await
        {
            tracing::debug!(topic = self.topic, %error, "the producer was not closed cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_where_the_next_message_would_be_too_much() {
        let bound = Bound { messages: 3, bytes: 100 };
        assert_eq!(bound.prefix([50, 50, 1]), 2);
        assert_eq!(bound.prefix([1, 1, 1, 1]), 3);
        assert_eq!(bound.prefix([101, 1]), 1, "a message of a batch's size goes alone");
        assert_eq!(bound.prefix([]), 1);
    }

    #[test]
    fn what_is_refused_is_halved_down_to_one_message_and_grows_again() {
        let limit = Bound { messages: 1_000, bytes: 1_000_000 };
        let mut bound = limit;
        let mut tries = 0;
        while bound.prefix([1_000; 1_000]) > 1 {
            let batch = bound.prefix([1_000; 1_000]);
            bound = Bound::half(batch, batch * 1_000);
            tries += 1;
        }
        assert_eq!(tries, 9);
        let mut steps = 0;
        while bound != limit {
            bound = bound.grown(limit);
            steps += 1;
        }
        assert!((60..=70).contains(&steps), "{steps}");
    }
}
