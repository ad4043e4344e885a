//! Receives from one subscription: a consumer for each topic partition.
//!
//! Not the client's consumer of many topics: that one drops a partition whose connection it gave up without a word (H1).

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::pulsar::{Consumer, ConsumerOptions, SubType, TokioExecutor, consumer, message::proto::MessageIdData};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{EntryId, InboundMessage, Inbox},
    pulsar::{
        client::{Attempts, Client, classify},
        partitions,
    },
};

/// How the messages of a subscription are shared out among its consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionType {
    Exclusive,
    Failover,
    Shared,
    KeyShared,
}

/// Where a subscription starts that does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialPosition {
    Latest,
    Earliest,
}

/// What is consumed, and how.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub topics: Vec<String>,
    pub name: String,
    pub kind: SubscriptionType,
    pub initial_position: InitialPosition,
    /// Shown by the broker's statistics.
    pub consumer_name: String,
    /// Messages that the client may hold, over all topic partitions; `MIN_QUEUE` for each at least.
    pub receiver_queue: u32,
    /// How often each topic is asked for partitions that were added.
    pub look_every: Duration,
}

/// A smaller queue would make the broker wait for the client after each few messages.
const MIN_QUEUE: u32 = 20;
/// How long a close waits until the acknowledgements are out.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// One consumer for each partition of each topic of a subscription.
pub struct TopicInbox {
    client: Client,
    health: Health,
    /// For partitions that are added: what was published to one before it is found is to be received too.
    later: Arc<Subscription>,
    partitions: Vec<Partition>,
    /// Names of partitions that were added, from a task for each topic.
    added: mpsc::Receiver<Vec<String>>,
    _looking: JoinSet<()>,
    /// Which partition is asked first, so that a busy one does not starve the others.
    turn: usize,
}

struct Partition {
    client: Client,
    subscription: Arc<Subscription>,
    topic: Arc<str>,
    state: State,
    /// Acknowledged while there was nobody to tell. The next consumer can do it: an entry is named by its place in the log.
    late_acks: Vec<MessageIdData>,
}

enum State {
    /// In a task of its own: a subscribe request that is dropped half way would leave a consumer at the broker that nobody reads.
    Subscribing(JoinHandle<Result<Session>>),
    Subscribed(Session),
    /// For the moment between two others.
    Changing,
}

/// One life of a consumer. Its trouble outlives it: a consumer that is lost again and again must not be a new one each time (H1).
struct Session {
    consumer: Box<Consumer<Vec<u8>, TokioExecutor>>,
    attempts: Attempts,
}

impl TopicInbox {
    /// Finds all partitions (waiting until a broker answers) and starts to subscribe. Partitions that are added later are found within
    /// `look_every`, and read from their beginning.
    pub async fn open(client: Client, subscription: Subscription, health: Health) -> Result<Self> {
        let mut attempts = Attempts::new("receive", health.clone());
        let mut partitions = Vec::new();
        let (sender, added) = mpsc::channel(1);
        let mut looking = JoinSet::new();
        for topic in &subscription.topics {
            let found = loop {
                match attempts.watch(client.lookup_partitioned_topic(topic)).await {
                    Ok(found) => break found,
                    Err(error) => attempts.failed(classify(format!("look up topic {topic}"), &error)).await?,
                }
            };
            looking.spawn(look(client.clone(), topic.clone(), found.len(), subscription.look_every, sender.clone()));
            partitions.extend(found.into_iter().map(|(partition, _)| partition));
        }
        attempts.succeeded();
        let share = subscription.receiver_queue / u32::try_from(partitions.len()).unwrap_or(u32::MAX).max(1);
        let subscription = Arc::new(Subscription { receiver_queue: share.max(MIN_QUEUE), ..subscription });
        let subscribe = |partition: String| Partition::new(client.clone(), subscription.clone(), partition.into(), health.clone());
        let partitions = partitions.into_iter().map(subscribe).collect();
        let later = Arc::new(Subscription { initial_position: InitialPosition::Earliest, ..(*subscription).clone() });
        Ok(Self { client, health, later, partitions, added, _looking: looking, turn: 0 })
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<InboundMessage>> {
        while let Poll::Ready(Some(names)) = self.added.poll_recv(context) {
            let subscribe = |name: String| Partition::new(self.client.clone(), self.later.clone(), name.into(), self.health.clone());
            self.partitions.extend(names.into_iter().map(subscribe));
        }
        let count = self.partitions.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Poll::Ready(received) = self.partitions[at].poll_receive(context) {
                self.turn = at + 1;
                return Poll::Ready(received);
            }
        }
        Poll::Pending
    }
}

