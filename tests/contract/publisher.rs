//! What a real broker refuses, and what the publisher makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use pulsar::{Consumer, ConsumerOptions, Pulsar, TokioExecutor, consumer::InitialPosition};
use pulsar_io_dynamodb::{
    error::Kind,
    metrics::health::Health,
    ports::{OutboundMessage, Publisher, Refusal, WhileHeld},
    pulsar::{
        client::Client,
        publisher::{Batching, Compression, DEFAULT_MAX_MESSAGE_SIZE, Lanes, Options, TopicPublisher},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::pulsar::{broker, inbox, message, next};

async fn open(client: &Client, topic: &str, health: &Health) -> (TopicPublisher, Lanes) {
    TopicPublisher::open(client.clone(), Some(topic), Options::default(), health.clone()).await.expect("a publisher")
}

/// Calls Pulsar's admin API about a topic, or a namespace. Returns what it answers.
pub async fn admin(method: &str, name: &str, call: &str, body: &str) -> String {
    let address = env::var("PULSAR_HTTP_URL").expect("beside PULSAR_URL");
    let address = address.trim_start_matches("http://");
    let path = name.replace("://", "/");
    let mut stream = TcpStream::connect(address).await.expect("the broker answers");
    let request = format!(
        "{method} /admin/v2/{path}{call} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    assert!(answer.split(' ').nth(1).is_some_and(|code| code.starts_with('2')), "{method} {path}{call}: {answer}");
    answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned()
}

fn large(key: &str, bytes: usize) -> OutboundMessage {
    message(key, &"x".repeat(bytes))
}

/// Publishes all at once; what came back of each.
async fn fates(publisher: &TopicPublisher, messages: Vec<OutboundMessage>) -> Vec<Result<(), Refusal>> {
    let mut receipts = Vec::new();
    for message in messages {
        receipts.push(publisher.publish(message).await.expect("accepted"));
    }
    let mut fates = Vec::new();
    for receipt in receipts {
        fates.push(tokio::time::timeout(Duration::from_secs(60), receipt.stored()).await.expect("answered within a minute"));
    }
    fates
}

/// Messages wait in the publisher for their batch, and for the connection: whether their lease is still held is asked right before they are sent.
#[tokio::test(flavor = "multi_thread")]
async fn l2_what_waits_in_the_publisher_while_its_lease_runs_out_is_not_sent() {
    let Some((client, topic, _guard)) = broker("run out lease").await else { return };
    let (publisher, lanes) = open(&client, &topic, &Health::default()).await;
    let asked = Arc::new(AtomicUsize::new(0));
    // It is held when the message comes out of the queue, and not any more once there is a producer.
    let counted = asked.clone();
    let expires = WhileHeld::new(move || counted.fetch_add(1, Ordering::Relaxed) < 1);
    let late = OutboundMessage { while_held: expires, ..message("late", "1") };
    let fates = fates(&publisher, vec![late, message("other", "2")]).await;
    assert_eq!(fates[0].as_ref().expect_err("not sent").error.kind(), Kind::LeaseLost);
    assert!(fates[1].is_ok() && asked.load(Ordering::Relaxed) >= 2, "the other shard's goes on: {fates:?}");
    let mut inbox = inbox(&client, &topic, 10).await;
    assert_eq!(next(&mut inbox).await.payload, "2", "the first message of the topic");
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w9_a_message_of_the_brokers_own_limit_is_stored_and_a_larger_one_comes_back() {
    let Some((client, topic, _guard)) = broker("large").await else { return };
    let limit = client.max_message_size();
    assert_eq!(limit, DEFAULT_MAX_MESSAGE_SIZE, "Pulsar's default");
    let (publisher, lanes) = open(&client, &topic, &Health::default()).await;
    let fits = (0..200).map(|less| large("key", limit - less)).find(|message| {
        let properties = message.properties.iter().map(|(name, value)| name.len() + value.len() + 12).sum::<usize>();
        message.payload.len() + 3 + properties + 64 <= limit
    });
    let fits = fits.expect("one fits");
    let bytes = fits.payload.len();
    let refusal = publisher.publish(large("key", bytes + 1)).await.expect_err("one byte more");
    assert!(refusal.error.kind() == Kind::TooLarge && refusal.error.to_string().contains("maxMessageSize"), "{:?}", refusal.error);
    let back = refusal.message.expect("it comes back");
    assert_eq!((back.payload.len(), back.topic.as_deref()), (bytes + 1, Some(topic.as_str())));
    let stored = fates(&publisher, vec![fits, message("key", "next")]).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_what_a_topic_refuses_comes_back_and_the_rest_is_stored_in_order() {
    let Some((client, topic, _guard)) = broker("policy").await else { return };
    let health = Health::default();
    let (publisher, lanes) = open(&client, &topic, &health).await;
    assert!(fates(&publisher, vec![message("key", "first")]).await[0].is_ok(), "the topic is there");
    admin("POST", &topic, "/maxMessageSize", "20000").await;
    // A policy takes a moment to arrive.
    super::super::lab::eventually("the policy holds", Duration::from_secs(30), async || {
        fates(&publisher, vec![large("key", 30_000)]).await[0].is_err().then_some(())
    })
    .await;
    let messages =
        (0..300).map(|at| if at % 50 == 7 { large("key", 30_000) } else { message("key", &format!("{at:04}{}", "x".repeat(500))) });
    let fates = fates(&publisher, messages.collect()).await;
    for (at, fate) in fates.iter().enumerate() {
        match fate {
            Ok(()) => assert_ne!(at % 50, 7, "{at}"),
            Err(Refusal { error, message }) => {
                assert!(at % 50 == 7 && error.kind() == Kind::Invalid, "{at}: {error}");
                let back = message.as_ref().expect("it comes back");
                assert_eq!((back.payload.len(), back.topic.as_deref()), (30_000, Some(topic.as_str())));
            }
        }
    }
    let mut inbox = inbox(&client, &topic, 1_000).await;
    let mut stored = Vec::new();
    while stored.len() < 294 {
        let payload = next(&mut inbox).await.payload;
        stored.extend(std::str::from_utf8(&payload[..4]).ok().and_then(|text| text.parse::<usize>().ok()));
    }
    assert_eq!(stored, (0..300).filter(|at| at % 50 != 7).collect::<Vec<_>>());
    assert!(health.reasons().is_empty(), "{:?}", health.reasons());
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w9_what_a_topics_schema_refuses_comes_back() {
    let Some((client, topic, _guard)) = broker("schema").await else { return };
    let (namespace, name) = (format!("public/schema-{}", fastrand::u32(..)), topic.rsplit('/').next().expect("a name"));
    admin("PUT", &format!("namespaces/{namespace}"), "", "{}").await;
    admin("POST", &format!("namespaces/{namespace}"), "/schemaValidationEnforced", "true").await;
    let schema =
        r#"{"type":"JSON","schema":"{\"type\":\"record\",\"name\":\"A\",\"fields\":[{\"name\":\"a\",\"type\":\"int\"}]}","properties":{}}"#;
    admin("PUT", &format!("persistent/{namespace}/{name}"), "", "").await;
    admin("POST", &format!("schemas/{namespace}/{name}"), "/schema", schema).await;
    let health = Health::default();
    let (publisher, lanes) = open(&client, &format!("persistent://{namespace}/{name}"), &health).await;
    for fate in fates(&publisher, vec![message("key", "1"), message("key", "2")]).await {
        let refusal = fate.expect_err("no schema");
        assert_eq!(refusal.error.kind(), Kind::Invalid, "{}", refusal.error);
        assert!(refusal.message.is_some());
    }
    assert!(!health.reasons().is_empty(), "H1: a topic that takes nothing is told");
    admin("POST", &format!("namespaces/{namespace}"), "/schemaValidationEnforced", "false").await;
    super::super::lab::eventually("it is taken again", Duration::from_secs(30), async || {
        fates(&publisher, vec![message("key", "3")]).await[0].is_ok().then_some(())
    })
    .await;
    assert!(health.reasons().is_empty(), "{:?}", health.reasons());
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_a_terminated_topic_is_no_messages_fault_and_waits_for_a_person() {
    let Some((client, topic, _guard)) = broker("terminated").await else { return };
    let health = Health::default();
    let (publisher, lanes) = open(&client, &topic, &health).await;
    assert!(fates(&publisher, vec![message("key", "first")]).await[0].is_ok(), "the topic is there");
    admin("POST", &topic, "/terminate", "").await;
    let receipt = publisher.publish(message("key", "second")).await.expect("accepted");
    let told = async || health.reasons().into_values().find(|reason| reason.contains("terminated"));
    super::super::lab::eventually("health is red", Duration::from_secs(60), told).await;
    admin("DELETE", &topic, "?force=true", "").await;
    tokio::time::timeout(Duration::from_secs(60), receipt.stored()).await.expect("within a minute").expect("the topic is a new one");
    assert!(health.reasons().is_empty(), "{:?}", health.reasons());
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w22_o1_messages_go_to_the_topics_that_they_name() {
    let Some((client, topic, _guard)) = broker("named").await else { return };
    let (publisher, lanes) = TopicPublisher::open(client.clone(), None, Options::default(), Health::default()).await.expect("a publisher");
    let name = |kind: usize| format!("{topic}-{kind}");
    let messages = (0..600).map(|at| OutboundMessage { topic: Some(name(at % 3).into()), ..message("key", &at.to_string()) });
    assert!(fates(&publisher, messages.collect()).await.iter().all(Result::is_ok));
    for kind in 0..3 {
        let mut inbox = inbox(&client, &name(kind), 1_000).await;
        for at in (kind..600).step_by(3) {
            assert_eq!(next(&mut inbox).await.payload, at.to_string());
        }
    }
    let error = publisher.publish(message("key", "nowhere")).await.expect_err("it names no topic").error;
    assert_eq!(error.kind(), Kind::Fatal, "{error}");
    // M1: their number is bounded.
    for at in 3..64 {
        let message = OutboundMessage { topic: Some(format!("non-persistent://public/default/x{at}").into()), ..message("key", "x") };
        publisher.publish(message).await.expect("accepted");
    }
    let one_more = OutboundMessage { topic: Some(name(64).into()), ..message("key", "x") };
    let refusal = publisher.publish(one_more).await.expect_err("one too many");
    assert!(refusal.message.is_some() && refusal.error.to_string().contains("64"), "{}", refusal.error);
    drop(publisher);
    lanes.finished().await;
}

/// Two hundred messages, published with these options.
async fn publish_with(client: &Client, topic: &str, options: Options, name: &str) {
    let (publisher, lanes) = TopicPublisher::open(client.clone(), Some(topic), options, Health::default()).await.expect("a publisher");
    let messages = (0..200).map(|at| message("key", &format!("{name}-{at} {}", "text ".repeat(50))));
    assert!(fates(&publisher, messages.collect()).await.iter().all(Result::is_ok));
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_is_read_by_pulsars_java_client() {
    let Some((client, topic, _guard)) = broker("compressed").await else { return };
    let kinds = [(Compression::None, "none"), (Compression::Lz4, "lz4"), (Compression::Zlib, "zlib"), (Compression::Zstd, "zstd")];
    for (compression, name) in kinds {
        publish_with(&client, &topic, Options { compression, ..Options::default() }, name).await;
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts");
    let home = home.read_dir().expect("parts").filter_map(|entry| Some(entry.ok()?.path()));
    let home = home.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("apache-pulsar-")));
    let mut command = Command::new(home.expect("Pulsar itself").join("bin/pulsar-client"));
    command.env("PULSAR_MEM", "-Xmx256m").args([
        "--url",
        &env::var("PULSAR_URL").expect("a broker"),
        "consume",
        "-s",
        "java",
        "-p",
        "Earliest",
    ]);
    let output = command.args(["-n", "800", &topic]).output().await.expect("it starts");
    let output = String::from_utf8_lossy(&output.stdout);
    for (_, name) in kinds {
        for at in 0..200 {
            let content = format!("content:{name}-{at} {}", "text ".repeat(50));
            assert!(output.contains(content.trim_end()), "{name}-{at} is not in\n{output}");
        }
    }
    // That it was compressed at all, as the entries say.
    let library = Pulsar::builder(env::var("PULSAR_URL").expect("a broker"), TokioExecutor).build().await.expect("the broker answers");
    let consumer = library.consumer().with_topic(&topic).with_subscription("metadata");
    let options = ConsumerOptions::default().with_initial_position(InitialPosition::Earliest);
    let mut consumer: Consumer<Vec<u8>, TokioExecutor> = consumer.with_options(options).build().await.expect("subscribed");
    let mut seen = BTreeMap::new();
    for _ in 0..800 {
        let message = consumer.next().await.expect("subscribed").expect("a message");
        let text = String::from_utf8(message.deserialize()).expect("text");
        let name = text.split('-').next().expect("a name").to_owned();
        seen.entry(name).or_insert(message.payload.metadata.compression.unwrap_or_default());
    }
    assert_eq!(seen, BTreeMap::from([("lz4".into(), 1), ("none".into(), 0), ("zlib".into(), 2), ("zstd".into(), 3)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_as_configured_o1() {
    let Some((client, topic, _guard)) = broker("batches").await else { return };
    let batching = Batching::default();
    let each = [
        (None, 200..=200, "alone"),
        (Some(Batching { max_messages: 10, ..batching }), 20..=200, "ten"),
        (Some(Batching { max_bytes: 1_000, ..batching }), 67..=200, "bytes"),
        // All are there long before the delay is over, but for the last ones.
        (Some(Batching { max_messages: 100, max_delay: Duration::from_secs(2), ..batching }), 2..=2, "delay"),
    ];
    for (batching, ..) in each.clone() {
        let options = Options { batching, ..Options::default() };
        publish_with(&client, &topic, options, "x").await;
    }
    let mut inbox = inbox(&client, &topic, 1_000).await;
    for (_, expected, name) in each {
        let mut entries = BTreeSet::new();
        for at in 0..200 {
            let received = next(&mut inbox).await;
            assert!(received.payload.starts_with(format!("x-{at} ").as_bytes()), "{name}: {at}");
            assert_eq!(received.key.as_deref(), Some("key"));
            entries.insert(received.entry);
        }
        assert!(expected.contains(&entries.len()), "{name}: {} entries", entries.len());
    }
}
