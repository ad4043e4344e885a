//! What Pulsar IO does around source and sink from the archive: compression and batching, log topic, dead letters, user metrics, restarts.

use aws_sdk_dynamodb::types::StreamViewType;
use futures_util::StreamExt;
use pulsar::{
    Consumer, ConsumerOptions, ProducerOptions, Pulsar, SubType, TokioExecutor, consumer::InitialPosition, message::proto::CompressionType,
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    Lab, eventually,
    functions::{Functions, PATIENCE},
    lab,
    nar::{acknowledged, archive, ended, put, same},
    table::Table,
};

type Reader = Consumer<Vec<u8>, TokioExecutor>;

async fn pulsar(lab: &Lab) -> Pulsar<TokioExecutor> {
    Pulsar::builder(&lab.pulsar_url, TokioExecutor).build().await.expect("Pulsar answers")
}

/// From the beginning. A topic that nobody has subscribed to may drop what comes first.
async fn reader(client: &Pulsar<TokioExecutor>, topic: &str) -> Reader {
    let options = ConsumerOptions::default().with_initial_position(InitialPosition::Earliest);
    let consumer = client.consumer().with_topic(topic).with_subscription("lab").with_subscription_type(SubType::Exclusive);
    consumer.with_options(options).build().await.expect("subscribed")
}

async fn next(reader: &mut Reader) -> pulsar::consumer::Message<Vec<u8>> {
    timeout(PATIENCE, reader.next()).await.expect("a message").expect("the subscription lives").expect("a message")
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_k1_h1_pulsar_compresses_logs_buries_measures_and_restarts() {
    let Some(lab) = lab("nar-services").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, topic, dead, log) = (name("source"), name("sink"), name("changes"), name("dead"), name("log"));
    let client = pulsar(&lab).await;
    let (mut changes, mut graves, mut lines) = (reader(&client, &topic).await, reader(&client, &dead).await, reader(&client, &log).await);
    put(&orders, 0..10).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    let how = ["--producer-config", r#"{"compressionType":"ZSTD"}"#, "--batch-builder", "KEY_BASED", "--log-topic", &log];
    functions.admin(&[&create[..], &how, &["--source-config", &config]].concat()).await;
    let change = next(&mut changes).await;
    assert_eq!(change.metadata().compression, Some(CompressionType::Zstd.into()));
    let line = next(&mut lines).await;
    let whose = line.metadata().properties.iter().find(|property| property.key == "fqn").map(|property| property.value.as_str());
    assert_eq!(whose, Some(format!("public/default/{source}").as_str()));

    // In one batch with an older message of an item is one that no table takes. Pulsar delivers the whole batch twice more, and then puts it away. The item's
    // newer message comes once.
    let options = ProducerOptions { batch_size: Some(2), ..ProducerOptions::default() };
    let mut producer = client.producer().with_topic(&topic).with_options(options).build().await.expect("a producer");
    let older = producer.send_non_blocking(br#"{"pk":"item-0","sk":0,"n":1}"#.to_vec()).await.expect("accepted");
    let poison = producer.send_non_blocking(b"nonsense".to_vec()).await.expect("accepted");
    let (older, poison) = (older.await.expect("stored"), poison.await.expect("stored"));
    let place = |id: &Option<pulsar::message::proto::MessageIdData>| id.as_ref().map(|id| (id.ledger_id, id.entry_id));
    assert_eq!(place(&older.message_id), place(&poison.message_id), "one batch");
    client.send(&topic, br#"{"pk":"item-0","sk":0}"#.to_vec()).await.expect("accepted").await.expect("stored");
    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}));
    let create = ["sinks", "create", "--archive", archive, "--name", &sink, "--inputs", &topic, "--subs-position", "Earliest"];
    let dying = ["--max-redeliver-count", "2", "--dead-letter-topic", &dead, "--negative-ack-redelivery-delay-ms", "200"];
    functions.admin(&[&create[..], &dying, &["--sink-config", &config]].concat()).await;
    while next(&mut graves).await.payload.data != b"nonsense" {}
    acknowledged(&functions, &topic, &sink, 13).await;
    same(&orders, &copy, 10).await;

    eventually("the user metrics", PATIENCE, async || {
        let page = functions.get("/metrics/").await?;
        // Of a summary the sum, and of a counter each report's increase.
        let total = |series: &str, of: &str, metric: &str| -> Option<f64> {
            let (of, metric) = (format!("name=\"{of}\""), format!("metric=\"{metric}\""));
            let mut lines = page.lines().filter(|line| line.starts_with(series) && line.contains(&of) && line.contains(&metric));
            lines.next()?.rsplit(' ').next()?.parse().ok()
        };
        let all = total("pulsar_source_user_metric__sum", &source, "published")? == 10.0
            && total("pulsar_sink_user_metric__sum", &sink, "items_written")? >= 10.0
            && total("pulsar_source_user_metric__count", &source, "lag_seconds")? > 0.0;
        all.then_some(())
    })
    .await;

    functions.admin(&["sources", "restart", "--name", &source]).await;
    functions.admin(&["sinks", "restart", "--name", &sink]).await;
    put(&orders, 10..15).await;
    same(&orders, &copy, 15).await;

    for (kind, name) in [("sources", &source), ("sinks", &sink)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        ended(name).await;
    }
}
