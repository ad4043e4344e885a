//! The stand-in of the Streams API answers as the service does, by our own reader and converter.

use std::time::Duration;

use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use bytes::Bytes;
use pulsar_io_dynamodb::{
    dynamodb::stream_reader::StreamReader,
    error::Kind,
    ports::{ReadFrom, SequenceNumber, ShardId, StreamReader as _, StreamStatus},
};

use super::stream_reader::{config, records};
use crate::support::stand_in::{Fault, StandIn, record};

fn reader(stand_in: &StandIn) -> StreamReader {
    let http = HttpBuilder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let config = config(http).endpoint_url(stand_in.endpoint());
    StreamReader::new(aws_sdk_dynamodbstreams::Client::from_conf(config.build()), stand_in.stream_arn())
}

fn shard_id(stand_in: &StandIn, shard: usize) -> ShardId {
    ShardId::new(&stand_in.state().stream().shards[shard].id)
}

/// Everything that can be read from there on, and whether it ends with the shard's end.
async fn read(reader: &StreamReader, shard: &ShardId, from: &ReadFrom) -> (Vec<Bytes>, bool) {
    let mut iterator = reader.shard_iterator(shard, from).await.expect("an iterator");
    let mut events = Vec::new();
    loop {
        let page = reader.get_records(shard, &iterator).await.expect("a page");
        let empty = page.records.is_empty();
        events.extend(page.records);
        match page.next_iterator {
            Some(_) if empty => return (events, false),
            Some(next) => iterator = next,
            None => return (events, true),
        }
    }
}

fn numbers(texts: &[Bytes]) -> Vec<(u64, u64)> {
    records(texts).iter().map(|event| record::from_event_id(&event.event_id).expect("an event id of the stand-in")).collect()
}

#[tokio::test]
async fn records_are_told_apart_and_have_the_wanted_size() {
    let stand_in = StandIn::start(2, 1_300);
    stand_in.state().stream().write(1, 2_500);
    let (reader, shard) = (reader(&stand_in), shard_id(&stand_in, 1));
    let iterator = reader.shard_iterator(&shard, &ReadFrom::TrimHorizon).await.expect("an iterator");
    let page = reader.get_records(&shard, &iterator).await.expect("a page");
    assert_eq!(page.records.len(), 1_000);
    assert!(page.records.iter().all(|record| record.len() == 1_300));
    let (texts, ended) = read(&reader, &shard, &ReadFrom::TrimHorizon).await;
    let events = records(&texts);
    assert!(!ended);
    assert_eq!(numbers(&texts), (0..2_500).map(|number| (1, number)).collect::<Vec<_>>());
    assert!(events.windows(2).all(|pair| pair[0].sequence_number < pair[1].sequence_number));
    let change: serde_json::Value = serde_json::from_slice(&events[1_234].event()).expect("JSON");
    assert_eq!(change["dynamodb"]["Keys"]["pk"]["S"], "item-00001234");
    assert_eq!(change["dynamodb"]["NewImage"]["version"]["N"], "1000000001234");
    let after = ReadFrom::After(SequenceNumber::parse(&record::sequence(2_497)).expect("digits"));
    assert_eq!(numbers(&read(&reader, &shard, &after).await.0), [(1, 2_498), (1, 2_499)]);
}

#[tokio::test]
async fn shards_split_and_their_children_are_found() {
    let stand_in = StandIn::start(150, 1_000);
    let reader = reader(&stand_in);
    let first = reader.list_shards(None).await.expect("shards");
    assert_eq!((first.shards.len(), first.status), (100, StreamStatus::Enabled));
    let second = reader.list_shards(first.next.as_ref()).await.expect("shards");
    assert_eq!((second.shards.len(), second.next), (50, None));

    stand_in.state().stream().write(7, 10);
    let children = stand_in.state().stream().split(7, 2, Duration::ZERO);
    stand_in.state().stream().write(children[0], 1);
    let (events, ended) = read(&reader, &shard_id(&stand_in, 7), &ReadFrom::TrimHorizon).await;
    assert_eq!((events.len(), ended), (10, true));
    let found = reader.children(&shard_id(&stand_in, 7)).await.expect("an answer").expect("the filter is known");
    assert_eq!(found.shards.iter().map(|shard| shard.id.clone()).collect::<Vec<_>>(), [150, 151].map(|child| shard_id(&stand_in, child)));
    assert!(found.shards.iter().all(|shard| !shard.closed && shard.parent == Some(shard_id(&stand_in, 7))));
    let (events, _) = read(&reader, &shard_id(&stand_in, 150), &ReadFrom::TrimHorizon).await;
    assert_eq!(numbers(&events), [(7, 10)], "the first child goes on with its parent's items");
    assert_eq!(stand_in.state().stream().written()[7], 11);
    stand_in.state().forget_children();
    assert!(reader.children(&shard_id(&stand_in, 7)).await.expect("an answer").is_none());
}

#[tokio::test]
async fn errors_are_the_services() {
    let stand_in = StandIn::start(1, 1_000);
    stand_in.state().stream().write(0, 10);
    let (reader, shard) = (reader(&stand_in), shard_id(&stand_in, 0));
    let iterator = reader.shard_iterator(&shard, &ReadFrom::TrimHorizon).await.expect("an iterator");
    let failed = async |iterator: &str| reader.get_records(&shard, iterator).await.expect_err("an error").kind();
    stand_in.state().fail("GetRecords", Fault::Error("LimitExceededException"), 1);
    assert_eq!(failed(&iterator).await, Kind::Throttled);
    stand_in.state().fail("GetRecords", Fault::LostAnswer, 1);
    assert_eq!(failed(&iterator).await, Kind::Unavailable);
    stand_in.state().stream().trim(0, 5);
    assert_eq!(failed(&iterator).await, Kind::TrimmedData);
    stand_in.state().expire_iterators();
    assert_eq!(failed(&iterator).await, Kind::ExpiredIterator);
    assert_eq!(numbers(&read(&reader, &shard, &ReadFrom::TrimHorizon).await.0), (5..10).map(|at| (0, at)).collect::<Vec<_>>());
    let before = stand_in.stream_arn();
    stand_in.state().enable_again(1);
    assert_ne!(stand_in.stream_arn(), before);
    assert_eq!(reader.list_shards(None).await.expect("the old stream").status, StreamStatus::Disabled);
    assert!(read(&reader, &shard, &ReadFrom::TrimHorizon).await.1, "what it holds can still be read, to its end");
    stand_in.state().streams[0].trim_away(0);
    assert_eq!(reader.shard_iterator(&shard, &ReadFrom::TrimHorizon).await.expect_err("gone").kind(), Kind::NotFound);
}

#[tokio::test]
async fn live_records_come_at_their_rate_and_say_when() {
    let stand_in = StandIn::start(1, 1_000);
    let (reader, shard) = (reader(&stand_in), shard_id(&stand_in, 0));
    stand_in.state().stream().write(0, 3);
    stand_in.state().stream().write_live(0, 500);
    let events = loop {
        let (events, _) = read(&reader, &shard, &ReadFrom::TrimHorizon).await;
        if events.len() > 23 {
            break events;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    stand_in.state().stream().write_live(0, 0);
    let created: Vec<i64> = records(&events[3..])
        .iter()
        .map(|event| {
            let change: serde_json::Value = serde_json::from_slice(&event.event()).expect("JSON");
            change["dynamodb"]["NewImage"]["created"]["N"].as_str().and_then(|text| text.parse().ok()).expect("a number")
        })
        .collect();
    assert!(created.windows(2).all(|pair| pair[1] - pair[0] == 2), "{created:?}");
}
