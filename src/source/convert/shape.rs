//! What message a record becomes: key, properties, event time, format, topic. The default is the Java connector's.

use std::{fmt, sync::Arc};

use super::{Order, Record, filter::Filter, key::item_key, plain::plain};
use crate::{
    error::{Error, Kind, Result},
    ports::{OutboundMessage, ShardId},
};

/// How records become messages.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    pub order: Order,
    pub key: MessageKey,
    /// Whether a message's event time is the record's creation time.
    pub event_time: bool,
    /// Beside `SEQUENCE_NUMBER` and `EVENT_NAME`.
    pub extra_properties: Vec<Property>,
    pub format: Format,
    /// Whether REMOVE becomes a message without a value.
    pub tombstones: bool,
    /// Where messages go, if not all to the publisher's own topic.
    pub topic: Option<Template>,
    /// Which records are published at all.
    pub filter: Filter,
    pub origin: Origin,
}

/// Where the records come from, as properties and topics name it.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub stream_arn: String,
    pub table: String,
}

impl Origin {
    /// `arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL`.
    pub fn of(stream_arn: &str) -> Self {
        let table = stream_arn.split('/').nth(1).unwrap_or_default();
        Self { stream_arn: stream_arn.to_owned(), table: table.to_owned() }
    }
}

/// What a message's key is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MessageKey {
    /// The record's `eventID`: another one for each change.
    #[default]
    EventId,
    /// The item's key ([`item_key`]).
    ItemKey,
}

/// What a message's value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The whole change, in the form of the Java connector.
    #[default]
    Event,
    /// The item alone as plain JSON ([`plain`](super::plain)): the new image, or the old one for REMOVE; the key where the stream has no such image.
    Plain,
}

/// A property that is not there by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    Table,
    StreamArn,
    ShardId,
    EventId,
}

impl Shape {
    /// The message of a record.
    ///
    /// Fails with [`Kind::Poison`] where an option asks for what the record has not: a key for `ItemKey`, a name that can be part of a topic.
    pub fn message(&self, record: &Record, shard: &ShardId) -> Result<OutboundMessage> {
        let key = match self.key {
            MessageKey::EventId => record.event_id.clone(),
            MessageKey::ItemKey => item_key(record.members.dynamodb.keys())?,
        };
        let payload = match self.format {
            _ if self.tombstones && record.event_name == "REMOVE" => Vec::new(),
            Format::Event => record.event(),
            Format::Plain => self.item(record)?,
        };
        let mut properties = Vec::with_capacity(2 + self.extra_properties.len());
        properties.push(("SEQUENCE_NUMBER".into(), record.sequence_number.to_string()));
        properties.push(("EVENT_NAME".into(), record.event_name.clone()));
        properties.extend(self.extra_properties.iter().map(|property| match property {
            Property::Table => ("TABLE".into(), self.origin.table.clone()),
            Property::StreamArn => ("STREAM_ARN".into(), self.origin.stream_arn.clone()),
            Property::ShardId => ("SHARD_ID".into(), shard.to_string()),
            Property::EventId => ("EVENT_ID".into(), record.event_id.clone()),
        }));
        let event_time = record.created_at.filter(|_| self.event_time).and_then(|millis| u64::try_from(millis).ok());
        let topic = self.topic.as_ref().map(|template| template.fill(&self.origin.table, &record.event_name)).transpose()?;
        Ok(OutboundMessage { topic, key: Some(key), payload, properties, event_time, ..OutboundMessage::default() })
    }

    fn item(&self, record: &Record) -> Result<Vec<u8>> {
        let change = &record.members.dynamodb;
        let image = if record.event_name == "REMOVE" { change.old_image() } else { change.new_image() };
        let poison = |why: &dyn fmt::Display| Error::new(Kind::Poison, "write the item of a stream record as plain JSON", why);
        let item = image.or(change.keys()).ok_or_else(|| poison(&"it has neither an image nor Keys"))?;
        plain(item).map_err(|error| poison(&error))
    }
}

/// A topic's name with places for the table and the kind of change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Table,
    EventName,
}

