//! The worker's ends of the pipes: what publishes and what receives by Pulsar IO.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    frame::Numbered,
    pipe::{Said, Sending, Speaker, Waiting},
};
use crate::{
    error::{Error, Kind, Result},
    ports::{EntryId, Inbound, Inbox, OutboundMessage, Publisher, Receipt, Refusal, Schema, SchemaId, Schemas, topic_and_partition},
    pulsar::publisher::DEFAULT_MAX_MESSAGE_SIZE,
};

/// Bytes on their way to Pulsar IO and not yet acknowledged (M1).
const WINDOW_BYTES: usize = 32 * 1024 * 1024;
/// What a message takes at least, whatever is in it.
pub const MESSAGE_COST: usize = 1024;

/// Publishes by RECORD frames; the shim's ACK is the receipt.
///
/// Records are handed on in the order in which they were accepted, and Pulsar IO keeps it for each partition (O1). Why a record was not stored
/// the shim does not know, so any FAIL is final.
#[derive(Debug, Clone)]
pub struct FramePublisher {
    speaker: Speaker,
    room: Arc<Semaphore>,
}

impl FramePublisher {
    pub fn new(speaker: Speaker) -> Self {
        Self { speaker, room: Arc::new(Semaphore::new(WINDOW_BYTES)) }
    }
}

impl Publisher for FramePublisher {
    async fn publish(&self, message: OutboundMessage) -> Result<Receipt, Refusal> {
        let bytes = size(&message);
        if bytes > DEFAULT_MAX_MESSAGE_SIZE {
            let why = format!("the message has {bytes} bytes, and Pulsar takes {DEFAULT_MAX_MESSAGE_SIZE} by default");
            return Err(Refusal { error: Error::new(Kind::TooLarge, "publish a record", why), message: Some(Box::new(message)) });
        }
        let cost = u32::try_from(bytes.max(MESSAGE_COST)).unwrap_or(u32::MAX);
        let closed = |_| Error::new(Kind::Fatal, "publish a record", "the publisher has stopped");
        let room = self.room.clone().acquire_many_owned(cost).await.map_err(closed)?;
        let (receipt, stored) = oneshot::channel();
        self.speaker.say(Said::Record(Sending { message, waiting: Waiting { receipt, _room: room } })).await?;
        Ok(Receipt(stored))
    }
}

fn size(message: &OutboundMessage) -> usize {
    let properties = message.properties.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    message.payload.len() + message.key.as_ref().map_or(0, String::len) + properties
}

/// Batches of which some messages are acknowledged and others are not. Pulsar IO acknowledges a batch as a whole and delivers it again as a whole, when one of its
/// messages is given back, say. Those that were stored would be written over what came after them (K1).
#[derive(Debug, Default)]
struct Batches(BTreeMap<EntryId, Vec<u32>>);

/// More than a broker leaves unacknowledged are old ones that never become whole: a transform function returned nothing for some of their messages.
const MOST_BATCHES: usize = 4_096;

impl Batches {
    /// Whether this message is acknowledged already.
    fn has(&self, message: &EntryId) -> bool {
        let Some(index) = message.batch_index else { return false };
        self.0.get(&message.whole()).is_some_and(|acknowledged| acknowledged.contains(&index))
    }

    fn add(&mut self, message: &EntryId, size: u32) {
        let Some(index) = message.batch_index.filter(|_| size > 1) else { return };
        let batch = message.whole();
        let acknowledged = self.0.entry(batch.clone()).or_default();
        if !acknowledged.contains(&index) {
            acknowledged.push(index);
        }
        if acknowledged.len() >= size as usize {
            self.0.remove(&batch);
        } else if self.0.len() > MOST_BATCHES {
            self.0.pop_first();
        }
    }
}

/// Receives MESSAGE frames and answers each with ACK or FAIL.
#[derive(Debug)]
pub struct FrameInbox {
    messages: mpsc::Receiver<Numbered>,
    speaker: Speaker,
    /// The shim's numbers of what is in work, and the size of its batch. A message that was delivered twice has two numbers.
    ids: HashMap<EntryId, (Vec<u64>, u32)>,
    batches: Batches,
    /// Whether what is given back ends in a dead-letter topic.
    redelivers: bool,
}