/// Tells of each topic's new partitions until nobody listens.
async fn look(client: Client, topic: String, mut known: usize, every: Duration, found: mpsc::Sender<Vec<String>>) {
    loop {
        let names = partitions::added(&client, &topic, known, every).await;
        known += names.len();
        if found.send(names).await.is_err() {
            return;
        }
    }
}

impl Inbox for TopicInbox {
    async fn receive(&mut self) -> Result<InboundMessage> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    fn ack(&mut self, entry: &EntryId) -> Result<()> {
        match self.partitions.iter_mut().find(|partition| partition.topic == entry.topic) {
            Some(partition) => {
                partition.ack(MessageIdData { ledger_id: entry.ledger, entry_id: entry.entry, ..Default::default() });
                Ok(())
            }
            None => Err(Error::new(Kind::Fatal, format!("acknowledge in topic {}", entry.topic), "it is not subscribed")),
        }
    }

    async fn close(mut self) -> Result<()> {
        let all = async {
            for partition in &mut self.partitions {
                partition.close().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, all).await.is_err() {
            tracing::warn!("not all acknowledgements got out within {CLOSE_TIMEOUT:?}; what they are for comes again");
        }
        Ok(())
    }
}

impl Partition {
    fn new(client: Client, subscription: Arc<Subscription>, topic: Arc<str>, health: Health) -> Self {
        let attempts = Attempts::new(format!("receive from {topic}"), health);
        let state = State::Subscribing(tokio::spawn(subscribe(client.clone(), subscription.clone(), topic.clone(), attempts, None)));
        Self { client, subscription, topic, state, late_acks: Vec::new() }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<InboundMessage>> {
        loop {
            match &mut self.state {
                State::Subscribing(task) => match std::task::ready!(Pin::new(task).poll(context)) {
                    Ok(Ok(session)) => {
                        self.state = State::Subscribed(session);
                        std::mem::take(&mut self.late_acks).into_iter().for_each(|id| self.ack(id));
                    }
                    Ok(Err(error)) => return Poll::Ready(Err(error)),
                    Err(error) => {
                        return Poll::Ready(Err(Error::new(Kind::Fatal, format!("subscribe to topic {}", self.topic), error)));
                    }
                },
                State::Subscribed(session) => match std::task::ready!(session.consumer.poll_next_unpin(context)) {
                    Some(Ok(message)) => return Poll::Ready(Ok(inbound(&self.topic, message))),
                    ended => self.subscribe_again(ended.and_then(Result::err)),
                },
                State::Changing => return Poll::Pending,
            }
        }
    }

    fn subscribe_again(&mut self, why: Option<::pulsar::Error>) {
        let State::Subscribed(session) = std::mem::replace(&mut self.state, State::Changing) else { return };
        let doing = format!("receive from topic {} (what is not acknowledged comes again)", self.topic);
        let lost = match why {
            Some(error) => classify(doing, &error),
            None => Error::new(Kind::Unavailable, doing, "the consumer was lost"),
        };
        let (client, subscription, topic) = (self.client.clone(), self.subscription.clone(), self.topic.clone());
        self.state = State::Subscribing(tokio::spawn(subscribe(client, subscription, topic, session.attempts, Some(lost))));
    }

    fn ack(&mut self, id: MessageIdData) {
        let State::Subscribed(session) = &mut self.state else { return self.late_acks.push(id) };
        // The client queues acknowledgements without a bound of its own, so this is done at once. They are bounded by what was received.
        match session.consumer.ack_with_id(&self.topic, id.clone()).now_or_never() {
            Some(Ok(())) => {}
            // The consumer is lost, and the stream will say so.
            _ => self.late_acks.push(id),
        }
    }

    async fn close(&mut self) {
        let State::Subscribed(Session { consumer, .. }) = &mut self.state else { return };
        // The client works on acknowledgements and messages in one queue and stops when nobody takes the messages. So they are taken
        // (and left unacknowledged) until a round trip through that queue and the broker proves that all acknowledgements are out.
        let mut patience = Duration::from_millis(1);
        loop {
            // A short try while there is something to take, which is what the client waits for; longer ones when it is the broker.
            patience = (patience * 2).min(Duration::from_millis(100));
            while let Some(Some(Ok(_))) = consumer.next().now_or_never() {
                patience = Duration::from_millis(1);
            }
            match tokio::time::timeout(patience, consumer.check_connection()).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::debug!(topic = %self.topic, %error, "closing without an answer");
                    break;
                }
                Err(_) => {}
            }
        }
        if let Err(error) = consumer.close().await {
            tracing::debug!(topic = %self.topic, %error, "the consumer was not closed cleanly");
        }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if let State::Subscribing(task) = &self.state {
            task.abort();
        }
    }
}

