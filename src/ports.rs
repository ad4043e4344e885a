//! Every seam between the pipelines and the world: the plain data that crosses it and what each side promises.
//!
//! Real implementations live in `dynamodb/` and `pulsar/`, fakes in `tests/support/`. Nothing here names a client library.

mod publish;
mod schema;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

pub use self::{
    publish::{OutboundMessage, Place, Publisher, Receipt, Refusal, WhileHeld},
    schema::{Schema, SchemaId, SchemaKind, Schemas, version_text},
};
use crate::{
    dynamodb::attribute::Item,
    error::{Error, Kind, Result},
};

/// Monotonic time since the worker started. Decisions take it as an argument; only the edges read a clock.
pub type Moment = Duration;

// === the stream ===

/// A shard of a DynamoDB stream, such as `shardId-00000001752464541000-0a1b2c3d`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(Arc<str>);

impl ShardId {
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ARN of a stream: `arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL`. The label is the time at which the stream was enabled:
/// of two streams of one table the later one has the greater label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamArn(Arc<str>);

impl AsRef<str> for StreamArn {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl StreamArn {
    pub fn new(arn: impl AsRef<str>) -> Self {
        Self(arn.as_ref().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ARN of its table.
    pub fn table(&self) -> &str {
        self.0.split_once("/stream/").map_or(&self.0, |(table, _)| table)
    }

    /// Whether this is a stream of the same table (or of an earlier one of its name) and was enabled before the other.
    pub fn precedes(&self, other: &Self) -> bool {
        self.table() == other.table() && self.label() < other.label()
    }

    /// When it was enabled, such as `2026-11-21T08:00:00.000`.
    pub fn label(&self) -> &str {
        self.0.split_once("/stream/").map_or("", |(_, label)| label)
    }
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A position in a shard: 21 to 40 decimal digits, too many for a machine integer. Ordered as numbers.
#[derive(Debug, Clone)]
pub struct SequenceNumber(Arc<str>);

impl SequenceNumber {
    /// Errors on anything but decimal digits: KCL workers stop at such a checkpoint (L3).
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::new(Kind::Poison, "read a sequence number", format!("{text:?} is not a decimal number")));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn significant(&self) -> &str {
        self.0.trim_start_matches('0')
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.significant(), other.significant());
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SequenceNumber {}

/// One shard as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    /// DynamoDB splits shards and never merges them: one parent at most. It may be trimmed already.
    pub parent: Option<ShardId>,
    /// No further records will be added. May still say `false` while a child is listed already.
    pub closed: bool,
}

/// Whether the stream takes new records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    Enabling,
    Enabled,
    Disabling,
    Disabled,
}

/// One page of a stream's shards.
#[derive(Debug, Clone)]
pub struct ShardPage {
    pub status: StreamStatus,
    pub shards: Vec<Shard>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<ShardId>,
}

/// Where reading a shard starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    TrimHorizon,
    At(SequenceNumber),
    After(SequenceNumber),
}

/// One answer of GetRecords.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The exact text of each record, as the service sent it: its attribute order is part of the output (`source/convert`). A part of an
    /// answer that was read as JSON: it is UTF-8, and well formed.
    pub records: Vec<Bytes>,
    /// `None`: the shard is closed and this page is its last. The last page may carry records.
    pub next_iterator: Option<String>,
}

/// Reads one DynamoDB stream. Errors carry the kinds `Throttled`, `ExpiredIterator`, `TrimmedData`, `NotFound` apart.
pub trait StreamReader: Send + Sync + 'static {
    fn arn(&self) -> &StreamArn;

    /// One page of DescribeStream, after the given shard.
    fn list_shards(&self, after: Option<&ShardId>) -> impl Future<Output = Result<ShardPage>> + Send;

    /// The children of a shard (DescribeStream with `ShardFilter=CHILD_SHARDS`); `None` where the endpoint does not know the filter.
    fn children(&self, parent: &ShardId) -> impl Future<Output = Result<Option<ShardPage>>> + Send;

    /// An iterator, good for 15 minutes.
    fn shard_iterator(&self, shard: &ShardId, from: &ReadFrom) -> impl Future<Output = Result<String>> + Send;

    /// At most 1,000 records or 1 MB. May be empty although more follow.
    fn get_records(&self, shard: &ShardId, iterator: &str) -> impl Future<Output = Result<Page>> + Send;
}

