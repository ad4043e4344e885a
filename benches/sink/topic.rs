//! The topics that the sink reads.

use std::collections::VecDeque;

use pulsar::{Producer, ProducerOptions, Pulsar, TokioExecutor, producer::Message};

use crate::items::{self, Keys};

/// Publishes so many items, in batches.
pub async fn fill(url: &str, topic: &str, keys: Keys, count: u64) {
    let client: Pulsar<TokioExecutor> = Pulsar::builder(url, TokioExecutor).build().await.expect("Pulsar answers");
    let options =
        ProducerOptions { batch_size: Some(1_000), batch_byte_size: Some(512 * 1024), block_queue_if_full: true, ..Default::default() };
    let builder = client.producer().with_topic(format!("persistent://public/default/{topic}")).with_options(options);
    let mut producer: Producer<TokioExecutor> = builder.build().await.expect("a producer");
    let mut receipts = VecDeque::new();
    for (place, key) in keys.all(count).into_iter().enumerate() {
        let message = Message { payload: items::message(key, place as u64), partition_key: Some(items::key(key)), ..Default::default() };
        receipts.push_back(producer.send_non_blocking(message).await.expect("accepted"));
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
