//! Messages that never can be written, and why.

use std::fmt;

use crate::{
    dynamodb::attribute::{BadKey, Invalid},
    error::{Error, Kind},
};

/// Why, as dead-letter properties and metric labels say it. The names are stable: people filter by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The payload is not of its format.
    NotParseable,
    /// A message without a value, where such messages are not wanted.
    Tombstone,
    /// The message names no table, or one that is not allowed or not there.
    Table,
    /// The time to live is no number of seconds since 1970.
    TtlInvalid,
    /// The message's schema is gone or cannot be used.
    Schema,
    /// A change event whose stream carries no new images.
    NoNewImage,
    /// A change event of an unknown kind.
    UnknownEvent,
    /// A key attribute of the table is missing.
    NoKey,
    /// A key attribute has a type other than the table's.
    KeyType,
    /// A key attribute is an empty string or empty binary.
    KeyEmpty,
    /// A key attribute is too long.
    KeyTooLong,
    /// The parts of the message contradict one another about the key, or it names attributes that are not the table's key.
    KeyMismatch,
    /// The item has more than 400 KB.
    ItemTooLarge,
    /// A number that DynamoDB cannot hold.
    NumberInvalid,
    /// A set that is empty or has a member twice.
    SetInvalid,
    /// Maps and lists nested too deep.
    TooDeep,
    /// An attribute name that is empty or too long.
    NameInvalid,
    /// What orders the versions of an item is missing or of no use.
    NoVersion,
    /// What has to hold for the write does not.
    ConditionFailed,
    /// DynamoDB refused the write, for a reason that is not found before sending.
    Rejected,
    /// The item collection of the partition key is full (10 GB, tables with a local secondary index).
    ItemCollectionFull,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotParseable => "NOT_PARSEABLE",
            Reason::Tombstone => "TOMBSTONE",
            Reason::Table => "TABLE",
            Reason::TtlInvalid => "TTL_INVALID",
            Reason::Schema => "SCHEMA",
            Reason::NoNewImage => "NO_NEW_IMAGE",
            Reason::UnknownEvent => "UNKNOWN_EVENT",
            Reason::NoKey => "NO_KEY",
            Reason::KeyType => "KEY_TYPE",
            Reason::KeyEmpty => "KEY_EMPTY",
            Reason::KeyTooLong => "KEY_TOO_LONG",
            Reason::KeyMismatch => "KEY_MISMATCH",
            Reason::ItemTooLarge => "ITEM_TOO_LARGE",
            Reason::NumberInvalid => "NUMBER_INVALID",
            Reason::SetInvalid => "SET_INVALID",
            Reason::TooDeep => "TOO_DEEP",
            Reason::NameInvalid => "NAME_INVALID",
            Reason::NoVersion => "NO_VERSION",
            Reason::ConditionFailed => "CONDITION_FAILED",
            Reason::Rejected => "REJECTED",
            Reason::ItemCollectionFull => "ITEM_COLLECTION_FULL",
        }
    }
}

/// A message that never can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    pub reason: Reason,
    /// What is wrong, for a person.
    pub message: String,
    /// The item's key as DynamoDB JSON, where it is known.
    pub item_key: Option<String>,
}

impl Poison {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), item_key: None }
    }

    /// The same, with where in the message it is: names from outside in.
    pub fn at(self, name: &str) -> Self {
        let separator = if self.message.starts_with('"') { "." } else { ": " };
        Self { message: format!("{name:?}{separator}{}", self.message), ..self }
    }

    /// DynamoDB's refusal of one write.
    pub fn refused(error: &Error) -> Self {
        let reason = match error.kind() {
            Kind::ItemCollectionFull => Reason::ItemCollectionFull,
            _ => Reason::Rejected,
        };
        Self::new(reason, error.to_string())
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.message)
    }
}

impl From<BadKey> for Poison {
    fn from(why: BadKey) -> Self {
        let reason = match why {
            BadKey::Missing { .. } => Reason::NoKey,
            BadKey::WrongType { .. } => Reason::KeyType,
            BadKey::NotANumber { .. } => Reason::NumberInvalid,
        };
        Self::new(reason, why.to_string())
    }
}

impl From<Invalid> for Poison {
    fn from(why: Invalid) -> Self {
        let reason = match why {
            Invalid::TooLarge { .. } => Reason::ItemTooLarge,
            Invalid::KeyEmpty { .. } => Reason::KeyEmpty,
            Invalid::KeyTooLong { .. } => Reason::KeyTooLong,
            Invalid::Number { .. } => Reason::NumberInvalid,
            Invalid::EmptySet | Invalid::DuplicateInSet { .. } => Reason::SetInvalid,
            Invalid::TooDeep => Reason::TooDeep,
            Invalid::Name { .. } => Reason::NameInvalid,
        };
        Self::new(reason, why.to_string())
    }
}
