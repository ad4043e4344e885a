//! Several sinks on one subscription, added and removed and killed while messages come: the last message of each item stays (45).

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use pulsar_io_dynamodb::{
    metrics::health::Health,
    ports::{OutboundMessage, Publisher},
    pulsar::{
        client::{Settings, connect},
        publisher::{Options, TopicPublisher},
    },
};

use super::{
    Lab, Random,
    connector::{Connector, sink_config},
    eventually, lab, seed,
    table::Table,
};
use crate::contract::publisher::admin;

const MESSAGES: u64 = 2_400;
const ITEMS: u64 = 100;
/// Publishers at once; each has items of its own.
const PUBLISHERS: u64 = 4;
/// A consumer of a Key_Shared subscription is not told when it loses a key, and what a killed one has sent may land late: it takes versions to make the moments
/// harmless at which two sinks write.
const VERSIONED: &str = "  writeMode: conditional\n  versionSource: messageId\n";
/// Whole items, whoever wrote them before. One at a time, so that whoever loses its turn has much that it must not write any more.
const PLAIN: &str = "  maxBatchSize: 1\n  maxInFlightRequests: 1\n  coalesce: false\n";

/// Publishes numbered messages of random items, with the item as key, and says after each hundred of a publisher's how far it is. Returns the last number of each.
async fn publish(lab: &Lab, topic: &str, seed: u64, mut reached: impl AsyncFnMut(u64)) -> BTreeMap<u64, u64> {
    let settings = Settings::at(lab.pulsar_url.clone());
    let client = connect(&settings, &Health::default()).await.expect("Pulsar answers");
    // A batch goes to one consumer of a Key_Shared subscription, whatever keys are in it.
    let options = Options { batching: None, ..Options::default() };
    let (publisher, lanes) = TopicPublisher::open(client, Some(topic), options, Health::default()).await.expect("a publisher");
    let (mut random, mut last) = (Random::new(seed), BTreeMap::new());
    for step in 0..MESSAGES / PUBLISHERS {
        let messages = (0..PUBLISHERS).map(|of| {
            let (item, number) = (random.below(ITEMS / PUBLISHERS) * PUBLISHERS + of, step * PUBLISHERS + of);
            last.insert(item, number);
            let payload = format!(r#"{{"pk":"item-{item}","sk":{item},"n":{number}}}"#).into_bytes();
            let message = OutboundMessage { key: Some(item.to_string()), payload, ..OutboundMessage::default() };
            async { publisher.publish(message).await.expect("accepted").stored().await.expect("stored") }
        });
        join_all(messages.collect::<Vec<_>>()).await;
        if step % 100 == 99 {
            reached(step + 1).await;
        }
    }
    drop(publisher);
    lanes.finished().await;
    last
}

/// How a sink goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    /// The first and the third to go are killed, the second is stopped.
    KilledOrStopped,
    Stopped,
}

/// Three sinks; three go, and two come, in the middle of it all: each time somebody has written since the last time.
async fn rebalanced(test: &str, sharing: &str, configs: &str, partitions: u32, going: Going) {
    let Some(lab) = lab(test).await else { return };
    let seed = seed(test);
    let table = Table::create(&lab, "rebalanced", None).await;
    let topic = format!("persistent://public/default/{}", table.name);
    admin("PUT", &topic, "/partitions", &partitions.to_string()).await;
    let config = sink_config(&topic, &table.name, "").replace("retainOrdering: true", sharing);
    let start = |name: &str| Connector::start_as(&lab, "sink", name, &format!("{config}{configs}"));
    let mut sinks: Vec<Connector> = ["a", "b", "c"].into_iter().map(start).collect();
    for sink in &mut sinks {
        let serves = async || (sink.log_text().matches("subscribed").count() >= partitions as usize).then_some(());
        eventually("the sink subscribes", Duration::from_secs(30), serves).await;
    }
    let stop = async |sink: Connector| assert!(sink.stop().await.success());
    let mut seen = BTreeMap::new();
    let last = publish(&lab, &topic, seed, async |number| {
        let goes_on = async || {
            let now = versions(&table).await;
            (now != seen).then_some(now)
        };
        seen = eventually("somebody writes", Duration::from_secs(60), goes_on).await;
        match number {
            100 | 500 if going == Going::KilledOrStopped => sinks.remove(0).kill(),
            100 | 300 | 500 => stop(sinks.remove(0)).await,
            200 => sinks.push(start("d")),
            400 => sinks.push(start("e")),
            _ => {}
        }
    })
    .await;
    let wanted: BTreeMap<String, String> = last.iter().map(|(item, number)| (format!("item-{item}"), number.to_string())).collect();
    let mut found = BTreeMap::new();
    for _ in 0..600 {
        found = versions(&table).await;
        if found == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let is_wrong = |(item, number): &(&String, &String)| found.get(*item) != Some(number);
    let wrong: Vec<_> = wanted.iter().filter(is_wrong).map(|(item, number)| (item, number, found.get(item))).collect();
    if !wrong.is_empty() {
        let stats = admin("GET", &topic, "/partitioned-stats?getPreciseBacklog=true", "").await;
        panic!("{} are not the last message of their item (wanted, found): {:?}; {stats}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
    for sink in sinks {
        stop(sink).await;
    }
    // Whoever has the table's last word might have had it too early: what is still on its way must change nothing.
    assert_eq!(versions(&table).await, wanted, "something older came after it");
}

async fn versions(table: &Table) -> BTreeMap<String, String> {
    let page = table.client.scan().table_name(&table.name).consistent_read(true).send().await.expect("a scan");
    let text = |value: &aws_sdk_dynamodb::types::AttributeValue| value.as_s().or(value.as_n()).expect("text").clone();
    page.items.unwrap_or_default().iter().map(|item| (text(&item["pk"]), text(&item["n"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s45_k1_key_shared_sinks_come_and_go_and_the_last_message_of_each_item_stays() {
    rebalanced("key-shared", "retainKeyOrdering: true", VERSIONED, 1, Going::KilledOrStopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s45_k1_failover_sinks_come_and_go_and_the_last_message_of_each_item_stays() {
    rebalanced("failover", "retainOrdering: true", PLAIN, 3, Going::KilledOrStopped).await;
}

/// The broker gives no message of a key to another consumer while the former one has unacknowledged ones of it, or of another key of the same hash
/// (PIP-379, Pulsar 4.0). A sink acknowledges what is stored, so whoever drains has nothing under way when its keys go to others.
#[tokio::test(flavor = "multi_thread")]
async fn s45_k1_z1_key_shared_sinks_that_drain_need_no_versions() {
    rebalanced("key-shared-plain", "retainKeyOrdering: true", PLAIN, 1, Going::Stopped).await;
}
