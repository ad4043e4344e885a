//! Fakes of the source's ports, over one shared state, for any number of workers. Each has its own machine and its own view of the
//! network; what all of them do is held against the invariants as it happens ([`books`]).

mod books;
mod dedup;
pub mod log;
mod machine;
mod network;
mod stream;
mod table;
mod topic;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pulsar_io_dynamodb::{
    metrics::health::Health,
    ports::{Checkpoint, Lease, OutboundMessage, SequenceNumber, Shard, ShardId, StreamArn, StreamStatus},
    source::{Settings, StartPosition},
};
use tokio::{sync::Notify, time::Instant};

use self::{
    books::{Home, Item, Tenure},
    log::{Actor, Event, What},
};
pub use self::{
    dedup::once,
    machine::{BEGIN_MILLIS, FakeMachine},
    network::{Call, Fault, Service},
    stream::FakeStreams,
    table::FakeTable,
    topic::{DEAD_LETTERS, FakeTopic, Refused},
    worker::Run,
};

/// The streams that a table has one after the other, by their days.
fn stream_arn(table: &str, day: usize) -> StreamArn {
    StreamArn::new(format!("arn:aws:dynamodb:eu-west-1:000000000000:table/{table}/stream/2026-11-{day:02}T08:00:00.000"))
}

/// What the table says of its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Latest {
    Stream(StreamArn),
    NoStream,
    NoTable,
}

#[derive(Debug)]
pub struct FakeShard {
    pub shard: Shard,
    stream: StreamArn,
    pub records: Vec<Record>,
    /// Records before this index are gone.
    pub trimmed: usize,
    /// In no answer before that.
    pub hidden_until: Instant,
    /// Records before this index are stored, gone, or not wanted.
    settled: usize,
}

#[derive(Debug, Clone)]
pub struct Record {
    pub sequence: u64,
    pub item: u32,
    pub text: Bytes,
    /// Created before the start position of the test: to be skipped.
    pub before_start: bool,
}

/// One message as the topic accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Which start of which worker.
    pub run: Actor,
    pub sequence: u64,
}

pub struct State {
    pub shards: BTreeMap<ShardId, FakeShard>,
    /// The streams that exist.
    pub streams: BTreeMap<StreamArn, StreamStatus>,
    pub latest: Latest,
    /// Workers are given the table, and not its stream.
    pub follows: bool,
    /// The stream that new shards belong to.
    stream: StreamArn,
    pub knows_children: bool,
    /// Records in a page.
    pub page: usize,
    /// Shards in a page of a listing: few, so that listings have pages.
    pub shards_in_a_page: usize,
    /// Every other page is empty and has a next iterator.
    pub empty_pages: bool,
    /// Listings of the stream come in any order, with shards twice, and with shards left out.
    pub messy_listings: bool,
    /// An iterator may begin a little before the position that was asked for.
    pub overlaps: bool,
    pub faults: Vec<(Call, Fault, usize)>,
    /// Workers that cannot reach a service.
    pub cut: BTreeSet<(Actor, Service)>,
    /// How many of a thousand calls of each service fail.
    pub throttled: BTreeMap<Service, u32>,
    pub calls: Vec<(Call, ShardId, Instant)>,
    pub rows: BTreeMap<ShardId, Lease>,
    pub published: Vec<Published>,
    /// The same, whichever start published it.
    pub seen: BTreeSet<u64>,
    /// When each record was published first.
    pub published_at: HashMap<u64, Instant>,
    pub stored: BTreeSet<u64>,
    /// No receipts while set.
    pub hold: bool,
    /// Partitions of the topic that give no receipts.
    pub slow: BTreeSet<u32>,
    /// The receipt of this record and of all later ones fails.
    pub fail_at: Option<u64>,
    /// Records whose messages are refused for good, each for itself.
    pub refusals: BTreeMap<u64, Refused>,
    /// Records that need not be stored: their dead letters are, or the policy is to skip them.
    pub excused: BTreeSet<u64>,
    pub dead_letters: Vec<OutboundMessage>,
    /// No dead letter is stored while set.
    pub hold_letters: bool,
    /// The topic's broker deduplicates, and each record is to be stored once (D2).
    pub once: bool,
    /// What it knows of producers.
    producers: dedup::Producers,
    /// Records were trimmed: what was read before a gap may be published again.
    pub gaps: bool,
    /// Workers whose receipts fail from now on.
    pub refused: BTreeSet<Actor>,
    /// Between two receipts of one partition.
    pub receipt_delay: Duration,
    /// Partitions of the topic; an item's records are in one of them.
    pub partitions: u32,
    pub violations: Vec<String>,
    pub log: Vec<Event>,
    pub next_shard: u64,
    pub random: fastrand::Rng,
    began: Instant,
    /// Where each record is.
    homes: HashMap<u64, Home>,
    items: BTreeMap<u32, Item>,
    /// When each row was last written.
    landed: HashMap<ShardId, Instant>,
    tenures: HashMap<(Actor, ShardId), Tenure>,
    /// Who has read each shard last.
    read: HashMap<ShardId, (Actor, Instant)>,
    /// Who writes a nonce.
    nonces: HashMap<String, Actor>,
    machines: BTreeMap<Actor, &'static FakeMachine>,
    /// The worker ids.
    workers: BTreeMap<Actor, String>,
    /// How many records each worker may have in flight.
    windows: BTreeMap<Actor, usize>,
    /// What the topic has accepted and not stored, for each worker and partition.
    lanes: BTreeMap<(Actor, u32), VecDeque<topic::Accepted>>,
    generation: u64,
    next_sequence: u64,
    /// How many streams were switched on after the first one.
    switched: usize,
    runs: Actor,
}

