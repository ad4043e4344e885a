//! Every DynamoDB type and every stream view type, through source and sink.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::{
    primitives::Blob,
    types::{AttributeValue, StreamViewType},
};

use super::{
    Lab,
    connector::{Connector, sink_config, source_config},
    eventually, lab,
    table::{Item, Table, assert_equal},
    topic::Topic,
};

fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(text: &str) -> AttributeValue {
    AttributeValue::N(text.into())
}

fn item(pk: &str, sk: &str, attributes: &[(&str, AttributeValue)]) -> Item {
    let keys = [("pk".to_string(), string(pk)), ("sk".to_string(), number(sk))];
    keys.into_iter().chain(attributes.iter().map(|(name, value)| (name.to_string(), value.clone()))).collect()
}

/// Items that together hold all ten types, their empty forms, deep nesting and awkward text.
fn items() -> Vec<Item> {
    let blob = |bytes: &[u8]| Blob::new(bytes);
    let map = |name: &str, value: AttributeValue| AttributeValue::M([(name.to_string(), value)].into());
    let deep = (0..25).fold(string("deep"), |inner, level| if level % 2 == 0 { map("m", inner) } else { AttributeValue::L(vec![inner]) });
    vec![
        item("keys only", "0", &[]),
        item(
            "S",
            "1",
            &[
                ("text", string("plain")),
                ("empty", string("")),
                ("awkward", string("\" \\ / \u{8}\t\n\u{c}\r\u{1} \u{7f} \u{2028} é 日本 😀")),
            ],
        ),
        item(
            "N",
            "-0.5",
            &[
                ("whole", number("42")),
                ("negative", number("-15000000000")),
                ("digits38", number("12345678901234567890.123456789012345678")),
                ("tiny", number("1E-130")),
                ("huge", number("9.9999999999999999999999999999999999999E+125")),
            ],
        ),
        item("B", "2", &[("bytes", AttributeValue::B(blob(&[0, 1, 254, 255]))), ("empty", AttributeValue::B(blob(&[])))]),
        item(
            "BOOL, NULL",
            "3",
            &[("yes", AttributeValue::Bool(true)), ("no", AttributeValue::Bool(false)), ("null", AttributeValue::Null(true))],
        ),
        item(
            "sets",
            "4",
            &[
                ("ss", AttributeValue::Ss(vec!["b".into(), "a".into(), "é".into()])),
                ("ns", AttributeValue::Ns(vec!["10".into(), "2.5".into(), "-1".into()])),
                ("bs", AttributeValue::Bs(vec![blob(&[1]), blob(&[0, 255])])),
            ],
        ),
        item(
            "L, M",
            "5",
            &[
                ("list", AttributeValue::L(vec![string("a"), number("1"), AttributeValue::Null(true), AttributeValue::L(vec![])])),
                ("map", map("inner", AttributeValue::M([("b".into(), AttributeValue::B(blob(&[7]))), ("😀".into(), number("7"))].into()))),
                ("noList", AttributeValue::L(vec![])),
                ("noMap", AttributeValue::M(Default::default())),
                ("deep", deep),
            ],
        ),
        item("large", "6", &[("text", string(&"é".repeat(150_000)))]),
        item("many", "7", &(0..60).map(|at| (ATTRIBUTE_NAMES[at], number(&at.to_string()))).collect::<Vec<_>>()),
    ]
}

/// Sixty names, so that the Java connector's attribute order has several buckets.
static ATTRIBUTE_NAMES: std::sync::LazyLock<Vec<&'static str>> =
    std::sync::LazyLock::new(|| (0..60).map(|at| &*Box::leak(format!("attribute{at}").into_boxed_str())).collect());

/// Inserts all items, changes each, deletes two: in all 20 changes.
async fn write_all(table: &Table) -> usize {
    let items = items();
    for item in &items {
        table.put(item.clone()).await;
    }
    for item in &items {
        let mut changed = item.clone();
        changed.insert("changed".into(), AttributeValue::Bool(true));
        table.put(changed).await;
    }
    table.delete(&items[0]).await;
    table.delete(&items[5]).await;
    items.len() * 2 + 2
}

