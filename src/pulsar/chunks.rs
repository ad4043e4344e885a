//! Messages that their producer has cut into chunks (PIP-37), put together as Pulsar's Java client does it (`ConsumerImpl.processMessageChunk`). Pure.
//!
//! Each chunk is an entry. Those of one message come in order, between others' entries. The whole message goes by the last one's place, and is acknowledged
//! with all of them.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    time::Duration,
};

use ::pulsar::message::{Payload, proto::MessageIdData};

use crate::ports::Moment;

/// Messages that may be incomplete at once (M1).
const MOST: usize = 100;
/// Bytes that they may have (M1), and so the largest message.
const BYTES: usize = 32 * 1024 * 1024;
/// A message of which nothing has come for so long is given up: its producer has died in the middle. Its entries would keep all that was stored later in
/// the topic. Java waits for a minute, which a producer may need to find its broker again.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Bytes of an entry's place.
const PLACE: usize = size_of::<Place>();

/// Ledger and entry.
type Place = (u64, u64);

/// A consumer's chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Which has grown last comes last.
    incomplete: VecDeque<Incomplete>,
    /// Of messages that are in work, by the last chunk's place: those of the others.
    whole: HashMap<Place, BTreeSet<Place>>,
    /// Some chunks of this connection's were let go: what has no beginning may be of the same message.
    has_let_go: bool,
    /// Of which messages, as long as nobody has asked.
    let_go: Vec<String>,
}

/// What has come of one message.
#[derive(Debug)]
struct Incomplete {
    uuid: String,
    /// `None`: a chunk is missing, which this connection does not bring any more.
    data: Option<Vec<u8>>,
    /// What it says that it will have.
    size: usize,
    /// The next chunk's number.
    next: i32,
    /// Also of chunks that came twice, as they do when a producer has sent them again.
    places: BTreeSet<Place>,
    grown: Moment,
}

/// A message that has not become whole in time.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub uuid: String,
    /// What has come of it, to be acknowledged.
    pub entries: Vec<MessageIdData>,
}

impl Chunks {
    /// Takes an entry. Returns it, or the message that it completes; `None`: more has to come.
    ///
    /// # Errors
    /// It is a chunk with a number that makes no sense, or of a message that is too large.
    pub fn add(&mut self, id: MessageIdData, payload: Payload, now: Moment) -> io::Result<Option<(MessageIdData, Payload)>> {
        let Payload { metadata, data } = payload;
        let Some(count) = metadata.num_chunks_from_msg.filter(|count| *count > 1) else {
            return Ok(Some((id, Payload { metadata, data })));
        };
        let Some(number) = metadata.chunk_id.filter(|number| (0..count).contains(number)) else {
            return Err(io::Error::other(format!("it is a chunk with the number {:?} of {count}", metadata.chunk_id)));
        };
        let uuid = metadata.uuid.as_deref().unwrap_or_default();
        let known = self.incomplete.iter().position(|message| message.uuid == uuid).and_then(|at| self.incomplete.remove(at));
        if known.is_none() && number > 0 && self.has_let_go {
            return Ok(None);
        }
        let mut message = known.unwrap_or_else(|| Incomplete::new(uuid));
        if number == 0 {
            // Once more from the beginning, by the broker or by the producer.
            message.size = metadata.total_chunk_msg_size.and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
            (message.data, message.next) = (Some(Vec::new()), 0);
        }
        message.grown = now;
        message.places.insert((id.ledger_id, id.entry_id));
        if number > message.next {
            message.data = None;
        }
        if let Some(whole) = message.data.as_mut().filter(|_| number == message.next) {
            if whole.len() + data.len() > BYTES || message.size > BYTES {
                let size = message.size.max(whole.len() + data.len());
                return Err(io::Error::other(format!(
                    "it is of a message of {size} bytes in {count} chunks, and {BYTES} are put together at most"
                )));
            }
            // No more than it says, so that no room is wasted.
            whole.reserve_exact(message.size.saturating_sub(whole.len()));
            whole.extend(data);
            message.next += 1;
            if message.next == count {
                let data = message.data.unwrap_or_default();
                message.places.remove(&(id.ledger_id, id.entry_id));
                self.whole.insert((id.ledger_id, id.entry_id), message.places);
                return Ok(Some((id, Payload { metadata, data })));
            }
        }
        self.incomplete.push_back(message);
        self.make_room();
        Ok(None)
    }

    /// Lets those go that have not grown for the longest.
    fn make_room(&mut self) {
        let mut bytes: usize = self.incomplete.iter().map(Incomplete::bytes).sum();
        while self.incomplete.len() > 1 && (self.incomplete.len() > MOST || bytes > BYTES) {
            let Some(message) = self.incomplete.pop_front() else { break };
            bytes -= message.bytes();
            self.has_let_go = true;
            self.let_go.push(message.uuid);
        }
    }

    /// Which messages are not waited for any more, for want of room. What has come of them stays unacknowledged.
    pub fn let_go(&mut self) -> Vec<String> {
        std::mem::take(&mut self.let_go)
    }

    /// Which messages are not waited for any more, since they should have become whole long ago.
    pub fn give_up(&mut self, now: Moment) -> Vec<GivenUp> {
        let late = |message: &mut Incomplete| message.grown + PATIENCE <= now;
        let given_up = std::iter::from_fn(|| self.incomplete.pop_front_if(late));
        given_up.map(|message| GivenUp { uuid: message.uuid, entries: message.places.into_iter().map(entry).collect() }).collect()
    }

    /// All entries of the message, or of the batch, that ends with this one; it is not in work any more.
    pub fn acknowledged(&mut self, ledger: u64, last: u64) -> Vec<MessageIdData> {
        let others = self.whole.remove(&(ledger, last)).unwrap_or_default();
        others.into_iter().chain([(ledger, last)]).map(entry).collect()
    }
}

impl Incomplete {
    fn new(uuid: &str) -> Self {
        Self { uuid: uuid.to_owned(), data: None, size: 0, next: 0, places: BTreeSet::new(), grown: Moment::ZERO }
    }

    fn bytes(&self) -> usize {
        self.uuid.len() + self.data.as_ref().map_or(0, |data| self.size.max(data.len())) + self.places.len() * PLACE
    }
}

fn entry((ledger_id, entry_id): Place) -> MessageIdData {
    MessageIdData { ledger_id, entry_id, ..Default::default() }
}

#[cfg(test)]
mod tests;
