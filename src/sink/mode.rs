//! What the configured mode makes of a message's write: a condition, a partial update, a tombstone. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    map::{Mapped, Target},
    poison::{Poison, Reason},
};
use crate::{
    dynamodb::attribute::{Item, Number, Value, same_item, same_value},
    ports::{Action, Condition, InboundMessage, KeySchema, Vehicle, Write},
};

/// How messages are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Mode {
    pub what: What,
    /// In TransactWriteItems: the writes of a request are stored together or not at all.
    pub transact: bool,
    /// What has to hold for each write, besides what the mode itself asks for.
    pub condition: Option<Arc<Condition>>,
    pub on_condition_failure: OnConditionFailure,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Replaces the item.
    Put,
    /// Stores the item where there is none.
    Insert,
    /// Changes the attributes that the message has, and leaves the others.
    Update,
    /// Removes the item of each message.
    Delete,
    /// Replaces the item unless a newer version is there.
    Newest(Versioning),
}

/// Which of two writes of one item is the newer, whatever the order in which they come.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioning {
    /// Where an item's version is kept.
    pub attribute: String,
    pub source: VersionSource,
    pub deletes: Deletes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionSource {
    /// A change event's: orders the changes of one item.
    SequenceNumber,
    /// Orders the messages of a topic partition.
    MessageId,
    PublishTime,
    EventTime,
    /// The item has it itself.
    Attribute,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Deletes {
    /// The item is removed, and its version with it: an older put that comes later brings it back.
    Hard,
    /// The item becomes its key, its version and `_deleted`; with an attribute for the table's time to live, and for how long.
    Tombstone(Option<(String, Duration)>),
}

/// What becomes of a message whose condition is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConditionFailure {
    /// It is counted and acknowledged.
    Skip,
    DeadLetter,
    /// The worker ends.
    Fail,
}

/// In each tombstone, `true`.
pub const DELETED: &str = "_deleted";
/// Digits of a sequence number. It has 21 to 40 ("StreamRecord", Amazon DynamoDB Streams API Reference), and N takes no more than 38.
const SEQUENCE_DIGITS: usize = 40;

impl Default for Mode {
    fn default() -> Self {
        Self { what: What::Put, transact: false, condition: None, on_condition_failure: OnConditionFailure::Skip }
    }
}

/// A write as it is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Shaped {
    pub write: Write,
    pub key: Target,
    /// With a version, the greatest wins, not the last.
    pub version: Option<Version>,
}

impl From<Mapped> for Shaped {
    fn from(Mapped { write, key }: Mapped) -> Self {
        Self { write, key, version: None }
    }
}

/// Ordered as DynamoDB compares: texts and binaries by their bytes, numbers by value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Text(String),
    Number(Number),
    Bytes(Vec<u8>),
}

impl Version {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::S(text) => Some(Self::Text(text.clone())),
            Value::N(text) => Number::parse(text).map(Self::Number),
            Value::B(bytes) => Some(Self::Bytes(bytes.clone())),
            _ => None,
        }
    }
}

impl Mode {
    pub fn vehicle(&self) -> Vehicle {
        match self.what {
            _ if self.transact => Vehicle::Transaction,
            What::Put | What::Delete if self.condition.is_none() => Vehicle::Batch,
            _ => Vehicle::Single,
        }
    }

    /// Whether a write may take the place of an older one of its item that still waits: not where a condition looks at what the older leaves.
    pub fn may_coalesce(&self) -> bool {
        self.condition.is_none() && self.what != What::Insert
    }

    /// Whether the order of messages decides nothing.
    pub fn is_versioned(&self) -> bool {
        matches!(self.what, What::Newest(_))
    }

    /// Why this mode and this table do not go together.
    pub fn contradiction(&self, schema: &KeySchema) -> Option<String> {
        let What::Newest(Versioning { attribute, deletes, .. }) = &self.what else { return None };
        let ttl = match deletes {
            Deletes::Tombstone(Some((ttl, _))) => Some(ttl),
            _ => None,
        };
        let mine = std::iter::once(attribute).chain(ttl);
        let key =
            mine.into_iter().find(|name| schema.partition.0 == **name || schema.sort.as_ref().is_some_and(|sort| sort.0 == **name))?;
        Some(format!("{key:?} is a key attribute of the table: choose another versionAttribute or tombstoneTtlAttribute"))
    }

    /// The write of a message. `now`: epoch seconds.
    pub fn shape(&self, mapped: Mapped, schema: &KeySchema, message: &InboundMessage, now: u64) -> Result<Shaped, Poison> {
        let Mapped { write: Write { table, action, condition }, key } = mapped;
        let own = self.condition.clone().or(condition);
        let (action, condition, version) = match (&self.what, action) {
            (What::Put, action) | (What::Update, action @ (Action::Delete(_) | Action::Update { .. })) => (action, own, None),
            (What::Insert, action @ Action::Put(_)) => (action, Some(absent(schema)), None),
            (What::Insert, action) => (action, None, None),
            (What::Update, Action::Put(item)) => (update(item, schema), own, None),
            (What::Delete, action) => (Action::Delete(key_of(action.item(), schema)), own, None),
            (What::Newest(versioning), action) => {
                let value = versioning.version(&action, message)?;
                let version = Version::of(&value);
                let condition = not_newer(&versioning.attribute, value.clone());
                (versioning.action(action, value, schema, now), Some(condition), version)
            }
        };
        Ok(Shaped { write: Write { table, action, condition }, key, version })
    }
}