impl Template {
    /// Reads `persistent://public/default/${table}-${eventName}`. Errors with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("{text:?} has no }} after ${{"))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name {
                "table" => Part::Table,
                "eventName" => Part::EventName,
                _ => return Err(format!("{text:?}: there is no ${{{name}}}; write ${{table}} or ${{eventName}}")),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    fn fill(&self, table: &str, event_name: &str) -> Result<Arc<str>> {
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let mut topic = String::new();
        for part in &self.0 {
            topic += match part {
                Part::Text(text) => text,
                Part::Table => table,
                Part::EventName if is_name(event_name) => event_name,
                Part::EventName => {
                    return Err(Error::new(
                        Kind::Poison,
                        "find the topic of a stream record",
                        format!("eventName {event_name:?} cannot be part of a topic"),
                    ));
                }
            };
        }
        Ok(topic.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"eventID":"e1","eventName":"NAME","dynamodb":{"ApproximateCreationDateTime":1700000000,"Keys":{"sk":{"N":"1.0"},"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a"},"n":{"N":"2"}},"OldImage":{"pk":{"S":"a"}},"SequenceNumber":"42"}}"#;

    fn message(shape: &Shape, name: &str) -> OutboundMessage {
        let text = RECORD.replace("NAME", name);
        let record = Record::read(text.as_bytes(), shape.order).expect("a record");
        shape.message(&record, &ShardId::new("shard-1")).expect("a message")
    }

    fn shape() -> Shape {
        Shape { origin: Origin::of("arn:aws:dynamodb:eu-west-1:1:table/orders/stream/2026-01-01T00:00:00.000"), ..Shape::default() }
    }

    #[test]
    fn the_default_is_the_java_connectors_message() {
        let message = message(&shape(), "INSERT");
        assert_eq!(message.key.as_deref(), Some("e1"));
        assert_eq!(message.properties, [("SEQUENCE_NUMBER".into(), "42".into()), ("EVENT_NAME".into(), "INSERT".into())]);
        assert_eq!((message.event_time, message.topic.as_deref()), (None, None));
        assert!(
            message
                .payload
                .starts_with(br#"{"eventID":"e1","eventName":"INSERT","dynamodb":{"ApproximateCreationDateTime":1700000000000,"#)
        );
    }

    #[test]
    fn w12_each_option_adds_what_it_says() {
        use Property::*;
        let all = Shape {
            key: MessageKey::ItemKey,
            event_time: true,
            extra_properties: vec![Table, StreamArn, ShardId, EventId],
            topic: Some(Template::parse("persistent://t/n/${table}-${eventName}-x").expect("good")),
            ..shape()
        };
        let message = message(&all, "MODIFY");
        assert_eq!(message.key.as_deref(), Some(r#"{"pk":{"S":"a"},"sk":{"N":"1"}}"#));
        assert_eq!(message.event_time, Some(1_700_000_000_000));
        assert_eq!(message.topic.as_deref(), Some("persistent://t/n/orders-MODIFY-x"));
        let extra = [
            ("TABLE", "orders"),
            ("STREAM_ARN", "arn:aws:dynamodb:eu-west-1:1:table/orders/stream/2026-01-01T00:00:00.000"),
            ("SHARD_ID", "shard-1"),
            ("EVENT_ID", "e1"),
        ];
        assert_eq!(message.properties[2..], extra.map(|(name, value)| (name.into(), value.to_owned())));
    }

    #[test]
    fn plain_is_the_image_that_tells_most() {
        let plain = Shape { format: Format::Plain, ..shape() };
        let text = |shape: &Shape, name: &str| String::from_utf8(message(shape, name).payload).expect("UTF-8");
        assert_eq!(text(&plain, "INSERT"), r#"{"pk":"a","n":2}"#);
        assert_eq!(text(&plain, "REMOVE"), r#"{"pk":"a"}"#);
        let keys_only = RECORD.replace("NewImage", "None");
        let keys_only = Record::read(keys_only.as_bytes(), Order::Compat).expect("a record");
        assert_eq!(plain.item(&keys_only).expect("the key"), br#"{"sk":1.0,"pk":"a"}"#);
    }

    #[test]
    fn a_tombstone_has_a_key_and_no_value() {
        for format in [Format::Event, Format::Plain] {
            let shape = Shape { tombstones: true, key: MessageKey::ItemKey, format, ..shape() };
            let removed = message(&shape, "REMOVE");
            assert!(removed.payload.is_empty() && removed.key.is_some_and(|key| key.contains(r#""pk""#)));
            assert!(!message(&shape, "MODIFY").payload.is_empty());
        }
    }

    #[test]
    fn a_topic_is_never_made_of_what_is_no_name() {
        for wrong in ["a-${name}", "a-${table", "${}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        let template = Template::parse("t-${eventName}").expect("good");
        assert_eq!(template.fill("orders", "a/b").expect_err("a slash").kind(), Kind::Poison);
        assert_eq!(Template::parse("plain").expect("good").fill("orders", "INSERT").expect("filled").as_ref(), "plain");
    }
}
