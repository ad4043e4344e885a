//! What a producer sends at once, as bytes: a batch of messages, or one message alone. Pure but for the compression.
//!
//! The formats are Pulsar's (`PulsarApi.proto`, and "Send command" of its binary protocol):
//!
//! ```text
//!   frame   = size · size of the command · CommandSend · 0e01 · CRC-32C of all that follows · size of the metadata · MessageMetadata · content
//!   content = a message's payload, or for each message of a batch: size of its metadata · SingleMessageMetadata · payload
//! ```

use std::io::{self, Write};

use ::pulsar::message::proto::{BaseCommand, CommandSend, CompressionType, KeyValue, MessageMetadata, base_command::Type};
use crc32c::{crc32c, crc32c_append};
use prost::Message;

use super::Compression;
use crate::ports::OutboundMessage;

const MAGIC: [u8; 2] = [0x0e, 0x01];
/// Bytes, about, of what a sender and a chunk's number add to the metadata.
const MORE_METADATA: usize = 512;

/// The content, and what the metadata says of it.
#[derive(Debug)]
pub(in crate::pulsar) struct Entry {
    content: Vec<u8>,
    about: MessageMetadata,
}

/// Who sends an entry, and which of its entries it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::pulsar) struct Sender<'p> {
    pub producer: u64,
    pub name: &'p str,
    pub sequence: u64,
    pub schema_version: Option<&'p [u8]>,
    /// Epoch milliseconds.
    pub now: u64,
}

impl Entry {
    /// Several messages as one entry.
    pub fn batch<'m>(
        messages: impl ExactSizeIterator<Item = &'m OutboundMessage>,
        bytes: usize,
        compression: Compression,
    ) -> io::Result<Self> {
        let count = i32::try_from(messages.len()).map_err(io::Error::other)?;
        let mut content = Vec::with_capacity(bytes);
        for message in messages {
            append(message, &mut content);
        }
        compressed(content, MessageMetadata { num_messages_in_batch: Some(count), ..Default::default() }, compression)
    }

    /// A message with its key in the entry's own metadata.
    pub fn alone(message: &OutboundMessage, compression: Compression) -> io::Result<Self> {
        let about = MessageMetadata {
            properties: message.properties.iter().map(|(key, value)| KeyValue { key: key.to_string(), value: value.clone() }).collect(),
            partition_key: message.key.clone(),
            partition_key_b64_encoded: message.key.is_some().then_some(message.key_is_base64),
            ordering_key: message.ordering_key.clone(),
            event_time: message.event_time,
            ..Default::default()
        };
        compressed(message.payload.clone(), about, compression)
    }

    /// The same in pieces, none of which is larger than `limit` bytes with its metadata. `uuid`: what its pieces have in common. `None` where the metadata takes more
    /// than half of that by itself.
    pub fn chunks(&self, limit: usize, uuid: &str) -> Option<impl Iterator<Item = Self>> {
        let room = limit.saturating_sub(self.about.encoded_len() + uuid.len() + MORE_METADATA);
        if room < limit / 2 {
            return None;
        }
        let total_chunk_msg_size = Some(i32::try_from(self.content.len()).ok()?);
        let num_chunks_from_msg = Some(i32::try_from(self.content.len().div_ceil(room)).ok()?);
        Some(self.content.chunks(room).zip(0..).map(move |(piece, number)| {
            let about = MessageMetadata {
                uuid: Some(uuid.to_owned()),
                chunk_id: Some(number),
                num_chunks_from_msg,
                total_chunk_msg_size,
                ..self.about.clone()
            };
            Self { content: piece.to_vec(), about }
        }))
    }

    /// The frame that sends it: what comes before the content, and the content.
    pub fn frame(&self, sender: Sender) -> (Vec<u8>, &[u8]) {
        let send = CommandSend {
            producer_id: sender.producer,
            sequence_id: sender.sequence,
            num_messages: self.about.num_messages_in_batch,
            ..Default::default()
        };
        let command = BaseCommand { r#type: Type::Send.into(), send: Some(send), ..Default::default() }.encode_to_vec();
        let metadata = MessageMetadata {
            producer_name: sender.name.to_owned(),
            sequence_id: sender.sequence,
            publish_time: sender.now,
            schema_version: sender.schema_version.map(<[u8]>::to_vec),
            ..self.about.clone()
        };
        let metadata = metadata.encode_to_vec();
        let metadata = [&size(&metadata)[..], &metadata].concat();
        let checksum = crc32c_append(crc32c(&metadata), &self.content).to_be_bytes();
        let command = [&size(&command)[..], &command, &MAGIC, &checksum, &metadata].concat();
        let total = u32::try_from(command.len() + self.content.len()).unwrap_or(u32::MAX).to_be_bytes();
        ([&total[..], &command].concat(), &self.content)
    }
}

