//! What becomes of a record that never can be published: what a policy says, and what a dead letter holds. Pure.
//!
//! Such a record cannot be read, is larger than the broker takes, or is refused by the broker for good. Whatever the policy, the record is told
//! of and counted, and the checkpoint passes it only once the dead letter is stored, or where it is skipped on purpose (C1).

use std::sync::Arc;

use serde_json::Value;

use crate::{
    error::{Error, Kind},
    ports::{OutboundMessage, SequenceNumber, ShardId},
};

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Policy {
    /// The shard is read no further, and its children are not begun; other shards go on.
    #[default]
    StopShard,
    /// A copy goes to this topic.
    DeadLetter(Arc<str>),
    Skip,
}

impl Policy {
    /// The value of the configuration, and of the metric's label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::StopShard => "stopShard",
            Self::DeadLetter(_) => "deadLetter",
            Self::Skip => "skip",
        }
    }
}

/// A record that cannot be published.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub error: &'a Error,
    pub shard: &'a ShardId,
    pub sequence: &'a SequenceNumber,
    /// Empty where it is not known.
    pub event_id: &'a str,
}

/// Why, as properties and metrics say it. The names are stable: people filter by them.
pub fn reason(error: &Error) -> &'static str {
    match error.kind() {
        Kind::TooLarge => "TOO_LARGE",
        Kind::Poison => "UNREADABLE",
        _ => "REFUSED",
    }
}

impl Case<'_> {
    /// The record, for a person.
    fn name(&self) -> String {
        let event_id = if self.event_id.is_empty() { "unknown" } else { self.event_id };
        format!("the record with sequence number {} (event id {event_id}) of shard {}", self.sequence, self.shard)
    }

    /// What stops the shard, and what to do about it.
    pub fn stop(&self) -> Error {
        let raise = match self.error.kind() {
            Kind::TooLarge => "raise the broker's maxMessageSize",
            _ => "remove what is wrong",
        };
        let todo = format!(
            "the shard stops before it, and nothing after it is published; {raise}, or set deadLetterTopic or onPoison: skip, and restart"
        );
        Error::new(Kind::Poison, format!("publish {}", self.name()), format!("{}: {todo}", self.error))
    }

    /// What the log says where the shard goes on.
    pub fn told(&self, policy: &Policy) -> String {
        let done = match policy {
            Policy::StopShard => "the shard stops".to_owned(),
            Policy::DeadLetter(topic) => format!("a dead letter goes to {topic}"),
            Policy::Skip => "it is skipped".to_owned(),
        };
        format!("could not publish {}: {}; {done}", self.name(), self.error)
    }
}

/// How much of a record its dead letter holds: the property `dlq.content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The message as it would have been published.
    Message,
    /// The record as DynamoDB sent it: it cannot be read.
    Record,
    /// The event without its images: keys and metadata.
    Keys,
    /// Nothing but the properties.
    Nothing,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Message => "MESSAGE",
            Self::Record => "RECORD",
            Self::Keys => "KEYS",
            Self::Nothing => "NOTHING",
        }
    }
}

const PREFIX: &str = "dlq.";
const CONTENT: &str = "dlq.content";
/// Bytes of one property. An error may quote what is wrong.
const PROPERTY_BYTES: usize = 2048;

/// Who makes dead letters.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub stream_arn: &'a str,
    pub table: &'a str,
    /// The worker's id.
    pub worker: &'a str,
    /// Where messages go that name no topic.
    pub topic: &'a Arc<str>,
}

/// The message with its whole story in properties, to be published to `sender.topic`.
pub fn dead_letter(case: Case, sender: Sender, message: OutboundMessage, content: Content) -> OutboundMessage {
    let event_name = message.properties.iter().find(|(name, _)| name == "EVENT_NAME").map(|(_, value)| value.clone()).unwrap_or_default();
    let text = case.error.to_string();
    let story = [
        ("reason", reason(case.error)),
        ("errorMessage", &text[..text.floor_char_boundary(PROPERTY_BYTES)]),
        ("content", content.name()),
        ("table", sender.table),
        ("streamArn", sender.stream_arn),
        ("shardId", case.shard.as_str()),
        ("sequenceNumber", case.sequence.as_str()),
        ("eventId", case.event_id),
        ("eventName", &event_name),
        ("originTopic", message.topic.as_deref().unwrap_or_default()),
        ("connector", sender.worker),
    ];
    let story =
        story.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (format!("{PREFIX}{name}").into(), value.to_owned()));
    let properties = message.properties.into_iter().chain(story).collect();
    OutboundMessage { topic: Some(sender.topic.clone()), properties, ..message }
}

