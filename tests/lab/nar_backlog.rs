//! A backlog through the archive's sink: more messages than may be unanswered between Pulsar's instance and the native process.

use futures_util::future::join_all;
use pulsar_io_dynamodb::ports::{OutboundMessage, Publisher};
use serde_json::json;

use super::{
    functions::{Functions, sum},
    lab,
    nar::{acknowledged, archive, ended},
    table::{Table, canonical_item},
    topic::publisher,
};

/// Each counts as 1 KiB at least, and 32 MiB may be unanswered.
const MESSAGES: usize = 50_000;
const ITEMS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a1_k1_a_backlog_is_written_in_order_and_acknowledged_to_its_end() {
    let Some(lab) = lab("nar-backlog").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (sink, topic) = (name("sink"), name("messages"));
    let full = format!("persistent://public/default/{topic}");
    let (publisher, lanes) = publisher(&lab, &full).await;
    let payload = |number: usize| {
        let item = number % ITEMS;
        json!({"pk": format!("item-{item}"), "sk": item, "n": number}).to_string().into_bytes()
    };
    let mut receipts = Vec::with_capacity(MESSAGES);
    for number in 0..MESSAGES {
        let message = OutboundMessage { payload: payload(number), ..OutboundMessage::default() };
        receipts.push(publisher.publish(message).await.expect("accepted").stored());
    }
    join_all(receipts).await.into_iter().for_each(|stored| stored.expect("stored"));
    drop(publisher);
    lanes.finished().await;

    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}));
    let create = ["sinks", "create", "--archive", archive, "--subs-position", "Earliest", "--inputs", &topic, "--name", &sink];
    functions.admin(&[&create[..], &["--sink-config", &config]].concat()).await;
    acknowledged(&functions, &topic, &sink, MESSAGES as u64).await;
    let status = functions.status_of("sinks", &sink, |status| sum(status, "numWrittenToSink") >= MESSAGES as u64).await;
    assert_eq!((sum(&status, "numWrittenToSink"), sum(&status, "numRestarts")), (MESSAGES as u64, 0), "{status}");
    let expected = |item: usize| {
        use aws_sdk_dynamodb::types::AttributeValue::{N, S};
        let last = MESSAGES - ITEMS + item;
        let item = [("pk", S(format!("item-{item}"))), ("sk", N(item.to_string())), ("n", N(last.to_string()))];
        canonical_item(&item.map(|(name, value)| (name.to_owned(), value)).into())
    };
    let mut expected: Vec<String> = (0..ITEMS).map(expected).collect();
    let mut written: Vec<String> = copy.items().await.into_values().collect();
    expected.sort();
    written.sort();
    assert_eq!(written, expected, "K1");

    functions.admin(&["sinks", "delete", "--name", &sink]).await;
    ended(&sink).await;
}
