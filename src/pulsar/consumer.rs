//! A consumer of one topic partition on a connection of its own (`docs/decisions/026`): the broker is asked for as many messages as there is room for, and it
//! is known whose turn it is to write.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use ::pulsar::message::{
    Message, Payload,
    proto::{
        BaseCommand, CommandAck, CommandCloseConsumer, CommandError, CommandFlow, CommandSubscribe, KeySharedMeta, KeySharedMode,
        MessageIdData, base_command::Type, command_ack::AckType, command_subscribe::SubType,
    },
};
use futures_util::task::AtomicWaker;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};

use super::{
    client::{Client, server_kind},
    connection::Connection,
    inbox::{InitialPosition, Subscription, SubscriptionType},
    lookup,
    permits::Permits,
    turn::{Action, Turn},
    unpack,
};
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::health::Health,
};

/// For each step: to find the topic's broker, connect and subscribe. Pulsar's clients wait as long.
const LIMIT: Duration = Duration::from_secs(30);
/// A broker that was silent for so long is asked whether it is there; after as long again it is not. A consumer that is cut off must know before the
/// broker gives its turn to another one, which it does after 30 seconds of silence (`keepAliveIntervalSeconds`).
const PULSE: Duration = Duration::from_secs(5);
/// Messages that are taken before the consumer is woken for them, while there are more to take.
const TAKEN: u32 = 100;
/// Acknowledgements in one command.
const ACKS: usize = 1_000;
/// For so long another consumer may keep the lock before health turns red (H1): a write is answered, or given up, within less.
const PATIENCE: Duration = Duration::from_secs(60);
/// The one consumer on its connection, beside those that are its lock. They are numbered as the requests for them are.
const MAIN: u64 = 0;
/// The requests of a connection: to subscribe, to close a consumer, and from here on for the lock.
const SUBSCRIBE: u64 = 0;
const CLOSE: u64 = 1;
const FIRST_QUESTION: u64 = 2;

/// Of one subscribed consumer: what lies between it and the inbox.
#[derive(Default)]
pub(super) struct Desk {
    papers: Mutex<Papers>,
    /// The inbox waits for something to take.
    waker: AtomicWaker,
    /// The consumer has something to send.
    orders: Notify,
}

#[derive(Default)]
struct Papers {
    /// Bounded by what the broker was asked for.
    delivered: VecDeque<(MessageIdData, Payload)>,
    /// Whether the inbox may take them.
    open: bool,
    /// What the inbox has taken is void, and it does not know yet.
    lost: bool,
    /// The inbox says that none of it is unanswered any more.
    released: bool,
    /// Bounded by what was delivered.
    acks: Vec<MessageIdData>,
    /// Messages that the inbox has taken, since the broker was last asked for more.
    taken: u32,
    closing: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry, only where there is `room` for one; or `None`: what was taken is void.
    pub fn poll_take(&self, room: bool, context: &mut Context<'_>) -> Poll<Option<(MessageIdData, Payload)>> {
        self.waker.register(context.waker());
        let mut papers = self.lock();
        if std::mem::take(&mut papers.lost) {
            return Poll::Ready(None);
        }
        if !papers.open || !room {
            return Poll::Pending;
        }
        let Some((id, payload)) = papers.delivered.pop_front() else { return Poll::Pending };
        papers.taken += unpack::count(&payload);
        if papers.delivered.is_empty() || papers.taken >= TAKEN {
            self.orders.notify_one();
        }
        Poll::Ready(Some((id, payload)))
    }

    pub fn ack(&self, entries: impl IntoIterator<Item = MessageIdData>) {
        self.lock().acks.extend(entries);
        self.orders.notify_one();
    }

    /// No write of what was taken before the last `None` is unanswered.
    pub fn released(&self) {
        let mut papers = self.lock();
        // Otherwise it was about an earlier one.
        papers.released = !papers.lost;
        drop(papers);
        self.orders.notify_one();
    }

    /// Ends the consumer's `run` when all acknowledgements are out.
    pub fn close(&self) {
        self.lock().closing = true;
        self.orders.notify_one();
    }
}

/// A subscribed consumer. Whatever fails leaves it unusable.
pub(super) struct Consumer {
    connection: Connection,
    subscription: Arc<Subscription>,
    topic: Arc<str>,
    desk: Arc<Desk>,
    turn: Turn,
    permits: Permits,
    /// The newest question for the lock: the request, and the consumer that is the lock once it is granted.
    question: u64,
    /// The newest entry that was delivered, and the one that the lock was moved on to.
    newest: Option<MessageIdData>,
    moved_on: Option<MessageIdData>,
    started: Instant,
    kept_waiting_since: Option<Instant>,
    health: Health,
}

