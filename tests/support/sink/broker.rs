//! A subscription in memory: keeps entries until they are acknowledged, delivers the others again to each new consumer. Checks A1 at
//! each acknowledgment, by the effect of each message of the entry on the table.
//!
//! `like_pulsar_io`: messages are acknowledged one by one, and the entry with its last one, as a client in front of the broker does it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{EntryId, Inbound, InboundMessage, Inbox},
};
use tokio::sync::Notify;

use super::{
    Effect, Message,
    dead_topic::DeadTopic,
    model::{self, Row, Rule},
    table::Table,
};

/// Shared by all its clones.
#[derive(Clone)]
pub struct Broker {
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
    table: Table,
    dead_topic: DeadTopic,
}

#[derive(Default)]
struct State {
    rule: Rule,
    entries: Vec<Entry>,
    /// What the consumer has not taken yet: entry and index.
    queue: VecDeque<(usize, usize)>,
    /// The consumer that was connected last; those before the first living one are dead.
    consumer: u64,
    living: u64,
    /// Whose turn it is, and the number of the turn.
    active: u64,
    turn: u64,
    /// The turn is the same consumer's as before: it has lost its connection.
    same: bool,
    /// Who may have unanswered writes.
    writer: Option<u64>,
    lost: u64,
    received: usize,
    gone: bool,
    closed: bool,
    pulsar_io: Option<PulsarIo>,
}

/// What stands between the broker and a sink of the archive.
#[derive(Clone, Copy)]
pub struct PulsarIo {
    /// Messages that may be unanswered.
    pub credit: usize,
    /// A transform function returns nothing for what cannot be read: it never comes, and is acknowledged.
    pub gaps: bool,
}

struct Entry {
    messages: Vec<Message>,
    acked: bool,
    /// Which messages Pulsar IO knows to be acknowledged, and which it has no answer for.
    done: Vec<bool>,
    unanswered: Vec<usize>,
}

impl Entry {
    fn new(messages: Vec<Message>) -> Self {
        let (done, unanswered) = (vec![false; messages.len()], vec![0; messages.len()]);
        Self { messages, acked: false, done, unanswered }
    }

    fn is_done(&mut self, index: usize) {
        (self.done[index], self.unanswered[index]) = (true, 0);
        self.acked = self.done.iter().all(|done| *done);
    }
}

impl State {
    /// The next message for the worker.
    fn next(&mut self) -> Option<(usize, usize)> {
        let Some(PulsarIo { credit, gaps }) = self.pulsar_io else { return self.queue.pop_front() };
        loop {
            let unanswered: usize = self.entries.iter().flat_map(|entry| &entry.unanswered).sum();
            let (number, index) = if unanswered < credit { self.queue.pop_front()? } else { return None };
            let entry = &mut self.entries[number];
            if gaps && entry.messages[index].effect == Effect::Poison {
                entry.is_done(index);
            }
            if !entry.done[index] {
                entry.unanswered[index] += 1;
                return Some((number, index));
            }
        }
    }
}