/// The stand-ins for the Streams API, the lease table and the topic. Clones share everything.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    /// Of the worker that was started last.
    pub health: Health,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let began = Instant::now();
        let stream = stream_arn("orders", 1);
        let state = State {
            shards: BTreeMap::new(),
            streams: BTreeMap::from([(stream.clone(), StreamStatus::Enabled)]),
            latest: Latest::Stream(stream.clone()),
            follows: false,
            stream,
            knows_children: true,
            page: 1000,
            shards_in_a_page: 3,
            empty_pages: false,
            messy_listings: false,
            overlaps: false,
            faults: Vec::new(),
            cut: BTreeSet::new(),
            throttled: BTreeMap::new(),
            calls: Vec::new(),
            rows: BTreeMap::new(),
            published: Vec::new(),
            seen: BTreeSet::new(),
            published_at: HashMap::new(),
            stored: BTreeSet::new(),
            hold: false,
            slow: BTreeSet::new(),
            fail_at: None,
            refusals: BTreeMap::new(),
            excused: BTreeSet::new(),
            dead_letters: Vec::new(),
            hold_letters: false,
            once: false,
            producers: dedup::Producers::default(),
            gaps: false,
            refused: BTreeSet::new(),
            receipt_delay: Duration::ZERO,
            partitions: 1,
            violations: Vec::new(),
            log: Vec::new(),
            next_shard: BEGIN_MILLIS.unsigned_abs(),
            random: fastrand::Rng::with_seed(seed),
            began,
            homes: HashMap::new(),
            items: BTreeMap::new(),
            landed: HashMap::new(),
            tenures: HashMap::new(),
            read: HashMap::new(),
            nonces: HashMap::new(),
            machines: BTreeMap::new(),
            workers: BTreeMap::new(),
            windows: BTreeMap::new(),
            lanes: BTreeMap::new(),
            generation: 0,
            next_sequence: 1,
            switched: 0,
            runs: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()), health: Health::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A wall clock that nobody steps, in epoch milliseconds.
    pub fn now_millis(&self) -> i64 {
        machine::wall_millis(self.lock().began)
    }

    /// An open shard.
    pub fn shard(&self, parent: Option<&ShardId>) -> ShardId {
        let mut state = self.lock();
        state.next_shard += 1;
        let id = ShardId::new(format!("shardId-{:020}-{:08x}", state.next_shard, state.next_shard % 0xffff_ffff));
        let shard = Shard { id: id.clone(), parent: parent.cloned(), closed: false };
        let hidden_until = Instant::now();
        let stream = state.stream.clone();
        state.shards.insert(id.clone(), FakeShard { shard, stream, records: Vec::new(), trimmed: 0, hidden_until, settled: 0 });
        id
    }

    /// The stream that the table has now.
    pub fn stream(&self) -> StreamArn {
        self.lock().stream.clone()
    }

    /// The stream is switched off: nothing more is written to it, and it can be read for a day.
    pub fn disable(&self) {
        let mut state = self.lock();
        let stream = state.stream.clone();
        for shard in state.shards.values_mut().filter(|shard| shard.stream == stream) {
            shard.shard.closed = true;
        }
        state.streams.insert(stream, StreamStatus::Disabled);
    }

    /// A stream is switched on: shards belong to it from now on.
    pub fn enable(&self) -> StreamArn {
        self.enable_at("orders")
    }

    /// The same at another table.
    pub fn enable_at(&self, table: &str) -> StreamArn {
        let mut state = self.lock();
        state.switched += 1;
        let stream = stream_arn(table, 1 + state.switched);
        state.streams.insert(stream.clone(), StreamStatus::Enabled);
        (state.latest, state.stream) = (Latest::Stream(stream.clone()), stream.clone());
        stream
    }

    /// The stream does not exist any more, nor does what was not read of it.
    pub fn drop_stream(&self, stream: &StreamArn) {
        let mut state = self.lock();
        state.streams.remove(stream);
        state.shards.retain(|_, shard| shard.stream != *stream);
    }

    /// Closes a shard and opens its children.
    pub fn split<const N: usize>(&self, parent: &ShardId) -> [ShardId; N] {
        self.close(parent);
        std::array::from_fn(|_| self.shard(Some(parent)))
    }

    /// The stream does not list the shard for some time yet.
    pub fn hide(&self, shard: &ShardId, time: Duration) {
        self.lock().shards.get_mut(shard).expect("a shard").hidden_until = Instant::now() + time;
    }

    pub fn close(&self, shard: &ShardId) {
        let mut state = self.lock();
        state.shards.get_mut(shard).expect("a shard").shard.closed = true;
    }

    /// Writes records of now, of one item.
    pub fn write(&self, shard: &ShardId, item: u32, count: usize) {
        self.write_at(shard, item, count, self.now_millis());
    }

    pub fn write_at(&self, shard: &ShardId, item: u32, count: usize, created: i64) {
        self.write_records(shard, item, count, created, false);
    }

    /// Records that were there before the start position of the test.
    pub fn write_before_start(&self, shard: &ShardId, item: u32, count: usize, created: i64) {
        self.write_records(shard, item, count, created, true);
    }

    fn write_records(&self, shard: &ShardId, item: u32, count: usize, created: i64, before_start: bool) {
        let mut state = self.lock();
        for _ in 0..count {
            state.next_sequence += 1;
            let sequence = state.next_sequence;
            let text = format!(
                r#"{{"eventID":"{sequence:032x}","eventName":"INSERT","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"eu-west-1","dynamodb":{{"ApproximateCreationDateTime":{},"Keys":{{"pk":{{"N":"{item}"}}}},"SequenceNumber":"{}","SizeBytes":9,"StreamViewType":"KEYS_ONLY"}}}}"#,
                created / 1000,
                number(sequence),
            );
            state.push(shard, Record { sequence, item, text: text.into(), before_start });
        }
    }

    /// A record that cannot be converted. Returns its sequence number.
    pub fn write_poison(&self, shard: &ShardId) -> u64 {
        let mut state = self.lock();
        state.next_sequence += 1;
        let sequence = state.next_sequence;
        let text = format!(r#"{{"eventID":"bad","dynamodb":{{"SequenceNumber":"{}"}}}}"#, number(sequence));
        state.push(shard, Record { sequence, item: 0, text: text.into(), before_start: false });
        sequence
    }

    /// The sequence number of a shard's last record.
    pub fn last(&self, shard: &ShardId) -> u64 {
        self.lock().shards[shard].records.last().expect("a record").sequence
    }

    /// The next `times` calls fail. They fail in the order in which faults were scripted.
    pub fn fail(&self, call: Call, fault: Fault, times: usize) {
        self.lock().faults.push((call, fault, times));
    }

    pub fn expire_iterators(&self) {
        self.lock().generation += 1;
    }

    pub fn hold_receipts(&self, hold: bool) {
        self.lock().hold = hold;
        self.changed.notify_waiters();
    }

    /// Changes something that receipts may wait for.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Waits, in virtual time.
    pub async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !condition(&self.lock()) {
            assert!(Instant::now() <= deadline, "not within 10 minutes: {what}\n{}", self.report());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// D1, and nothing else broken on the way.
    pub fn check(&self) {
        let state = self.lock();
        assert!(state.violations.is_empty(), "{:#?}", state.violations);
        let missing: Vec<u64> = state.wanted().filter(|sequence| !state.stored.contains(sequence)).collect();
        assert!(missing.is_empty(), "D1: not stored: {missing:?}");
    }

    /// How things stand, for a person.
    pub fn report(&self) -> String {
        let state = self.lock();
        let unread = state.shards.values().filter_map(|shard| {
            let missing = shard.records[shard.trimmed..].iter().filter(|record| !state.stored.contains(&record.sequence)).count();
            (missing > 0).then(|| (missing, &shard.shard, state.rows.get(&shard.shard.id)))
        });
        let last: String = state.log[state.log.len().saturating_sub(80)..].iter().map(|event| format!("  {event}\n")).collect();
        format!(
            "health: {:?}\nviolations: {:#?}\nnot stored: {:#?}\nfaults left: {:?}\nlast events:\n{last}",
            self.health.reasons(),
            state.violations,
            unread.collect::<Vec<_>>(),
            state.faults.iter().filter(|(_, _, times)| *times > 0).collect::<Vec<_>>(),
        )
    }
}

impl State {
    /// Everything that has to be stored in the end.
    pub fn wanted(&self) -> impl Iterator<Item = u64> {
        let readable = self.shards.values().flat_map(|shard| &shard.records[shard.trimmed..]);
        readable.filter(|record| !record.before_start && !self.excused.contains(&record.sequence)).map(|record| record.sequence)
    }

    pub fn all_stored(&self) -> bool {
        self.wanted().all(|sequence| self.stored.contains(&sequence))
    }

    pub fn count(&self, call: Call) -> usize {
        self.calls.iter().filter(|(other, ..)| *other == call).count()
    }

    pub fn row(&self, shard: &ShardId) -> &Lease {
        self.rows.get(shard).unwrap_or_else(|| panic!("no lease of {shard}"))
    }

    /// Which start of which worker holds the lease of a shard, as the table says.
    pub fn holder(&self, shard: &ShardId) -> Option<Actor> {
        self.nonces.get(self.rows.get(shard)?.nonce.as_ref()?).copied()
    }

    /// How many unfinished leases are held.
    pub fn held_leases(&self) -> usize {
        self.rows.values().filter(|row| row.owner.is_some() && row.checkpoint != Checkpoint::ShardEnd).count()
    }

    /// Of the leases that are held, the longest time that one was not written.
    pub fn longest_unwritten(&self) -> Duration {
        let held = self.rows.values().filter(|row| row.owner.is_some() && row.checkpoint != Checkpoint::ShardEnd);
        held.filter_map(|row| self.landed.get(&row.shard)).map(Instant::elapsed).max().unwrap_or_default()
    }

    /// Who has read a shard last, if that is not longer ago than `within`.
    pub fn reader(&self, shard: &ShardId, within: Duration) -> Option<Actor> {
        self.read.get(shard).filter(|(_, at)| at.elapsed() <= within).map(|(reader, _)| *reader)
    }

    /// Since the world began.
    pub fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    pub fn note(&mut self, actor: Actor, text: impl Into<String>) {
        self.tell(actor, What::Note(text.into()));
    }

    fn tell(&mut self, actor: Actor, what: What) {
        let at = self.began.elapsed();
        self.log.push(Event { at, actor, what });
    }

    fn violation(&mut self, actor: Actor, text: String) {
        self.note(actor, format!("VIOLATION {text}"));
        self.violations.push(text);
    }
}

pub fn number(sequence: u64) -> SequenceNumber {
    SequenceNumber::parse(&format!("{sequence:021}")).expect("digits")
}

pub fn settings() -> Settings {
    Settings {
        worker_id: "public/default/orders-0".into(),
        start: StartPosition::TrimHorizon,
        checkpoint_interval: Duration::from_secs(1),
        backoff: Duration::from_millis(500),
        max_in_flight: 500,
        failover: Duration::from_secs(10),
        max_leases: usize::MAX,
        assume_dead: Default::default(),
        rewind_on_adopt: Duration::ZERO,
        on_trimmed: Default::default(),
        drain_timeout: Duration::from_secs(20),
        started_at: BEGIN_MILLIS,
        poison: Default::default(),
        once: None,
        shape: Default::default(),
    }
}
