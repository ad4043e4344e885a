//! What went wrong, on what, and what to do about it.
//!
//! An [`Error`] is built at the IO edge (`dynamodb/`, `pulsar/`), where the kind is known. Stages never look
//! inside a client library's error: they ask [`Error::retry`], the only place that turns a kind into a decision.

use std::fmt;

/// The result of every operation that crosses a port.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation, told for the person who is woken up by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    /// What was attempted and on what: "read shard shardId-0001 of stream arn:…".
    doing: String,
    /// Why it failed, in the service's own words where it gave any.
    why: String,
    /// Of `Throttled`: by what.
    limit: Limit,
}

/// Which limit a throttled call has met. Ordered by how much has to slow down for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// One partition's: only its keys are too busy.
    KeyRange,
    /// One partition's of an index: which of the table's keys are in it is not known.
    IndexKeyRange,
    /// The service does not say.
    #[default]
    Unknown,
    /// The table's or an index's provisioned capacity.
    Provisioned,
    /// The maximum that is set for an on-demand table or index.
    OnDemandMaximum,
    /// The account's quota for a table.
    Account,
}

impl Limit {
    /// As metric labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::KeyRange => "key_range",
            Limit::IndexKeyRange => "index_key_range",
            Limit::Unknown => "unknown",
            Limit::Provisioned => "provisioned",
            Limit::OnDemandMaximum => "on_demand_maximum",
            Limit::Account => "account",
        }
    }
}

/// The closed list of failures that stages tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The service asks us to slow down: throttling, request limits, provisioned throughput.
    Throttled,
    /// The service or the way to it is down: 5xx, time-out, refused or lost connection. The outcome of a write is unknown.
    Unavailable,
    /// A shard iterator is older than 15 minutes.
    ExpiredIterator,
    /// The position lies before the stream's trim horizon: records are gone (G1).
    TrimmedData,
    /// The table, stream, shard or topic does not exist.
    NotFound,
    /// The stream does not exist any more, and another one has taken its place.
    StreamReplaced,
    /// The credentials lack a permission.
    AccessDenied,
    /// There are no usable credentials: absent, wrong or expired beyond refresh.
    Credentials,
    /// The request itself is wrong; sending it again cannot help.
    Invalid,
    /// An item collection of a table with a local secondary index is full (10 GB).
    ItemCollectionFull,
    /// A message, record or item cannot be converted or written, whatever is tried.
    Poison,
    /// The same, since it is larger than what is to take it.
    TooLarge,
    /// A topic takes no messages any more: it was terminated.
    Closed,
    /// A lease is held by another worker (L1).
    LeaseLost,
    /// The configuration is wrong: exit code 64.
    Configuration,
    /// The other end closed for good, or this program has a defect.
    Fatal,
}

/// What a stage does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again, with backoff: time heals it.
    Timed,
    /// Keep trying slowly and turn health red: a person has to act, and no restart is needed after that.
    Manual,
    /// Trying again cannot help: the stage decides (dead-letter topic, other position, or stop).
    Never,
}

impl Error {
    pub fn new(kind: Kind, doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { kind, doing: doing.into(), why: why.to_string(), limit: Limit::default() }
    }

    /// The same, with what it was throttled by.
    pub fn throttled_by(self, limit: Limit) -> Self {
        Self { limit, ..self }
    }

    pub fn limit(&self) -> Limit {
        self.limit
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Why it failed, without what was being done.
    pub fn why(&self) -> &str {
        &self.why
    }

    pub fn retry(&self) -> Retry {
        match self.kind {
            Kind::Throttled | Kind::Unavailable => Retry::Timed,
            Kind::AccessDenied | Kind::Credentials | Kind::NotFound | Kind::Closed => Retry::Manual,
            Kind::ExpiredIterator
            | Kind::TrimmedData
            | Kind::StreamReplaced
            | Kind::Invalid
            | Kind::ItemCollectionFull
            | Kind::Poison
            | Kind::TooLarge
            | Kind::LeaseLost
            | Kind::Configuration
            | Kind::Fatal => Retry::Never,
        }
    }

    /// What the operator can do, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind {
            Kind::AccessDenied => Some("grant the missing permission to these credentials"),
            Kind::Credentials => Some("check the credentials: keys, profile, role, token and their expiry"),
            Kind::NotFound => Some("check the name, the region and the endpoint"),
            Kind::Unavailable => Some("check the endpoint and the network; it is tried again"),
            Kind::Closed => Some("delete the terminated topic, or publish to another one; it is tried again"),
            Kind::ItemCollectionFull => Some("delete items of this partition key, or drop the local secondary index"),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.doing, self.why)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
