//! Publishes to one topic: a lane for each partition, one unanswered batch in each lane (`docs/decisions/002`).

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use ::pulsar::{Producer, ProducerOptions, TokioExecutor, producer::Message};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{OutboundMessage, Publisher, Receipt},
    pulsar::client::{Attempts, Client, classify},
};

/// What fits in one batch. The broker stores a batch as one entry, of 5 MiB at most.
const BATCH_MESSAGES: usize = 1_000;
const BATCH_BYTES: usize = 1024 * 1024;
/// The broker's default `maxMessageSize` (5 MiB), less room for the message's metadata.
const MAX_MESSAGE_BYTES: usize = 5 * 1024 * 1024 - 16 * 1024;
/// Queued messages, for each lane.
const QUEUE_MESSAGES: usize = 2 * BATCH_MESSAGES;
/// Queued and unanswered bytes, over all lanes (M1).
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Publishes to one topic; cheap to clone.
#[derive(Clone)]
pub struct TopicPublisher {
    topic: Arc<str>,
    lanes: Arc<[LaneFront]>,
    /// For messages without a key.
    next_lane: Arc<AtomicUsize>,
    room: Arc<Semaphore>,
}

struct LaneFront {
    queue: mpsc::Sender<Queued>,
    /// Why the lane has ended, once it has.
    ended: Arc<OnceLock<Error>>,
}

/// The tasks behind a [`TopicPublisher`]: they end once all its clones are dropped.
pub struct Lanes(JoinSet<()>);

impl Lanes {
    /// Waits until everything accepted is answered and the producers are closed.
    pub async fn finished(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

struct Queued {
    message: OutboundMessage,
    receipt: oneshot::Sender<Result<()>>,
    _room: OwnedSemaphorePermit,
}

impl TopicPublisher {
    /// Finds the topic's partitions (waiting until a broker answers) and starts a lane for each. Partitions added later get no messages
    /// until the next start.
    pub async fn open(client: Client, topic: &str, health: Health) -> Result<(Self, Lanes)> {
        let mut attempts = Attempts::new("publish", health.clone());
        let partitions = loop {
            match attempts.watch(client.lookup_partitioned_topic(topic)).await {
                Ok(partitions) => break partitions,
                Err(error) => attempts.failed(classify(format!("look up topic {topic}"), &error)).await?,
            }
        };
        attempts.succeeded();
        let mut tasks = JoinSet::new();
        let mut lanes = Vec::new();
        for (partition, _) in partitions {
            let (queue, queued) = mpsc::channel(QUEUE_MESSAGES);
            let attempts = Attempts::new(format!("publish to {partition}"), health.clone());
            let ended = Arc::<OnceLock<Error>>::default();
            tasks.spawn(Lane { client: client.clone(), topic: partition, producer: None, attempts, ended: ended.clone() }.run(queued));
            lanes.push(LaneFront { queue, ended });
        }
        let publisher =
            Self { topic: topic.into(), lanes: lanes.into(), next_lane: Arc::default(), room: Arc::new(Semaphore::new(QUEUE_BYTES)) };
        Ok((publisher, Lanes(tasks)))
    }

    fn lane(&self, message: &OutboundMessage) -> &LaneFront {
        let at = match &message.key {
            Some(key) => java_string_hash(key) as usize,
            None => self.next_lane.fetch_add(1, Ordering::Relaxed),
        };
        &self.lanes[at % self.lanes.len()]
    }
}

impl Publisher for TopicPublisher {
    async fn publish(&self, message: OutboundMessage) -> Result<Receipt> {
        let doing = || format!("publish to topic {}", self.topic);
        let bytes = size(&message);
        if bytes > MAX_MESSAGE_BYTES {
            let why = format!("the message has {bytes} bytes, the broker takes {MAX_MESSAGE_BYTES} (its maxMessageSize)");
            return Err(Error::new(Kind::Poison, doing(), why));
        }
        let lane = self.lane(&message);
        let stopped = || lane.ended.get().cloned().unwrap_or_else(|| Error::new(Kind::Fatal, doing(), "the publisher has stopped"));
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| stopped())?;
        let (receipt, stored) = oneshot::channel();
        lane.queue.send(Queued { message, receipt, _room: room }).await.map_err(|_| stopped())?;
        Ok(Receipt(stored))
    }
}

/// What a message needs in memory and on the wire, about.
fn size(message: &OutboundMessage) -> usize {
    let properties = message.properties.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
    message.payload.len() + message.key.as_ref().map_or(0, String::len) + properties + 64
}

/// The partition hash of Pulsar's Java client (`JavaStringHash`, its default): `String.hashCode` without the sign.
fn java_string_hash(key: &str) -> u32 {
    key.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit))) & (i32::MAX as u32)
}

/// One topic partition.
struct Lane {
    client: Client,
    topic: String,
    producer: Option<Producer<TokioExecutor>>,
    attempts: Attempts,
    ended: Arc<OnceLock<Error>>,
}

