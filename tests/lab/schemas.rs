//! Topics with schemas, as Pulsar's Java client writes them, through the real registry into a table.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};

use super::{
    Random,
    connector::{Connector, sink_config},
    eventually, lab, seed,
    table::{Item, client},
};
use crate::support::java::pulsar_program;

/// A table with the string key `id`.
async fn create(client: &Client, table: &str) {
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build().expect("complete");
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().expect("complete");
    let created = client.create_table().table_name(table).attribute_definitions(id).key_schema(key);
    created.billing_mode(BillingMode::PayPerRequest).send().await.expect("the table is created");
}

fn text(item: &Item, name: &str) -> Option<String> {
    item.get(name).map(|value| value.as_s().or(value.as_n()).expect("text").clone())
}

/// 18, 35, 36, 37: Avro that changes in mid-topic, keys and values inline and separated, Protobuf with its own descriptor and by a file, text; batches with
/// tombstones inside.
#[tokio::test(flavor = "multi_thread")]
async fn t35_topics_of_the_java_client_become_items() {
    let Some(lab) = lab("schemas").await else { return };
    let Some(mut program) = pulsar_program("schemas", "Schemas") else { return };
    let (client, table) = (client(&lab), format!("items-{}", lab.unique));
    create(&client, &table).await;
    let prefix = format!("persistent://public/default/{}", lab.unique);
    let descriptors = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.pb", lab.unique));
    let output = program.args(["produce", &lab.pulsar_url, &prefix]).arg(&descriptors).output().expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let topics = ["avro", "INLINE", "SEPARATED", "protobuf", "described", "string"].map(|name| format!("\"{prefix}-{name}\"")).join(", ");
    let config = format!(
        "name: schemas\ninputs: [{topics}]\nsourceSubscriptionName: {table}\nsourceSubscriptionPosition: Earliest\nretainOrdering: true\n\
         configs:\n  awsRegion: us-east-1\n  tableName: {table}\n  keyAttribute: id\n  protobufDescriptorFile: {}\n  protobufMessage: shop.Order\n",
        descriptors.display()
    );
    let mut sink = Connector::start(&lab, "sink", &config);
    let messages = 7 + 4 + 4 + 1 + 2 + 1;
    let done = async || (sink.metric("dynamodb_sink_messages_received_total").await >= messages).then_some(());
    eventually("all messages are received", Duration::from_secs(60), done).await;
    assert!(sink.stop().await.success());

    let items = client.scan().table_name(&table).consistent_read(true).send().await.expect("scanned").items.unwrap_or_default();
    let seen: BTreeMap<_, _> = items
        .iter()
        .map(|item| (text(item, "id").expect("a key"), ["v", "at", "value", "n", "unsigned"].map(|name| text(item, name))))
        .collect();
    let row = |v: Option<&str>, at: Option<&str>, value: Option<&str>, n: Option<&str>, unsigned: Option<&str>| {
        [v, at, value, n, unsigned].map(|text| text.map(str::to_owned))
    };
    let at = Some("2020-01-31T10:15:00.123Z");
    let expected = BTreeMap::from(
        [
            ("avro-1", row(Some("1"), None, None, None, None)),
            ("avro-2", row(Some("2"), at, None, None, None)),
            ("avro-3", row(Some("2"), at, None, None, None)),
            ("avro-4", row(Some("3"), None, None, None, None)),
            ("INLINE-1", row(None, None, Some("9223372036854775807"), None, None)),
            ("INLINE-2", row(None, None, Some("2"), None, None)),
            ("SEPARATED-1", row(None, None, Some("9223372036854775807"), None, None)),
            ("SEPARATED-2", row(None, None, Some("2"), None, None)),
            ("protobuf-1", row(None, Some("2020-01-31T10:15:00.123456Z"), None, None, Some("18446744073709551615"))),
            ("described-1", row(None, Some("2020-01-31T10:15:00.123456Z"), None, None, Some("18446744073709551615"))),
            ("described-2", row(None, Some("2020-01-31T10:15:00.123456Z"), None, None, Some("18446744073709551615"))),
            ("string-1", row(None, None, None, Some("1.1"), None)),
        ]
        .map(|(id, row)| (id.to_owned(), row)),
    );
    assert_eq!(seen, expected);
}

const VERSIONS: u64 = 20_000;
const ITEMS: u64 = 700;

/// 17, 35: Avro in batches of a hundred, its schema another one each 500 messages; the sink is killed again and again in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn s35_a1_a_sink_is_killed_while_the_topics_schema_changes() {
    let Some(lab) = lab("evolving").await else { return };
    let Some(mut program) = pulsar_program("evolving", "Schemas") else { return };
    let (client, table) = (client(&lab), format!("items-{}", lab.unique));
    create(&client, &table).await;
    let topic = format!("persistent://public/default/{}", lab.unique);
    // Slow enough to be killed in the middle of it.
    let slowly = "  maxBatchSize: 5\n  maxInFlightRequests: 1\n  maxBufferedMessages: 500\n  coalesce: false\n";
    let config = sink_config(&topic, &table, "") + slowly;
    let mut random = Random::new(seed("evolving"));
    let mut sink = Connector::start(&lab, "sink", &config);
    eventually("the sink subscribes", Duration::from_secs(60), async || sink.log_text().contains("subscribed").then_some(())).await;
    let mut producer =
        program.args(["evolve", &lab.pulsar_url, &topic, &VERSIONS.to_string(), &ITEMS.to_string()]).spawn().expect("java runs");
    let mut received = Vec::new();
    for _ in 0..4 {
        let most = 500 + random.below(3_000);
        let reached = async || (sink.metric("dynamodb_sink_messages_received_total").await >= most).then_some(());
        eventually("the sink is in the middle of it", Duration::from_secs(120), reached).await;
        received.push(sink.metric("dynamodb_sink_messages_received_total").await);
        sink.kill();
        sink = Connector::start(&lab, "sink", &config);
    }
    assert!(producer.wait().expect("its status").success());
    println!("evolving: killed after {received:?} messages each");
    let wanted: BTreeMap<String, (u64, Option<&str>)> = (VERSIONS - ITEMS..VERSIONS)
        .map(|n| (format!("item-{}", n % ITEMS), (n, (n / 500 % 3 == 1).then_some("2020-01-31T10:15:00.123Z"))))
        .collect();
    let mut found = BTreeMap::new();
    for _ in 0..600 {
        let items = client.scan().table_name(&table).consistent_read(true).send().await.expect("scanned").items.unwrap_or_default();
        found = items.iter().map(|item| (text(item, "id").expect("a key"), version_and_time(item))).collect();
        if found.iter().map(|(id, (v, at))| (id.clone(), (*v, at.as_deref()))).eq(wanted.clone()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen: BTreeMap<String, (u64, Option<&str>)> = found.iter().map(|(id, (v, at))| (id.clone(), (*v, at.as_deref()))).collect();
    let wrong: Vec<_> =
        wanted.iter().filter(|(id, row)| seen.get(*id) != Some(row)).map(|(id, row)| (id, row, seen.get(id))).take(5).collect();
    assert!(wrong.is_empty(), "not the last message of each item: {wrong:?}");
    assert!(sink.stop().await.success());
}

/// The version, and the attribute that one of the three schemas gives a value.
fn version_and_time(item: &Item) -> (u64, Option<String>) {
    let at = item.get("at").filter(|at| !at.is_null()).map(|at| at.as_s().expect("text").clone());
    (text(item, "v").expect("a version").parse().expect("a number"), at)
}
