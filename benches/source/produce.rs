//! A bare producer: the bytes that the source publishes, by the same client library, in batches of the same size, from memory.

use std::{collections::VecDeque, path::Path};

use pulsar::{Producer, ProducerOptions, Pulsar, TokioExecutor, producer::Message};

use crate::topic::Published;

/// Publishes so many messages: those of a file, again and again.
pub async fn produce(url: &str, topic: &str, file: &Path, count: usize) {
    let text = std::fs::read_to_string(file).expect("the messages are readable");
    let messages: Vec<Message> = text.lines().map(|line| message(serde_json::from_str(line).expect("a message"))).collect();
    let client: Pulsar<TokioExecutor> = Pulsar::builder(url, TokioExecutor).build().await.expect("Pulsar answers");
    let options =
        ProducerOptions { batch_size: Some(1_000), batch_byte_size: Some(1024 * 1024), block_queue_if_full: true, ..Default::default() };
    let builder = client.producer().with_topic(format!("persistent://public/default/{topic}")).with_options(options);
    let mut producer: Producer<TokioExecutor> = builder.build().await.expect("a producer");
    let mut receipts = VecDeque::new();
    for at in 0..count {
        receipts.push_back(producer.send_non_blocking(messages[at % messages.len()].clone()).await.expect("accepted"));
        // As many as two batches hold may be on their way.
        if receipts.len() > 2_000 {
            receipts.pop_front().expect("one is there").await.expect("stored");
        }
    }
    producer.send_batch().await.expect("sent");
    for receipt in receipts {
        receipt.await.expect("stored");
    }
    producer.close().await.expect("closed");
}

fn message(published: Published) -> Message {
    Message {
        payload: published.payload.into_bytes(),
        properties: published.properties.into_iter().collect(),
        partition_key: Some(published.key),
        ..Default::default()
    }
}