fn size(of: &[u8]) -> [u8; 4] {
    u32::try_from(of.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn compressed(content: Vec<u8>, about: MessageMetadata, compression: Compression) -> io::Result<Entry> {
    let (kind, packed) = match compression {
        Compression::None => return Ok(Entry { content, about }),
        Compression::Lz4 => (CompressionType::Lz4, lz4::block::compress(&content, None, false)?),
        Compression::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&content)?;
            (CompressionType::Zlib, encoder.finish()?)
        }
        Compression::Zstd => (CompressionType::Zstd, zstd::encode_all(&content[..], zstd::DEFAULT_COMPRESSION_LEVEL)?),
    };
    let uncompressed_size = Some(u32::try_from(content.len()).map_err(io::Error::other)?);
    Ok(Entry { content: packed, about: MessageMetadata { compression: Some(kind.into()), uncompressed_size, ..about } })
}

/// Appends a message of a batch. By hand, since the generated types own their text, which would be copied for each message.
fn append(message: &OutboundMessage, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for (name, value) in &message.properties {
        let bytes = field_size(name.as_bytes()) + field_size(value.as_bytes());
        varint(tag(1, Wire::Bytes), out);
        varint(bytes as u64, out);
        field(1, name.as_bytes(), out);
        field(2, value.as_bytes(), out);
    }
    if let Some(key) = &message.key {
        field(2, key.as_bytes(), out);
    }
    varint(tag(3, Wire::Varint), out);
    varint(message.payload.len() as u64, out);
    if let Some(time) = message.event_time {
        varint(tag(5, Wire::Varint), out);
        varint(time, out);
    }
    if message.key.is_some() {
        varint(tag(6, Wire::Varint), out);
        varint(message.key_is_base64.into(), out);
    }
    if let Some(key) = &message.ordering_key {
        field(7, key, out);
    }
    let metadata = size(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&metadata);
    out.extend_from_slice(&message.payload);
}

/// How Protocol Buffers write a field's value.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Bytes = 2,
}

