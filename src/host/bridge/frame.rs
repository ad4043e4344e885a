//! The frames between the NAR's Java shim and this process. Pure; the other half is `nar/src/…/Frames.java`.
//!
//! Each side sends its protocol version in one byte, then frames: length of the rest (u32), type (u8), body. Numbers are big-endian. A text and
//! bytes have their length before them (i32), and -1 stands for "none".
//!
//! | type | name | from | body |
//! |---|---|---|---|
//! | 1 | READY | child | credit (u32): bytes of messages that may be unanswered. The configuration is good |
//! | 2 | RECORD | child | id (u64), sequence (i64, -1: none), event time (i64, -1: none), producer?, topic?, key?, properties, payload |
//! | 3 | ACK | both | ids (u64 each): stored, by Pulsar or in the table |
//! | 4 | FAIL | both | ids (u64 each): not stored |
//! | 5 | METRICS | child | count (u32), then name and value (f64) of each. Also the sign of life: every five seconds |
//! | 6 | ERROR | child | text: the child's last words |
//! | 16 | OPEN | shim | JSON ([`Open`](super::open::Open)), the first frame |
//! | 17 | SCHEMA | shim | topic, version, type, definition?, properties: once, before the first message of the topic with this version |
//! | 18 | MESSAGE | shim | id (u64), message id (bytes, as Pulsar serialises it), publish time, event time (i64, -1: none), topic, key?, key is base64 (u8), ordering key?, schema version?, producer's name?, sequence id (i64), properties, payload (none: null) |
//! | 19 | STOP | shim | nothing: finish what is under way, then exit |
//!
//! Properties: count (u32), then name and value of each. `?`: may be none.

use std::io::{self, Read};

use bytes::Bytes;

use crate::{
    error::{Error, Kind, Result},
    ports::{EntryId, InboundMessage, OutboundMessage, Schema, SchemaId, SchemaKind},
    pulsar::message_id,
};

/// Of this protocol. Another one is refused by both sides: the shim and the executable come from one archive, unless somebody exchanged one.
pub const VERSION: u8 = 1;
/// A larger frame is no frame. Pulsar's messages are 5 MB by default.
const MAX_FRAME: usize = 128 * 1024 * 1024;

const READY: u8 = 1;
const RECORD: u8 = 2;
const ACK: u8 = 3;
const FAIL: u8 = 4;
const METRICS: u8 = 5;
const ERROR: u8 = 6;
const OPEN: u8 = 16;
const SCHEMA: u8 = 17;
const MESSAGE: u8 = 18;
const STOP: u8 = 19;

/// What the shim says.
#[derive(Debug, Clone)]
pub enum FromShim {
    Open(Bytes),
    Ack(Vec<u64>),
    Fail(Vec<u64>),
    /// A version of a topic's schema, told once before the first message that was written with it.
    Schema(SchemaId, Schema),
    Message(Numbered),
    Stop,
}

/// A message under the shim's number for it.
#[derive(Debug, Clone)]
pub struct Numbered {
    pub id: u64,
    pub message: InboundMessage,
}

/// Reads and checks the version byte. `None` at the end of the input.
pub fn read_version(input: &mut impl Read) -> Result<Option<()>> {
    let mut version = [0];
    match input.read_exact(&mut version) {
        Ok(()) if version[0] == VERSION => Ok(Some(())),
        Ok(()) => {
            let why = format!(
                "it speaks version {} of the frame protocol, this executable speaks {VERSION}: use the executable of the same archive",
                version[0]
            );
            Err(Error::new(Kind::Configuration, "understand the NAR's shim", why))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(broken(&error)),
    }
}

/// The next frame; `None` where the shim has closed its end between two frames.
pub fn read(input: &mut impl Read) -> Result<Option<FromShim>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(broken(&error)),
    }
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if !(1..=MAX_FRAME).contains(&length) {
        return Err(broken(&format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).map_err(|error| broken(&error))?;
    parse(Bytes::from(body)).map(Some)
}

fn parse(frame: Bytes) -> Result<FromShim> {
    let kind = frame[0];
    let mut body = Body(frame.slice(1..));
    let parsed = match kind {
        OPEN => return Ok(FromShim::Open(body.0)),
        ACK => FromShim::Ack(body.ids()?),
        FAIL => FromShim::Fail(body.ids()?),
        SCHEMA => {
            let (id, schema) = body.schema()?;
            FromShim::Schema(id, schema)
        }
        MESSAGE => FromShim::Message(body.message()?),
        STOP => FromShim::Stop,
        unknown => return Err(broken(&format!("a frame of the unknown type {unknown}"))),
    };
    if body.0.is_empty() { Ok(parsed) } else { Err(broken(&format!("{} bytes too many in a frame of type {kind}", body.0.len()))) }
}

fn broken(why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Fatal, "read the shim's frames", why)
}

