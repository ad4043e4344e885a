//! Fakes of the source's ports, over one shared state that also keeps the books: what was written to the stream, published, stored and
//! checkpointed. Each write and each publish is checked at once against the invariants that can be seen from outside.

mod stream;
mod table;
mod topic;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{Lease, SequenceNumber, Shard, ShardId, StreamArn, StreamStatus},
    source::{self, Settings, StartPosition},
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// The stream that every world has.
pub const STREAM: &str = "arn:aws:dynamodb:eu-west-1:000000000000:table/orders/stream/2026-11-21T08:00:00.000";

pub use self::{stream::FakeStream, table::FakeTable, topic::FakeTopic};

/// Every call that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    ListShards,
    Children,
    ShardIterator,
    GetRecords,
    ListLeases,
    Create,
    Take,
    Renew,
    Checkpoint,
    Release,
    Delete,
}

impl Call {
    /// Every call that can be made to fail.
    pub const ALL: [Self; 11] = [
        Self::ListShards,
        Self::Children,
        Self::ShardIterator,
        Self::GetRecords,
        Self::ListLeases,
        Self::Create,
        Self::Take,
        Self::Renew,
        Self::Checkpoint,
        Self::Release,
        Self::Delete,
    ];
}

/// How the next calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Throttle,
    Down,
    Denied,
    /// The write lands, its reply does not.
    LostReply,
    /// No answer, for longer than anybody waits.
    Hang,
}

#[derive(Debug)]
pub struct FakeShard {
    pub shard: Shard,
    pub records: Vec<Record>,
    /// Records before this index are gone.
    pub trimmed: usize,
    /// In no answer before that.
    pub hidden_until: Instant,
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
    /// Which start of the worker.
    pub run: u32,
    pub sequence: u64,
}

pub struct State {
    pub shards: BTreeMap<ShardId, FakeShard>,
    pub status: StreamStatus,
    pub stream_gone: bool,
    pub knows_children: bool,
    /// Records in a page.
    pub page: usize,
    /// Every other page is empty and has a next iterator.
    pub empty_pages: bool,
    pub faults: Vec<(Call, Fault, usize)>,
    pub calls: Vec<(Call, ShardId, Instant)>,
    pub rows: BTreeMap<ShardId, Lease>,
    pub published: Vec<Published>,
    /// The same, whichever start published it.
    pub seen: BTreeSet<u64>,
    pub stored: BTreeSet<u64>,
    /// No receipts while set.
    pub hold: bool,
    /// The receipt of this record and of all later ones fails.
    pub fail_at: Option<u64>,
    /// Between two receipts.
    pub receipt_delay: Duration,
    pub violations: Vec<String>,
    /// Which shard a record is in.
    homes: HashMap<u64, ShardId>,
    /// When each row was last written.
    landed: HashMap<ShardId, Instant>,
    /// What each start has published last of each shard.
    last: HashMap<(u32, ShardId), u64>,
    queue: VecDeque<topic::Accepted>,
    generation: u64,
    next_sequence: u64,
    pub next_shard: u64,
    run: u32,
    random: fastrand::Rng,
}

/// The stand-ins for the Streams API, the lease table and the topic. Clones share everything.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    pub health: Health,
}

/// One start of the worker.
pub struct Run {
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<()>>,
}

impl Run {
    /// A clean stop; returns what the worker said.
    pub async fn stopped(self) -> Result<()> {
        self.stop.cancel();
        self.ended().await
    }

    pub async fn ended(self) -> Result<()> {
        tokio::time::timeout(Duration::from_secs(120), self.task).await.expect("the worker ends within 120 s").expect("no panic")
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let state = State {
            shards: BTreeMap::new(),
            status: StreamStatus::Enabled,
            stream_gone: false,
            knows_children: true,
            page: 1000,
            empty_pages: false,
            faults: Vec::new(),
            calls: Vec::new(),
            rows: BTreeMap::new(),
            published: Vec::new(),
            seen: BTreeSet::new(),
            stored: BTreeSet::new(),
            homes: HashMap::new(),
            landed: HashMap::new(),
            last: HashMap::new(),
            hold: false,
            fail_at: None,
            receipt_delay: Duration::ZERO,
            violations: Vec::new(),
            queue: VecDeque::new(),
            generation: 0,
            next_sequence: 1,
            next_shard: u64::try_from(source::clock::epoch_millis()).expect("after 1970"),
            run: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        let world = Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()), health: Health::default() };
        tokio::spawn(topic::deliver(world.clone()));
        world
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open shard.
    pub fn shard(&self, parent: Option<&ShardId>) -> ShardId {
        let mut state = self.lock();
        state.next_shard += 1;
        let id = ShardId::new(format!("shardId-{:020}-{:08x}", state.next_shard, state.next_shard % 0xffff_ffff));
        let shard = Shard { id: id.clone(), parent: parent.cloned(), closed: false };
        state.shards.insert(id.clone(), FakeShard { shard, records: Vec::new(), trimmed: 0, hidden_until: Instant::now() });
        id
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
        self.write_at(shard, item, count, source::clock::epoch_millis());
    }