impl FrameInbox {
    pub fn new(messages: mpsc::Receiver<Numbered>, speaker: Speaker, redelivers: bool) -> Self {
        Self { messages, speaker, ids: HashMap::new(), batches: Batches::default(), redelivers }
    }

    fn answer(&mut self, entry: &EntryId, said: fn(u64) -> Said) -> Result<()> {
        let (ids, _) = self.ids.remove(entry).unwrap_or_default();
        ids.into_iter().try_for_each(|id| self.speaker.answer(said(id)))
    }
}

impl Inbox for FrameInbox {
    async fn receive(&mut self, room: bool) -> Result<Inbound> {
        if !room {
            // Pulsar IO does not tell that a message is another consumer's now.
            return std::future::pending().await;
        }
        loop {
            let Some(Numbered { id, message }) = self.messages.recv().await else {
                return Err(Error::new(Kind::Fatal, "receive messages", "Pulsar's instance has ended, or closed the pipe"));
            };
            if self.batches.has(&message.entry) {
                self.speaker.answer(Said::Ack(id))?;
                continue;
            }
            let (ids, size) = self.ids.entry(message.entry.clone()).or_default();
            ids.push(id);
            *size = message.batch_size;
            return Ok(Inbound::Message(Box::new(message)));
        }
    }

    fn ack(&mut self, entry: &EntryId) -> Result<()> {
        if let Some((_, size)) = self.ids.get(entry) {
            self.batches.add(entry, *size);
        }
        self.answer(entry, Said::Ack)
    }

    fn give_back(&mut self, entry: &EntryId) -> Result<bool> {
        if self.redelivers {
            self.answer(entry, Said::Fail)?;
        }
        Ok(self.redelivers)
    }

    async fn close(self) -> Result<()> {
        // Whatever is not answered is Pulsar IO's to deliver again.
        Ok(())
    }
}

/// The schemas that the shim has told. Cheap to clone; clones share everything. One entry for each version of each topic.
#[derive(Debug, Clone, Default)]
pub struct ToldSchemas(Arc<Mutex<HashMap<SchemaId, Schema>>>);

impl ToldSchemas {
    pub fn learn(&self, id: SchemaId, schema: Schema) {
        self.lock().insert(of_the_whole_topic(&id), schema);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SchemaId, Schema>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partitions of a topic share its schemas.
fn of_the_whole_topic(id: &SchemaId) -> SchemaId {
    SchemaId { topic: topic_and_partition(&id.topic).0.into(), version: id.version.clone() }
}

impl Schemas for ToldSchemas {
    async fn schema(&self, id: &SchemaId) -> Result<Option<Schema>> {
        Ok(self.lock().get(&of_the_whole_topic(id)).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_what_comes_again_with_its_batch_is_known_until_the_batch_is_whole() {
        let of = |entry, index| EntryId { topic: "persistent://public/default/in".into(), ledger: 1, entry, batch_index: Some(index) };
        let mut batches = Batches::default();
        batches.add(&of(1, 0), 3);
        batches.add(&of(1, 0), 3);
        batches.add(&of(1, 2), 3);
        assert_eq!([0, 1, 2].map(|index| batches.has(&of(1, index))), [true, false, true]);
        assert!(!batches.has(&of(2, 0)));
        batches.add(&of(1, 1), 3);
        assert!(batches.0.is_empty(), "the broker has all of it: it is to be written again where somebody asks for it");
        batches.add(&EntryId { batch_index: None, ..of(2, 0) }, 1);
        assert!(batches.0.is_empty());
        (0..=MOST_BATCHES as u64).for_each(|entry| batches.add(&of(entry, 0), 2));
        assert_eq!((batches.0.len(), batches.has(&of(0, 0))), (MOST_BATCHES, false), "M1: the oldest is let go");
    }
}