/// What a source reads: one stream, or the streams that a table has one after the other.
pub trait Streams: Send + Sync + 'static {
    type Reader: StreamReader;

    /// Whether a stream that is over may have a successor: a table was named, and not a stream.
    fn follows(&self) -> bool;

    /// The stream that takes the table's changes now or took them last; or the one that was named. Errors with `NotFound` where there is no
    /// such table, and with `Configuration` where it has no stream.
    fn latest(&self) -> impl Future<Output = Result<StreamArn>> + Send;

    fn open(&self, stream: &StreamArn) -> Self::Reader;
}

// === leases ===

/// A row's `checkpoint`: everything up to it is safely in Pulsar (C1). The sentinels are KCL 1.x's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    TrimHorizon,
    /// Nothing was acknowledged yet; the lease was created for LATEST. `Lease::start_at` says from when (spec R13).
    Latest,
    /// As `Latest`, for AT_TIMESTAMP.
    AtTimestamp,
    At(SequenceNumber),
    ShardEnd,
}

/// One start of one worker of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// Stable over restarts: `tenant/namespace/name-instance`.
    pub id: String,
    /// New with each start: tells this start's rows from an earlier one's, and from those of a twin with the same id.
    pub nonce: String,
}

impl Holder {
    pub fn owns(&self, lease: &Lease) -> bool {
        lease.owner.as_ref() == Some(&self.id) && lease.nonce.as_ref() == Some(&self.nonce)
    }

    /// As written in a row: `nonce@id`.
    pub fn parse(text: &str) -> Option<Self> {
        let (nonce, id) = text.split_once('@')?;
        Some(Self { id: id.into(), nonce: nonce.into() })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.nonce, self.id)
    }
}

/// A checkpoint with the number of its record (D2): the `ordinal`th record of the shard that was read. 0: none yet. Filtered and dead-lettered
/// records count as well. Reading the shard again from any mark of an epoch gives each record the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Since when numbers go on like this, in epoch milliseconds, and greater than all earlier epochs of the row.
    pub epoch: u64,
    pub ordinal: u64,
    /// The checkpoint that the number belongs to. Where the row has another one, the mark is void, but for its epoch: somebody else wrote the
    /// row's, or the owner has given the lease up with nothing left to be published again.
    pub checkpoint: Checkpoint,
}

/// One row of the lease table: one shard. Names and types on the wire are KCL 1.x's (L3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub shard: ShardId,
    /// The worker that holds it; absent when nobody does.
    pub owner: Option<String>,
    /// Grows by one with each write; every write is conditional on it (L1).
    pub counter: u64,
    pub checkpoint: Checkpoint,
    pub owner_switches: u64,
    pub parents: Vec<ShardId>,
    /// Extra attribute `startAtMillis`: records created before it are not wanted. Fixed when the lease is created, so that a
    /// restart does not move it (spec R13). Epoch milliseconds.
    pub start_at: Option<i64>,
    /// Extra attribute `ownerNonce`: which start of the owner took it, so that a restart tells its own rows from a living twin's. Absent in
    /// rows that a Java worker holds.
    pub nonce: Option<String>,
    /// Extra attribute `handoverTo`: who has asked the owner to hand it over.
    pub wanted_by: Option<Holder>,
    /// Extra attributes `recordEpoch`, `recordOrdinal`, `recordCheckpoint` (D2). Void unless its checkpoint is the row's:
    /// see `source/lease/mark.rs`.
    pub mark: Option<Mark>,
    /// Extra attribute `streamArn`: the stream that the shard belongs to, since the streams of a table share its lease table one after the
    /// other. Absent in rows that the Java connector has made, until one of ours takes them.
    pub stream: Option<StreamArn>,
}

impl Lease {
    /// A row that nobody has taken yet.
    pub fn new(shard: ShardId, checkpoint: Checkpoint) -> Self {
        Self {
            shard,
            owner: None,
            counter: 0,
            checkpoint,
            owner_switches: 0,
            parents: Vec::new(),
            start_at: None,
            nonce: None,
            wanted_by: None,
            mark: None,
            stream: None,
        }
    }
}

/// What a conditional write on a lease did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Written; the row as it is now.
    Held(Lease),
    /// An earlier try of the same write had landed although its reply was lost (spec R3). The row as it is. When it was written nobody can
    /// tell: it may be old enough for others to take it by now (L2).
    Landed(Lease),
    /// The condition failed: somebody else wrote it. The row as it is, or `None` when it is gone.
    Lost(Option<Lease>),
}

