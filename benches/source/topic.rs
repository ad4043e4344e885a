//! What has arrived in a topic.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use pulsar::{ConsumerOptions, Pulsar, SubType, TokioExecutor, consumer::InitialPosition};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::stand_in::record::from_event_id;

/// Where Pulsar is.
pub struct Broker {
    pub url: String,
    /// `127.0.0.1:8080`
    pub http: String,
}

/// A message as it was published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    pub key: String,
    pub properties: BTreeMap<String, String>,
    pub payload: String,
}

/// What a topic has in it.
#[derive(Debug, Default)]
pub struct Content {
    pub messages: u64,
    /// When the first and the last were published; epoch milliseconds.
    pub first: u64,
    pub last: u64,
    /// Each publish time and how long after its creation, in the topic's order. Milliseconds.
    pub latencies: Vec<(u64, u64)>,
    /// How often each record is there.
    pub copies: BTreeMap<(u64, u64), u32>,
    /// Some messages from the beginning.
    pub sample: Vec<Published>,
    /// Whether each record came after its predecessors at least once.
    pub in_order: bool,
}

impl Content {
    pub fn lost(&self, written: &[u64]) -> u64 {
        written.iter().sum::<u64>() - self.copies.len() as u64
    }

    pub fn doubled(&self) -> u64 {
        self.copies.values().map(|copies| u64::from(copies - 1)).sum()
    }

    /// Records a second from the first publish to the last.
    pub fn rate(&self) -> f64 {
        self.messages as f64 * 1000.0 / (self.last - self.first).max(1) as f64
    }
}

impl Broker {
    /// How many messages were published to the topic, by its own counter; cheap.
    pub async fn published(&self, topic: &str) -> u64 {
        let path = format!("/admin/v2/persistent/public/default/{topic}/stats");
        let stats: Value = self.get(&path).await.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        stats["msgInCounter"].as_u64().unwrap_or(0)
    }

    async fn get(&self, path: &str) -> Option<String> {
        call(&self.http, &format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.http)).await
    }

    /// All rows of a lease table of DynamoDB Local, as DynamoDB's JSON: who has what, and how far it is.
    pub async fn scan(&self, endpoint: &str, table: &str) -> Vec<Value> {
        let address = endpoint.trim_start_matches("http://");
        let credential = "AWS4-HMAC-SHA256 Credential=local/20261121/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
        let mut request = json!({
            "TableName": table, "ProjectionExpression": "leaseKey, leaseCounter, leaseOwner, #checkpoint",
            "ExpressionAttributeNames": {"#checkpoint": "checkpoint"}
        });
        let mut rows = Vec::new();
        loop {
            let body = request.to_string();
            let head = format!(
                "POST / HTTP/1.0\r\nHost: {address}\r\nX-Amz-Target: DynamoDB_20120810.Scan\r\nContent-Type: application/x-amz-json-1.0\r\n\
                 Authorization: {credential}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let answer: Value = serde_json::from_str(&call(address, &(head + &body)).await.expect("an answer")).expect("JSON");
            rows.extend(answer["Items"].as_array().into_iter().flatten().cloned());
            match &answer["LastEvaluatedKey"] {
                Value::Null => return rows,
                last => request["ExclusiveStartKey"] = last.clone(),
            }
        }
    }

    /// Reads the whole topic: so many messages, and what may follow within a second.
    pub async fn read(&self, topic: &str, messages: u64, sample: usize) -> Content {
        let client: Pulsar<TokioExecutor> = Pulsar::builder(&self.url, TokioExecutor).build().await.expect("Pulsar answers");
        let options = ConsumerOptions::default().with_initial_position(InitialPosition::Earliest).with_receiver_queue_size(5_000);
        let builder = client.consumer().with_topic(format!("persistent://public/default/{topic}")).with_subscription("benchmark");
        let mut consumer: pulsar::Consumer<Vec<u8>, _> =
            builder.with_subscription_type(SubType::Exclusive).with_options(options).build().await.expect("subscribed");
        let mut content = Content { in_order: true, ..Default::default() };
        let mut ends = BTreeMap::new();
        loop {
            let patience = Duration::from_secs(if content.messages < messages { 20 } else { 1 });
            let Ok(Some(Ok(message))) = tokio::time::timeout(patience, consumer.next()).await else { break };
            let published = message.metadata().publish_time;
            let key = message.key().expect("a key");
            let (lineage, number) = from_event_id(&key).expect("an event id of the stand-in");
            let copies = content.copies.entry((lineage, number)).or_default();
            *copies += 1;
            let end = ends.entry(lineage).or_insert(0);
            if *copies == 1 {
                content.in_order &= number >= *end;
                *end = number + 1;
            }
            if content.messages == 0 {
                content.first = published;
            }
            content.last = content.last.max(published);
            content.messages += 1;
            content.latencies.push((published, published.saturating_sub(created(&message.payload.data).expect("a creation time"))));
            if content.sample.len() < sample {
                let properties = message.metadata().properties.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
                let payload = String::from_utf8(message.payload.data).expect("UTF-8");
                content.sample.push(Published { key, properties, payload });
            }
        }
        content
    }
}

/// The body of an answer.
async fn call(address: &str, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// The stand-in's creation time to the millisecond, an attribute of its items.
fn created(payload: &[u8]) -> Option<u64> {
    const MARK: &[u8] = br#""created":{"N":""#;
    let at = payload.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    std::str::from_utf8(payload.get(at..at + 13)?).ok()?.parse().ok()
}
