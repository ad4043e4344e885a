//! Topics with schemas, as Pulsar's Java client writes them, through the real registry into a table.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};

use super::{
    connector::Connector,
    eventually, lab,
    table::{Item, client},
};
use crate::support::java::pulsar_program;

/// 18, 35, 36, 37: Avro that changes in mid-topic, keys and values inline and separated, Protobuf, text; batches with tombstones inside.
#[tokio::test(flavor = "multi_thread")]
async fn t35_topics_of_the_java_client_become_items() {
    let Some(lab) = lab("schemas").await else { return };
    let Some(mut program) = pulsar_program("schemas", "Schemas") else { return };
    let (client, table) = (client(&lab), format!("items-{}", lab.unique));
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build().expect("complete");
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().expect("complete");
    let created = client.create_table().table_name(&table).attribute_definitions(id).key_schema(key);
    created.billing_mode(BillingMode::PayPerRequest).send().await.expect("the table is created");

    let prefix = format!("persistent://public/default/{}", lab.unique);
    let output = program.args(["produce", &lab.pulsar_url, &prefix]).output().expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let topics = ["avro", "INLINE", "SEPARATED", "protobuf", "string"].map(|name| format!("\"{prefix}-{name}\"")).join(", ");
    let config = format!(
        "name: schemas\ninputs: [{topics}]\nsourceSubscriptionName: {table}\nsourceSubscriptionPosition: Earliest\nretainOrdering: true\n\
         configs:\n  awsRegion: us-east-1\n  tableName: {table}\n  keyAttribute: id\n"
    );
    let mut sink = Connector::start(&lab, "sink", &config);
    let messages = 7 + 4 + 4 + 1 + 1;
    let done = async || (sink.metric("dynamodb_sink_messages_received_total").await >= messages).then_some(());
    eventually("all messages are received", Duration::from_secs(60), done).await;
    assert!(sink.stop().await.success());

    let items = client.scan().table_name(&table).consistent_read(true).send().await.expect("scanned").items.unwrap_or_default();
    let text = |item: &Item, name: &str| item.get(name).map(|value| value.as_s().or(value.as_n()).expect("text").clone());
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
            ("string-1", row(None, None, None, Some("1.1"), None)),
        ]
        .map(|(id, row)| (id.to_owned(), row)),
    );
    assert_eq!(seen, expected);
}
