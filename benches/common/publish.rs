//! A bare producer.

use std::collections::VecDeque;

use pulsar::{Producer, ProducerOptions, Pulsar, TokioExecutor, producer::Message};

/// Publishes messages, in batches of up to 1,000 and so many bytes, as fast as the broker stores them.
pub async fn publish(url: &str, topic: &str, batch_bytes: usize, messages: impl Iterator<Item = Message>) {
    let client: Pulsar<TokioExecutor> = Pulsar::builder(url, TokioExecutor).build().await.expect("Pulsar answers");
    let options =
        ProducerOptions { batch_size: Some(1_000), batch_byte_size: Some(batch_bytes), block_queue_if_full: true, ..Default::default() };
    let builder = client.producer().with_topic(format!("persistent://public/default/{topic}")).with_options(options);
    let mut producer: Producer<TokioExecutor> = builder.build().await.expect("a producer");
    let mut receipts = VecDeque::new();
    for message in messages {
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