impl Versioning {
    fn version(&self, action: &Action, message: &InboundMessage) -> Result<Value, Poison> {
        let missing = |what: &str| Poison::new(Reason::NoVersion, format!("{what}, and versionSource asks for it"));
        match self.source {
            VersionSource::SequenceNumber => {
                let number = sequence_number(message).ok_or_else(|| missing("the message has no SEQUENCE_NUMBER"))?;
                let legal = (1..=SEQUENCE_DIGITS).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit());
                if !legal {
                    return Err(Poison::new(Reason::NoVersion, format!("{number:?} is no sequence number: 1 to 40 digits")));
                }
                Ok(Value::S(format!("{number:0>SEQUENCE_DIGITS$}")))
            }
            // Ledgers are numbered by the cluster, so the partition's name adds nothing.
            VersionSource::MessageId => {
                Ok(Value::S(format!("{:020}:{:020}:{:06}", message.entry.ledger, message.entry.entry, message.batch_index)))
            }
            VersionSource::PublishTime => Ok(Value::N(message.publish_time.to_string())),
            VersionSource::EventTime => {
                let time = message.event_time.filter(|time| *time > 0).ok_or_else(|| missing("the message has no event time"))?;
                Ok(Value::N(time.to_string()))
            }
            VersionSource::Attribute => {
                let name = &self.attribute;
                let value = match action {
                    Action::Put(item) | Action::Delete(item) => item.get(name),
                    Action::Update { set, .. } => set.get(name),
                };
                let value = value.ok_or_else(|| missing(&format!("the message has no attribute {name:?}")))?;
                let comparable = Version::of(value).is_some();
                comparable.then(|| value.clone()).ok_or_else(|| {
                    Poison::new(Reason::NoVersion, format!("{name:?} has type {}: a version is S, N or B", value.type_tag()))
                })
            }
        }
    }

    fn action(&self, action: Action, version: Value, schema: &KeySchema, now: u64) -> Action {
        match (action, &self.deletes) {
            (Action::Put(mut item), _) => {
                item.insert(self.attribute.clone(), version);
                Action::Put(item)
            }
            (Action::Delete(key), Deletes::Tombstone(ttl)) => {
                let mut item = key_of(&key, schema);
                item.extend([(self.attribute.clone(), version), (DELETED.to_owned(), Value::Bool(true))]);
                if let Some((attribute, kept)) = ttl {
                    item.insert(attribute.clone(), Value::N(now.saturating_add(kept.as_secs()).to_string()));
                }
                Action::Put(item)
            }
            (Action::Delete(key), Deletes::Hard) => Action::Delete(key_of(&key, schema)),
            (Action::Update { key, mut set, remove }, _) => {
                set.insert(self.attribute.clone(), version);
                Action::Update { key, set, remove }
            }
        }
    }
}

/// The property that the source gives its messages, or the change event's own member.
fn sequence_number(message: &InboundMessage) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        dynamodb: Change,
    }
    #[derive(Deserialize)]
    struct Change {
        #[serde(rename = "SequenceNumber")]
        sequence_number: String,
    }
    let property = message.properties.iter().find(|(name, _)| name == "SEQUENCE_NUMBER").map(|(_, value)| value.clone());
    property.or_else(|| serde_json::from_slice::<Event>(&message.payload).ok().map(|event| event.dynamodb.sequence_number))
}

fn absent(schema: &KeySchema) -> Arc<Condition> {
    Arc::new(Condition {
        expression: "attribute_not_exists(#io_key)".into(),
        names: BTreeMap::from([("#io_key".into(), schema.partition.0.clone())]),
        values: Item::new(),
    })
}

/// The same version again is no failure: the message has come twice.
fn not_newer(attribute: &str, version: Value) -> Arc<Condition> {
    Arc::new(Condition {
        expression: "attribute_not_exists(#io_version) OR #io_version <= :io_version".into(),
        names: BTreeMap::from([("#io_version".into(), attribute.to_owned())]),
        values: Item::from([(":io_version".into(), version)]),
    })
}

fn update(item: Item, schema: &KeySchema) -> Action {
    let (key, set) = item.into_iter().partition(|(name, _)| is_key(name, schema));
    Action::Update { key, set, remove: Default::default() }
}

fn key_of(item: &Item, schema: &KeySchema) -> Item {
    item.iter().filter(|(name, _)| is_key(name, schema)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_key(name: &str, schema: &KeySchema) -> bool {
    name == schema.partition.0 || schema.sort.as_ref().is_some_and(|sort| name == sort.0)
}

/// Whether the item that is there is as this write would leave it. Then its failed condition is no failure: it is stored already, and its answer
/// was lost, or the message has come again.
pub fn is_as_written(action: &Action, there: Option<&Item>) -> bool {
    match (action, there) {
        (Action::Put(item), Some(there)) => same_item(item, there),
        (Action::Delete(_), there) => there.is_none(),
        (Action::Update { set, remove, .. }, Some(there)) => {
            let is_set = |(name, value): (&String, &Value)| there.get(name).is_some_and(|there| same_value(there, value));
            set.iter().all(is_set) && !remove.iter().any(|name| there.contains_key(name))
        }
        (Action::Put(_) | Action::Update { .. }, None) => false,
    }
}

#[cfg(test)]
mod tests;