impl Consumer {
    /// Finds the topic's broker and subscribes there.
    pub async fn open(client: &Client, subscription: Arc<Subscription>, topic: Arc<str>, health: Health) -> Result<Self> {
        let doing = doing(&topic, &subscription.name);
        let open = async {
            let connection = client.open(&lookup::broker_of(client, &topic).await?).await?;
            let turn = if subscription.kind == SubscriptionType::Failover { Turn::waiting() } else { Turn::always() };
            let permits = Permits::new(subscription.receiver_queue);
            let desk = Arc::<Desk>::default();
            desk.lock().open = subscription.kind != SubscriptionType::Failover;
            let mut consumer = Self {
                connection,
                subscription,
                topic,
                desk,
                turn,
                permits,
                question: FIRST_QUESTION - 1,
                newest: None,
                moved_on: None,
                started: Instant::now(),
                kept_waiting_since: None,
                health,
            };
            consumer.subscribe().await?;
            Ok(consumer)
        };
        let late = |_| Err(Error::new(Kind::Unavailable, doing.clone(), format!("no answer within {} s", LIMIT.as_secs())));
        tokio::time::timeout(LIMIT, open).await.unwrap_or_else(late)
    }

    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    async fn subscribe(&mut self) -> Result<()> {
        let Subscription { name, kind, initial_position, consumer_name, .. } = &*self.subscription;
        let command = CommandSubscribe {
            topic: self.topic.to_string(),
            subscription: name.clone(),
            sub_type: match kind {
                SubscriptionType::Exclusive => SubType::Exclusive,
                SubscriptionType::Failover => SubType::Failover,
                SubscriptionType::Shared => SubType::Shared,
                SubscriptionType::KeyShared => SubType::KeyShared,
            }
            .into(),
            consumer_id: MAIN,
            request_id: SUBSCRIBE,
            consumer_name: Some(consumer_name.clone()),
            initial_position: Some(i32::from(*initial_position == InitialPosition::Earliest)),
            key_shared_meta: (*kind == SubscriptionType::KeyShared)
                .then(|| KeySharedMeta { key_shared_mode: KeySharedMode::AutoSplit.into(), ..Default::default() }),
            ..Default::default()
        };
        self.send(Type::Subscribe, BaseCommand { subscribe: Some(command), ..Default::default() }).await?;
        loop {
            let answer = self.connection.receive().await?;
            if answer.success.as_ref().is_some_and(|success| success.request_id == SUBSCRIBE) {
                return Ok(());
            }
            if let Some(error) = answer.error {
                return Err(self.refused(&error));
            }
            // Told before the answer.
            self.heard(Message { command: answer, payload: None }).await?;
        }
    }

    /// Receives, acknowledges and takes its turns until it is told to close (`Ok`) or the broker is lost.
    pub async fn run(mut self) -> Result<()> {
        let mut pulse = tokio::time::interval_at(Instant::now() + PULSE, PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.obey().await? {
                return self.close().await;
            }
            let desk = self.desk.clone();
            let wake = self.turn.wake().map(|at| self.started + at);
            tokio::select! {
                biased;
                () = sleep_until(wake) => {
                    let action = self.turn.tick(self.started.elapsed());
                    self.act(action).await?;
                }
                _ = pulse.tick() => self.pulse().await?,
                message = self.connection.next() => self.heard(message?).await?,
                () = desk.orders.notified() => {}
            }
        }
    }

    /// What the inbox wants: acknowledgements, more messages, to give the turn back. Whether it wants to close.
    async fn obey(&mut self) -> Result<bool> {
        let (acks, taken, released, closing) = {
            let mut papers = self.desk.lock();
            (std::mem::take(&mut papers.acks), std::mem::take(&mut papers.taken), std::mem::take(&mut papers.released), papers.closing)
        };
        for acks in acks.chunks(ACKS) {
            self.ack(MAIN, AckType::Individual, acks.to_vec()).await?;
        }
        if released {
            let action = self.turn.released();
            self.act(action).await?;
        }
        self.permits.taken(taken);
        if let Some(message_permits) = self.permits.more() {
            let flow = CommandFlow { consumer_id: MAIN, message_permits };
            self.send(Type::Flow, BaseCommand { flow: Some(flow), ..Default::default() }).await?;
        }
        Ok(closing)
    }

    async fn heard(&mut self, message: Message) -> Result<()> {
        let Message { command, payload } = message;
        if let (Some(delivered), Some(payload)) = (command.message, payload) {
            let messages = unpack::count(&payload);
            self.permits.delivered(messages, payload.data.len());
            if self.turn.is_active() {
                self.newest = Some(delivered.message_id.clone());
                self.desk.lock().delivered.push_back((delivered.message_id, payload));
                self.desk.waker.wake();
            } else {
                // Sent before the turn was over.
                self.permits.taken(messages);
            }
            return Ok(());
        }
        let now = self.started.elapsed();
        let action = match (command.active_consumer_change, command.success, command.error, command.close_consumer) {
            (Some(change), ..) => {
                let action = self.turn.told(change.is_active.unwrap_or(false));
                if !self.turn.is_active() {
                    // It comes to the active consumer, and here again if that is this one some day.
                    let mut papers = self.desk.lock();
                    let messages = papers.delivered.drain(..).map(|(_, payload)| unpack::count(&payload)).sum();
                    drop(papers);
                    self.permits.taken(messages);
                }
                action
            }
            (_, Some(success), ..) if success.request_id >= FIRST_QUESTION => self.turn.granted(now),
            (.., Some(error), _) if error.request_id >= FIRST_QUESTION => {
                let why = self.refused(&error);
                if why.retry() != Retry::Timed {
                    // Whoever may not have the lock may never write.
                    return Err(why);
                }
                tracing::debug!(topic = %self.topic, %why, "the lock is not free");
                self.turn.refused(now);
                None
            }
            (.., Some(error), _) => return Err(self.refused(&error)),
            (.., Some(_)) => return Err(self.failed("the broker has closed the consumer, as it does when it hands a topic over")),
            _ => None,
        };
        self.act(action).await
    }