impl Lane {
    async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut first = queue.recv().await;
        while let Some(message) = first.take() {
            let (mut batch, rest) = fill(message, &mut queue);
            if let Err(error) = self.send(&mut batch).await {
                tracing::error!(topic = self.topic, %error, "publishing stops");
                self.refuse(batch.into_iter().chain(rest), queue, &error).await;
                return;
            }
            for queued in batch {
                // Nobody waits any more: that is the receiver's choice.
                let _ = queued.receipt.send(Ok(()));
            }
            first = match rest {
                Some(message) => Some(message),
                None => queue.recv().await,
            };
        }
        if let Some(mut producer) = self.producer
            && let Err(error) = producer.close().await
        {
            tracing::debug!(topic = self.topic, %error, "the producer was not closed cleanly");
        }
    }

    /// Sends until the broker has stored it. The same batch again and again, nothing else meanwhile (O1).
    ///
    /// What nobody waits for any more is left out: its lease was lost or given up, and another worker publishes it (L2).
    async fn send(&mut self, batch: &mut Vec<Queued>) -> Result<()> {
        loop {
            batch.retain(|queued| !queued.receipt.is_closed());
            if batch.is_empty() {
                return Ok(());
            }
            let attempt = attempt(&self.client, &self.topic, &mut self.producer, batch);
            match self.attempts.watch(attempt).await {
                Ok(()) => {
                    self.attempts.succeeded();
                    return Ok(());
                }
                Err(error) => {
                    // Dropped with whatever it still holds: a fresh one starts with this batch.
                    self.producer = None;
                    self.attempts.failed(error).await?;
                }
            }
        }
    }

    /// Refuses what was accepted and all that comes: what is later must not be stored before it (O1).
    async fn refuse(self, accepted: impl Iterator<Item = Queued>, mut queue: mpsc::Receiver<Queued>, error: &Error) {
        self.ended.get_or_init(|| error.clone());
        let refuse = |queued: Queued| {
            let _ = queued.receipt.send(Err(error.clone()));
        };
        accepted.for_each(refuse);
        queue.close();
        while let Some(queued) = queue.recv().await {
            refuse(queued);
        }
    }
}

/// Sends one batch and waits until the broker has stored it.
async fn attempt(client: &Client, topic: &str, producer: &mut Option<Producer<TokioExecutor>>, batch: &[Queued]) -> Result<()> {
    let doing = || format!("publish to topic {topic}");
    let producer = match producer {
        Some(producer) => producer,
        empty => {
            let options = ProducerOptions {
                // It must flush only when told to, so no bound of its own may be reached. (A count would be allocated at once.)
                batch_byte_size: Some(usize::MAX),
                // A full queue of the connection is no failure.
                block_queue_if_full: true,
                ..Default::default()
            };
            let builder = client.producer().with_topic(topic).with_options(options);
            empty.insert(builder.build().await.map_err(|error| classify(doing(), &error))?)
        }
    };
    let mut receipts = Vec::with_capacity(batch.len());
    for queued in batch {
        let message = client_message(&queued.message);
        receipts.push(producer.send_non_blocking(message).await.map_err(|error| classify(doing(), &error))?);
    }
    producer.send_batch().await.map_err(|error| classify(doing(), &error))?;
    for receipt in receipts {
        receipt.await.map_err(|error| classify(doing(), &error))?;
    }
    Ok(())
}

/// As much of the queue as fits in a batch with `first`; and the message that did not fit any more.
fn fill(first: Queued, queue: &mut mpsc::Receiver<Queued>) -> (Vec<Queued>, Option<Queued>) {
    let mut bytes = size(&first.message);
    let mut batch = vec![first];
    while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
        let Ok(next) = queue.try_recv() else { break };
        bytes += size(&next.message);
        if bytes > BATCH_BYTES {
            return (batch, Some(next));
        }
        batch.push(next);
    }
    (batch, None)
}

fn client_message(message: &OutboundMessage) -> Message {
    Message {
        payload: message.payload.clone(),
        properties: message.properties.iter().cloned().collect(),
        partition_key: message.key.clone(),
        partition_key_b64_encoded: message.key.is_some().then_some(message.key_is_base64),
        ordering_key: message.ordering_key.clone(),
        event_time: message.event_time,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_the_java_client_sends_them() {
        // Java: "abc".hashCode() == 96354; "polygenelubricants".hashCode() == Integer.MIN_VALUE.
        assert_eq!(java_string_hash("abc"), 96354);
        assert_eq!(java_string_hash("polygenelubricants"), 0);
    }

    fn queued(bytes: usize) -> Queued {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room");
        let message = OutboundMessage { payload: vec![0; bytes], ..Default::default() };
        Queued { message, receipt: oneshot::channel().0, _room: room }
    }

    #[tokio::test]
    async fn a_batch_ends_where_the_next_message_would_be_too_much() {
        let (queue, mut received) = mpsc::channel(10);
        for bytes in [BATCH_BYTES / 2, BATCH_BYTES, 1] {
            queue.send(queued(bytes)).await.expect("room");
        }
        let (batch, rest) = fill(queued(1), &mut received);
        assert_eq!(batch.len(), 2);
        let (batch, rest) = fill(rest.expect("the large one did not fit"), &mut received);
        assert_eq!((batch.len(), rest.is_none()), (1, true), "a message of a batch's size goes alone");
        let (batch, _) = fill(received.recv().await.expect("the last one"), &mut received);
        assert_eq!(batch.len(), 1);
    }
}
