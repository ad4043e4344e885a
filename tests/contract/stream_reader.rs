//! The stream reader against DynamoDB Local (or any DynamoDB), and against stand-ins for answers that it does not give.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, StreamSpecification, StreamViewType},
};
use aws_sdk_dynamodbstreams::config::{Builder, Credentials, Region, retry::RetryConfig};
use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use pulsar_io_dynamodb::{
    dynamodb::{
        stream_reader::{StreamReader, keep_pages},
        streams::resolve_stream,
    },
    error::{Error, Kind},
    metrics::health::Health,
    ports::{ReadFrom, ShardId, StreamReader as _, StreamStatus},
    source::convert::{Order, Record},
};

use super::item_table::{client, create};

pub fn config(http: SharedHttpClient) -> Builder {
    Builder::new()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "contract"))
        .retry_config(RetryConfig::disabled())
        .http_client(keep_pages(http))
}

/// A table with a stream, and a reader of it.
async fn stream(test: &str) -> Option<(Client, String, StreamReader)> {
    let client = client(test)?;
    let table = create(&client).await;
    let spec = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages);
    client.update_table().table_name(&table).stream_specification(spec.build().expect("complete")).send().await.expect("a stream");
    let arn = resolve_stream(&client, &format!("table:{table}"), &Health::default()).await.expect("its ARN");
    Some((client, table, reader(arn.as_str())))
}

fn reader(arn: &str) -> StreamReader {
    let http = HttpBuilder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let endpoint = std::env::var("DYNAMODB_ENDPOINT").expect("checked");
    StreamReader::new(aws_sdk_dynamodbstreams::Client::from_conf(config(http).endpoint_url(endpoint).build()), arn)
}

async fn write(client: &Client, table: &str, number: u32) {
    let item =
        client.put_item().table_name(table).item("p", AttributeValue::S("k".into())).item("s", AttributeValue::N(number.to_string()));
    item.item("zeta", AttributeValue::S("é \"quoted\"".into())).item("alpha", AttributeValue::Bool(true)).send().await.expect("written");
}

pub fn records(texts: &[Bytes]) -> Vec<Record<'_>> {
    texts.iter().map(|text| Record::read(text, Order::Compat).expect("a record")).collect()
}

/// Everything from `from` on that is there.
async fn read(reader: &StreamReader, shard: &ShardId, from: &ReadFrom) -> Vec<Bytes> {
    let mut iterator = Some(reader.shard_iterator(shard, from).await.expect("an iterator"));
    let mut events = Vec::new();
    for _ in 0..5 {
        let Some(current) = iterator else { break };
        let page = reader.get_records(shard, &current).await.expect("a page");
        events.extend(page.records);
        iterator = page.next_iterator;
    }
    events
}