/// The lease table. Every write is conditional on the counter read and adds one to it (L1); holders' writes also on the owner.
pub trait LeaseTable: Send + Sync + 'static {
    /// Creates the table where it does not exist, and waits until it is active.
    fn ensure(&self) -> impl Future<Output = Result<()>> + Send;
    /// All rows that are leases.
    fn list(&self) -> impl Future<Output = Result<Vec<Lease>>> + Send;
    /// Adds a row; `false` when it was there already (and is left as it was).
    fn create(&self, lease: &Lease) -> impl Future<Output = Result<bool>> + Send;
    /// Takes the lease as last seen for `owner`. The stream and the mark in `seen` are written too: a row of the Java connector has none yet.
    fn take(&self, seen: &Lease, owner: &str, nonce: &str) -> impl Future<Output = Result<Claim>> + Send;
    fn renew(&self, held: &Lease) -> impl Future<Output = Result<Claim>> + Send;
    /// Asks the owner as last seen to hand the lease over. A note to the owner and no write on the lease: the counter stays. `Lost` where the
    /// row has another owner by now, or another note than the one last seen.
    fn ask(&self, seen: &Lease, by: &Holder) -> impl Future<Output = Result<Claim>> + Send;
    /// Takes back what was asked. `Lost` where the note is not there any more: the row may be the asker's by now.
    fn withdraw(&self, seen: &Lease, by: &Holder) -> impl Future<Output = Result<Claim>> + Send;
    /// Writes a checkpoint with its number, which is a renewal as well.
    fn checkpoint(&self, held: &Lease, mark: &Mark) -> impl Future<Output = Result<Claim>> + Send;
    /// Gives the lease up, so that anybody can take it at once. The mark in `held` is written too.
    fn release(&self, held: &Lease) -> impl Future<Output = Result<Claim>> + Send;
    /// Gives the lease to another worker, whose note is in the row. The mark in `held` is written too. `Lost` with the row as it was held where that
    /// note is there no more.
    fn hand_over(&self, held: &Lease, to: &Holder) -> impl Future<Output = Result<Claim>> + Send;
    /// Removes the row as it was seen: with this counter and this checkpoint. `false` when somebody has written it since.
    fn delete(&self, seen: &Lease) -> impl Future<Output = Result<bool>> + Send;
}

// === consuming ===

/// What is acknowledged together: an entry of a topic partition, which is what the broker stores and our client acknowledges (a batch is one entry), or
/// one message of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// The topic partition's full name.
    pub topic: Arc<str>,
    pub ledger: u64,
    pub entry: u64,
    /// The message's place in its batch, where the messages of a batch are acknowledged one by one.
    pub batch_index: Option<u32>,
}

impl EntryId {
    /// The broker's entry that it is or is in: the same for all messages of a batch.
    pub fn whole(&self) -> Self {
        Self { batch_index: None, ..self.clone() }
    }

    /// The topic's own name, and the number of its partition where it has some.
    pub fn topic_and_partition(&self) -> (&str, Option<&str>) {
        topic_and_partition(&self.topic)
    }
}

/// The name of a topic and the number of its partition, from the partition's own name.
pub fn topic_and_partition(partition: &str) -> (&str, Option<&str>) {
    match partition.rsplit_once("-partition-") {
        Some((topic, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => (topic, Some(number)),
        _ => (partition, None),
    }
}

/// A message from Pulsar.
#[derive(Debug, Clone)]
pub struct InboundMessage {
    pub entry: EntryId,
    /// Position in its batch, from 0 and below `batch_size`.
    pub batch_index: u32,
    /// How many messages the batch has at the broker; 1 for a message that was not batched.
    pub batch_size: u32,
    pub key: Option<String>,
    pub key_is_base64: bool,
    pub ordering_key: Option<Vec<u8>>,
    pub payload: Bytes,
    /// The producer sent null.
    pub null_value: bool,
    pub properties: Vec<(String, String)>,
    /// Epoch milliseconds.
    pub publish_time: u64,
    pub event_time: Option<u64>,
    pub producer_name: String,
    /// `None` where nobody tells.
    pub sequence_id: Option<u64>,
    pub schema_version: Option<Vec<u8>>,
}

impl InboundMessage {
    /// As Pulsar's tools write it: ledger:entry:batch index.
    pub fn id(&self) -> String {
        format!("{}:{}:{}", self.entry.ledger, self.entry.entry, self.batch_index)
    }
}

/// What comes from a subscription.
#[derive(Debug)]
pub enum Inbound {
    Message(Box<InboundMessage>),
    /// What has come from this topic partition is void: it is another consumer's by now, or comes again. No write of it may be sent any more, no
    /// acknowledgement counts, and `released` has to follow once none of its writes is unanswered.
    Lost(Arc<str>),
}

/// Receives from one subscription. A message may come again, also one that is in work: at least once.
///
/// The messages of an entry come one after the other, from index 0, unless the partition is lost in between: then the entry comes again.
/// The entries of a partition come in their order, and again in it after a reconnection.
pub trait Inbox: Send + 'static {
    /// Cancel-safe. A message only where there is `room` for it. An error is final: the subscription is gone.
    fn receive(&mut self, room: bool) -> impl Future<Output = Result<Inbound>> + Send;
    /// After `Lost`: no write of what had come from this topic partition before is unanswered. Another consumer may write from now on (K1).
    fn released(&mut self, _topic: &str) {}
    /// Acknowledges a whole entry, best effort: when it gets lost, the entry comes again. Does not wait.
    fn ack(&mut self, entry: &EntryId) -> Result<()>;
    /// Gives a message back that can never be written, to whoever moves it to a dead-letter topic once it has come often enough. `false` where
    /// nobody would: it is the worker's to bury.
    fn give_back(&mut self, _entry: &EntryId) -> Result<bool> {
        Ok(false)
    }
    /// Sends what was acknowledged and leaves the subscription. Everything else is redelivered to whoever comes next.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

// === items ===

/// The type of a key attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    S,
    N,
    B,
}

/// A table's primary key: the partition key, and the sort key where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySchema {
    pub partition: (String, KeyType),
    pub sort: Option<(String, KeyType)>,
}

