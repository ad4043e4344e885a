//! What Pulsar IO does around source and sink from the archive: compression and batching, log topic, dead letters, user metrics, restarts.

use aws_sdk_dynamodb::types::StreamViewType;
use pulsar::{ProducerOptions, Pulsar, TokioExecutor, message::proto::CompressionType};
use serde_json::json;
use tokio::time::timeout;

use super::{
    eventually,
    functions::{Functions, PATIENCE},
    lab,
    nar::{acknowledged, archive, ended, put, same},
    table::Table,
    topic::{Message, Topic},
};

/// The next message, for which a virtual machine may have to start.
async fn next(topic: &mut Topic) -> Message {
    timeout(PATIENCE, topic.next_whenever()).await.expect("a message")
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
    let client = Pulsar::builder(&lab.pulsar_url, TokioExecutor).build().await.expect("Pulsar answers");
    let from_start = async |topic: &str| Topic::from_start(&lab, topic).await;
    // Before the first line: a topic that nobody has subscribed to may drop it.
    let (mut changes, mut graves, mut lines) = (from_start(&topic).await, from_start(&dead).await, from_start(&log).await);
    put(&orders, 0..10).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    let how = ["--producer-config", r#"{"compressionType":"ZSTD"}"#, "--batch-builder", "KEY_BASED", "--log-topic", &log];
    functions.admin(&[&create[..], &how, &["--source-config", &config]].concat()).await;
    // Each event has a key of its own, so a batch of one key is one message, which the client sends without a batch.
    for _ in 0..10 {
        let message = next(&mut changes).await;
        assert_eq!((message.compression, message.batch), (CompressionType::Zstd, None));
    }
    assert_eq!(next(&mut lines).await.properties["fqn"], format!("public/default/{source}"));

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
    while next(&mut graves).await.text != "nonsense" {}
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