fn tag(field: u64, wire: Wire) -> u64 {
    field << 3 | wire as u64
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn field(number: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(tag(number, Wire::Bytes), out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Of a field whose tag is one byte.
fn field_size(value: &[u8]) -> usize {
    let length = (64 - (value.len() as u64 | 1).leading_zeros()).div_ceil(7) as usize;
    1 + length + value.len()
}

#[cfg(test)]
mod tests {
    use ::pulsar::message::{Codec, Message as Frame, proto::SingleMessageMetadata};
    use bytes::BytesMut;
    use proptest::{collection::vec, option, prelude::*};
    use tokio_util::codec::Decoder;

    use super::*;

    fn messages() -> impl Strategy<Value = Vec<OutboundMessage>> {
        let parts = (option::of(".{0,300}"), any::<bool>(), option::of(vec(any::<u8>(), 0..20)), option::of(any::<u64>()));
        let message = (parts, vec((".{0,20}", ".{0,200}"), 0..4), vec(any::<u8>(), 0..400)).prop_map(
            |((key, key_is_base64, ordering_key, event_time), properties, payload)| OutboundMessage {
                key,
                key_is_base64,
                ordering_key,
                event_time,
                properties: properties.into_iter().map(|(name, value)| (name.into(), value)).collect(),
                payload,
                ..Default::default()
            },
        );
        vec(message, 1..5)
    }

    /// The same by the generated types.
    fn expected(message: &OutboundMessage) -> Vec<u8> {
        let about = SingleMessageMetadata {
            properties: message.properties.iter().cloned().map(|(key, value)| KeyValue { key: key.into(), value }).collect(),
            partition_key: message.key.clone(),
            payload_size: i32::try_from(message.payload.len()).expect("small"),
            event_time: message.event_time,
            partition_key_b64_encoded: message.key.is_some().then_some(message.key_is_base64),
            ordering_key: message.ordering_key.clone(),
            ..Default::default()
        };
        let about = about.encode_to_vec();
        [&size(&about)[..], &about, &message.payload].concat()
    }

    /// What the library reads of a frame; it verifies the checksum.
    fn read(entry: &Entry) -> Frame {
        let sender = Sender { producer: 3, name: "name", sequence: 7, schema_version: Some(&[9]), now: 1_700_000_000_000 };
        let (head, content) = entry.frame(sender);
        let mut bytes = BytesMut::from(&[&head[..], content].concat()[..]);
        let frame = Codec.decode(&mut bytes).expect("a frame").expect("the whole of it");
        assert!(bytes.is_empty(), "the size is that of the frame");
        frame
    }

    proptest! {
        #[test]
        fn a_batch_is_what_the_generated_types_write(messages in messages()) {
            let entry = Entry::batch(messages.iter(), 0, Compression::None).expect("encoded");
            let Frame { command, payload } = read(&entry);
            let (send, payload) = (command.send.expect("a send"), payload.expect("a payload"));
            prop_assert_eq!(payload.data, messages.iter().flat_map(expected).collect::<Vec<u8>>());
            let count = i32::try_from(messages.len()).ok();
            prop_assert_eq!((send.producer_id, send.sequence_id, send.num_messages), (3, 7, count));
            let about = payload.metadata;
            prop_assert_eq!((about.num_messages_in_batch, about.sequence_id, about.publish_time), (count, 7, 1_700_000_000_000));
            prop_assert_eq!((about.producer_name.as_str(), about.schema_version), ("name", Some(vec![9])));
        }
    }

    #[test]
    fn a_message_in_chunks_has_its_metadata_in_each_and_none_is_too_large() {
        let properties = vec![("NAME".into(), "value".repeat(20))];
        let message = OutboundMessage {
            key: Some("key".into()),
            properties,
            payload: (0..25_000).map(|at| at as u8).collect(),
            ..Default::default()
        };
        let entry = Entry::alone(&message, Compression::None).expect("encoded");
        let chunks: Vec<Frame> = entry.chunks(10_000, "a-1").expect("there is room").map(|chunk| read(&chunk)).collect();
        let payloads: Vec<_> = chunks.into_iter().map(|chunk| chunk.payload.expect("a payload")).collect();
        for (payload, number) in payloads.iter().zip(0..) {
            let about = &payload.metadata;
            assert!(payload.data.len() + about.encoded_len() <= 10_000);
            assert_eq!(
                (about.uuid.as_deref(), about.chunk_id, about.num_chunks_from_msg, about.total_chunk_msg_size),
                (Some("a-1"), Some(number), Some(3), Some(25_000))
            );
            assert_eq!((about.partition_key.as_deref(), about.properties.len()), (Some("key"), 1));
        }
        assert_eq!(payloads.iter().flat_map(|payload| payload.data.clone()).collect::<Vec<u8>>(), message.payload);
        assert!(entry.chunks(1_000, "a-1").is_none(), "most of each would be metadata");
    }

    #[test]
    fn a_message_alone_has_its_key_in_the_entrys_metadata() {
        let message = OutboundMessage {
            key: Some("key".into()),
            properties: vec![("NAME".into(), "value".into())],
            payload: b"payload".to_vec(),
            event_time: Some(5),
            ..Default::default()
        };
        let Frame { command, payload } = read(&Entry::alone(&message, Compression::None).expect("encoded"));
        let payload = payload.expect("a payload");
        assert_eq!((command.send.and_then(|send| send.num_messages), payload.metadata.num_messages_in_batch), (None, None));
        assert_eq!((payload.metadata.partition_key.as_deref(), payload.metadata.event_time), (Some("key"), Some(5)));
        assert_eq!((payload.metadata.properties[0].value.as_str(), &payload.data[..]), ("value", &b"payload"[..]));
    }
}
