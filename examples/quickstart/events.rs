//! The events as they arrive on the topic, read with a consumer of our own.

use std::collections::{HashSet, VecDeque};

use futures_util::StreamExt;
use pulsar::{Consumer, ConsumerOptions, Pulsar, SubType, TokioExecutor, consumer::InitialPosition};
use serde_json::Value;

use crate::{Result, shop::now_micros};

pub const TOPIC: &str = "persistent://public/default/orders-changes";
/// Latencies that percentiles are taken of.
const SAMPLES: usize = 500;

pub struct Events {
    consumer: Consumer<Vec<u8>, TokioExecutor>,
    seen: usize,
    ids: HashSet<String>,
    /// The newest few, one line each.
    pub recent: VecDeque<String>,
    /// From the write of a change until its event was read here, in milliseconds; the newest.
    pub latencies: VecDeque<f64>,
}

impl Events {
    pub async fn subscribe(pulsar_url: &str) -> Result<Self> {
        let client = Pulsar::builder(pulsar_url, TokioExecutor).build().await?;
        let options = ConsumerOptions::default().with_initial_position(InitialPosition::Earliest);
        let consumer = client
            .consumer()
            .with_topic(TOPIC)
            .with_subscription("quickstart-screen")
            .with_subscription_type(SubType::Exclusive)
            .with_options(options)
            .build()
            .await?;
        Ok(Self { consumer, seen: 0, ids: HashSet::new(), recent: VecDeque::new(), latencies: VecDeque::new() })
    }

    pub fn seen(&self) -> usize {
        self.seen
    }

    pub fn distinct(&self) -> usize {
        self.ids.len()
    }

    pub fn repeated(&self) -> usize {
        self.seen - self.ids.len()
    }

    pub fn latency(&self) -> String {
        percentiles(&self.latencies)
    }

    /// Waits for one event. Cancel-safe.
    pub async fn next(&mut self) -> Result<()> {
        let message = self.consumer.next().await.ok_or("the topic's subscription has ended")??;
        self.consumer.ack(&message).await?;
        self.take(&message.deserialize());
        Ok(())
    }

    fn take(&mut self, payload: &[u8]) {
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        self.seen += 1;
        self.ids.insert(event["eventID"].as_str().unwrap_or_default().to_owned());
        let image = &event["dynamodb"]["NewImage"];
        let written_at = image["writtenAtMicros"]["N"].as_str().and_then(|text| text.parse::<i64>().ok());
        if let Some(written_at) = written_at {
            sample(&mut self.latencies, (now_micros() - written_at) as f64 / 1000.0);
        }
        let text = |value: &Value| value["S"].as_str().unwrap_or_default().to_owned();
        let order = text(&event["dynamodb"]["Keys"]["orderId"]);
        let about = match image {
            Value::Null => String::new(),
            image => format!(
                "{:<7} {:<8} {} lines",
                text(&image["state"]),
                text(&image["customer"]),
                image["lines"]["L"].as_array().map_or(0, Vec::len)
            ),
        };
        self.recent.push_front(format!("{:<7} {order}  {about}", event["eventName"].as_str().unwrap_or_default()));
        self.recent.truncate(6);
    }
}

pub fn sample(samples: &mut VecDeque<f64>, millis: f64) {
    samples.push_back(millis);
    if samples.len() > SAMPLES {
        samples.pop_front();
    }
}

pub fn percentiles(samples: &VecDeque<f64>) -> String {
    let mut sorted: Vec<f64> = samples.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => "-".into(),
        count => format!("p50 {:.0} ms, p99 {:.0} ms", sorted[count / 2], sorted[(count * 99 / 100).min(count - 1)]),
    }
}
