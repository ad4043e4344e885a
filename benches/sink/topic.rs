//! The topics that the sink reads.

use pulsar::producer::Message;

use crate::{
    items::{self, Keys},
    publish::publish,
};

/// Publishes so many items, in batches.
pub async fn fill(url: &str, topic: &str, keys: Keys, count: u64) {
    let message =
        |(place, key)| Message { payload: items::message(key, place), partition_key: Some(items::key(key)), ..Default::default() };
    publish(url, topic, 512 * 1024, (0..).zip(keys.all(count)).map(message)).await;
}
