//! A bare producer: the bytes that the source publishes, by the same client library, in batches of the same size, from memory.

use std::path::Path;

use pulsar::producer::Message;

use crate::{publish::publish, topic::Published};

/// Publishes so many messages: those of a file, again and again.
pub async fn produce(url: &str, topic: &str, file: &Path, count: usize) {
    let text = std::fs::read_to_string(file).expect("the messages are readable");
    let messages: Vec<Message> = text.lines().map(|line| message(serde_json::from_str(line).expect("a message"))).collect();
    publish(url, topic, 1024 * 1024, messages.iter().cycle().take(count).cloned()).await;
}

fn message(published: Published) -> Message {
    Message {
        payload: published.payload.into_bytes(),
        properties: published.properties.into_iter().collect(),
        partition_key: Some(published.key),
        ..Default::default()
    }
}
