//! What is in a topic, read with the client's own consumer: an independent view of what the source published.

use std::time::Duration;

use futures_util::StreamExt;
use pulsar::{Consumer, ConsumerOptions, Pulsar, SubType, TokioExecutor, consumer::InitialPosition, message::proto::CompressionType};
use pulsar_io_dynamodb::{
    metrics::health::Health,
    pulsar::{
        client::{Settings, connect},
        publisher::{Lanes, Options, TopicPublisher},
    },
};

use super::Lab;

/// Our own publisher, with what it does by default. Its lanes have finished once it is dropped and all is stored.
pub async fn publisher(lab: &Lab, topic: &str) -> (TopicPublisher, Lanes) {
    let client = connect(&Settings::at(&lab.pulsar_url), &Health::default()).await.expect("Pulsar answers");
    TopicPublisher::open(client, Some(topic), Options::default(), Health::default()).await.expect("a publisher")
}

pub struct Topic {
    consumer: Consumer<Vec<u8>, TokioExecutor>,
}

/// A message, with its payload as JSON.
#[derive(Debug)]
pub struct Message {
    pub key: Option<String>,
    pub properties: std::collections::BTreeMap<String, String>,
    /// When the publisher sent it. Epoch milliseconds.
    pub publish_time: u64,
    pub compression: CompressionType,
    /// How many messages its batch has; `None` without one.
    pub batch: Option<i32>,
    pub text: String,
    pub json: serde_json::Value,
}

impl Topic {
    /// Subscribes from the first message on.
    pub async fn from_start(lab: &Lab, topic: &str) -> Self {
        let client = Pulsar::builder(&lab.pulsar_url, TokioExecutor).build().await.expect("Pulsar answers");
        let options = ConsumerOptions::default().with_initial_position(InitialPosition::Earliest);
        let builder = client.consumer().with_topic(topic).with_subscription("lab").with_subscription_type(SubType::Exclusive);
        Self { consumer: builder.with_options(options).build().await.expect("subscribed") }
    }

    /// The next message; fails when none comes for a minute.
    pub async fn next(&mut self) -> Message {
        tokio::time::timeout(Duration::from_secs(60), self.next_whenever()).await.expect("a message within a minute")
    }

    /// The next message, however long that takes.
    pub async fn next_whenever(&mut self) -> Message {
        let message = self.consumer.next().await.expect("the subscription lives").expect("a message");
        self.consumer.ack(&message).await.expect("acknowledged");
        let text = String::from_utf8(message.deserialize()).expect("UTF-8");
        Message {
            key: message.key(),
            publish_time: message.metadata().publish_time,
            compression: message.metadata().compression(),
            batch: message.metadata().num_messages_in_batch,
            properties: message.metadata().properties.iter().map(|property| (property.key.clone(), property.value.clone())).collect(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }
}
