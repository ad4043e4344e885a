//! What a broker delivers, as messages: the reverse of `publisher/entry`. Pure but for the decompression.

use std::{
    io::{self, Read},
    sync::Arc,
};

use ::pulsar::message::{
    Payload,
    proto::{CompressionType, KeyValue, MessageIdData, SingleMessageMetadata},
};
use bytes::Bytes;
use prost::Message;

use super::frames::{sized, take};
use crate::ports::{EntryId, InboundMessage};

/// How many messages the broker counts an entry for.
pub(super) fn count(payload: &Payload) -> u32 {
    payload.metadata.num_messages_in_batch.and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1)
}

/// The messages of an entry, in their order.
///
/// # Errors
/// It is encrypted, packed in an unknown way, or cut off.
pub(super) fn unpack(topic: &Arc<str>, id: &MessageIdData, payload: Payload) -> io::Result<Vec<InboundMessage>> {
    let batch_size = count(&payload);
    let Payload { metadata, data } = payload;
    if !metadata.encryption_keys.is_empty() {
        return Err(io::Error::other("it is encrypted by its producer, and this program has no key"));
    }
    let data = decompressed(data, metadata.compression, metadata.uncompressed_size)?;
    let entry = EntryId { topic: topic.clone(), ledger: id.ledger_id, entry: id.entry_id, batch_index: None };
    let alone = InboundMessage {
        entry,
        batch_index: 0,
        batch_size,
        key: metadata.partition_key,
        key_is_base64: metadata.partition_key_b64_encoded.unwrap_or(false),
        ordering_key: metadata.ordering_key,
        payload: Bytes::new(),
        null_value: metadata.null_value.unwrap_or(false),
        properties: pairs(metadata.properties),
        publish_time: metadata.publish_time,
        event_time: metadata.event_time,
        producer_name: metadata.producer_name,
        sequence_id: Some(metadata.sequence_id),
        schema_version: metadata.schema_version,
    };
    if metadata.num_messages_in_batch.is_none() {
        return Ok(vec![InboundMessage { payload: data.into(), ..alone }]);
    }
    let mut rest = &data[..];
    let message = |batch_index| {
        let single = SingleMessageMetadata::decode(sized(&mut rest)?).map_err(io::Error::other)?;
        let payload = take(&mut rest, usize::try_from(single.payload_size).map_err(io::Error::other)?)?;
        Ok(InboundMessage {
            batch_index,
            key: single.partition_key,
            key_is_base64: single.partition_key_b64_encoded.unwrap_or(false),
            ordering_key: single.ordering_key,
            // Of its own: one message in work must not keep a whole entry in memory.
            payload: Bytes::copy_from_slice(payload),
            null_value: single.null_value.unwrap_or(false),
            properties: pairs(single.properties),
            event_time: single.event_time,
            sequence_id: single.sequence_id,
            ..alone.clone()
        })
    };
    (0..batch_size).map(message).collect()
}

fn pairs(properties: Vec<KeyValue>) -> Vec<(String, String)> {
    properties.into_iter().map(|KeyValue { key, value }| (key, value)).collect()
}

