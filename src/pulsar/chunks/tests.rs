use ::pulsar::message::Metadata;
use proptest::prelude::*;

use super::*;
use crate::{
    ports::{InboundMessage, OutboundMessage},
    pulsar::{
        publisher::{
            Compression,
            entry::{Entry, Sender},
        },
        unpack::unpack,
    },
};

fn seconds(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn id(entry_id: u64) -> MessageIdData {
    entry((7, entry_id))
}

fn chunk(uuid: &str, number: i32, of: i32, data: &[u8]) -> Payload {
    let size = i32::try_from(data.len()).expect("small") * of;
    let metadata = Metadata {
        uuid: Some(uuid.into()),
        chunk_id: Some(number),
        num_chunks_from_msg: Some(of),
        total_chunk_msg_size: Some(size),
        ..Default::default()
    };
    Payload { metadata, data: data.to_vec() }
}

/// What comes out of an entry: its place and its bytes.
fn taken(chunks: &mut Chunks, place: u64, payload: Payload, now: Moment) -> Option<(u64, Vec<u8>)> {
    let whole = chunks.add(id(place), payload, now).expect("taken");
    assert!(chunks.let_go().is_empty(), "there is room");
    whole.map(|(id, payload)| (id.entry_id, payload.data))
}

fn acknowledged(chunks: &mut Chunks, last: u64) -> Vec<u64> {
    chunks.acknowledged(7, last).iter().map(|id| id.entry_id).collect()
}

fn entries(given_up: &[GivenUp]) -> Vec<u64> {
    given_up.iter().flat_map(|gone| &gone.entries).map(|id| id.entry_id).collect()
}

#[test]
fn a1_a_whole_message_is_acknowledged_with_all_its_chunks() {
    let mut chunks = Chunks::default();
    let mut add = |place, payload| taken(&mut chunks, place, payload, seconds(0));
    assert_eq!(add(1, chunk("a", 0, 3, b"12")), None);
    assert_eq!(add(2, chunk("b", 0, 2, b"xy")), None);
    let alone = Payload { metadata: Metadata::default(), data: b"alone".to_vec() };
    assert_eq!(add(3, alone), Some((3, b"alone".to_vec())), "what is not cut passes");
    assert_eq!(add(4, chunk("a", 1, 3, b"34")), None);
    assert_eq!(add(5, chunk("b", 1, 2, b"z")), Some((5, b"xyz".to_vec())));
    assert_eq!(add(6, chunk("a", 2, 3, b"5")), Some((6, b"12345".to_vec())));
    assert_eq!(acknowledged(&mut chunks, 3), [3]);
    assert_eq!(acknowledged(&mut chunks, 6), [1, 4, 6]);
    assert_eq!(acknowledged(&mut chunks, 5), [2, 5]);
    assert!(chunks.incomplete.is_empty() && chunks.whole.is_empty());
}

#[test]
fn a_message_is_packed_first_and_then_cut() {
    let sent = OutboundMessage { key: Some("k".into()), payload: b"payload ".repeat(100), ..OutboundMessage::default() };
    for compression in [Compression::None, Compression::Lz4, Compression::Zlib, Compression::Zstd] {
        let entry = Entry::alone(&sent, compression).expect("packed");
        let (head, content) = entry.frame(Sender { producer: 0, name: "p", sequence: 7, schema_version: None, now: 5 });
        let mut frame = bytes::BytesMut::from(&[&head, content].concat()[..]);
        let decoded = tokio_util::codec::Decoder::decode(&mut ::pulsar::message::Codec, &mut frame).expect("a frame").expect("a whole one");
        let packed = decoded.payload.expect("with a payload");
        let pieces: Vec<&[u8]> = packed.data.chunks(10).collect();
        let mut chunks = Chunks::default();
        let mut read: Vec<InboundMessage> = Vec::new();
        for (number, data) in pieces.iter().enumerate() {
            let numbers = chunk("p-7", number as i32, pieces.len() as i32, data).metadata;
            let Metadata { uuid, chunk_id, num_chunks_from_msg, .. } = numbers;
            let metadata = Metadata { uuid, chunk_id, num_chunks_from_msg, ..packed.metadata.clone() };
            let payload = Payload { metadata, data: data.to_vec() };
            if let Some((id, payload)) = chunks.add(id(number as u64), payload, seconds(0)).expect("taken") {
                read.extend(unpack(&"t".into(), &id, payload).expect("unpacked"));
            }
        }
        let [message] = &read[..] else { panic!("one message: {read:?}") };
        assert_eq!((&message.payload[..], message.key.as_deref(), message.sequence_id), (&sent.payload[..], Some("k"), Some(7)));
        assert_eq!((message.entry.entry, message.batch_index, message.batch_size), (pieces.len() as u64 - 1, 0, 1));
    }
}

#[test]
fn a_chunk_that_comes_twice_counts_once_and_is_acknowledged_too() {
    let mut chunks = Chunks::default();
    let mut add = |place, payload| taken(&mut chunks, place, payload, seconds(0));
    assert_eq!(add(1, chunk("a", 0, 3, b"1")), None);
    assert_eq!(add(2, chunk("a", 1, 3, b"2")), None);
    assert_eq!(add(3, chunk("a", 1, 3, b"2")), None, "sent again by the producer");
    assert_eq!(add(2, chunk("a", 1, 3, b"2")), None, "sent again by the broker");
    assert_eq!(add(4, chunk("a", 2, 3, b"3")), Some((4, b"123".to_vec())));
    assert_eq!(acknowledged(&mut chunks, 4), [1, 2, 3, 4]);
}

#[test]
fn a_message_may_begin_again() {
    let mut chunks = Chunks::default();
    let mut add = |place, payload| taken(&mut chunks, place, payload, seconds(0));
    assert_eq!(add(1, chunk("a", 0, 2, b"old")), None);
    assert_eq!(add(2, chunk("a", 0, 2, b"1")), None);
    assert_eq!(add(3, chunk("a", 1, 2, b"2")), Some((3, b"12".to_vec())));
    assert_eq!(acknowledged(&mut chunks, 3), [1, 2, 3]);
}

#[test]
fn a1_what_is_never_whole_is_given_up_after_an_hour_and_not_before() {
    let mut chunks = Chunks::default();
    let mut add = |place, payload, at| taken(&mut chunks, place, payload, at);
    assert_eq!(add(1, chunk("no end", 0, 3, b"1"), seconds(0)), None);
    assert_eq!(add(2, chunk("no beginning", 1, 2, b"2"), seconds(1)), None);
    assert_eq!(add(3, chunk("no middle", 0, 3, b"1"), seconds(2)), None);
    assert_eq!(add(4, chunk("no middle", 2, 3, b"3"), seconds(2)), None);
    assert_eq!(add(5, chunk("no middle", 1, 3, b"2"), seconds(2)), None, "out of order: it comes again, in order, or not at all");
    assert_eq!(add(6, chunk("no end", 1, 3, b"2"), seconds(3)), None, "it grows");
    assert!(chunks.give_up(seconds(3_600)).is_empty());
    assert_eq!(entries(&chunks.give_up(seconds(3_601))), [2]);
    let given_up = chunks.give_up(seconds(4_000));
    assert_eq!(given_up.iter().map(|gone| &*gone.uuid).collect::<Vec<_>>(), ["no middle", "no end"]);
    assert_eq!(entries(&given_up), [3, 4, 5, 1, 6]);
    assert!(chunks.incomplete.is_empty());
}

#[test]
fn m1_incomplete_messages_are_bounded_in_number() {
    let mut chunks = Chunks::default();
    for number in 0..MOST as u64 {
        assert_eq!(taken(&mut chunks, number, chunk(&number.to_string(), 0, 3, b"1"), seconds(0)), None);
    }
    assert_eq!(taken(&mut chunks, 1_000, chunk("0", 1, 3, b"2"), seconds(0)), None);
    assert!(chunks.add(id(1_001), chunk("one more", 0, 3, b"1"), seconds(0)).expect("taken").is_none());
    assert_eq!(chunks.let_go(), ["1"], "it has not grown for the longest");
    assert_eq!(taken(&mut chunks, 1_002, chunk("1", 1, 3, b"2"), seconds(0)), None);
    assert!(chunks.incomplete.len() == MOST && chunks.incomplete.iter().all(|message| message.uuid != "1"));
    let given_up = entries(&chunks.give_up(PATIENCE));
    assert!(given_up.len() > MOST && !given_up.contains(&1) && !given_up.contains(&1_002), "what was let go comes again");
    assert_eq!(taken(&mut chunks, 1, chunk("1", 0, 2, b"1"), PATIENCE), None);
    assert_eq!(taken(&mut chunks, 1_002, chunk("1", 1, 2, b"2"), PATIENCE), Some((1_002, b"12".to_vec())));
}

#[test]
fn m1_incomplete_messages_are_bounded_in_bytes() {
    let mut chunks = Chunks::default();
    let third = vec![0; BYTES / 3];
    let half = |uuid: &str| chunk(uuid, 0, 2, &third[..BYTES / 4]);
    assert_eq!(taken(&mut chunks, 1, half("a"), seconds(0)), None);
    assert!(chunks.add(id(2), half("b"), seconds(0)).expect("taken").is_none());
    assert_eq!(chunks.let_go(), ["a"], "they say that they will have so much, each half of it");
    // What it says is not what it has.
    let liar = |number| {
        let payload = chunk("liar", number, 5, &third);
        Payload { metadata: Metadata { total_chunk_msg_size: Some(-1), ..payload.metadata }, ..payload }
    };
    for number in 0..3 {
        chunks.add(id(3 + number as u64), liar(number), seconds(0)).expect("taken");
        let bytes: usize = chunks.incomplete.iter().map(Incomplete::bytes).sum();
        assert!(bytes <= BYTES + 1_000, "{bytes}, with their places");
    }
    let error = chunks.add(id(6), liar(3), seconds(0)).expect_err("too large");
    assert!(error.to_string().contains("in 5 chunks"), "{error}");
    chunks.add(id(7), chunk("large", 0, 4, &third), seconds(0)).expect_err("too large, as it says itself");
}

#[test]
fn a_number_that_makes_no_sense_is_an_error() {
    for (number, of) in [(-1, 2), (2, 2), (i32::MIN, i32::MAX)] {
        Chunks::default().add(id(1), Payload { data: vec![1], ..chunk("a", number, of, b"") }, seconds(0)).expect_err("no such chunk");
    }
    let none = Payload { metadata: Metadata { num_chunks_from_msg: Some(2), ..Default::default() }, data: vec![1] };
    Chunks::default().add(id(1), none, seconds(0)).expect_err("no number");
}

proptest! {
    /// Several producers' messages one between the other, some begun again, some chunks twice: each is whole once, and all entries are acknowledged.
    #[test]
    fn a1_each_message_becomes_whole_whatever_comes_between(
        sizes in prop::collection::vec(2..6_i32, 1..6),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 1..80),
    ) {
        let (mut chunks, mut next, mut place) = (Chunks::default(), vec![0; sizes.len()], 0);
        let mut done = vec![0; sizes.len()];
        let mut acked = BTreeSet::new();
        // In the end each goes on to its end.
        let finish = (0..sizes.len()).flat_map(|of| std::iter::repeat_n((of, 9), 6));
        let steps: Vec<(usize, u8)> = steps.iter().map(|(of, what)| (of.index(sizes.len()), *what)).chain(finish).collect();
        for (of, what) in steps {
            if next[of] == sizes[of] {
                continue;
            }
            let number = match what {
                0 => 0,
                1 if next[of] > 0 => next[of] - 1,
                _ => next[of],
            };
            let uuid = of.to_string();
            let payload = chunk(&uuid, number, sizes[of], &[of as u8, number as u8]);
            next[of] = if number == 0 { 1 } else { next[of].max(number + 1) };
            place += 1;
            if let Some((last, data)) = taken(&mut chunks, place, payload, seconds(0)) {
                let wanted: Vec<u8> = (0..sizes[of]).flat_map(|number| [of as u8, number as u8]).collect();
                prop_assert_eq!((last, data), (place, wanted));
                done[of] += 1;
                for place in acknowledged(&mut chunks, last) {
                    prop_assert!(acked.insert(place), "acknowledged twice");
                }
            }
        }
        prop_assert!(done.iter().all(|times| *times == 1), "{:?}", done);
        prop_assert_eq!(acked, (1..=place).collect());
        prop_assert!(chunks.incomplete.is_empty() && chunks.whole.is_empty());
    }
}
