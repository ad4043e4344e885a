//! A subscription in memory: keeps entries until they are acknowledged, delivers the others again to each new consumer. Checks A1 at
//! each acknowledgment, by the effect of each message of the entry on the table.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{EntryId, InboundMessage, Inbox},
};
use tokio::sync::Notify;

use super::{
    Message,
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
    /// The consumer that counts; older ones are dead.
    consumer: u64,
    received: usize,
    gone: bool,
    closed: bool,
}

struct Entry {
    messages: Vec<Message>,
    acked: bool,
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

    /// Publishes messages as one entry.
    pub fn publish(&self, messages: impl IntoIterator<Item = Message>) {
        let messages: Vec<Message> = messages.into_iter().collect();
        let mut state = self.lock();
        let entry = state.entries.len();
        state.queue.extend((0..messages.len()).map(|index| (entry, index)));
        state.entries.push(Entry { messages, acked: false });
        self.arrived.notify_one();
    }

    /// A new consumer. Everything that is not acknowledged is delivered to it.
    pub fn connect(&self) -> Consumer {
        self.queue_unacked();
        let mut state = self.lock();
        state.consumer += 1;
        state.closed = false;
        Consumer { number: state.consumer, broker: self.clone() }
    }

    /// As after a lost connection: the client gets everything again that is not acknowledged, and says nothing about it.
    pub fn redeliver(&self) {
        self.queue_unacked();
    }

    /// As after a lost connection, but the broker gets only as far as one entry before the acknowledgements of the others come.
    pub fn redeliver_only(&self, number: usize) {
        let mut state = self.lock();
        state.queue = (0..state.entries[number].messages.len()).map(|at| (number, at)).collect();
        self.arrived.notify_one();
    }

    fn queue_unacked(&self) {
        let mut state = self.lock();
        let again = |(number, entry): (usize, &Entry)| (0..if entry.acked { 0 } else { entry.messages.len() }).map(move |at| (number, at));
        state.queue = state.entries.iter().enumerate().flat_map(again).collect();
        self.arrived.notify_one();
    }

    /// The subscription ends.
    pub fn fail(&self) {
        self.lock().gone = true;
        self.arrived.notify_one();
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

    /// A1: each message's copy is in the dead-letter topic, or its item is as this message or a later one leaves it.
    fn assert_safe(&self, state: &State, number: usize) {
        let rows = self.table.rows();
        for (index, message) in state.entries[number].messages.iter().enumerate() {
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
    broker: Broker,
}

impl Consumer {
    fn take(&self) -> Option<Result<InboundMessage>> {
        let mut state = self.broker.lock();
        if state.gone {
            return Some(Err(Error::new(Kind::Fatal, "receive from subscription copier", "it is gone")));
        }
        let (number, index) = state.queue.pop_front()?;
        state.received += 1;
        let messages = &state.entries[number].messages;
        let mut properties = vec![("EVENT_NAME".to_owned(), "TEST".to_owned())];
        if messages[index].sequence > 0 {
            properties.push(("SEQUENCE_NUMBER".into(), messages[index].sequence.to_string()));
        }
        Some(Ok(InboundMessage {
            entry: entry_id(number),
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
        }))
    }
}

fn entry_id(number: usize) -> EntryId {
    EntryId { topic: "persistent://public/default/changes".into(), ledger: 1, entry: number as u64, batch_index: None }
}

impl Inbox for Consumer {
    async fn receive(&mut self) -> Result<InboundMessage> {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.broker.arrived.notified().await;
        }
    }

    fn ack(&mut self, entry: &EntryId) -> Result<()> {
        let mut state = self.broker.lock();
        assert_eq!(state.consumer, self.number, "a dead consumer acknowledges");
        let number = entry.entry as usize;
        self.broker.assert_safe(&state, number);
        state.entries[number].acked = true;
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.broker.lock().closed = true;
        Ok(())
    }
}
