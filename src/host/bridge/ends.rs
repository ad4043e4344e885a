//! The worker's ends of the pipes: what publishes and what receives by Pulsar IO.

use std::{
    collections::HashMap,
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

/// Receives MESSAGE frames and answers each with ACK or FAIL.
#[derive(Debug)]
pub struct FrameInbox {
    messages: mpsc::Receiver<Numbered>,
    speaker: Speaker,
    /// The shim's numbers of what is in work. A message that was delivered twice has two.
    ids: HashMap<EntryId, Vec<u64>>,
    /// Whether what is given back ends in a dead-letter topic.
    redelivers: bool,
}

impl FrameInbox {
    pub fn new(messages: mpsc::Receiver<Numbered>, speaker: Speaker, redelivers: bool) -> Self {
        Self { messages, speaker, ids: HashMap::new(), redelivers }
    }

    fn answer(&mut self, entry: &EntryId, said: fn(u64) -> Said) -> Result<()> {
        self.ids.remove(entry).into_iter().flatten().try_for_each(|id| self.speaker.answer(said(id)))
    }
}

impl Inbox for FrameInbox {
    async fn receive(&mut self, room: bool) -> Result<Inbound> {
        if !room {
            // Pulsar IO does not tell that a message is another consumer's now.
            return std::future::pending().await;
        }
        let Some(Numbered { id, message }) = self.messages.recv().await else {
            return Err(Error::new(Kind::Fatal, "receive messages", "Pulsar's instance has ended, or closed the pipe"));
        };
        self.ids.entry(message.entry.clone()).or_default().push(id);
        Ok(Inbound::Message(Box::new(message)))
    }

    fn ack(&mut self, entry: &EntryId) -> Result<()> {
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