impl KeySchema {
    /// Whether this attribute is a part of the key.
    pub fn has(&self, name: &str) -> bool {
        name == self.partition.0 || self.sort.as_ref().is_some_and(|sort| name == sort.0)
    }
}

/// What a condition of a write says, as DynamoDB takes it. Reserved words need a name of their own (`#name`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Condition {
    pub expression: String,
    /// What `#name` stands for.
    pub names: BTreeMap<String, String>,
    /// What `:value` stands for.
    pub values: Item,
}

/// One change of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub table: Arc<str>,
    pub action: Action,
    /// Without it, the write is stored whatever is there.
    pub condition: Option<Arc<Condition>>,
}

/// What is done to the item.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Replaces the whole item.
    Put(Item),
    /// Carries exactly the key attributes.
    Delete(Item),
    /// Sets some attributes and removes others; creates the item where it is not there. None of them is a key attribute, and none is in both.
    Update { key: Item, set: Item, remove: BTreeSet<String> },
}

impl Action {
    /// The item of a put, the key of everything else.
    pub fn item(&self) -> &Item {
        match self {
            Self::Put(item) | Self::Delete(item) | Self::Update { key: item, .. } => item,
        }
    }
}

impl Write {
    /// The item of a put, the key of everything else.
    pub fn item(&self) -> &Item {
        self.action.item()
    }
}

/// Which request carries writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vehicle {
    /// BatchWriteItem: 1 to 25 puts and deletes without conditions, 16 MB at most.
    Batch,
    /// PutItem, DeleteItem or UpdateItem: one write.
    Single,
    /// TransactWriteItems: 1 to 100 writes that are stored together or not at all, 4 MB at most.
    Transaction,
}

/// What has become of one write of a request that was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    Stored,
    /// Not stored, and nothing is wrong with it: to be sent again.
    Unprocessed,
    /// Not stored, and nothing is wrong with it: others of its transaction are to blame.
    RolledBack,
    /// Not stored: its condition is not met by the item that is there, or by there being none.
    ConditionFailed {
        there: Option<Item>,
    },
    /// Not stored, and never will be; the other writes of the request are not to blame.
    Refused(Error),
}

/// What an answered request says.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Of each write, in their order.
    pub fates: Vec<Fate>,
    /// Write capacity units, where the service tells.
    pub consumed: Option<f64>,
}

/// The DynamoDB tables to write to.
pub trait ItemTables: Send + Sync + 'static {
    /// CreateTable, billed on demand. Fine where the table is there already. Does not wait until it can be written to.
    fn create(&self, table: &str, key: &KeySchema) -> impl Future<Output = Result<()>> + Send;

    /// DescribeTable. `Unavailable` while the table is being created.
    fn describe(&self, table: &str) -> impl Future<Output = Result<KeySchema>> + Send;

    /// Sends writes of different items in one request. Returns the fate of each, in their order. After an error, each of them may or
    /// may not have been stored.
    fn write(&self, vehicle: Vehicle, writes: &[Arc<Write>]) -> impl Future<Output = Result<Written>> + Send;
}
