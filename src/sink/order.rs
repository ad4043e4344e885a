//! Whether the changes of an item can overtake one another on their way here. Pure.
//!
//! The Java connector and this source, unless `messageKey: itemKey` says otherwise, give a change event its own id as the message's key. Then the changes
//! of one item are spread over the partitions of a topic and over the consumers of a Key_Shared subscription, which keep an order for each key only.

use serde::Deserialize;

use crate::ports::InboundMessage;

/// Why the order of an item's changes is lost, where this message shows that it is. `by_key`: the subscription is Key_Shared.
pub fn lost(message: &InboundMessage, by_key: bool) -> Option<String> {
    let spread = match message.entry.topic_and_partition().1.and_then(|number| number.parse::<u32>().ok()) {
        _ if by_key => "a Key_Shared subscription keeps an order for each key only",
        // The first one alone says nothing: there may be no other.
        Some(1..) => "the topic has several partitions, and the key decides which one a message goes to",
        _ => return None,
    };
    let key = message.key.as_deref()?;
    (event_id(message)? == key).then(|| format!("its key {key:?} is its change event's id and not its item's key, and {spread}"))
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
            assert_eq!(lost(&message(topic, key, payload, properties), by_key).is_some(), is_lost, "{topic} {by_key} {key:?} {payload}");
        }
    }
}
