//! Partitions that a topic gets while it is in use.

use std::time::Duration;

use super::{client::Client, lookup};

/// How often a topic is asked for its partitions: as the Java client does by default (`autoUpdatePartitionsInterval`).
pub const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Waits until the topic has more than the `known` partitions; returns the names of the others. Where nobody can say, it asks again: who uses
/// the partitions tells when the broker is not there.
pub async fn added(client: &Client, topic: &str, known: usize, every: Duration) -> Vec<String> {
    loop {
        tokio::time::sleep(every).await;
        match lookup::partitions(client, topic).await {
            Ok(found) if found.len() > known => {
                let names: Vec<String> = found.into_iter().skip(known).collect();
                tracing::info!(topic, partitions = known + names.len(), "the topic has more partitions");
                return names;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(topic, %error, "the topic was not asked for its partitions"),
        }
    }
}