    pub fn write_at(&self, shard: &ShardId, item: u32, count: usize, created: i64) {
        for _ in 0..count {
            let sequence = self.next_sequence();
            let text = format!(
                r#"{{"eventID":"{sequence:032x}","eventName":"INSERT","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"eu-west-1","dynamodb":{{"ApproximateCreationDateTime":{},"Keys":{{"pk":{{"N":"{item}"}}}},"SequenceNumber":"{}","SizeBytes":9,"StreamViewType":"KEYS_ONLY"}}}}"#,
                created / 1000,
                number(sequence),
            );
            self.push(shard, Record { sequence, item, text: text.into(), before_start: false });
        }
    }

    /// Records that were there before the start position of the test.
    pub fn write_before_start(&self, shard: &ShardId, item: u32, count: usize, created: i64) {
        self.write_at(shard, item, count, created);
        let mut state = self.lock();
        let records = &mut state.shards.get_mut(shard).expect("a shard").records;
        let first = records.len() - count;
        records[first..].iter_mut().for_each(|record| record.before_start = true);
    }

    /// A record that cannot be converted. Returns its sequence number.
    pub fn write_poison(&self, shard: &ShardId) -> u64 {
        let sequence = self.next_sequence();
        let text = format!(r#"{{"eventID":"bad","dynamodb":{{"SequenceNumber":"{}"}}}}"#, number(sequence));
        self.push(shard, Record { sequence, item: 0, text: text.into(), before_start: false });
        sequence
    }

    fn next_sequence(&self) -> u64 {
        let mut state = self.lock();
        state.next_sequence += 1;
        state.next_sequence
    }

    fn push(&self, shard: &ShardId, record: Record) {
        let mut state = self.lock();
        state.homes.insert(record.sequence, shard.clone());
        let shard = state.shards.get_mut(shard).expect("a shard");
        assert!(!shard.shard.closed, "no records after the end");
        shard.records.push(record);
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

    /// Starts a worker with its own health, as a new process would have it.
    pub fn start(&mut self, settings: Settings) -> Run {
        self.health = Health::default();
        self.lock().run += 1;
        let stop = CancellationToken::new();
        let (reader, table) = (Arc::new(FakeStream(self.clone(), StreamArn::new(STREAM))), Arc::new(FakeTable(self.clone())));
        let worker = source::run(settings, reader, table, FakeTopic(self.clone()), self.health.clone(), stop.clone());
        Run { stop, task: tokio::spawn(worker) }
    }

    /// kill -9: nothing of the worker runs any more. What the topic had accepted may or may not be stored.
    pub async fn kill(&self, run: Run) {
        run.task.abort();
        let _ = run.task.await;
        // The tasks of an aborted worker go when the runtime next looks at them.
        tokio::task::yield_now().await;
        let mut state = self.lock();
        let accepted = state.queue.len();
        let stored = state.random.usize(0..=accepted);
        let lost = state.queue.split_off(stored);
        drop(lost);
        while let Some(accepted) = state.queue.pop_front() {
            state.stored.insert(accepted.sequence);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits, in virtual time.
    pub async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !condition(&self.lock()) {
            if Instant::now() > deadline {
                let state = self.lock();
                let unread = state.shards.values().filter_map(|shard| {
                    let missing = shard.records[shard.trimmed..].iter().filter(|record| !state.stored.contains(&record.sequence)).count();
                    (missing > 0).then(|| (missing, &shard.shard, state.rows.get(&shard.shard.id)))
                });
                panic!(
                    "not within 10 minutes: {what}\nhealth: {:?}\nviolations: {:?}\nnot stored: {:#?}\nfaults left: {:?}\nlast calls: {:#?}",
                    self.health.reasons(),
                    state.violations,
                    unread.collect::<Vec<_>>(),
                    state.faults.iter().filter(|(_, _, times)| *times > 0).collect::<Vec<_>>(),
                    &state.calls[state.calls.len().saturating_sub(12)..],
                );
            }
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

    async fn travel(&self) {
        let latency = Duration::from_millis(self.lock().random.u64(1..20));
        tokio::time::sleep(latency).await;
    }

    /// One answer's way through the network; `None` to go on, or the failure. `LostReply` is left to whoever can do the write.
    async fn call(&self, call: Call, shard: &ShardId) -> Result<bool> {
        self.lock().calls.push((call, shard.clone(), Instant::now()));
        self.travel().await;
        let fault = {
            let mut state = self.lock();
            let at = state.faults.iter().position(|(scripted, _, times)| *scripted == call && *times > 0);
            at.map(|at| {
                state.faults[at].2 -= 1;
                state.faults[at].1
            })
        };
        let failed = |kind, why: &str| Err(Error::new(kind, format!("{call:?} {shard}"), why));
        match fault {
            None => Ok(false),
            Some(Fault::LostReply) => Ok(true),
            Some(Fault::Throttle) => failed(Kind::Throttled, "scripted throttling"),
            Some(Fault::Down) => failed(Kind::Unavailable, "scripted outage"),
            Some(Fault::Denied) => failed(Kind::AccessDenied, "scripted denial"),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }
}

impl State {
    /// Everything that has to be stored in the end.
    pub fn wanted(&self) -> impl Iterator<Item = u64> {
        let readable = self.shards.values().flat_map(|shard| &shard.records[shard.trimmed..]);
        readable.filter(|record| !record.before_start).map(|record| record.sequence)
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

    fn violation(&mut self, text: String) {
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
        drain_timeout: Duration::from_secs(20),
        started_at: pulsar_io_dynamodb::source::clock::epoch_millis(),
    }
}
