//! The room for messages in work (M1). Messages are received only while there is some: then the client stops asking the broker for more.

use foldhash::{HashMap, HashMapExt};

use super::{ack::Slot, batch::Ticket};
use crate::ports::InboundMessage;

/// Messages received and neither stored nor dead-lettered, bounded in number and in bytes. One message may exceed the bytes: it has
/// to pass, whatever its size.
#[derive(Debug)]
pub struct Room {
    max_messages: usize,
    max_bytes: usize,
    /// Boxed, since a table of them has room for twice as many.
    messages: HashMap<Ticket, (Box<InboundMessage>, Option<Slot>)>,
    bytes: usize,
    next: Ticket,
}

impl Room {
    pub fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { max_messages, max_bytes, messages: HashMap::new(), bytes: 0, next: 0 }
    }

    pub fn has_room(&self) -> bool {
        self.messages.len() < self.max_messages && self.bytes < self.max_bytes
    }

    /// Takes a message in and names it. `slot`: where its confirmation counts.
    pub fn admit(&mut self, message: Box<InboundMessage>, slot: Option<Slot>) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.bytes += bytes(&message);
        self.messages.insert(ticket, (message, slot));
        ticket
    }

    pub fn get(&self, ticket: Ticket) -> Option<&InboundMessage> {
        self.messages.get(&ticket).map(|(message, _)| &**message)
    }

    /// Lets a message go that is stored or dead-lettered.
    pub fn release(&mut self, ticket: Ticket) -> Option<(Box<InboundMessage>, Option<Slot>)> {
        let released = self.messages.remove(&ticket);
        if let Some((message, _)) = &released {
            self.bytes -= bytes(message);
        }
        released
    }

    /// When the oldest of them was published. Epoch milliseconds.
    pub fn oldest(&self) -> Option<u64> {
        self.messages.values().map(|(message, _)| message.publish_time).min()
    }

    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn bytes(message: &InboundMessage) -> usize {
    let properties: usize = message.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.payload.len() + properties + message.key.as_ref().map_or(0, String::len)
}
