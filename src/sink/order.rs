//! Whether the changes of an item can overtake one another on their way here. Pure.
//!
//! The Java connector and this source, unless `messageKey: itemKey` says otherwise, give a change event its own id as the message's key. Then the changes
//! of one item are spread over the partitions of a topic and over the consumers of a Key_Shared subscription, which keep an order for each key only.
//! Of a Key_Shared subscription, a batch goes to one consumer, whatever keys are in it.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

use crate::ports::InboundMessage;

/// What has to be known to tell.
#[derive(Debug)]
pub struct Order {
    /// The subscription is Key_Shared.
    by_key: bool,
    /// The newest batch of each topic partition.
    batches: HashMap<Arc<str>, Batch>,
}

#[derive(Debug)]
struct Batch {
    ledger: u64,
    entry: u64,
    /// The key that its first message goes by.
    key: Option<Vec<u8>>,
}

impl Order {
    pub fn new(by_key: bool) -> Self {
        Self { by_key, batches: HashMap::new() }
    }

    /// Why the order of an item's changes is lost, where this message shows that it is. Of a partition, the messages of a batch come one after the other.
    pub fn lost(&mut self, message: &InboundMessage) -> Option<String> {
        self.mixed(message).or_else(|| self.spread(message))
    }

    fn mixed(&mut self, message: &InboundMessage) -> Option<String> {
        if !self.by_key || message.batch_size < 2 {
            return None;
        }
        let key = sticky(message);
        let of = &message.entry;
        match self.batches.get(&of.topic) {
            Some(Batch { ledger, entry, key: first }) if (*ledger, *entry) == (of.ledger, of.entry) => (first.as_deref() != key).then(|| {
                let [first, key] = [first.as_deref(), key].map(|key| String::from_utf8_lossy(key.unwrap_or_default()));
                format!(
                    "its batch has the keys {first:?} and {key:?}, and goes to one consumer of a Key_Shared subscription, whatever keys are in it: its producer has to send \
                     batches by key (BatcherBuilder.KEY_BASED) or none"
                )
            }),
            _ => {
                let batch = Batch { ledger: of.ledger, entry: of.entry, key: key.map(<[u8]>::to_vec) };
                self.batches.insert(of.topic.clone(), batch);
                None
            }
        }
    }

    fn spread(&self, message: &InboundMessage) -> Option<String> {
        let spread = match message.entry.topic_and_partition().1.and_then(|number| number.parse::<u32>().ok()) {
            _ if self.by_key => "a Key_Shared subscription keeps an order for each key only",
            // The first one alone says nothing: there may be no other.
            Some(1..) => "the topic has several partitions, and the key decides which one a message goes to",
            _ => return None,
        };
        let key = message.key.as_deref()?;
        (event_id(message)? == key).then(|| format!("its key {key:?} is its change event's id and not its item's key, and {spread}"))
    }
}

/// What decides which consumer of a Key_Shared subscription gets a message.
fn sticky(message: &InboundMessage) -> Option<&[u8]> {
    message.ordering_key.as_deref().or(message.key.as_deref().map(str::as_bytes))
}

/// Looked for only where the property says that it is a change event.
fn event_id(message: &InboundMessage) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "eventID")]
        id: String,
    }
    message.properties.iter().find(|(name, _)| name == "EVENT_NAME")?;
    serde_json::from_slice::<Event>(&message.payload).ok().map(|event| event.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::EntryId;

    fn message(topic: &str, key: Option<&str>, payload: &str, properties: &[(&str, &str)]) -> InboundMessage {
        InboundMessage {
            entry: EntryId { topic: topic.into(), ledger: 1, entry: 1, batch_index: None },
            batch_index: 0,
            batch_size: 1,
            key: key.map(str::to_owned),
            key_is_base64: false,
            ordering_key: None,
            payload: payload.as_bytes().to_vec().into(),
            null_value: false,
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            publish_time: 0,
            event_time: None,
            schema_version: None,
            producer_name: String::new(),
            sequence_id: None,
        }
    }

    #[test]
    fn k1_events_that_are_spread_by_their_id_have_no_order() {
        const EVENT: &[(&str, &str)] = &[("EVENT_NAME", "MODIFY")];
        let payload = r#"{"eventID":"e1","eventName":"MODIFY","dynamodb":{}}"#;
        for (topic, by_key, key, payload, properties, is_lost) in [
            ("persistent://a/b/c", true, Some("e1"), payload, EVENT, true),
            ("persistent://a/b/c-partition-1", false, Some("e1"), payload, EVENT, true),
            ("persistent://a/b/c-partition-0", false, Some("e1"), payload, EVENT, false),
            ("persistent://a/b/c", false, Some("e1"), payload, EVENT, false),
            ("persistent://a/b/c", true, Some(r#"{"pk":{"S":"a"}}"#), payload, EVENT, false),
            ("persistent://a/b/c", true, None, payload, EVENT, false),
            ("persistent://a/b/c", true, Some("e1"), r#"{"pk":"e1"}"#, &[], false),
        ] {
            assert_eq!(
                Order::new(by_key).lost(&message(topic, key, payload, properties)).is_some(),
                is_lost,
                "{topic} {by_key} {key:?} {payload}"
            );
        }
    }
    #[test]
    fn k1_a_batch_of_several_keys_goes_to_one_consumer_whose_keys_they_are_not() {
        let batched = |entry, batch_index, key, ordering_key: Option<&str>| {
            let message = message("persistent://a/b/c", Some(key), "{}", &[]);
            let ordering_key = ordering_key.map(|key| key.as_bytes().to_vec());
            InboundMessage { entry: EntryId { entry, ..message.entry.clone() }, batch_index, batch_size: 2, ordering_key, ..message }
        };
        let of_one_key = [batched(1, 0, "a", None), batched(1, 1, "a", None)];
        let of_one_ordering_key = [batched(2, 0, "a", Some("x")), batched(2, 1, "b", Some("x"))];
        let of_two = [batched(3, 0, "b", None), batched(3, 1, "c", None)];
        // Between the two, a batch of another partition comes.
        let mut elsewhere = batched(3, 0, "d", None);
        elsewhere.entry.topic = "persistent://a/b/other".into();
        let messages = [of_one_key, of_one_ordering_key, of_two].concat();
        let messages = [&messages[..5], &[elsewhere], &messages[5..]].concat();
        let one_by_one = messages.iter().map(|message| {
            let entry = EntryId { batch_index: Some(message.batch_index), ..message.entry.clone() };
            InboundMessage { entry, ..message.clone() }
        });
        for messages in [one_by_one.collect(), messages] {
            for (by_key, wanted) in [(true, [false, false, false, false, false, false, true]), (false, [false; 7])] {
                let mut order = Order::new(by_key);
                assert_eq!(messages.iter().map(|message| order.lost(message).is_some()).collect::<Vec<_>>(), wanted);
            }
        }
    }
}
