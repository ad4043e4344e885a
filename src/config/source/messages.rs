//! The source's keys about what a message is and which records become one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    config::{
        source::not_blank,
        validate::{Problems, full_topic_name},
    },
    source::{
        convert::{
            self,
            filter::Filter,
            shape::{self, Shape},
        },
        poison::Policy,
    },
};

/// The order in which the attributes of an item are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AttributeOrder {
    #[default]
    Compat,
    Sorted,
}

/// What the key of a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageKey {
    #[default]
    EventId,
    ItemKey,
}

/// What the value of a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutputFormat {
    #[default]
    Event,
    Plain,
}

/// A property that messages do not have by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExtraProperty {
    Table,
    StreamArn,
    ShardId,
    EventId,
}

/// What becomes of a record that cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnPoison {
    StopShard,
    DeadLetter,
    Skip,
}

/// Keys about messages.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageKeys {
    /// The order of attributes in an item: `compat` (that of the Java connector, byte for byte) or `sorted` (by name).
    pub attribute_order: AttributeOrder,
    /// The key of a message: `eventId` (the Java connector's: another one for each change), or `itemKey`: the item's key attributes as DynamoDB JSON
    /// without spaces, sorted by name, numbers without exponent and needless zeros, such as `{"pk":{"S":"a"},"sk":{"N":"1.5"}}`. With
    /// `itemKey` all changes of an item go to one partition, in order, and a topic can be compacted.
    pub message_key: MessageKey,
    /// Whether a message's event time is the time of the change (to the second, which is all that DynamoDB tells).
    pub event_time: bool,
    /// More properties beside `EVENT_NAME` and `SEQUENCE_NUMBER`: a list of `TABLE`, `STREAM_ARN`, `SHARD_ID` and `EVENT_ID`.
    pub extra_properties: Vec<ExtraProperty>,
    /// The value of a message: `event` (the whole change, as the Java connector writes it), or `plain`: the item alone as plain JSON. That is the
    /// new image, for REMOVE the old one, and the key attributes where the stream has no such image. Numbers are written with all
    /// their digits, binary as base64, sets and lists as arrays, maps as objects.
    pub output_format: OutputFormat,
    /// Whether REMOVE becomes a message with an empty value, which removes the item's key from a compacted topic. Needs `messageKey: itemKey`.
    pub tombstones: bool,
    /// Which records are published; all without it. A list of patterns, of which one has to match. A pattern has `eventName` (a list), `keys`, `newImage`,
    /// `oldImage` (attributes with their conditions) and `userIdentity` (`principalId`, `type`), which all have to match. A condition is a list of
    /// alternatives: a text, number, boolean or null; `{prefix: x}`, `{suffix: x}`, `{exists: false}`, `{anything-but: [x]}` or
    /// `{numeric: [">=", 1, "<", 5]}`; a mapping instead goes into a map. A list or set matches if a member does. Records that are left out count as done, and in
    /// `dynamodb_source_skipped_total{reason="filter"}`.
    pub filter: Vec<Map<String, Value>>,
    /// Where records go that can never be published: unreadable, larger than the broker takes (its `maxMessageSize`), or refused by it for good (schema,
    /// policy of the topic). The message has the reason and the record's place in properties that begin with `dlq.`; `dlq.content` says how much of the
    /// record it holds: of a record that is too large, keys and metadata.
    pub dead_letter_topic: Option<String>,
    /// What becomes of such a record: `deadLetter` (the default with `deadLetterTopic`), `stopShard` (the default without: nothing after it in its shard
    /// is published until a restart finds the cause removed, health is red, other shards go on) or `skip`. Each is logged, and counted in
    /// `dynamodb_source_poison_total`.
    pub on_poison: Option<OnPoison>,
}

impl MessageKeys {
    /// Checks the keys and puts them together; the origin is known when the stream is.
    pub fn shape(&self, problems: &mut Problems) -> Shape {
        let filter = Filter::compile(&self.filter).unwrap_or_else(|wrong| {
            wrong.into_iter().for_each(|(path, text)| problems.add(format!("configs.filter{path}"), text));
            Filter::default()
        });
        problems.require(
            !self.tombstones || self.message_key == MessageKey::ItemKey,
            "configs.tombstones",
            "needs messageKey: itemKey; a tombstone stands for an item's key",
        );
        Shape {
            order: match self.attribute_order {
                AttributeOrder::Compat => convert::Order::Compat,
                AttributeOrder::Sorted => convert::Order::Sorted,
            },
            key: match self.message_key {
                MessageKey::EventId => shape::MessageKey::EventId,
                MessageKey::ItemKey => shape::MessageKey::ItemKey,
            },
            event_time: self.event_time,
            extra_properties: self.extra_properties.iter().map(property).collect(),
            format: match self.output_format {
                OutputFormat::Event => shape::Format::Event,
                OutputFormat::Plain => shape::Format::Plain,
            },
            tombstones: self.tombstones,
            topic: None,
            filter,
            origin: shape::Origin::default(),
        }
    }
}

impl MessageKeys {
    /// `topic` is where messages go.
    pub fn poison(&self, topic: &str, problems: &mut Problems) -> Policy {
        const TOPIC: &str = "configs.deadLetterTopic";
        let dead = not_blank(self.dead_letter_topic.clone()).map(|name| full_topic_name(&name, TOPIC, problems));
        problems.require(dead.as_deref().is_none_or(|dead| dead != topic), TOPIC, "is topicName: nobody could tell the dead letters apart");
        match (self.on_poison, dead) {
            (None | Some(OnPoison::DeadLetter), Some(dead)) => Policy::DeadLetter(dead.into()),
            (Some(OnPoison::DeadLetter), None) => {
                problems.add(TOPIC, "is missing; onPoison is deadLetter");
                Policy::StopShard
            }
            (Some(other), dead) => {
                problems.require(
                    dead.is_none(),
                    "configs.onPoison",
                    "leaves deadLetterTopic without effect: leave one of them out, or write deadLetter",
                );
                if other == OnPoison::Skip { Policy::Skip } else { Policy::StopShard }
            }
            (None, None) => Policy::StopShard,
        }
    }
}

fn property(property: &ExtraProperty) -> shape::Property {
    match property {
        ExtraProperty::Table => shape::Property::Table,
        ExtraProperty::StreamArn => shape::Property::StreamArn,
        ExtraProperty::ShardId => shape::Property::ShardId,
        ExtraProperty::EventId => shape::Property::EventId,
    }
}