fn decompressed(data: Vec<u8>, compression: Option<i32>, size: Option<u32>) -> io::Result<Vec<u8>> {
    let kind = CompressionType::try_from(compression.unwrap_or_default()).map_err(io::Error::other)?;
    let mut unpacked = Vec::new();
    match kind {
        CompressionType::None => return Ok(data),
        CompressionType::Lz4 => {
            let size = size.map(i32::try_from).transpose().map_err(io::Error::other)?;
            return lz4::block::decompress(&data, size);
        }
        CompressionType::Zstd => return zstd::decode_all(&data[..]),
        CompressionType::Zlib => flate2::read::ZlibDecoder::new(&data[..]).read_to_end(&mut unpacked)?,
        CompressionType::Snappy => snap::raw::Decoder::new().decompress_vec(&data).map(|all| {
            unpacked = all;
            unpacked.len()
        })?,
    };
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use ::pulsar::message::Codec;
    use bytes::BytesMut;
    use tokio_util::codec::Decoder;

    use super::*;
    use crate::{
        ports::OutboundMessage,
        pulsar::publisher::{
            Compression,
            entry::{Entry, Sender},
        },
    };

    /// As the broker hands on what a producer has sent.
    fn delivered(entry: &Entry) -> Payload {
        let (head, content) = entry.frame(Sender { producer: 0, name: "p", sequence: 7, schema_version: Some(b"v"), now: 5 });
        let mut frame = BytesMut::from(&[&head, content].concat()[..]);
        Codec.decode(&mut frame).expect("a frame").expect("a whole one").payload.expect("with a payload")
    }

    fn outbound(number: u64) -> OutboundMessage {
        OutboundMessage {
            key: Some(format!("key {number}")),
            payload: format!("payload {number}").into_bytes(),
            properties: vec![("NAME".into(), number.to_string())],
            event_time: Some(number),
            ..OutboundMessage::default()
        }
    }

    fn read(payload: Payload) -> io::Result<Vec<InboundMessage>> {
        unpack(&"t".into(), &MessageIdData { ledger_id: 3, entry_id: 4, ..Default::default() }, payload)
    }

    #[test]
    fn what_a_producer_packs_is_unpacked_whatever_the_compression() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zlib, Compression::Zstd] {
            let sent: Vec<OutboundMessage> = (0..3).map(outbound).collect();
            let payload = delivered(&Entry::batch(sent.iter(), 100, compression).expect("packed"));
            assert_eq!(count(&payload), 3);
            let read = read(payload).expect("unpacked");
            for (number, message) in read.iter().enumerate() {
                let wanted = outbound(number as u64);
                assert_eq!((message.batch_index, message.batch_size, &message.key), (number as u32, 3, &wanted.key));
                assert_eq!((&message.payload[..], message.event_time), (&wanted.payload[..], wanted.event_time));
                assert_eq!((message.properties[0].1.as_str(), message.publish_time), (&*number.to_string(), 5));
                assert_eq!((message.entry.ledger, message.entry.entry, message.schema_version.as_deref()), (3, 4, Some(&b"v"[..])));
            }
            let alone = delivered(&Entry::alone(&outbound(9), compression).expect("packed"));
            let [message] = &super::unpack(&"t".into(), &MessageIdData::default(), alone).expect("unpacked")[..] else { panic!("one") };
            assert_eq!((message.key.as_deref(), &message.payload[..], message.sequence_id), (Some("key 9"), &b"payload 9"[..], Some(7)));
            assert_eq!((message.batch_index, message.batch_size), (0, 1));
        }
    }

    /// 18: what the Java client sends for null in a batch.
    #[test]
    fn a_null_in_a_batch_is_told_from_an_empty_payload() {
        let mut data = Vec::new();
        for null_value in [Some(true), None] {
            let single = SingleMessageMetadata { payload_size: 0, null_value, sequence_id: Some(8), ..Default::default() };
            data.extend(u32::try_from(single.encoded_len()).expect("small").to_be_bytes());
            data.extend(single.encode_to_vec());
        }
        let metadata = ::pulsar::message::Metadata { num_messages_in_batch: Some(2), ..Default::default() };
        let read = read(Payload { metadata, data }).expect("unpacked");
        assert_eq!(
            read.iter().map(|message| (message.null_value, message.sequence_id)).collect::<Vec<_>>(),
            [(true, Some(8)), (false, Some(8))]
        );
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let sent = [outbound(1), outbound(2)];
        let whole = delivered(&Entry::batch(sent.iter(), 100, Compression::None).expect("packed"));
        for length in 0..whole.data.len() {
            let cut = Payload { data: whole.data[..length].to_vec(), ..whole.clone() };
            assert!(read(cut).is_err(), "{length}");
        }
        let packed = ::pulsar::message::Metadata { compression: Some(99), ..Default::default() };
        read(Payload { metadata: packed, data: vec![1] }).expect_err("an unknown compression");
    }

    #[test]
    fn snappy_is_known() {
        let metadata = ::pulsar::message::Metadata { compression: Some(CompressionType::Snappy.into()), ..Default::default() };
        let data = snap::raw::Encoder::new().compress_vec(b"payload").expect("packed");
        assert_eq!(read(Payload { metadata, data }).expect("unpacked")[0].payload, &b"payload"[..]);
    }
}
