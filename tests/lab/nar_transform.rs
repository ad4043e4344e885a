//! Pulsar's transform functions before the archive's sink. (Pulsar has none for sources.)

use std::{env, fs, path::Path};

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::json;
use tokio::process::Command;

use super::{
    eventually,
    functions::{Functions, PATIENCE},
    lab,
    nar::{archive, ended, logged, put},
    table::Table,
};
use crate::support::java;

/// A sink has a message's raw bytes at hand as well, which know nothing of the function: what counts is what the function returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_transform_function_changes_what_a_sink_writes_and_a_whole_record_is_refused() {
    let Some(lab) = lab("nar-transform").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let transform = java::transform_functions();
    let transform = ["--transform-function", transform.to_str().expect("text"), "--transform-function-classname", "Replace"];
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, whole, topic, records) = (name("source"), name("sink"), name("whole"), name("changes"), name("records"));
    put(&orders, 0..3).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--source-config", &config]].concat()).await;

    // Records with a schema, beside the source's bytes.
    let schema = r#"json:{"type":"record","name":"r","fields":[{"name":"pk","type":"string"},{"name":"sk","type":"int"}]}"#;
    let client = Path::new(&env::var("PULSAR_HOME").expect("with functions")).join("bin/pulsar-client");
    // From a file: the command takes a message apart at commas.
    let record = functions.program.with_extension("record");
    fs::write(&record, r#"{"pk":"item-7","sk":7}"#).expect("written");
    let produce = ["--url", &lab.pulsar_url, "produce", &records, "-vs", schema, "-f", record.to_str().expect("text")];
    let produced = Command::new(client).env("PULSAR_MEM", "-Xmx256m").args(produce).output().await.expect("pulsar-client runs");
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stdout));

    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}));
    let inputs = format!("{topic},{records}");
    let create = ["sinks", "create", "--archive", archive, "--subs-position", "Earliest", "--sink-config", &config, "--inputs", &inputs];
    let change = r#"{"from":"item-","to":"changed-"}"#;
    functions.admin(&[&create[..], &["--name", &sink], &transform, &["--transform-function-config", change]].concat()).await;
    let written = eventually("the copy", PATIENCE, async || Some(copy.items().await).filter(|items| items.len() == 4)).await;
    for number in [0, 1, 2, 7] {
        assert!(written.values().any(|item| item.contains(&format!("changed-{number}\""))), "{number}: {written:?}");
    }

    // A whole Record comes without the message, and so without its id: that is refused, and said.
    let record = r#"{"from":"","to":"","record":"yes"}"#;
    functions.admin(&[&create[..], &["--name", &whole], &transform, &["--transform-function-config", record]].concat()).await;
    logged(&functions, &whole, &["The transform function returns a Record, which has no message id"]).await;
    assert_eq!(copy.items().await, written, "nothing else was written");

    for (kind, name) in [("sources", &source), ("sinks", &sink), ("sinks", &whole)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        ended(name).await;
    }
}
