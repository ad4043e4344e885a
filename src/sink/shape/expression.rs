//! Where a value comes from: `value.a.b`, `key`, `key.id`, `property.P`, `topic`, `messageId` and so on.

use std::fmt;

use crate::{
    dynamodb::attribute::{Item, Value},
    ports::InboundMessage,
    sink::decode::json_object,
};

/// A place in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// A field of the value: names from outside in.
    Value(Vec<String>),
    /// The key: that of KEY_VALUE, or the message's, as text or, for a field of it, as a JSON object. No names: all of it.
    Key(Vec<String>),
    Property(String),
    /// All properties, as a map.
    Properties,
    /// The topic's full name, without its partition.
    Topic,
    /// The last part of the topic's name.
    TopicName,
    Tenant,
    Namespace,
    /// The number of the topic's partition.
    Partition,
    /// `ledger:entry:batch index`.
    MessageId,
    /// Epoch milliseconds, as the following.
    PublishTime,
    EventTime,
    OrderingKey,
    ProducerName,
    SequenceId,
}

/// What there is to choose from, for messages.
pub const EXPRESSIONS: &str = "value.FIELD, key, key.FIELD, property.NAME, properties, topic, topicName, tenant, namespace, partition, \
                               messageId, publishTime, eventTime, orderingKey, producerName, sequenceId";

impl Expression {
    pub fn parse(text: &str) -> Option<Self> {
        let path = |rest: &str| {
            let names: Vec<String> = rest.split('.').map(str::to_owned).collect();
            names.iter().all(|name| !name.is_empty()).then_some(names)
        };
        if let Some(rest) = text.strip_prefix("value.") {
            return path(rest).map(Self::Value);
        }
        if let Some(rest) = text.strip_prefix("key.") {
            return path(rest).map(Self::Key);
        }
        if let Some(name) = text.strip_prefix("property.").filter(|name| !name.is_empty()) {
            return Some(Self::Property(name.to_owned()));
        }
        Some(match text {
            "key" => Self::Key(Vec::new()),
            "properties" => Self::Properties,
            "topic" => Self::Topic,
            "topicName" => Self::TopicName,
            "tenant" => Self::Tenant,
            "namespace" => Self::Namespace,
            "partition" => Self::Partition,
            "messageId" => Self::MessageId,
            "publishTime" => Self::PublishTime,
            "eventTime" => Self::EventTime,
            "orderingKey" => Self::OrderingKey,
            "producerName" => Self::ProducerName,
            "sequenceId" => Self::SequenceId,
            _ => return None,
        })
    }

    /// Whether it is a part of the value: a message whose value is null does not have it.
    pub fn needs_value(&self) -> bool {
        matches!(self, Self::Value(_))
    }

    /// `None`: it is not there, or null.
    pub fn find(&self, context: &Context) -> Option<Value> {
        let text = |text: &str| Some(Value::S(text.to_owned()));
        let number = |number: u64| Some(Value::N(number.to_string()));
        let message = context.message;
        let (topic, partition) = message.entry.topic_and_partition();
        let mut parts = topic.rsplit('/');
        let (name, namespace, tenant) = (parts.next(), parts.next(), parts.next());
        match self {
            Self::Value(path) => dig(context.value?, path).cloned(),
            Self::Key(path) => match (context.key, path.is_empty()) {
                (Some(key), true) => Some(key.clone()),
                (None, true) => message.key.as_deref().and_then(text),
                (Some(Value::M(fields)), false) => dig(fields, path).cloned(),
                // Only whoever asks for a field takes a key for JSON.
                (Some(Value::S(json)), false) => dig(&json_object(json)?, path).cloned(),
                (None, false) => dig(&json_object(message.key.as_ref()?)?, path).cloned(),
                (Some(_), false) => None,
            },
            Self::Property(name) => message.properties.iter().find(|(key, _)| key == name).and_then(|(_, value)| text(value)),
            Self::Properties => {
                let properties = message.properties.iter().map(|(name, value)| (name.clone(), Value::S(value.clone())));
                Some(Value::M(properties.collect()))
            }
            Self::Topic => text(topic),
            Self::TopicName => name.and_then(text),
            Self::Namespace => namespace.and_then(text),
            Self::Tenant => tenant.and_then(text),
            Self::Partition => partition.map(|partition| Value::N(partition.to_owned())),
            Self::MessageId => text(&message.id()),
            Self::PublishTime => number(message.publish_time),
            Self::EventTime => message.event_time.filter(|time| *time > 0).and_then(number),
            Self::OrderingKey => message.ordering_key.clone().map(Value::B),
            Self::ProducerName => text(&message.producer_name),
            Self::SequenceId => message.sequence_id.and_then(number),
        }
        .filter(|found| *found != Value::Null)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(path) => write!(f, "value.{}", path.join(".")),
            Self::Key(path) if path.is_empty() => f.write_str("key"),
            Self::Key(path) => write!(f, "key.{}", path.join(".")),
            Self::Property(name) => write!(f, "property.{name}"),
            Self::Properties => f.write_str("properties"),
            Self::Topic => f.write_str("topic"),
            Self::TopicName => f.write_str("topicName"),
            Self::Tenant => f.write_str("tenant"),
            Self::Namespace => f.write_str("namespace"),
            Self::Partition => f.write_str("partition"),
            Self::MessageId => f.write_str("messageId"),
            Self::PublishTime => f.write_str("publishTime"),
            Self::EventTime => f.write_str("eventTime"),
            Self::OrderingKey => f.write_str("orderingKey"),
            Self::ProducerName => f.write_str("producerName"),
            Self::SequenceId => f.write_str("sequenceId"),
        }
    }
}

/// What expressions are about.
pub struct Context<'a> {
    pub message: &'a InboundMessage,
    /// The message's value, where it is a record.
    pub value: Option<&'a Item>,
    /// The key of KEY_VALUE; `None`: the message's key stands for it.
    pub key: Option<&'a Value>,
}

/// A field of a field; a name with dots in it is found too.
pub fn dig<'a>(item: &'a Item, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    match (item.get(first), rest) {
        (Some(found), []) => Some(found),
        (Some(Value::M(inner)), rest) => dig(inner, rest),
        (_, []) => None,
        _ => item.get(&path.join(".")),
    }
}