struct Copied {
    original: Table,
    copy: Table,
    source: Connector,
    sink: Connector,
    topic: String,
    changes: usize,
}

async fn start(lab: &Lab, view: StreamViewType, sink_more: &str) -> Copied {
    let original = Table::create(lab, "original", Some(view)).await;
    let copy = Table::create(lab, "copy", None).await;
    let topic = format!("persistent://public/default/{}", lab.unique);
    let changes = write_all(&original).await;
    let source =
        Connector::start(lab, "source", &source_config(&topic, &original.name, &format!("leases-{}", lab.unique), &BTreeMap::new()));
    let sink = Connector::start(lab, "sink", &sink_config(&topic, &copy.name, sink_more));
    Copied { original, copy, source, sink, topic, changes }
}

async fn copied_whole(test: &str, view: StreamViewType) {
    let Some(lab) = lab(test).await else { return };
    let mut run = start(&lab, view, "").await;
    let stored = async || (run.sink.metric("dynamodb_sink_entries_acked_total").await > 0).then_some(());
    eventually("the sink acknowledges", Duration::from_secs(60), stored).await;
    let wanted = run.original.items().await;
    assert_eq!(wanted.len(), items().len() - 2);
    eventually("the copy has all items", Duration::from_secs(60), async || (run.copy.items().await == wanted).then_some(())).await;
    let mut topic = Topic::from_start(&lab, &run.topic).await;
    for at in 0..run.changes {
        let message = topic.next().await;
        assert_eq!(message.key.as_deref(), message.json["eventID"].as_str(), "key of change {at}");
        let properties = [("EVENT_NAME", &message.json["eventName"]), ("SEQUENCE_NUMBER", &message.json["dynamodb"]["SequenceNumber"])];
        let expected = properties.map(|(name, value)| (name.to_string(), value.as_str().expect("text").to_string()));
        assert_eq!(message.properties, BTreeMap::from(expected), "properties of change {at}");
    }
    assert!(run.source.stop().await.success() && run.sink.stop().await.success());
    assert_equal(&wanted, &run.copy.items().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_and_old_images_are_copied_whole() {
    copied_whole("new-and-old", StreamViewType::NewAndOldImages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_images_are_copied_whole() {
    copied_whole("new", StreamViewType::NewImage).await;
}

/// Without new images there is nothing to put: such changes go to the dead-letter topic, and deletes are still applied.
async fn puts_are_dead_lettered(test: &str, view: StreamViewType) {
    let Some(lab) = lab(test).await else { return };
    let dead_letters = format!("persistent://public/default/{}-dead", lab.unique);
    let run = start(&lab, view, &format!("maxMessageRetries: 0\ndeadLetterTopic: {dead_letters}")).await;
    let doomed = &items()[5];
    run.copy.put(doomed.clone()).await;
    let mut topic = Topic::from_start(&lab, &dead_letters).await;
    for at in 0..run.changes - 2 {
        let message = topic.next().await;
        assert_eq!(message.properties.get("dlq.reason").map(String::as_str), Some("NO_NEW_IMAGE"), "dead letter {at}: {message:?}");
        assert_eq!(message.json["dynamodb"].get("NewImage"), None);
        assert_eq!(message.properties.get("dlq.originTopic").map(String::as_str), Some(run.topic.as_str()), "dead letter {at}");
    }
    eventually("deletes are applied", Duration::from_secs(60), async || run.copy.items().await.is_empty().then_some(())).await;
    assert!(run.source.stop().await.success() && run.sink.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_images_alone_are_dead_lettered() {
    puts_are_dead_lettered("old", StreamViewType::OldImage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_alone_are_dead_lettered() {
    puts_are_dead_lettered("keys", StreamViewType::KeysOnly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dead_letter_topic_the_sink_stops_and_says_why() {
    let Some(lab) = lab("no-dead-letters").await else { return };
    let mut run = start(&lab, StreamViewType::KeysOnly, "").await;
    let status = run.sink.exit("the sink stops").await;
    assert_eq!(status.code(), Some(1));
    let log = run.sink.log_text();
    assert!(log.contains("NO_NEW_IMAGE") && log.contains(&run.topic), "the log names reason and topic");
}
