//! The sink's write modes, from a configuration file to the items of a real table.

use std::time::Duration;

use pulsar_io_dynamodb::ports::{OutboundMessage, Publisher};

use super::{
    Lab,
    connector::{Connector, sink_config},
    eventually, lab,
    table::{Table, client},
    topic::{Topic, publisher},
};

/// Publishes payloads, each with its properties, in this order.
async fn publish(lab: &Lab, topic: &str, messages: &[(&str, &[(&str, &str)])]) {
    let (publisher, lanes) = publisher(lab, topic).await;
    for (payload, properties) in messages {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned().into(), (*value).to_owned())).collect();
        let message = OutboundMessage { payload: payload.as_bytes().to_vec(), properties, ..OutboundMessage::default() };
        publisher.publish(message).await.expect("accepted").stored().await.expect("stored");
    }
    drop(publisher);
    lanes.finished().await;
}

/// A table with items that are there before, and a sink of this mode that is given these messages.
struct Run {
    table: Table,
    sink: Connector,
    dead: String,
}

async fn run(lab: &Lab, name: &str, configs: &str, messages: &[(&str, &[(&str, &str)])]) -> Run {
    let table = Table::create(lab, name, None).await;
    let topic = format!("persistent://public/default/{}", table.name);
    let dead = format!("{topic}-dead");
    publish(lab, &topic, messages).await;
    let config = sink_config(&topic, &table.name, &format!("deadLetterTopic: {dead}"));
    let mut sink = Connector::start_as(lab, "sink", name, &format!("{config}  coalesce: false\n{configs}"));
    let all = messages.len() as u64;
    let acked = async || (sink.metric("dynamodb_sink_entries_acked_total").await == all).then_some(());
    eventually("all messages are acknowledged", Duration::from_secs(30), acked).await;
    Run { table, sink, dead }
}

impl Run {
    /// Each item as text, in the order of the keys.
    async fn items(&self) -> Vec<String> {
        self.table.items().await.into_values().collect()
    }
}

const NONE: &[(&str, &str)] = &[];