    async fn act(&mut self, action: Option<Action>) -> Result<()> {
        match action {
            None => {}
            Some(Action::Ask) => self.ask().await?,
            Some(Action::Open) => {
                tracing::info!(topic = %self.topic, "this consumer's turn");
                self.desk.lock().open = true;
                self.desk.waker.wake();
            }
            Some(Action::Revoke) => {
                let mut papers = self.desk.lock();
                papers.open = false;
                papers.lost = true;
                papers.released = false;
                drop(papers);
                tracing::info!(topic = %self.topic, "another consumer's turn: what is not written is left to it");
                self.desk.waker.wake();
            }
            Some(Action::GiveBack) => self.close_consumer(self.question).await?,
        }
        Ok(())
    }

    /// The lock is a second subscription that only one consumer may have, in memory only, and that is never asked for a message.
    async fn ask(&mut self) -> Result<()> {
        self.question += 1;
        let command = CommandSubscribe {
            topic: self.topic.to_string(),
            subscription: format!("{}-writer", self.subscription.name),
            sub_type: SubType::Exclusive.into(),
            consumer_id: self.question,
            request_id: self.question,
            consumer_name: Some(self.subscription.consumer_name.clone()),
            durable: Some(false),
            ..Default::default()
        };
        self.send(Type::Subscribe, BaseCommand { subscribe: Some(command), ..Default::default() }).await
    }

    async fn pulse(&mut self) -> Result<()> {
        self.connection.pulse().await?;
        if self.question >= FIRST_QUESTION && self.turn.holds_lock() && self.newest != self.moved_on {
            // Nothing is read there. But its backlog would grow for ever, and be in the broker's metrics.
            self.moved_on.clone_from(&self.newest);
            let newest = self.newest.iter().map(|id| MessageIdData { batch_index: None, ..id.clone() }).collect();
            self.ack(self.question, AckType::Cumulative, newest).await?;
        }
        let stage = format!("turn to write what is in {}", self.topic);
        if !self.turn.is_kept_waiting() {
            self.kept_waiting_since = None;
            self.health.green(&stage);
        } else if self.kept_waiting_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            let seconds = PATIENCE.as_secs();
            self.health.red(stage, format!("another sink has unanswered writes since {seconds} s, though its turn is over: is it stuck?"));
        }
        Ok(())
    }

    async fn close(mut self) -> Result<()> {
        let doing = doing(&self.topic, &self.subscription.name);
        let closed = async {
            self.close_consumer(MAIN).await?;
            // What comes before is not wanted any more.
            while self.connection.receive().await?.success.is_none_or(|success| success.request_id != CLOSE) {}
            Ok(())
        };
        let late = |_| Err(Error::new(Kind::Unavailable, doing, "no answer to the closing of a consumer"));
        tokio::time::timeout(LIMIT, closed).await.unwrap_or_else(late)
    }

    async fn close_consumer(&mut self, consumer_id: u64) -> Result<()> {
        let close = CommandCloseConsumer { consumer_id, request_id: CLOSE };
        self.send(Type::CloseConsumer, BaseCommand { close_consumer: Some(close), ..Default::default() }).await
    }

    async fn ack(&mut self, consumer_id: u64, how: AckType, message_id: Vec<MessageIdData>) -> Result<()> {
        let ack = CommandAck { consumer_id, ack_type: how.into(), message_id, ..Default::default() };
        self.send(Type::Ack, BaseCommand { ack: Some(ack), ..Default::default() }).await
    }

    async fn send(&mut self, kind: Type, command: BaseCommand) -> Result<()> {
        self.connection.send(BaseCommand { r#type: kind.into(), ..command }).await
    }

    fn refused(&self, error: &CommandError) -> Error {
        let code = error.error();
        let why = format!("{}: {}", code.as_str_name(), error.message);
        Error::new(server_kind(code), doing(&self.topic, &self.subscription.name), why)
    }

    fn failed(&self, why: &str) -> Error {
        Error::new(Kind::Unavailable, doing(&self.topic, &self.subscription.name), why)
    }
}

fn doing(topic: &str, subscription: &str) -> String {
    format!("receive from topic {topic} as {subscription} (what is not acknowledged comes again)")
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
