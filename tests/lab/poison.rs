//! Records that a topic refuses, with everything real: they are in the dead-letter topic, and the others arrive in order.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use pulsar_io_dynamodb::ports::{OutboundMessage, Publisher};

use super::{
    Lab,
    connector::{Connector, source_config},
    eventually, lab,
    table::{Item, Table},
    topic::{Message, Topic, publisher},
};
use crate::contract::publisher::admin;

/// What the topics take.
const LIMIT: usize = 20_000;

fn item(number: usize, bytes: usize) -> Item {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S("a".into())),
        ("sk".to_owned(), AttributeValue::N(number.to_string())),
        ("text".to_owned(), AttributeValue::S("x".repeat(bytes))),
    ])
}

/// A topic that takes less than its broker; waits until it does.
async fn limited(lab: &Lab, topic: &str) {
    admin("PUT", topic, "", "").await;
    admin("POST", topic, "/maxMessageSize", &LIMIT.to_string()).await;
    let (publisher, lanes) = publisher(lab, topic).await;
    eventually("the limit holds", Duration::from_secs(30), async || {
        let probe = OutboundMessage { payload: vec![b'x'; LIMIT + 1], ..OutboundMessage::default() };
        publisher.publish(probe).await.expect("accepted").stored().await.is_err().then_some(())
    })
    .await;
    drop(publisher);
    lanes.finished().await;
}

/// The next message that is not one of the probes.
async fn next(topic: &mut Topic) -> Message {
    loop {
        let message = topic.next().await;
        if message.properties.contains_key("SEQUENCE_NUMBER") {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w9_w22_o1_what_a_topic_refuses_is_in_the_dead_letter_topic_and_the_rest_in_its_own() {
    let Some(lab) = lab("poison").await else { return };
    let table = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let topic = |event: &str| format!("persistent://public/default/{}-{event}", table.name);
    limited(&lab, &topic("INSERT")).await;
    limited(&lab, &topic("dead")).await;
    for number in 0..20 {
        table.put(item(number, if number % 8 == 5 { LIMIT + 1 } else { 10 })).await;
    }
    table.put(item(0, 11)).await;
    table.delete(&item(1, 0)).await;

    let dead = topic("dead");
    let more = BTreeMap::from([("deadLetterTopic", dead.as_str()), ("batchingMaxPublishDelayMs", "50")]);
    let template = "persistent://public/default/${table}-${eventName}";
    let mut source = Connector::start(&lab, "source", &source_config(template, &table.name, &format!("app-{}", table.name), &more));

    let mut inserted = Topic::from_start(&lab, &topic("INSERT")).await;
    for number in (0..20).filter(|number| number % 8 != 5) {
        let message = next(&mut inserted).await;
        assert_eq!(message.json["dynamodb"]["Keys"]["sk"]["N"], number.to_string(), "{}", message.text);
    }
    for (event, number) in [("MODIFY", "0"), ("REMOVE", "1")] {
        let message = next(&mut Topic::from_start(&lab, &topic(event)).await).await;
        assert_eq!((&message.json["eventName"], &message.json["dynamodb"]["Keys"]["sk"]["N"]), (&event.into(), &number.into()));
    }
    let mut letters = Topic::from_start(&lab, &dead).await;
    for number in [5, 13] {
        let letter = next(&mut letters).await;
        let change = &letter.json["dynamodb"];
        assert_eq!((&change["Keys"]["sk"]["N"], change.get("NewImage")), (&number.to_string().into(), None), "{}", letter.text);
        let expected = [
            ("dlq.reason", "REFUSED"),
            ("dlq.content", "KEYS"),
            ("dlq.table", table.name.as_str()),
            ("dlq.eventName", "INSERT"),
            ("dlq.originTopic", &topic("INSERT")),
            ("dlq.sequenceNumber", &letter.properties["SEQUENCE_NUMBER"]),
            ("dlq.eventId", letter.json["eventID"].as_str().expect("text")),
        ];
        for (name, value) in expected {
            assert_eq!(letter.properties.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(letter.properties["dlq.errorMessage"].contains("maximum message size"), "{:?}", letter.properties);
    }
    assert_eq!(source.metric("dynamodb_source_poison_total").await, 2);
    assert_eq!(source.metric("dynamodb_health_reasons").await, 0, "{}", source.log_text());
    let log = source.log_text();
    assert!(log.contains("could not publish the record with sequence number") && log.contains("a dead letter goes to"), "G1: {log}");
    assert!(source.stop().await.success());
}