impl Broker {
    pub fn new(table: Table, dead_topic: DeadTopic) -> Self {
        Self { state: Arc::default(), arrived: Arc::default(), table, dead_topic }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn follow(&self, rule: Rule) {
        self.lock().rule = rule;
    }

    pub fn like_pulsar_io(&self, pulsar_io: PulsarIo) {
        self.lock().pulsar_io = Some(pulsar_io);
    }

    /// Publishes messages as one entry.
    pub fn publish(&self, messages: impl IntoIterator<Item = Message>) {
        let messages: Vec<Message> = messages.into_iter().collect();
        let mut state = self.lock();
        let entry = state.entries.len();
        state.queue.extend((0..messages.len()).map(|index| (entry, index)));
        state.entries.push(Entry::new(messages));
        self.arrived.notify_waiters();
    }

    /// A new consumer, the only one. Everything that is not acknowledged is delivered to it.
    pub fn connect(&self) -> Consumer {
        let consumer = self.join();
        let mut state = self.lock();
        (state.living, state.writer, state.closed) = (consumer.number, None, false);
        // The client has died with the worker, and the broker knows whole entries only.
        for entry in state.entries.iter_mut().filter(|entry| !entry.acked) {
            let messages = std::mem::take(&mut entry.messages);
            *entry = Entry::new(messages);
        }
        drop(state);
        self.switch(consumer.number);
        consumer
    }

    /// One more consumer of a Failover subscription. It waits for its turn.
    pub fn join(&self) -> Consumer {
        let mut state = self.lock();
        state.consumer += 1;
        Consumer { number: state.consumer, turn: None, leaving: false, broker: self.clone() }
    }

    /// It is this consumer's turn. It gets messages once the former one has no unanswered writes.
    pub fn switch(&self, number: u64) {
        self.queue_unacked();
        let mut state = self.lock();
        state.active = number;
        state.turn += 1;
        state.same = false;
        self.arrived.notify_waiters();
    }

    /// The active consumer has lost its connection, and has another one at once.
    pub fn reconnect(&self) {
        self.queue_unacked();
        let mut state = self.lock();
        state.turn += 1;
        state.same = true;
        self.arrived.notify_waiters();
    }

    /// The newest consumer's number.
    pub fn newest(&self) -> u64 {
        self.lock().consumer
    }

    /// How often a consumer was told that its turn is over.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Who may have unanswered writes.
    pub fn writer(&self) -> Option<u64> {
        self.lock().writer
    }

    /// As after a lost connection: the client gets everything again that is not acknowledged, and says nothing about it.
    pub fn redeliver(&self) {
        self.queue_unacked();
    }

    /// As after a lost connection, but the broker gets only as far as one entry before the acknowledgements of the others come.
    pub fn redeliver_only(&self, number: usize) {
        let mut state = self.lock();
        state.queue = (0..state.entries[number].messages.len()).map(|at| (number, at)).collect();
        self.arrived.notify_waiters();
    }

    fn queue_unacked(&self) {
        let mut state = self.lock();
        let again = |(number, entry): (usize, &Entry)| (0..if entry.acked { 0 } else { entry.messages.len() }).map(move |at| (number, at));
        state.queue = state.entries.iter().enumerate().flat_map(again).collect();
        self.arrived.notify_waiters();
    }

    /// The subscription ends.
    pub fn fail(&self) {
        self.lock().gone = true;
        self.arrived.notify_waiters();
    }

    pub fn unacked(&self) -> Vec<usize> {
        self.lock().entries.iter().enumerate().filter(|(_, entry)| !entry.acked).map(|(number, _)| number).collect()
    }

    /// Messages delivered, all times counted.
    pub fn received(&self) -> usize {
        self.lock().received
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// What each item has to be in the end.
    pub fn expected(&self) -> BTreeMap<u64, Row> {
        let state = self.lock();
        let mut by_key: BTreeMap<u64, Vec<&Message>> = BTreeMap::new();
        for message in state.entries.iter().flat_map(|entry| &entry.messages) {
            by_key.entry(message.key).or_default().push(message);
        }
        by_key.into_iter().filter_map(|(key, messages)| Some((key, model::expected(state.rule, &messages)?))).collect()
    }

    /// A1: each message's copy is in the dead-letter topic, or its item is as this message or a later one leaves it. `only`: one of them.
    fn assert_safe(&self, state: &State, number: usize, only: Option<usize>) {
        let rows = self.table.rows();
        let messages = state.entries[number].messages.iter().enumerate();
        for (index, message) in messages.filter(|(index, _)| only.is_none_or(|only| only == *index)) {
            let all =
                state.entries.iter().enumerate().flat_map(|(entry, it)| it.messages.iter().enumerate().map(move |(at, m)| (entry, at, m)));
            let same: Vec<_> = all.filter(|(_, _, other)| other.key == message.key).collect();
            let at = same.iter().position(|(entry, at, _)| (*entry, *at) == (number, index)).expect("it is one of them");
            let messages: Vec<&Message> = same.into_iter().map(|(_, _, message)| message).collect();
            let there = rows.get(&message.key);
            let safe = self.dead_topic.has(&format!("1:{number}:{index}")) || model::is_stored(state.rule, &messages, at, there);
            assert!(safe, "A1: entry {number} is acknowledged, {message:?} is not safe: the table has {there:?}");
        }
    }
}

pub struct Consumer {
    number: u64,
    /// The turn in which it has received anything.
    turn: Option<u64>,
    /// It waits until its worker has no unanswered writes.
    leaving: bool,
    broker: Broker,
}

impl Consumer {
    fn take(&mut self, room: bool) -> Option<Result<Inbound>> {
        let mut state = self.broker.lock();
        if self.turn.is_some_and(|turn| turn != state.turn) {
            self.turn = None;
            self.leaving = !state.same || state.active != self.number;
            state.lost += 1;
            return Some(Ok(Inbound::Lost(entry_id(0).topic)));
        }
        if !room || self.leaving || state.active != self.number || state.writer.is_some_and(|writer| writer != self.number) {
            return None;
        }
        if state.gone {
            return Some(Err(Error::new(Kind::Fatal, "receive from subscription copier", "it is gone")));
        }
        let (number, index) = state.next()?;
        (state.writer, self.turn) = (Some(self.number), Some(state.turn));
        state.received += 1;
        let one_by_one = state.pulsar_io.is_some() && state.entries[number].messages.len() > 1;
        let messages = &state.entries[number].messages;
        let mut properties = vec![("EVENT_NAME".to_owned(), "TEST".to_owned())];
        if messages[index].sequence > 0 {
            properties.push(("SEQUENCE_NUMBER".into(), messages[index].sequence.to_string()));
        }
        Some(Ok(Inbound::Message(Box::new(InboundMessage {
            entry: EntryId { batch_index: one_by_one.then_some(index as u32), ..entry_id(number) },
            batch_index: index as u32,
            batch_size: messages.len() as u32,
            key: Some(messages[index].key.to_string()),
            key_is_base64: false,
            ordering_key: None,
            payload: Bytes::from(messages[index].payload()),
            properties,
            publish_time: 0,
            event_time: Some(7),
            producer_name: "producer".into(),
            sequence_id: None,
            null_value: false,
            schema_version: messages[index].schema.map(|version| vec![version]),
        }))))
    }
}

fn entry_id(number: usize) -> EntryId {
    EntryId { topic: "persistent://public/default/changes".into(), ledger: 1, entry: number as u64, batch_index: None }
}

impl Inbox for Consumer {
    async fn receive(&mut self, room: bool) -> Result<Inbound> {
        let arrived = self.broker.arrived.clone();
        loop {
            let mut notified = std::pin::pin!(arrived.notified());
            notified.as_mut().enable();
            if let Some(received) = self.take(room) {
                return received;
            }
            notified.await;
        }
    }

    fn ack(&mut self, entry: &EntryId) -> Result<()> {
        let mut state = self.broker.lock();
        assert!(self.number >= state.living, "a dead consumer acknowledges");
        assert!(self.turn.is_some(), "what is lost is acknowledged");
        let (number, one) = (entry.entry as usize, entry.batch_index.map(|index| index as usize));
        self.broker.assert_safe(&state, number, one);
        let entry = &mut state.entries[number];
        for index in one.map_or(0..entry.messages.len(), |index| index..index + 1) {
            entry.is_done(index);
        }
        // There is credit again.
        self.broker.arrived.notify_waiters();
        Ok(())
    }

    fn released(&mut self, _topic: &str) {
        let mut state = self.broker.lock();
        if std::mem::take(&mut self.leaving) && state.writer == Some(self.number) {
            if state.active == self.number {
                // Its turn again, before it was given up.
                self.turn = Some(state.turn);
            } else {
                state.writer = None;
            }
        }
        self.broker.arrived.notify_waiters();
    }

    async fn close(self) -> Result<()> {
        let mut state = self.broker.lock();
        state.closed = true;
        state.writer = state.writer.filter(|writer| *writer != self.number);
        self.broker.arrived.notify_waiters();
        Ok(())
    }
}