#[tokio::test]
async fn a_stream_is_listed_and_read_from_every_position() {
    let Some((client, table, reader)) = stream("reading").await else { return };
    for number in 0..5 {
        write(&client, &table, number).await;
    }
    let page = reader.list_shards(None).await.expect("shards");
    assert_eq!(page.status, StreamStatus::Enabled);
    let open: Vec<_> = page.shards.iter().filter(|shard| !shard.closed).collect();
    assert_eq!((open.len(), page.next), (1, None));
    let shard = &open[0].id;
    let texts = read(&reader, shard, &ReadFrom::TrimHorizon).await;
    let events = records(&texts);
    assert_eq!(events.len(), 5);
    assert!(events.windows(2).all(|pair| pair[0].sequence_number < pair[1].sequence_number));
    assert!(String::from_utf8_lossy(&events[0].event()).contains(r#""zeta":{"S":"é \"quoted\""}"#), "{:?}", events[0]);
    let third = events[2].sequence_number.clone();
    assert_eq!(records(&read(&reader, shard, &ReadFrom::At(third.clone())).await), events[2..]);
    assert_eq!(records(&read(&reader, shard, &ReadFrom::After(third)).await), events[3..]);
    // Where the endpoint knows the filter there are no children, and where it does not it says so.
    let children = reader.children(shard).await.expect("an answer");
    assert!(children.as_ref().is_none_or(|page| page.shards.is_empty()), "{children:?}");
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart() {
    let Some((client, table, reader)) = stream("missing things").await else { return };
    let shard = reader.list_shards(None).await.expect("shards").shards.remove(0);
    let nobody = ShardId::new("shardId-00000001700000000000-00000000");
    assert_eq!(reader.shard_iterator(&nobody, &ReadFrom::TrimHorizon).await.expect_err("no such shard").kind(), Kind::NotFound);
    let gone = self::reader(&format!("arn:aws:dynamodb:us-east-1:000000000000:table/{table}/stream/2001-01-01T00:00:00.000"));
    assert_eq!(gone.list_shards(None).await.expect_err("no such stream").kind(), Kind::NotFound);
    let error = reader.get_records(&shard.id, "not an iterator").await.expect_err("no iterator");
    assert!(matches!(error.kind(), Kind::Invalid | Kind::TrimmedData), "{error}");

    let described = client.describe_table().table_name(&table).send().await.expect("the table").table.expect("the table");
    let (table_arn, stream_arn) = (described.table_arn.expect("an ARN"), described.latest_stream_arn.expect("an ARN"));
    assert_eq!(resolve_stream(&client, &table_arn, &Health::default()).await.expect("by the table's ARN").as_str(), stream_arn);
    assert_eq!(resolve_stream(&client, &stream_arn, &Health::default()).await.expect("by its own").as_str(), stream_arn);
    let plain = create(&client).await;
    let error = resolve_stream(&client, &format!("table:{plain}"), &Health::default()).await.expect_err("no stream");
    assert_eq!(error.kind(), Kind::Configuration);
    assert!(error.to_string().contains(&plain) && error.to_string().contains("no stream"), "{error}");
}

/// Gives the scripted answers, one for each request.
#[derive(Debug, Clone)]
struct Script(Arc<Mutex<VecDeque<(u16, &'static str)>>>);

impl HttpConnector for Script {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = self.0.lock().expect("not poisoned").pop_front().expect("an answer is left");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status.try_into().expect("a status"), SdkBody::from(body))))
    }
}

fn scripted<const N: usize>(answers: [(u16, &'static str); N]) -> (StreamReader, Builder) {
    let script = Script(Arc::new(Mutex::new(answers.into())));
    let config = config(http_client_fn(move |_, _| SharedHttpConnector::new(script.clone())));
    (StreamReader::new(aws_sdk_dynamodbstreams::Client::from_conf(config.clone().build()), "arn"), config)
}

async fn get(reader: &StreamReader) -> Result<pulsar_io_dynamodb::ports::Page, Error> {
    reader.get_records(&ShardId::new("shard"), "iterator").await
}

#[tokio::test]
async fn pages_of_several_calls_at_once_are_not_mixed_up() {
    let (reader, _) = scripted([
        (200, r#"{"Records":[{"a":1}],"NextShardIterator":"one"}"#),
        (200, r#"{"Records":[{"b":2},{"c":3}],"NextShardIterator":"two"}"#),
    ]);
    let (one, two) = tokio::join!(get(&reader), get(&reader));
    let (one, two) = (one.expect("a page"), two.expect("a page"));
    assert_eq!((one.records.len(), one.next_iterator.as_deref()), (1, Some("one")));
    assert_eq!((two.records.len(), two.next_iterator.as_deref()), (2, Some("two")));
    assert_eq!(two.records[1], br#"{"c":3}"#[..]);
}

#[tokio::test]
async fn the_last_attempts_page_counts() {
    let (_, config) = scripted([(500, r#"{"__type":"InternalServerError"}"#), (200, r#"{"Records":[{"a":1}]}"#)]);
    let sleepless = config.retry_config(RetryConfig::standard().with_initial_backoff(std::time::Duration::from_millis(1)));
    let reader = StreamReader::new(aws_sdk_dynamodbstreams::Client::from_conf(sleepless.build()), "arn");
    let page = get(&reader).await.expect("the second attempt");
    assert_eq!((page.records.len(), page.next_iterator), (1, None));
}

#[tokio::test]
async fn errors_keep_their_kind_although_pages_are_kept() {
    for (status, body, kind) in [
        (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ExpiredIteratorException","message":"old"}"#, Kind::ExpiredIterator),
        (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#TrimmedDataAccessException","message":"gone"}"#, Kind::TrimmedData),
        (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"gone"}"#, Kind::NotFound),
        (400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#LimitExceededException","message":"slow"}"#, Kind::Throttled),
        (503, "", Kind::Unavailable),
        // A success that is none: a proxy's page.
        (200, "<html>sign in</html>", Kind::Unavailable),
    ] {
        let (reader, _) = scripted([(status, body)]);
        assert_eq!(get(&reader).await.expect_err(body).kind(), kind, "{body}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_know_the_filter_is_recognised() {
    let other = r#"{"StreamDescription":{"Shards":[{"ShardId":"a"},{"ShardId":"b","ParentShardId":"shard"}]}}"#;
    let children = r#"{"StreamDescription":{"Shards":[{"ShardId":"b","ParentShardId":"shard"}]}}"#;
    for (status, body, found) in [
        (400, r#"{"__type":"com.amazon.coral.validate#ValidationException","message":"unknown member ShardFilter"}"#, None),
        (400, r#"{"__type":"com.amazon.coral.service#SerializationException"}"#, None),
        (200, other, None),
        (200, children, Some(1)),
        (200, r#"{"StreamDescription":{"Shards":[]}}"#, Some(0)),
    ] {
        let (reader, _) = scripted([(status, body)]);
        let answer = reader.children(&ShardId::new("shard")).await.expect(body);
        assert_eq!(answer.map(|page| page.shards.len()), found, "{body}");
    }
}
