//! Receives from one subscription: a consumer for each topic partition.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::pulsar::message::{Payload, proto::MessageIdData};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    chunks::Chunks,
    client::{Attempts, Client},
    consumer::{Consumer, Desk},
    lookup, partitions,
    unpack::unpack,
};
use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{EntryId, Inbound, InboundMessage, Inbox},
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
    health: Health,
    state: State,
}

enum State {
    Subscribing(AbortOnDropHandle<Result<Session>>),
    Subscribed(Box<Session>),
    /// For the moment between two others.
    Changing,
}

/// One life of a consumer. Its trouble outlives it: a consumer that is lost again and again must not be a new one each time (H1).
struct Session {
    desk: Arc<Desk>,
    consumer: AbortOnDropHandle<Result<()>>,
    attempts: Attempts,
    opened: Instant,
    chunks: Chunks,
    /// Of the entry that was taken last, what is not handed on yet.
    unpacked: VecDeque<InboundMessage>,
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
                match attempts.watch(lookup::partitions(&client, topic)).await {
                    Ok(found) => break found,
                    Err(error) => attempts.failed(error).await?,
                }
            };
            looking.spawn(look(client.clone(), topic.clone(), found.len(), subscription.look_every, sender.clone()));
            partitions.extend(found);
        }
        attempts.succeeded();
        let share = subscription.receiver_queue / u32::try_from(partitions.len()).unwrap_or(u32::MAX).max(1);
        let subscription = Arc::new(Subscription { receiver_queue: share.max(MIN_QUEUE), ..subscription });
        let subscribe = |partition: String| Partition::new(client.clone(), subscription.clone(), partition.into(), health.clone());
        let partitions = partitions.into_iter().map(subscribe).collect();
        let later = Arc::new(Subscription { initial_position: InitialPosition::Earliest, ..(*subscription).clone() });
        Ok(Self { client, health, later, partitions, added, _looking: looking, turn: 0 })
    }

    fn poll_receive(&mut self, room: bool, context: &mut Context<'_>) -> Poll<Result<Inbound>> {
        while let Poll::Ready(Some(names)) = self.added.poll_recv(context) {
            let subscribe = |name: String| Partition::new(self.client.clone(), self.later.clone(), name.into(), self.health.clone());
            self.partitions.extend(names.into_iter().map(subscribe));
        }
        let count = self.partitions.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Poll::Ready(received) = self.partitions[at].poll_receive(room, context) {
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
    async fn receive(&mut self, room: bool) -> Result<Inbound> {
        poll_fn(|context| self.poll_receive(room, context)).await
    }

    fn ack(&mut self, entry: &EntryId) -> Result<()> {
        match self.partitions.iter_mut().find(|partition| partition.topic == entry.topic) {
            Some(partition) => {
                partition.ack(entry);
                Ok(())
            }
            None => Err(Error::new(Kind::Fatal, format!("acknowledge in topic {}", entry.topic), "it is not subscribed")),
        }
    }

    fn released(&mut self, topic: &str) {
        for partition in self.partitions.iter().filter(|partition| &*partition.topic == topic) {
            if let State::Subscribed(session) = &partition.state {
                session.desk.released();
            }
        }
    }

    async fn close(self) -> Result<()> {
        let sessions: Vec<Session> = self.partitions.into_iter().filter_map(|partition| partition.state.session()).collect();
        sessions.iter().for_each(|session| session.desk.close());
        let all = async {
            for session in sessions {
                match session.consumer.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a consumer was not closed cleanly"),
                    Err(error) => tracing::debug!(%error, "a consumer was not closed cleanly"),
                }
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
        let attempts = Attempts::new(format!("receive from {topic}"), health.clone());
        let mut partition = Self { client, subscription, topic, health, state: State::Changing };
        partition.subscribe(attempts, None);
        partition
    }

    fn poll_receive(&mut self, room: bool, context: &mut Context<'_>) -> Poll<Result<Inbound>> {
        loop {
            match &mut self.state {
                State::Subscribing(task) => match ready!(Pin::new(task).poll(context)) {
                    Ok(Ok(session)) => self.state = State::Subscribed(Box::new(session)),
                    Ok(Err(error)) => {
                        self.state = State::Changing;
                        return Poll::Ready(Err(error));
                    }
                    Err(error) => {
                        self.state = State::Changing;
                        return Poll::Ready(Err(Error::new(Kind::Fatal, format!("subscribe to topic {}", self.topic), error)));
                    }
                },
                State::Subscribed(session) => match ready!(session.poll_receive(&self.topic, room, context)) {
                    Ok(received) => return Poll::Ready(Ok(received)),
                    Err(error) => {
                        // Who has it now is not known.
                        self.subscribe_again(error);
                        return Poll::Ready(Ok(Inbound::Lost(self.topic.clone())));
                    }
                },
                State::Changing => return Poll::Pending,
            }
        }
    }

    fn subscribe_again(&mut self, lost: Error) {
        if let Some(session) = std::mem::replace(&mut self.state, State::Changing).session() {
            self.subscribe(session.attempts, Some(lost));
        }
    }

    fn subscribe(&mut self, attempts: Attempts, lost: Option<Error>) {
        let (client, subscription, topic, health) =
            (self.client.clone(), self.subscription.clone(), self.topic.clone(), self.health.clone());
        let session = Session::open(client, subscription, topic, health, attempts, lost);
        self.state = State::Subscribing(AbortOnDropHandle::new(tokio::spawn(session)));
    }

    fn ack(&mut self, entry: &EntryId) {
        // Where there is no consumer, all that it had has to come again.
        if let State::Subscribed(session) = &mut self.state {
            session.desk.ack(session.chunks.acknowledged(entry.ledger, entry.entry));
        }
    }
}

impl State {
    fn session(self) -> Option<Session> {
        if let Self::Subscribed(session) = self { Some(*session) } else { None }
    }
}

impl Session {
    async fn open(
        client: Client,
        subscription: Arc<Subscription>,
        topic: Arc<str>,
        health: Health,
        mut attempts: Attempts,
        mut lost: Option<Error>,
    ) -> Result<Self> {
        loop {
            if let Some(error) = lost.take() {
                attempts.failed(error).await?;
            }
            match attempts.watch(Box::pin(Consumer::open(&client, subscription.clone(), topic.clone(), health.clone()))).await {
                Ok(consumer) => {
                    attempts.succeeded();
                    tracing::info!(%topic, subscription = subscription.name, kind = ?subscription.kind, "subscribed");
                    let desk = consumer.desk();
                    let consumer = AbortOnDropHandle::new(tokio::spawn(consumer.run()));
                    let (opened, chunks, unpacked) = (Instant::now(), Chunks::default(), VecDeque::new());
                    return Ok(Self { desk, consumer, attempts, opened, chunks, unpacked });
                }
                Err(error) => lost = Some(error),
            }
        }
    }

    /// An error is the end of it.
    fn poll_receive(&mut self, topic: &Arc<str>, room: bool, context: &mut Context<'_>) -> Poll<Result<Inbound>> {
        // A chunk may have to be followed by many.
        while let Poll::Ready(taken) = self.desk.poll_take(room && self.unpacked.is_empty(), context) {
            let Some((id, payload)) = taken else {
                self.unpacked.clear();
                self.chunks = Chunks::default();
                return Poll::Ready(Ok(Inbound::Lost(topic.clone())));
            };
            let doing = format!("read entry {}:{} of topic {topic}", id.ledger_id, id.entry_id);
            if let Err(why) = self.take(topic, id, payload) {
                return Poll::Ready(Err(Error::new(Kind::Unavailable, doing, why)));
            }
        }
        if room && let Some(message) = self.unpacked.pop_front() {
            return Poll::Ready(Ok(Inbound::Message(Box::new(message))));
        }
        let lost = |why: String| Error::new(Kind::Unavailable, format!("receive from topic {topic}"), why);
        match ready!(Pin::new(&mut self.consumer).poll(context)) {
            Ok(Ok(())) => Poll::Ready(Err(lost("the consumer was closed".into()))),
            Ok(Err(error)) => Poll::Ready(Err(error)),
            Err(error) => Poll::Ready(Err(lost(error.to_string()))),
        }
    }
    /// Unpacks an entry, or the message that it completes.
    fn take(&mut self, topic: &Arc<str>, id: MessageIdData, payload: Payload) -> io::Result<()> {
        let now = self.opened.elapsed();
        for gone in self.chunks.give_up(now) {
            let (uuid, entries) = (gone.uuid, gone.entries.len());
            tracing::warn!(%topic, %uuid, entries, "a message that its producer has never sent whole is given up: its chunks are acknowledged");
            self.desk.ack(gone.entries);
        }
        if let Some((id, payload)) = self.chunks.add(id, payload, now)? {
            self.unpacked.extend(unpack(topic, &id, payload)?);
        }
        for uuid in self.chunks.let_go() {
            tracing::warn!(%topic, %uuid, "too many messages are incomplete: this one's chunks stay unacknowledged, and come again with the next connection");
        }
        Ok(())
    }
}
