//! The archive's sink dies while a message of a batch cannot be written. Pulsar IO acknowledges the messages of a batch one by one; the broker delivers it again as a whole.

use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use futures_util::future::join_all;
use pulsar::{ProducerOptions, Pulsar, TokioExecutor, producer::Message};
use serde_json::{Value, json};

use super::{
    eventually,
    functions::{Functions, PATIENCE},
    lab,
    nar::{acknowledged, archive, ended, gone, instances, signal},
    table::{Table, canonical_item},
};
use crate::support::throttle::Throttle;

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_newer_item_outlives_a_crash_while_the_batch_of_the_older_one_is_stuck() {
    let Some(lab) = lab("nar-crash").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let (copy, stuck) = (Table::create(&lab, "copy", None).await, Table::create(&lab, "stuck", None).await);
    let throttle = Throttle::of_batches(&lab.dynamodb_endpoint, &stuck.name, |_| 0).await;
    throttle.refuse(100);
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (sink, topic) = (name("sink"), name("messages"));
    let client = Pulsar::builder(&lab.pulsar_url, TokioExecutor).build().await.expect("Pulsar answers");
    // As one batch.
    let publish = async |messages: &[(&Table, &str, u32)]| {
        let options = ProducerOptions { batch_size: Some(messages.len() as u32), ..ProducerOptions::default() };
        let mut producer = client.producer().with_topic(&topic).with_options(options).build().await.expect("a producer");
        let mut receipts = Vec::new();
        for (table, key, version) in messages {
            let payload = json!({"pk": key, "sk": 0, "v": version}).to_string().into_bytes();
            let properties = [("table".to_owned(), table.name.clone())].into();
            let message = Message { payload, properties, ..Message::default() };
            receipts.push(producer.send_non_blocking(message).await.expect("accepted"));
        }
        let ids = join_all(receipts).await.into_iter().map(|receipt| receipt.expect("stored").message_id.expect("it has an id"));
        let mut entries: Vec<(u64, u64)> = ids.map(|id| (id.ledger_id, id.entry_id)).collect();
        entries.dedup();
        assert_eq!(entries.len(), 1, "one batch");
    };
    let item = |key: &str, version: u32| {
        let item = [("pk", S(key.to_owned())), ("sk", N("0".into())), ("v", N(version.to_string()))];
        canonical_item(&item.map(|(name, value)| (name.to_owned(), value)).into())
    };
    let written = async |table: &Table| -> Vec<String> {
        let mut items: Vec<String> = table.items().await.into_values().collect();
        items.sort();
        items
    };

    publish(&[(&copy, "a", 1), (&stuck, "x", 1)]).await;
    publish(&[(&copy, "a", 2)]).await;
    let config = functions.config(json!({
        "tableName": "${property.table}", "allowedTables": [copy.name, stuck.name], "awsEndpoint": throttle.endpoint(), "awsSecretKey": "local",
        "maxBatchSize": 1
    }));
    let create = ["sinks", "create", "--archive", archive, "--inputs", &topic, "--name", &sink, "--subs-position", "Earliest"];
    functions.admin(&[&create[..], &["--sink-config", &config]].concat()).await;
    eventually("the newer item", PATIENCE, async || (written(&copy).await == [item("a", 2)]).then_some(())).await;

    // What comes later and has nothing to do with them is acknowledged later.
    let backlog = async || -> Option<u64> {
        let path = format!("/admin/v2/persistent/public/default/{topic}/stats?getPreciseBacklog=true");
        let stats: Value = serde_json::from_str(&functions.request("GET", &path, "application/json", &[]).await.ok()?).ok()?;
        let subscription = &stats["subscriptions"][format!("public/default/{sink}")];
        (stats["msgInCounter"] == 4).then(|| subscription["msgBacklog"].as_u64())?
    };
    publish(&[(&copy, "b", 1)]).await;
    eventually("both entries of the item stay", PATIENCE, async || (backlog().await? == 2).then_some(())).await;

    let killed = instances(&sink)[0];
    signal("-KILL", killed.machine).await;
    gone("the native process ends after its parent", killed.native).await;
    throttle.refuse(0);
    acknowledged(&functions, &topic, &sink, 4).await;
    assert_eq!(written(&copy).await, [item("a", 2), item("b", 1)], "K1");
    assert_eq!(written(&stuck).await, [item("x", 1)]);

    functions.admin(&["sinks", "delete", "--name", &sink]).await;
    ended(&sink).await;
}
