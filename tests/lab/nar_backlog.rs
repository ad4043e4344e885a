//! A backlog through the archive's sink: more messages than may be unanswered between Pulsar's instance and the native process.

use futures_util::future::join_all;
use pulsar_io_dynamodb::ports::{OutboundMessage, Publisher};
use serde_json::json;

use super::{
    eventually,
    functions::{Functions, PATIENCE, sum},
    lab,
    nar::{Instance, acknowledged, archive, ended, instances, signal},
    table::{Table, canonical_item},
    topic::publisher,
};

/// Each counts as 1 KiB at least.
const MESSAGES: usize = 50_000;
const ITEMS: usize = 100;
/// Bytes that may be unanswered.
const CREDIT: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a1_k1_h1_a_backlog_is_written_in_order_and_acknowledged_to_its_end() {
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

    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local", "maxBufferedBytes": CREDIT}));
    let pattern = format!("{full}.*");
    let create = ["sinks", "create", "--archive", archive, "--subs-position", "Earliest", "--topics-pattern", &pattern, "--name", &sink];
    functions.admin(&[&create[..], &["--sink-config", &config]].concat()).await;

    // The native process stands still until the instance has given it all that may be unanswered and waits for more. Its death ends that wait.
    let started = async || -> Instance {
        let running = async || instances(&sink).first().copied();
        eventually("the instance", PATIENCE, running).await
    };
    let counts = async || {
        let status = functions.status_of("sinks", &sink, |_| true).await;
        (sum(&status, "numReadFromPulsar"), sum(&status, "numWrittenToSink"))
    };
    let hung = started().await;
    eventually("something is written", PATIENCE, async || (counts().await.1 > 0).then_some(())).await;
    signal("-STOP", hung.native).await;
    let mut before = (0, 0);
    eventually("the instance waits", PATIENCE, async || {
        let now = counts().await;
        (std::mem::replace(&mut before, now) == now && now.0 == now.1 + 1).then_some(())
    })
    .await;
    signal("-KILL", hung.native).await;
    eventually("another native process", PATIENCE, async || (started().await.native != hung.native).then_some(())).await;
    acknowledged(&functions, &topic, &sink, MESSAGES as u64).await;
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
