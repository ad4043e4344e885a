//! Pulsar's transform functions before the archive's sink. (Pulsar has none for sources.)

use std::fs;

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::json;

use super::{
    functions::Functions,
    lab,
    nar::{archive, ended, logged, put, same},
    table::Table,
};
use crate::support::java;

/// What they return comes without the message, and what is in the message is not what they return: neither may be written as if it were the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_with_a_transform_function_is_refused_with_a_reason_and_writes_nothing() {
    let Some(lab) = lab("nar-transform").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    // It is named by URL, and what may be named so is in this folder.
    let package = functions.program.with_extension("jar");
    fs::copy(java::transform_functions(), &package).expect("copied");
    let package = format!("file://{}", package.display());
    let transform = ["--transform-function", &package, "--transform-function-classname", "Same"];
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let (copy, other) = (Table::create(&lab, "copy", None).await, Table::create(&lab, "other", None).await);
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, refused, topic) = (name("source"), name("sink"), name("refused"), name("changes"));
    put(&orders, 0..3).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--source-config", &config]].concat()).await;
    let create = ["sinks", "create", "--archive", archive, "--subs-position", "Earliest", "--inputs", &topic, "--name"];
    let into = |table: &Table| functions.config(json!({"tableName": table.name, "awsSecretKey": "local"}));
    let (with, without) = (into(&other), into(&copy));
    functions.admin(&[&create[..], &[&refused, "--sink-config", &with], &transform].concat()).await;
    logged(&functions, &refused, &["This sink takes no transform function", "Remove transformFunction"]).await;
    functions.admin(&[&create[..], &[&sink, "--sink-config", &without]].concat()).await;
    same(&orders, &copy, 3).await;
    assert!(other.items().await.is_empty(), "nothing was written");

    for (kind, name) in [("sources", &source), ("sinks", &sink), ("sinks", &refused)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        ended(name).await;
    }
}