async fn subscribe(
    client: Client,
    subscription: Arc<Subscription>,
    topic: Arc<str>,
    mut attempts: Attempts,
    lost: Option<Error>,
) -> Result<Session> {
    if let Some(error) = lost {
        attempts.failed(error).await?;
    }
    loop {
        let options = ConsumerOptions::default()
            .with_initial_position(match subscription.initial_position {
                InitialPosition::Latest => consumer::InitialPosition::Latest,
                InitialPosition::Earliest => consumer::InitialPosition::Earliest,
            })
            .with_receiver_queue_size(subscription.receiver_queue);
        let consumer = client
            .consumer()
            .with_topic(&*topic)
            .with_subscription(&subscription.name)
            .with_subscription_type(match subscription.kind {
                SubscriptionType::Exclusive => SubType::Exclusive,
                SubscriptionType::Failover => SubType::Failover,
                SubscriptionType::Shared => SubType::Shared,
                SubscriptionType::KeyShared => SubType::KeyShared,
            })
            .with_consumer_name(&subscription.consumer_name)
            .with_batch_size(subscription.receiver_queue)
            .with_options(options)
            .build();
        match attempts.watch(consumer).await {
            Ok(consumer) => {
                attempts.succeeded();
                tracing::info!(%topic, subscription = subscription.name, kind = ?subscription.kind, "subscribed");
                return Ok(Session { consumer: Box::new(consumer), attempts });
            }
            Err(error) => attempts.failed(classify(format!("subscribe to topic {topic} as {}", subscription.name), &error)).await?,
        }
    }
}

fn inbound(topic: &Arc<str>, message: consumer::Message<Vec<u8>>) -> InboundMessage {
    let batch_size = message.message_id.batch_size;
    let id = message.message_id.id;
    let metadata = message.payload.metadata;
    let batched = metadata.num_messages_in_batch.is_some();
    InboundMessage {
        entry: EntryId { topic: topic.clone(), ledger: id.ledger_id, entry: id.entry_id, batch_index: None },
        batch_index: id.batch_index.and_then(|index| u32::try_from(index).ok()).unwrap_or(0),
        batch_size: batch_size.or(metadata.num_messages_in_batch).and_then(|size| u32::try_from(size).ok()).unwrap_or(1).max(1),
        key: metadata.partition_key,
        key_is_base64: metadata.partition_key_b64_encoded.unwrap_or(false),
        ordering_key: metadata.ordering_key,
        payload: Bytes::from(message.payload.data),
        null_value: metadata.null_value.unwrap_or(false),
        properties: metadata.properties.into_iter().map(|property| (property.key, property.value)).collect(),
        publish_time: metadata.publish_time,
        event_time: metadata.event_time,
        producer_name: metadata.producer_name,
        sequence_id: (!batched).then_some(metadata.sequence_id),
        schema_version: metadata.schema_version,
    }
}
