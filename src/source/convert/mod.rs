//! One stream record's text into a message; with the default options the Java connector's, byte for byte.
//!
//! ```text
//!  text ── read ──► Record ── filter ──► shape ──► OutboundMessage
//! ```
//!
//! The connector puts the record into Java objects and writes those with Jackson, so its output has fixed member order, attributes
//! in the order of a Java `HashMap` ([`java_hash`]), and Jackson's escapes ([`write`]). That order depends on the service's own order, so
//! [`read`] starts from the service's text, in one pass: each member is written into a buffer while it is read. Proven on
//! `tests/golden/`. Everything that is no default ([`filter`], [`plain`], [`key`]) works on those buffers, and costs only who asks for it.

pub mod filter;
mod java_hash;
mod java_map;
mod key;
mod plain;
mod read;
pub mod shape;
mod write;

use std::fmt;

use self::{
    read::RecordMembers,
    write::{Members, Text},
};
use crate::{
    error::{Error, Kind, Result},
    ports::SequenceNumber,
};

/// The order in which an item's attributes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The Java connector's: that of a Java `HashMap`.
    #[default]
    Compat,
    /// By name, as UTF-8 bytes.
    Sorted,
}

/// A record that was read.
pub struct Record<'r> {
    pub event_id: String,
    /// INSERT, MODIFY or REMOVE; passed on unchanged, whatever it is.
    pub event_name: String,
    pub sequence_number: SequenceNumber,
    /// When DynamoDB made the change, to the second. Epoch milliseconds.
    pub created_at: Option<i64>,
    members: RecordMembers<'r>,
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {} {})", self.event_name, self.event_id, self.sequence_number)
    }
}

/// A record is what the Java connector would write of it.
impl PartialEq for Record<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.event() == other.event()
    }
}

impl<'r> Record<'r> {
    /// Reads the JSON text of one record, as GetRecords sent it in a page that is JSON as a whole.
    ///
    /// Fails with [`Kind::Poison`] where the text is not a record: not JSON, a member of a wrong type, or no event id, event name or
    /// sequence number.
    pub fn read(record: &'r [u8], order: Order) -> Result<Self> {
        let poison = |why: &dyn fmt::Display| Error::new(Kind::Poison, "convert a stream record", why);
        let members = RecordMembers::read(record, order).map_err(|error| poison(&error))?;
        let missing = |name| poison(&format_args!("it has no {name}"));
        let plain = |text: &Option<Text<'_>>, name| text.as_ref().map(Text::plain).ok_or_else(|| missing(name));
        Ok(Self {
            sequence_number: SequenceNumber::parse(&plain(&members.dynamodb.sequence_number, "SequenceNumber")?)?,
            event_id: plain(&members.event_id, "eventID")?,
            event_name: plain(&members.event_name, "eventName")?,
            created_at: members.dynamodb.created_at,
            members,
        })
    }

    /// The change event, as the Java connector writes it.
    pub fn event(&self) -> Vec<u8> {
        self.write(true)
    }

    /// The change event without its images: what is left to say where the whole does not fit.
    pub fn event_without_images(&self) -> Vec<u8> {
        self.write(false)
    }

    fn write(&self, images: bool) -> Vec<u8> {
        let members = &self.members;
        let change = &members.dynamodb;
        let [new_image, old_image] = [change.new_image(), change.old_image()].map(|image| image.filter(|_| images));
        let bytes = [change.keys(), new_image, old_image].into_iter().flatten().map(<[u8]>::len).sum::<usize>();
        let mut out = Vec::with_capacity(bytes + 512);
        let mut top = Members::open(&mut out);
        if let Some(identity) = &members.user_identity {
            let mut inner = Members::open(top.name("userIdentity"));
            inner.text("principalId", &identity.principal_id);
            inner.text("type", &identity.kind);
            inner.close();
        }
        top.text("eventID", &members.event_id);
        top.text("eventName", &members.event_name);
        top.text("eventVersion", &members.event_version);
        top.text("eventSource", &members.event_source);
        top.text("awsRegion", &members.aws_region);
        if members.has_dynamodb {
            let mut inner = Members::open(top.name("dynamodb"));
            inner.number("ApproximateCreationDateTime", change.created_at);
            inner.json("Keys", change.keys());
            inner.json("NewImage", new_image);
            inner.json("OldImage", old_image);
            inner.text("SequenceNumber", &change.sequence_number);
            inner.number("SizeBytes", change.size_bytes);
            inner.text("StreamViewType", &change.stream_view_type);
            inner.close();
        }
        top.close();
        out
    }
}

#[cfg(test)]
mod tests;
