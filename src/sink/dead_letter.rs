//! Messages that never can be written → copies in the dead-letter topic, with the reason. Confirmed by the topic's receipt only (A1).

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{batch::Ticket, map::Target, poison::Poison};
use crate::{
    error::{Error, Kind, Result},
    ports::{InboundMessage, OutboundMessage, Publisher, version_text},
};

/// A message on its way to the dead-letter topic.
#[derive(Debug)]
pub struct Burial {
    pub ticket: Ticket,
    pub poison: Poison,
    /// The key that waits for it, where DynamoDB refused the write itself.
    pub key: Option<Target>,
}

/// Sends copies in order, in a task of its own: a dead-letter topic that is slow must not hold up the writes.
#[derive(Debug)]
pub struct DeadLetters {
    queue: mpsc::Sender<(Burial, OutboundMessage)>,
    receipts: mpsc::Receiver<(Burial, Result<()>)>,
    pending: usize,
    /// Since when nothing has come back, while something is on its way.
    waiting_since: Option<Instant>,
    /// Ends with this value.
    _task: JoinSet<()>,
}

impl DeadLetters {
    /// `max_pending`: how many messages may be on their way; callers keep to it, since that many may be in work (M1).
    pub fn new<P: Publisher>(publisher: P, max_pending: usize) -> Self {
        let (queue, requests) = mpsc::channel(max_pending);
        let (results, receipts) = mpsc::channel(max_pending);
        let mut task = JoinSet::new();
        task.spawn(send_all(publisher, requests, results));
        Self { queue, receipts, pending: 0, waiting_since: None, _task: task }
    }

    pub fn is_idle(&self) -> bool {
        self.pending == 0
    }

    /// How long the dead-letter topic has been silent about copies on their way.
    pub fn silent_for(&self) -> Option<Duration> {
        self.waiting_since.map(|since| since.elapsed())
    }

    pub fn bury(&mut self, burial: Burial, copy: OutboundMessage) -> Result<()> {
        let stopped = |why| Error::new(Kind::Fatal, "send a message to the dead-letter topic", why);
        self.queue.try_send((burial, copy)).map_err(|full| stopped(full.to_string()))?;
        self.pending += 1;
        self.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// The next message that is safe in the dead-letter topic, or never will be; `None` when none is on its way. Cancel-safe.
    pub async fn receipt(&mut self) -> Option<(Burial, Result<()>)> {
        if self.pending == 0 {
            return None;
        }
        let receipt = self.receipts.recv().await;
        self.pending -= 1;
        self.waiting_since = (self.pending > 0).then(Instant::now);
        receipt
    }
}

async fn send_all<P: Publisher>(
    publisher: P,
    mut requests: mpsc::Receiver<(Burial, OutboundMessage)>,
    results: mpsc::Sender<(Burial, Result<()>)>,
) {
    let mut receipts = FuturesOrdered::new();
    loop {
        let result = tokio::select! {
            Some(result) = receipts.next(), if !receipts.is_empty() => result,
            request = requests.recv() => {
                let Some((burial, copy)) = request else { return };
                match publisher.publish(copy).await {
                    Ok(receipt) => {
                        receipts.push_back(async { (burial, receipt.stored().await.map_err(|refusal| refusal.error)) });
                        continue;
                    }
                    Err(refusal) => (burial, Err(refusal.error)),
                }
            }
        };
        if results.send(result).await.is_err() {
            return;
        }
    }
}

/// Where a poisonous message came from and who could not write it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub message: &'a InboundMessage,
    pub table: &'a str,
    pub worker: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// Bytes of one property: a key or a reason may quote megabytes of the payload, which is in the copy as well.
const PROPERTY_BYTES: usize = 2048;

fn cut(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).find(|at| *at > PROPERTY_BYTES) {
        Some(at) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The message as it was, with the reason in properties. Properties of an earlier stay in a dead-letter topic are replaced.
pub fn copy(origin: Origin, poison: &Poison) -> OutboundMessage {
    const PREFIX: &str = "dlq.";
    let Origin { message, table, worker, now } = origin;
    let id = message.id();
    // The copy's own schema is none: whoever reads it needs this one.
    let schema = message.schema_version.as_deref().map(version_text);
    let reasons = [
        ("reason", Some(poison.reason.name())),
        ("errorMessage", Some(poison.message.as_str())),
        ("table", Some(table)),
        ("itemKey", poison.item_key.as_deref()),
        ("originTopic", Some(&*message.entry.topic)),
        ("originMessageId", Some(id.as_str())),
        ("originSchemaVersion", schema.as_deref()),
        ("timestamp", Some(now)),
        ("connector", Some(worker)),
    ];
    let kept = message.properties.iter().filter(|(name, _)| !name.starts_with(PREFIX)).cloned();
    let added = reasons.into_iter().filter_map(|(name, value)| Some((format!("{PREFIX}{name}"), cut(value?))));
    OutboundMessage {
        topic: None,
        key: message.key.clone(),
        key_is_base64: message.key_is_base64,
        ordering_key: message.ordering_key.clone(),
        payload: message.payload.to_vec(),
        properties: kept.chain(added).map(|(name, value)| (name.into(), value)).collect(),
        event_time: message.event_time,
        ..OutboundMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ports::EntryId, sink::poison::Reason};

    #[test]
    fn a_property_is_cut_between_characters() {
        assert_eq!(cut("é"), "é");
        let long = cut(&"é".repeat(1_000_000));
        assert!(long.ends_with("é…") && long.len() <= PROPERTY_BYTES + 6, "{} bytes", long.len());
    }

    #[test]
    fn the_copy_is_the_message_and_its_reason() {
        let message = InboundMessage {
            entry: EntryId { topic: "persistent://public/default/in-partition-1".into(), ledger: 5, entry: 6, batch_index: None },
            batch_index: 7,
            batch_size: 8,
            key: Some("k".into()),
            key_is_base64: true,
            ordering_key: Some(vec![1]),
            payload: (&b"{"[..]).into(),
            properties: vec![("EVENT_NAME".into(), "INSERT".into()), ("dlq.reason".into(), "OLD".into())],
            publish_time: 9,
            event_time: Some(10),
            producer_name: "p".into(),
            sequence_id: None,
            null_value: false,
            schema_version: Some(vec![0, 0, 0, 0, 0, 0, 0, 3]),
        };
        let poison = Poison { item_key: Some("{}".into()), ..Poison::new(Reason::NotParseable, "EOF") };
        let copy = copy(Origin { message: &message, table: "orders", worker: "t/n/s-0", now: "2026-01-01T00:00:00Z" }, &poison);
        let expected = [
            ("EVENT_NAME", "INSERT"),
            ("dlq.reason", "NOT_PARSEABLE"),
            ("dlq.errorMessage", "EOF"),
            ("dlq.table", "orders"),
            ("dlq.itemKey", "{}"),
            ("dlq.originTopic", "persistent://public/default/in-partition-1"),
            ("dlq.originMessageId", "5:6:7"),
            ("dlq.originSchemaVersion", "3"),
            ("dlq.timestamp", "2026-01-01T00:00:00Z"),
            ("dlq.connector", "t/n/s-0"),
        ];
        assert_eq!(copy.properties, expected.map(|(name, value)| (name.into(), value.to_owned())));
        assert_eq!((copy.key.as_deref(), copy.key_is_base64, copy.ordering_key), (Some("k"), true, Some(vec![1])));
        assert_eq!((copy.payload.as_slice(), copy.event_time), (&b"{"[..], Some(10)));
    }
}
