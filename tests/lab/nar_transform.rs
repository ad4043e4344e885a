//! Pulsar's transform functions before the archive's sink. (Pulsar has none for sources.)

use std::{collections::BTreeSet, fs};

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use serde_json::json;

use super::{
    eventually,
    functions::{Functions, PATIENCE, item},
    lab,
    nar::{acknowledged, archive, ended, put},
    table::{Item, Table, canonical_item},
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
    let (source, sink, topic) = (name("source"), name("sink"), name("changes"));
    put(&orders, 0..8).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--source-config", &config]].concat()).await;
    let config = functions.config(json!({
        "tableName": copy.name, "awsSecretKey": "local", "metadataAttributes": {"by": "property.by"}
    }));
    let create = ["sinks", "create", "--archive", archive, "--subs-position", "Earliest", "--inputs", &topic, "--name", &sink];
    functions.admin(&[&create[..], &["--sink-config", &config], &transform].concat()).await;

    let made = |what: &str, number: usize| -> Item {
        [
            ("pk".into(), AttributeValue::S(format!("{what}-{number}"))),
            ("sk".into(), AttributeValue::N(number.to_string())),
            ("made".into(), AttributeValue::S(what.into())),
        ]
        .into()
    };
    let mut with_property = item(7);
    with_property.insert("by".into(), AttributeValue::S("Various".into()));
    // Of 1 the function returns nothing.
    let expected = [item(0), made("text", 2), made("bytes", 3), made("json", 4), made("avro", 5), made("pair", 6), with_property];
    let expected: BTreeSet<String> = expected.iter().map(canonical_item).collect();
    let written = async || -> BTreeSet<String> { copy.items().await.into_values().collect() };
    eventually("the transformed items", PATIENCE, async || (written().await.len() == expected.len()).then_some(())).await;
    assert_eq!(written().await, expected);
    acknowledged(&functions, &topic, &sink, 8).await;

    for (kind, name) in [("sources", &source), ("sinks", &sink)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        ended(name).await;
    }
}
