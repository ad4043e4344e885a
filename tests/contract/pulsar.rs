//! Publisher and inbox against a real broker; what the publisher alone does is in [`super::publisher`].

use std::{collections::BTreeSet, env, time::Duration};

use pulsar_io_dynamodb::{
    metrics::health::Health,
    ports::{EntryId, Inbound, InboundMessage, Inbox, OutboundMessage, Publisher},
    pulsar::{
        client::{Client, Settings, connect},
        inbox::{InitialPosition, Subscription, SubscriptionType, TopicInbox},
        partitions::LOOK_EVERY,
        publisher::{Options, TopicPublisher},
    },
};
use tokio::sync::{RwLock, RwLockReadGuard};

use super::publisher::admin;

/// Whoever works with the broker reads this; whoever restarts it writes.
pub static BROKER: RwLock<()> = RwLock::const_new(());

/// A client and a topic of its own for one test, as long as it keeps the guard; `None` (said loudly) without a broker.
pub async fn broker(test: &str) -> Option<(Client, String, RwLockReadGuard<'static, ()>)> {
    let Ok(url) = env::var("PULSAR_URL") else {
        assert!(env::var("LAB").as_deref() != Ok("required"), "{test}: PULSAR_URL is not set; run ./test");
        eprintln!("SKIPPED: contract::pulsar::{test} needs a broker; ./test starts one");
        return None;
    };
    let guard = BROKER.read().await;
    let settings = Settings::at(url);
    let client = connect(&settings, &Health::default()).await.expect("the broker answers");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    Some((client, format!("persistent://public/default/{test}-{now}"), guard))
}

pub fn message(key: &str, text: &str) -> OutboundMessage {
    OutboundMessage {
        key: Some(key.into()),
        payload: text.into(),
        properties: vec![("NAME".into(), "value".into())],
        event_time: Some(1_700_000_000_000),
        ..Default::default()
    }
}

pub async fn inbox(client: &Client, topic: &str, receiver_queue: u32) -> TopicInbox {
    let subscription = Subscription { receiver_queue, ..subscription(topic) };
    TopicInbox::open(client.clone(), subscription, Health::default()).await.expect("subscribed")
}

fn subscription(topic: &str) -> Subscription {
    Subscription {
        topics: vec![topic.into()],
        name: "contract".into(),
        kind: SubscriptionType::Failover,
        initial_position: InitialPosition::Earliest,
        consumer_name: "contract".into(),
        receiver_queue: 1_000,
        look_every: LOOK_EVERY,
    }
}

pub async fn next(inbox: &mut TopicInbox) -> InboundMessage {
    let received = tokio::time::timeout(Duration::from_secs(30), inbox.receive(true)).await.expect("a message within 30 s");
    match received.expect("the subscription lives") {
        Inbound::Message(message) => *message,
        Inbound::Lost(topic) => panic!("{topic} is lost"),
    }
}

/// Publishes `count` numbered messages and waits until all are stored.
async fn publish(client: &Client, topic: &str, count: usize) {
    let (publisher, lanes) =
        TopicPublisher::open(client.clone(), Some(topic), Options::default(), Health::default()).await.expect("a publisher");
    let mut receipts = Vec::new();
    for at in 0..count {
        receipts.push(publisher.publish(message("key", &at.to_string())).await.expect("accepted"));
    }
    for receipt in receipts {
        receipt.stored().await.expect("stored");
    }
    drop(publisher);
    lanes.finished().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_as_they_were_and_in_order_o1() {
    let Some((client, topic, _guard)) = broker("order").await else { return };
    publish(&client, &topic, 5_000).await;
    let mut inbox = inbox(&client, &topic, 1_000).await;
    let mut entries = BTreeSet::new();
    for at in 0..5_000 {
        let received = next(&mut inbox).await;
        assert_eq!(received.payload, at.to_string());
        assert_eq!((received.key.as_deref(), received.event_time), (Some("key"), Some(1_700_000_000_000)));
        assert_eq!(received.properties, [("NAME".to_string(), "value".to_string())]);
        assert!(received.batch_index < received.batch_size);
        entries.insert(received.entry);
    }
    assert!(entries.len() < 1_000, "5,000 messages went in {} entries: they were not batched", entries.len());
    inbox.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_get_out_before_the_close_and_nothing_else_does_a1() {
    let Some((client, topic, _guard)) = broker("acks").await else { return };
    publish(&client, &topic, 3_000).await;
    // A queue that is much smaller than what waits: more comes while the acknowledgements are sent.
    let mut first = inbox(&client, &topic, 20).await;
    let mut acked = BTreeSet::new();
    let mut entry: Option<EntryId> = None;
    while acked.len() < 2 {
        let received = next(&mut first).await;
        if received.batch_index + 1 == received.batch_size {
            first.ack(&received.entry).expect("acknowledged");
            acked.insert(received.entry.clone());
        }
        entry = Some(received.entry);
    }
    let last_acked = entry.expect("an entry");
    first.close().await.expect("closed");

    let mut second = inbox(&client, &topic, 1_000).await;
    let next = next(&mut second).await;
    assert!(!acked.contains(&next.entry), "{:?} was acknowledged and came again", next.entry);
    assert_eq!((next.entry.ledger, next.entry.entry, next.batch_index), (last_acked.ledger, last_acked.entry + 1, 0), "nothing is skipped");
    second.close().await.expect("closed");
}

#[tokio::test]
async fn partitions_that_are_added_are_published_to_and_read_from_their_beginning() {
    let Some((client, topic, _guard)) = broker("more-partitions").await else { return };
    admin("PUT", &topic, "/partitions", "1").await;
    let look_every = Duration::from_millis(100);
    let options = Options { look_every, ..Options::default() };
    let (publisher, lanes) = TopicPublisher::open(client.clone(), Some(&topic), options, Health::default()).await.expect("a publisher");
    let subscription = Subscription { look_every, ..subscription(&topic) };
    let mut inbox = TopicInbox::open(client, subscription, Health::default()).await.expect("subscribed");
    admin("POST", &topic, "/partitions", "3").await;
    // Each message is received before the next is published, so one in a new partition waits for the inbox to find it.
    let mut partitions = BTreeSet::new();
    let mut number = 0;
    while partitions.len() < 3 {
        assert!(number < 10_000, "only {partitions:?} are used");
        number += 1;
        let key = number.to_string();
        publisher.publish(message(&key, "x")).await.expect("accepted").stored().await.expect("stored");
        let received = next(&mut inbox).await;
        assert_eq!(received.key.as_deref(), Some(&*key));
        inbox.ack(&received.entry).expect("a partition of its own");
        partitions.insert(received.entry.topic);
    }
    inbox.close().await.expect("closed");
    drop(publisher);
    lanes.finished().await;
}