#[tokio::test(flavor = "multi_thread")]
async fn an_update_sets_what_the_message_has_and_leaves_the_rest() {
    let Some(lab) = lab("update").await else { return };
    let messages = [
        (r#"{"pk":"a","sk":1,"colour":"red","size":1}"#, NONE),
        (r#"{"pk":"a","sk":1,"size":2,"name":"order"}"#, NONE),
        (r#"{"pk":"b","sk":1,"size":3}"#, NONE),
        (r#"{"eventName":"REMOVE","dynamodb":{"Keys":{"pk":{"S":"b"},"sk":{"N":"1"}}}}"#, NONE),
        (r#"{"pk":"b","sk":1,"name":"again"}"#, NONE),
    ];
    let mut run = run(&lab, "update", "  writeMode: update\n", &messages).await;
    let items = run.items().await;
    assert_eq!(items.len(), 2, "{items:?}");
    for part in [r#""colour": "S(\"red\")""#, r#""size": "N(\"2\")""#, r#""name": "S(\"order\")""#] {
        assert!(items[0].contains(part), "{part}: {}", items[0]);
    }
    assert!(items[1].contains("again") && !items[1].contains("size"), "the delete took the rest: {}", items[1]);
    assert_eq!(run.sink.metric("dynamodb_sink_items_written_total").await, 5);
    assert!(run.sink.stop().await.success());
}

/// 28, 29, 30: whatever the order of the messages, the newest version stays; a delete leaves a tombstone that an older put does not overwrite.
#[tokio::test(flavor = "multi_thread")]
async fn s28_s29_s30_the_newest_version_wins_whatever_the_order() {
    let Some(lab) = lab("conditional").await else { return };
    let put = |pk: &str, n: &str, text: &str| {
        let image = format!(r#"{{"pk":{{"S":"{pk}"}},"sk":{{"N":"1"}},"text":{{"S":"{text}"}}}}"#);
        format!(
            r#"{{"eventName":"MODIFY","dynamodb":{{"Keys":{{"pk":{{"S":"{pk}"}},"sk":{{"N":"1"}}}},"NewImage":{image},"SequenceNumber":"{n}"}}}}"#
        )
    };
    let newer = "1".repeat(40);
    let older = "9".repeat(39);
    let remove = r#"{"eventName":"REMOVE","dynamodb":{"Keys":{"pk":{"S":"b"},"sk":{"N":"1"}}}}"#;
    let messages = [
        (put("a", &newer, "new"), NONE),
        (put("a", &older, "old"), NONE),
        (put("a", &newer, "new"), NONE),
        (put("b", "100", "first"), NONE),
        (remove.to_owned(), &[("SEQUENCE_NUMBER", "300")][..]),
        (put("b", "200", "late"), NONE),
    ];
    let messages: Vec<(&str, &[(&str, &str)])> = messages.iter().map(|(payload, properties)| (payload.as_str(), *properties)).collect();
    let mut run = run(&lab, "conditional", "  writeMode: conditional\n", &messages).await;
    let items = run.items().await;
    assert!(items[0].contains("new") && items[0].contains(&newer), "{}", items[0]);
    assert!(items[1].contains(&format!("{:0>40}", 300)) && items[1].contains("_deleted") && items[1].contains("_expires"), "{}", items[1]);
    assert!(!items[1].contains("late"), "{}", items[1]);
    assert_eq!(run.sink.metric("dynamodb_sink_skipped_total").await, 2, "stale versions");
    assert_eq!(run.sink.metric("dynamodb_sink_items_written_total").await, 4, "the same version again is no failure");
    assert!(run.sink.stop().await.success());
}

/// 31: reserved words and odd names go through placeholders; what does not meet the condition goes where policy says.
#[tokio::test(flavor = "multi_thread")]
async fn s31_a_condition_decides_and_its_failures_are_dead_letters() {
    let Some(lab) = lab("condition").await else { return };
    let messages = [
        (r#"{"pk":"a","sk":1,"status":"open","_n":1}"#, NONE),
        (r#"{"pk":"a","sk":1,"status":"closed","_n":2}"#, NONE),
        (r#"{"pk":"a","sk":1,"status":"open","_n":3}"#, NONE),
    ];
    let configs = "  conditionExpression: \"attribute_not_exists(#s) OR #s <> :closed\"\n  conditionNames: {\"#s\": status}\n  \
                   conditionValues: {\":closed\": closed}\n  onConditionFailure: deadLetter\n";
    let mut run = run(&lab, "condition", configs, &messages).await;
    let items = run.items().await;
    assert!(items[0].contains("closed") && items[0].contains(r#""_n": "N(\"2\")""#), "{}", items[0]);
    let letter = Topic::from_start(&lab, &run.dead).await.next().await;
    assert_eq!((letter.json["_n"].as_u64(), letter.properties["dlq.reason"].as_str()), (Some(3), "CONDITION_FAILED"));
    assert_eq!(run.sink.metric("dynamodb_sink_dead_lettered_total").await, 1);
    assert!(run.sink.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn insert_delete_and_transact() {
    let Some(lab) = lab("modes").await else { return };
    let two = [(r#"{"pk":"a","sk":1,"text":"first"}"#, NONE), (r#"{"pk":"a","sk":1.0,"text":"second"}"#, NONE)];
    let mut inserted = run(&lab, "insert", "  writeMode: insert\n", &two).await;
    let items = inserted.items().await;
    assert!(items.len() == 1 && items[0].contains("first"), "{items:?}");
    assert_eq!(inserted.sink.metric("dynamodb_sink_skipped_total").await, 1);
    assert!(inserted.sink.stop().await.success());

    let deleted = run(&lab, "delete", "  writeMode: delete\n", &two).await;
    assert!(deleted.items().await.is_empty());
    assert!(deleted.sink.stop().await.success());

    let many: Vec<String> = (0..60).map(|sk| format!(r#"{{"pk":"a","sk":{},"n":{sk}}}"#, sk % 50)).collect();
    let many: Vec<_> = many.iter().map(|payload| (payload.as_str(), NONE)).collect();
    let transacted = run(&lab, "transact", "  writeMode: transact\n  maxBatchSize: 100\n  flushTimeout: 200\n", &many).await;
    let items = transacted.items().await;
    assert_eq!(items.len(), 50);
    assert!(items.iter().any(|item| item.contains(r#""n": "N(\"59\")""#)), "the last of a key wins");
    assert!(transacted.sink.stop().await.success());
}

/// Tables are chosen by the message, and made where there is none; a name that is not allowed is a dead letter and makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_chosen_by_the_message_and_made_where_there_is_none() {
    let Some(lab) = lab("routes").await else { return };
    let (prefix, topic) = (format!("orders-{}", lab.unique), format!("persistent://public/default/routes-{}", lab.unique));
    let messages: [(&str, &[(&str, &str)]); 4] = [
        (r#"{"pk":"a","sk":1,"text":"north"}"#, &[("region", "north")]),
        (r#"{"pk":"a","sk":1,"text":"south"}"#, &[("region", "south")]),
        (r#"{"pk":"a","sk":1,"text":"nowhere"}"#, &[("region", "nowhere")]),
        (r#"{"pk":"b","sk":2,"text":"north"}"#, &[("region", "north")]),
    ];
    publish(&lab, &topic, &messages).await;
    let dead = format!("{topic}-dead");
    let table = format!("{prefix}-${{property.region}}");
    let config = sink_config(&topic, &prefix, &format!("deadLetterTopic: {dead}"));
    let config = config.replace(&format!("tableName: {prefix}"), &format!("tableName: \"{table}\""));
    let configs = format!("  allowedTables: [{prefix}-north, {prefix}-south]\n  autoCreate: true\n  keySchema: [\"pk:S\", \"sk:N\"]\n");
    let mut sink = Connector::start_as(&lab, "sink", "routes", &format!("{config}{configs}"));
    let acked = async || (sink.metric("dynamodb_sink_entries_acked_total").await == 4).then_some(());
    eventually("all messages are acknowledged", Duration::from_secs(60), acked).await;
    assert!(sink.stop().await.success());

    let texts = async |region: &str| {
        let table = Table { client: client(&lab), name: format!("{prefix}-{region}") };
        table.items().await.into_values().collect::<Vec<_>>()
    };
    let (north, south) = (texts("north").await, texts("south").await);
    assert!(north.len() == 2 && north.iter().all(|item| item.contains("north")), "{north:?}");
    assert!(south.len() == 1 && south[0].contains("south"), "{south:?}");
    let letter = Topic::from_start(&lab, &dead).await.next().await;
    assert_eq!(letter.json["text"].as_str(), Some("nowhere"));
    let tables = client(&lab).list_tables().send().await.expect("listed").table_names.unwrap_or_default();
    assert!(!tables.iter().any(|name| name.ends_with("nowhere")), "{tables:?}");
}
