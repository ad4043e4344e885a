//! Frames of Pulsar's binary protocol ("Pulsar binary protocol specification", Framing): the client library's, but for reading what they carry. The library copies
//! a payload twice and takes its checksum by table, which was a sixteenth of all that the sink did.

use std::io;

use ::pulsar::{
    error::ConnectionError,
    message::{
        Codec, Message, Payload,
        proto::{BaseCommand, MessageMetadata},
    },
};
use bytes::{Buf, BytesMut};
use prost::Message as _;
use tokio_util::codec::{Decoder, Encoder};

/// Begins a payload with a checksum.
const MAGIC: u16 = 0x0e01;
/// A frame's length, and that of its command.
const LENGTH: usize = 4;

pub(super) struct Frames;

impl Decoder for Frames {
    type Item = Message;
    type Error = io::Error;

    fn decode(&mut self, read: &mut BytesMut) -> io::Result<Option<Message>> {
        let Some((length, rest)) = read.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        let Some(frame) = rest.get(..length) else {
            read.reserve(LENGTH + length - read.len());
            return Ok(None);
        };
        let message = message(frame)?;
        read.advance(LENGTH + length);
        Ok(Some(message))
    }
}

impl Encoder<Message> for Frames {
    type Error = ConnectionError;

    fn encode(&mut self, message: Message, written: &mut BytesMut) -> Result<(), ConnectionError> {
        Codec.encode(message, written)
    }
}

fn message(mut frame: &[u8]) -> io::Result<Message> {
    let command = BaseCommand::decode(sized(&mut frame)?).map_err(io::Error::other)?;
    let payload = if frame.is_empty() { None } else { Some(payload(frame)?) };
    Ok(Message { command, payload })
}

fn payload(mut rest: &[u8]) -> io::Result<Payload> {
    if rest.starts_with(&MAGIC.to_be_bytes()) {
        rest.advance(size_of_val(&MAGIC));
        let told = rest.try_get_u32().map_err(io::Error::other)?;
        if crc32c::crc32c(rest) != told {
            return Err(io::Error::other("a payload does not have the checksum that it came with"));
        }
    }
    let metadata = MessageMetadata::decode(sized(&mut rest)?).map_err(io::Error::other)?;
    Ok(Payload { metadata, data: rest.to_vec() })
}

/// What comes next, after its length.
pub(super) fn sized<'d>(rest: &mut &'d [u8]) -> io::Result<&'d [u8]> {
    let length = rest.try_get_u32().map_err(io::Error::other)? as usize;
    take(rest, length)
}

/// The next bytes.
pub(super) fn take<'d>(rest: &mut &'d [u8], count: usize) -> io::Result<&'d [u8]> {
    let (taken, left) = rest.split_at_checked(count).ok_or_else(|| io::Error::other("what came is shorter than it says of its parts"))?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use ::pulsar::message::proto::{CommandMessage, CommandPing, base_command::Type};

    use super::*;

    fn delivery() -> Message {
        let metadata = MessageMetadata { producer_name: "p".into(), sequence_id: 7, publish_time: 5, ..Default::default() };
        let command = BaseCommand {
            r#type: Type::Message.into(),
            message: Some(CommandMessage { consumer_id: 3, ..Default::default() }),
            ..Default::default()
        };
        Message { command, payload: Some(Payload { metadata, data: b"what it carries".to_vec() }) }
    }

    fn bytes(message: Message) -> BytesMut {
        let mut written = BytesMut::new();
        Frames.encode(message, &mut written).expect("written");
        written
    }

    #[test]
    fn what_the_library_writes_is_read_however_it_is_cut() {
        let ping =
            Message { command: BaseCommand { r#type: Type::Ping.into(), ping: Some(CommandPing {}), ..Default::default() }, payload: None };
        let both = [&bytes(delivery())[..], &bytes(ping)[..]].concat();
        for cut in 0..both.len() {
            let (mut read, mut messages) = (BytesMut::new(), Vec::new());
            for part in [&both[..cut], &both[cut..]] {
                read.extend_from_slice(part);
                while let Some(message) = Frames.decode(&mut read).expect("whole") {
                    messages.push(message);
                }
            }
            let [delivered, ping] = &messages[..] else { panic!("{} messages", messages.len()) };
            let Some(Payload { metadata, data }) = &delivered.payload else { panic!("no payload") };
            assert_eq!((&*metadata.producer_name, metadata.sequence_id, &data[..]), ("p", 7, &b"what it carries"[..]));
            assert_eq!(delivered.command, delivery().command);
            assert!(ping.command.ping.is_some() && ping.payload.is_none() && read.is_empty());
        }
    }

    /// An old producer's message has none.
    #[test]
    fn a_payload_without_a_checksum_is_read() {
        let whole = bytes(delivery());
        let at = whole.windows(2).position(|two| two == MAGIC.to_be_bytes()).expect("a checksum");
        let mut without = BytesMut::from(&[&whole[..at], &whole[at + 6..]].concat()[..]);
        let length = u32::try_from(without.len() - LENGTH).expect("small");
        without[..LENGTH].copy_from_slice(&length.to_be_bytes());
        let read = Frames.decode(&mut without).expect("whole").expect("a message");
        assert_eq!(read.payload.expect("with a payload").data, b"what it carries");
    }

    #[test]
    fn a_changed_or_shortened_payload_is_an_error() {
        let whole = bytes(delivery());
        let mut changed = whole.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        Frames.decode(&mut changed).expect_err("another checksum");
        for length in 1..whole.len() - LENGTH {
            let mut short = BytesMut::from(&whole[..LENGTH + length]);
            short[..LENGTH].copy_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
            if let Ok(read) = Frames.decode(&mut short) {
                assert!(read.expect("its length is there").payload.is_none(), "only a command that ends there is whole: {length}");
            }
        }
    }
}
