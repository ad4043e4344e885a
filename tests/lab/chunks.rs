//! Messages that Pulsar's Java client cuts into chunks become items, and stay in the topic until then (A1).

use std::{collections::BTreeMap, time::Duration};

use pulsar_io_dynamodb::{
    metrics::health::Health,
    ports::{OutboundMessage, Publisher},
    pulsar::{
        client::{Settings, connect},
        publisher::{Options, TopicPublisher},
    },
};

use super::{
    Random,
    connector::{Connector, sink_config},
    eventually, lab, seed,
    table::Table,
};
use crate::{
    contract::publisher::admin,
    support::{java::pulsar_program, throttle::Throttle},
};

const PRODUCERS: u64 = 4;
const ROUNDS: u64 = 4;
const ITEMS: u64 = 3;
/// Two in each round, and a last one.
const MESSAGES: u64 = PRODUCERS * (2 * ROUNDS + 1);
const PATIENCE: Duration = Duration::from_secs(120);

/// The entries that a subscription has not acknowledged, by the broker's own reading.
async fn backlog(topic: &str, subscription: &str) -> u64 {
    let stats = admin("GET", topic, "/stats?getPreciseBacklog=true", "").await;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    stats["subscriptions"][subscription]["msgBacklog"].as_u64().unwrap_or_else(|| panic!("no backlog of {subscription}: {stats}"))
}

async fn chunks_become_items(test: &str, sharing: &str) {
    let Some(mut lab) = lab(test).await else { return };
    let seed = seed(test);
    let table = Table::create(&lab, "whole", None).await;
    let mut random = Random::new(seed);
    let throttle = Throttle::of_batches(&lab.dynamodb_endpoint, &table.name, move |bound| random.below(bound)).await;
    throttle.refuse(100);
    lab.dynamodb_endpoint = throttle.endpoint();
    let topic = format!("persistent://public/default/{}", table.name);
    let config = sink_config(&topic, &table.name, "").replace("retainOrdering: true", sharing);
    // Each message is written: what is not written is not acknowledged for another one's sake.
    let config = config + "  excludeFields: [filler]\n  coalesce: false\n";
    let mut sink = Connector::start(&lab, "sink", &config);
    eventually("the sink subscribes", PATIENCE, async || sink.log_text().contains("subscribed").then_some(())).await;

    let Some(mut program) = pulsar_program(test, "Chunks") else { return };
    program.args([&lab.pulsar_url, &topic, &PRODUCERS.to_string(), &ROUNDS.to_string(), &seed.to_string()]);
    let output = tokio::process::Command::from(program).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it sends all in time").expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let received = async || (sink.metric("dynamodb_sink_messages_received_total").await >= MESSAGES).then_some(());
    eventually("all messages are whole", PATIENCE, received).await;
    let entries = backlog(&topic, &table.name).await;
    println!("{test}: {MESSAGES} messages in {entries} entries");
    assert!(entries > 5 * MESSAGES, "they were cut: {entries} entries");
    sink.kill();
    let (refused, passed) = throttle.refuse(0);
    assert!(refused > 0 && passed == 0);
    assert!(table.items().await.is_empty());
    assert_eq!(backlog(&topic, &table.name).await, entries, "A1: nothing was written, and so nothing is acknowledged");

    let sink = Connector::start(&lab, "sink", &config);
    let wanted: BTreeMap<String, String> = (0..PRODUCERS * ITEMS)
        .map(|item| {
            let last_round = (0..ROUNDS).rev().find(|round| round % ITEMS == item % ITEMS).expect("each has a round");
            let number = if item % ITEMS == 0 { 2 * ROUNDS } else { 2 * last_round + 1 };
            (format!("item-{item}"), number.to_string())
        })
        .collect();
    let mut found = BTreeMap::new();
    let all_acknowledged = async || {
        found = numbers(&table).await;
        (found == wanted && backlog(&topic, &table.name).await == 0).then_some(())
    };
    eventually("the last message of each item is there, and all chunks of all messages are acknowledged", PATIENCE, all_acknowledged).await;
    assert!(sink.stop().await.success());
    assert_eq!(numbers(&table).await, wanted);
}

/// Each item's number. Fails where an item is not what its message said.
async fn numbers(table: &Table) -> BTreeMap<String, String> {
    let mut numbers = BTreeMap::new();
    let mut pages = table.client.scan().table_name(&table.name).consistent_read(true).into_paginator().items().send();
    while let Some(item) = pages.next().await {
        let item = item.expect("scanned");
        let (name, kept) = (item["pk"].as_s().expect("text"), item["kept"].as_s().expect("text"));
        // As Java counts it.
        let hash = kept.chars().fold(0_i32, |hash, letter| hash.wrapping_mul(31).wrapping_add(letter as i32));
        assert_eq!(item["crc"].as_n().expect("a number"), &hash.to_string(), "{name} is put together wrongly");
        numbers.insert(name.clone(), item["n"].as_n().expect("a number").clone());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_k1_messages_in_chunks_become_items_and_stay_until_they_are_written() {
    chunks_become_items("chunks", "retainOrdering: true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_messages_in_chunks_are_put_together_from_a_key_shared_subscription() {
    chunks_become_items("chunks-by-key", "retainKeyOrdering: true").await;
}

/// Larger than the broker takes, it goes there in chunks as well, and Pulsar's own client puts it together.
#[tokio::test(flavor = "multi_thread")]
async fn a1_a_message_in_chunks_that_cannot_be_written_is_whole_in_the_dead_letter_topic() {
    const TEST: &str = "chunks-dead";
    let Some(lab) = lab(TEST).await else { return };
    let table = Table::create(&lab, "whole", None).await;
    let name = |what: &str| format!("persistent://public/default/{}-{what}", table.name);
    let (topic, dead) = (name("messages"), name("dead"));
    let client = connect(&Settings::at(&lab.pulsar_url), &Health::default()).await.expect("Pulsar answers");
    let options = Options { chunking: true, ..Options::default() };
    let (publisher, lanes) = TopicPublisher::open(client, Some(&topic), options, Health::default()).await.expect("a publisher");
    let large: Vec<u8> = (0..12_000_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let good = br#"{"pk":"item-1","sk":1}"#.to_vec();
    for payload in [large.clone(), good] {
        let message = OutboundMessage { payload, key: Some("a".into()), ..OutboundMessage::default() };
        publisher.publish(message).await.expect("accepted").stored().await.expect("stored");
    }
    drop(publisher);
    lanes.finished().await;

    let config = sink_config(&topic, &table.name, "") + &format!("deadLetterTopic: {dead}\n");
    let sink = Connector::start(&lab, "sink", &config);
    eventually("the item", PATIENCE, async || (table.items().await.len() == 1).then_some(())).await;
    eventually("both are acknowledged", PATIENCE, async || (backlog(&topic, &table.name).await == 0).then_some(())).await;
    assert!(sink.stop().await.success());

    let Some(mut program) = pulsar_program(TEST, "Whole") else { return };
    program.args([&lab.pulsar_url, &dead, "dlq.reason"]);
    let output = tokio::process::Command::from(program).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it reads in time").expect("java runs");
    // As Java counts it.
    let hash = large.iter().fold(1_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(*byte)));
    let wanted = format!("{} {hash} true a NOT_PARSEABLE", large.len());
    // The client logs there, too.
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.lines().any(|line| line == wanted), "{wanted} is not in {told}{}", String::from_utf8_lossy(&output.stderr));
}
