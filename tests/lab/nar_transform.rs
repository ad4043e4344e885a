//! Pulsar's transform functions before the archive's sink. (Pulsar has none for sources.)

use std::{collections::BTreeSet, fs};

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use futures_util::future::join_all;
use pulsar::{ProducerOptions, Pulsar, TokioExecutor};
use serde_json::json;
use tokio::time::timeout;

use super::{
    eventually,
    functions::{Functions, PATIENCE, item},
    lab,
    nar::{acknowledged, archive, ended, put},
    table::{Item, Table, canonical_item},
    topic::Topic,
};
use crate::support::java;

/// What the function (`tests/java/transform`) returns is what is written, with any schema, and acknowledged as the message that it was made of.
#[tokio::test(flavor = "multi_thread")]
async fn a1_what_a_transform_function_returns_is_written_and_acknowledged() {
    let Some(lab) = lab("nar-transform").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    // It is named by URL, and what may be named so is in this folder.
    let package = functions.program.with_extension("jar");
    fs::copy(java::transform_functions(), &package).expect("copied");
    let package = format!("file://{}", package.display());
    let transform = ["--transform-function", &package, "--transform-function-classname", "Various"];
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, topic, dead) = (name("source"), name("sink"), name("changes"), name("dead"));
    let mut graves = Topic::from_start(&lab, &dead).await;
    put(&orders, 0..12).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--source-config", &config]].concat()).await;
    let config = functions.config(json!({
        "tableName": copy.name, "awsSecretKey": "local", "metadataAttributes": {"by": "property.by"}
    }));
    let create = ["sinks", "create", "--archive", archive, "--subs-position", "Earliest", "--inputs", &topic, "--name", &sink];
    let dying = ["--max-redeliver-count", "1", "--dead-letter-topic", &dead, "--negative-ack-redelivery-delay-ms", "200"];
    functions.admin(&[&create[..], &dying, &["--sink-config", &config], &transform].concat()).await;

    let made = |what: &str, number: usize| -> Item {
        [
            ("pk".into(), AttributeValue::S(format!("{what}-{number}"))),
            ("sk".into(), AttributeValue::N(number.to_string())),
            ("made".into(), AttributeValue::S(what.into())),
        ]
        .into()
    };
    let with_property = |mut item: Item| {
        item.insert("by".into(), AttributeValue::S("Various".into()));
        item
    };
    // Of 1 the function returns nothing, at 9 it throws, and of 10 it makes the deletion of what 2 has become.
    let expected = [
        item(0),
        made("bytes", 3),
        made("json", 4),
        made("avro", 5),
        made("apart", 6),
        made("inline", 7),
        made("bare", 8),
        with_property(item(11)),
    ];
    let mut expected: BTreeSet<String> = expected.iter().map(canonical_item).collect();
    let written = async || -> BTreeSet<String> { copy.items().await.into_values().collect() };
    eventually("the transformed items", PATIENCE, async || (written().await == expected).then_some(())).await;
    // With all of its batch.
    while !timeout(PATIENCE, graves.next_whenever()).await.expect("a dead letter").text.contains("item-9") {}
    acknowledged(&functions, &topic, &sink, 12).await;

    // Batches of which something is left out: in the middle, and at the end.
    let client = Pulsar::builder(&lab.pulsar_url, TokioExecutor).build().await.expect("Pulsar answers");
    for batch in [&[20, 1, 21][..], &[22, 1]] {
        let options = ProducerOptions { batch_size: Some(batch.len() as u32), ..ProducerOptions::default() };
        let mut producer = client.producer().with_topic(&topic).with_options(options).build().await.expect("a producer");
        let mut receipts = Vec::new();
        for number in batch {
            let message = format!(r#"{{"pk":"item-{number}","sk":{number}}}"#);
            receipts.push(producer.send_non_blocking(message.into_bytes()).await.expect("accepted"));
        }
        let ids = join_all(receipts).await.into_iter().map(|receipt| receipt.expect("stored").message_id.expect("it has an id"));
        let entries: BTreeSet<(u64, u64)> = ids.map(|id| (id.ledger_id, id.entry_id)).collect();
        assert_eq!(entries.len(), 1, "one batch");
    }
    expected.extend([20, 21, 22].map(|number| canonical_item(&with_property(item(number)))));
    acknowledged(&functions, &topic, &sink, 17).await;
    assert_eq!(written().await, expected);

    for (kind, name) in [("sources", &source), ("sinks", &sink)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        ended(name).await;
    }
}