/// A dead letter that is refused itself, with less in it: without images, or without any value. `None`: there is nothing more to leave out.
pub fn reduced(mut letter: OutboundMessage) -> Option<OutboundMessage> {
    let (content, payload) = match without_images(&letter.payload) {
        Some(payload) if payload.len() < letter.payload.len() => (Content::Keys, payload),
        _ if !letter.payload.is_empty() => (Content::Nothing, Vec::new()),
        _ => return None,
    };
    letter.payload = payload;
    letter.properties.retain(|(name, _)| name != CONTENT);
    letter.properties.push((CONTENT.into(), content.name().into()));
    Some(letter)
}

/// `None` where it is not a change event.
fn without_images(payload: &[u8]) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(payload).ok()?;
    let change = event.get_mut("dynamodb")?.as_object_mut()?;
    change.remove("NewImage");
    change.remove("OldImage");
    serde_json::to_vec(&event).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &str, content: Content) -> OutboundMessage {
        let error = Error::new(Kind::TooLarge, "publish", "é".repeat(2_000));
        let sequence = SequenceNumber::parse("42").expect("digits");
        let case = Case { error: &error, shard: &ShardId::new("shard-1"), sequence: &sequence, event_id: "e1" };
        let sender = Sender { stream_arn: "arn", table: "orders", worker: "t/n/s-0", topic: &"dead".into() };
        let message = OutboundMessage {
            key: Some("k".into()),
            payload: payload.into(),
            properties: vec![("SEQUENCE_NUMBER".into(), "42".into()), ("EVENT_NAME".into(), "MODIFY".into())],
            ..Default::default()
        };
        dead_letter(case, sender, message, content)
    }

    fn property<'a>(letter: &'a OutboundMessage, name: &str) -> &'a str {
        let mut found = letter.properties.iter().filter(|(key, _)| key == name);
        let value = found.next().map_or("", |(_, value)| value);
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    #[test]
    fn w9_a_dead_letter_tells_the_whole_story() {
        let letter = letter("{}", Content::Message);
        assert_eq!((letter.topic.as_deref(), letter.key.as_deref()), (Some("dead"), Some("k")));
        for (name, value) in [
            ("EVENT_NAME", "MODIFY"),
            ("dlq.reason", "TOO_LARGE"),
            ("dlq.content", "MESSAGE"),
            ("dlq.table", "orders"),
            ("dlq.streamArn", "arn"),
            ("dlq.shardId", "shard-1"),
            ("dlq.sequenceNumber", "42"),
            ("dlq.eventId", "e1"),
            ("dlq.eventName", "MODIFY"),
            ("dlq.originTopic", ""),
            ("dlq.connector", "t/n/s-0"),
        ] {
            assert_eq!(property(&letter, name), value, "{name}");
        }
        let message = property(&letter, "dlq.errorMessage");
        assert!(message.len() <= PROPERTY_BYTES && message.ends_with('é'), "{} bytes", message.len());
    }

    #[test]
    fn a_dead_letter_that_is_too_large_itself_loses_its_images_and_then_its_value() {
        let event = r#"{"eventID":"e1","dynamodb":{"Keys":{"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a"}},"OldImage":{},"SizeBytes":3}}"#;
        let keys = reduced(letter(event, Content::Message)).expect("smaller");
        assert_eq!(String::from_utf8_lossy(&keys.payload), r#"{"dynamodb":{"Keys":{"pk":{"S":"a"}},"SizeBytes":3},"eventID":"e1"}"#);
        assert_eq!(property(&keys, "dlq.content"), "KEYS");
        let nothing = reduced(keys).expect("smaller");
        assert_eq!((nothing.payload.len(), property(&nothing, "dlq.content")), (0, "NOTHING"));
        assert_eq!(reduced(nothing), None);
        assert_eq!(property(&reduced(letter(r#"{"plain":1}"#, Content::Message)).expect("smaller"), "dlq.content"), "NOTHING");
    }

    #[test]
    fn h1_what_stops_a_shard_is_named_with_what_to_do() {
        let error =
            Error::new(Kind::TooLarge, "publish to topic t", "the message has 9 bytes, and the broker takes 8 (its maxMessageSize)");
        let sequence = SequenceNumber::parse("42").expect("digits");
        let case = Case { error: &error, shard: &ShardId::new("shard-1"), sequence: &sequence, event_id: "" };
        let text = case.stop().to_string();
        for part in [
            "sequence number 42",
            "event id unknown",
            "shard-1",
            "takes 8",
            "raise the broker's maxMessageSize",
            "deadLetterTopic",
            "onPoison: skip",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