/// What is left of a frame.
struct Body(Bytes);

impl Body {
    fn bytes(&mut self, length: usize) -> Result<Bytes> {
        if length > self.0.len() {
            return Err(broken(&"a frame ends too early"));
        }
        Ok(self.0.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number of which -1 means "none".
    fn optional(&mut self) -> Result<Option<u64>> {
        self.array().map(|bytes| u64::try_from(i64::from_be_bytes(bytes)).ok())
    }

    fn blob(&mut self) -> Result<Option<Bytes>> {
        let length = i32::from_be_bytes(self.array()?);
        usize::try_from(length).ok().map(|length| self.bytes(length)).transpose()
    }

    fn text(&mut self) -> Result<Option<String>> {
        let text = self.blob()?.map(|bytes| String::from_utf8(bytes.into()));
        text.transpose().map_err(|_| broken(&"a text that is not UTF-8"))
    }

    fn some_text(&mut self) -> Result<String> {
        self.text()?.ok_or_else(|| broken(&"a text is missing"))
    }

    fn ids(&mut self) -> Result<Vec<u64>> {
        let mut ids = Vec::with_capacity(self.0.len() / 8);
        while !self.0.is_empty() {
            ids.push(self.u64()?);
        }
        Ok(ids)
    }

    fn properties(&mut self) -> Result<Vec<(String, String)>> {
        (0..self.u32()?).map(|_| Ok((self.some_text()?, self.some_text()?))).collect()
    }

    fn schema(&mut self) -> Result<(SchemaId, Schema)> {
        let id = SchemaId { topic: self.some_text()?.into(), version: self.blob()?.unwrap_or_default().into() };
        let name = self.some_text()?;
        let kind = SchemaKind::by_name(&name).ok_or_else(|| broken(&format!("{id} is of the unknown type {name}")))?;
        let definition = self.blob()?.unwrap_or_default().into();
        Ok((id, Schema { kind, definition, properties: self.properties()?.into_iter().collect() }))
    }

    fn message(&mut self) -> Result<Numbered> {
        let id = self.u64()?;
        let (ledger, entry, batch_index, batch_size) =
            message_id::decode(&self.blob()?.unwrap_or_default()).map_err(|why| broken(&format!("a message id: {why}")))?;
        let (publish_time, event_time) = (self.u64()?, self.optional()?);
        let topic = self.some_text()?.into();
        let (key, key_is_base64) = (self.text()?, self.array::<1>()? != [0]);
        let ordering_key = self.blob()?.map(Into::into);
        let schema_version = self.blob()?.map(Into::into);
        let (producer_name, sequence_id) = (self.text()?.unwrap_or_default(), self.optional()?);
        let properties = self.properties()?;
        let payload = self.blob()?;
        let message = InboundMessage {
            entry: EntryId { topic, ledger, entry, batch_index },
            batch_index: batch_index.unwrap_or_default(),
            batch_size,
            key,
            key_is_base64,
            ordering_key,
            null_value: payload.is_none(),
            payload: payload.unwrap_or_default(),
            properties,
            publish_time,
            event_time,
            producer_name,
            sequence_id,
            schema_version,
        };
        Ok(Numbered { id, message })
    }
}

/// Adds frames to what goes out.
#[derive(Debug, Default)]
pub struct Outgoing(pub Vec<u8>);

impl Outgoing {
    fn frame(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend([0, 0, 0, 0, kind]);
        body(&mut self.0);
        let length = u32::try_from(self.0.len() - start - 4).unwrap_or(u32::MAX);
        self.0[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    pub fn ready(&mut self, credit: u32) {
        self.frame(READY, |body| body.extend(credit.to_be_bytes()));
    }

    pub fn record(&mut self, id: u64, message: &OutboundMessage) {
        self.frame(RECORD, |body| {
            body.extend(id.to_be_bytes());
            let (producer, sequence) = match &message.place {
                Some(place) => (Some(&*place.producer), i64::try_from(place.sequence).unwrap_or(i64::MAX)),
                None => (None, -1),
            };
            body.extend(sequence.to_be_bytes());
            body.extend(message.event_time.map_or(-1, |time| i64::try_from(time).unwrap_or(i64::MAX)).to_be_bytes());
            for text in [producer, message.topic.as_deref(), message.key.as_deref()] {
                put(body, text.map(str::as_bytes));
            }
            body.extend(count(message.properties.len()).to_be_bytes());
            for (name, value) in &message.properties {
                put(body, Some(name.as_bytes()));
                put(body, Some(value.as_bytes()));
            }
            put(body, Some(&message.payload));
        });
    }

    pub fn acks(&mut self, ids: &[u64]) {
        self.ids(ACK, ids);
    }

    pub fn fails(&mut self, ids: &[u64]) {
        self.ids(FAIL, ids);
    }

    fn ids(&mut self, kind: u8, ids: &[u64]) {
        if !ids.is_empty() {
            self.frame(kind, |body| ids.iter().for_each(|id| body.extend(id.to_be_bytes())));
        }
    }

    pub fn metrics(&mut self, values: &[(&str, f64)]) {
        self.frame(METRICS, |body| {
            body.extend(count(values.len()).to_be_bytes());
            for (name, value) in values {
                put(body, Some(name.as_bytes()));
                body.extend(value.to_be_bytes());
            }
        });
    }

    pub fn error(&mut self, text: &str) {
        self.frame(ERROR, |body| put(body, Some(text.as_bytes())));
    }
}

fn put(body: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    body.extend(length.to_be_bytes());
    body.extend(bytes.unwrap_or_default());
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut outgoing = Outgoing::default();
        outgoing.frame(kind, |frame| frame.extend(body));
        outgoing.0
    }

    #[test]
    fn another_version_and_an_unknown_frame_are_refused_with_a_sentence() {
        let error = read_version(&mut [VERSION + 1].as_slice()).expect_err("another version").to_string();
        assert!(error.contains("version 2 of the frame protocol, this executable speaks 1"), "{error}");
        assert!(read_version(&mut [].as_slice()).expect("the end").is_none());
        let error = read(&mut frame(99, &[]).as_slice()).expect_err("unknown").to_string();
        assert!(error.contains("unknown type 99"), "{error}");
    }

    #[test]
    fn a1_a_message_of_a_batch_is_acknowledged_by_itself() {
        let mut body = 7u64.to_be_bytes().to_vec();
        // Ledger 300, entry 2, place 5 in its batch of 9.
        put(&mut body, Some(&[8, 0xac, 2, 16, 2, 32, 5, 48, 9]));
        body.extend([1000i64, -1].map(i64::to_be_bytes).concat());
        put(&mut body, Some(b"persistent://public/default/in"));
        put(&mut body, None);
        body.push(0);
        [None, None, None].into_iter().for_each(|text| put(&mut body, text));
        body.extend((-1i64).to_be_bytes());
        body.extend(0u32.to_be_bytes());
        put(&mut body, Some(b"payload"));
        let Ok(Some(FromShim::Message(Numbered { message, .. }))) = read(&mut frame(MESSAGE, &body).as_slice()) else {
            panic!("a message");
        };
        assert_eq!((message.entry.batch_index, message.batch_index, message.batch_size), (Some(5), 5, 9));
        assert_eq!(message.id(), "300:2:5");
    }

    #[test]
    fn whatever_is_cut_off_or_too_long_is_an_error_and_no_panic() {
        let mut whole = Vec::new();
        whole.extend(7u64.to_be_bytes());
        // Ledger 300, entry 2, partition -1, no batch index; as the Java client writes it.
        put(&mut whole, Some(&[8, 0xac, 2, 16, 2, 24, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]));
        whole.extend([1000i64, -1].map(i64::to_be_bytes).concat());
        put(&mut whole, Some(b"persistent://public/default/in"));
        put(&mut whole, Some("clé".as_bytes()));
        whole.push(1);
        put(&mut whole, None);
        put(&mut whole, Some(&[0, 9]));
        put(&mut whole, Some(b"standalone-0-7"));
        whole.extend(41i64.to_be_bytes());
        whole.extend(1u32.to_be_bytes());
        put(&mut whole, Some(b"name"));
        put(&mut whole, Some(b"value"));
        put(&mut whole, Some(b"payload"));
        let Ok(Some(FromShim::Message(Numbered { id: 7, message, .. }))) = read(&mut frame(MESSAGE, &whole).as_slice()) else {
            panic!("a message");
        };
        assert_eq!((message.id().as_str(), message.key.as_deref(), message.key_is_base64), ("300:2:0", Some("clé"), true));
        assert_eq!((message.event_time, message.schema_version), (None, Some(vec![0, 9])));
        assert_eq!((message.producer_name.as_str(), message.sequence_id, message.null_value), ("standalone-0-7", Some(41), false));
        assert_eq!((&message.payload[..], message.properties), (&b"payload"[..], vec![("name".into(), "value".into())]));
        for length in 0..whole.len() {
            read(&mut frame(MESSAGE, &whole[..length]).as_slice()).expect_err("cut off");
        }
        whole.push(0);
        read(&mut frame(MESSAGE, &whole).as_slice()).expect_err("too long");
        read(&mut u32::MAX.to_be_bytes().as_slice()).expect_err("no frame is so long");
        read(&mut 0u32.to_be_bytes().as_slice()).expect_err("no frame is so short");
        assert!(read(&mut [].as_slice()).expect("the end").is_none());
        read(&mut [0, 0, 0, 9, 3].as_slice()).expect_err("the end inside of a frame");
    }
}
