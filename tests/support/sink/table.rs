//! A table in memory, with faults by name: it delays and reorders, loses requests and answers, leaves writes unprocessed, throttles by reason,
//! cancels transactions, and writes what was given up long ago. Checks K1: a second unanswered write for one key is a panic.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use pulsar_io_dynamodb::{
    dynamodb::attribute::{Item, Value},
    error::{Error, Kind, Limit, Result},
    ports::{Action, Condition, Fate, ItemTables, KeySchema, KeyType, Vehicle, Write, Written},
};
use tokio::{sync::Notify, time::Instant};

use super::model::{Row, row};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it works.
    Fine,
    /// The writes whose bit is set are returned as unprocessed.
    Unprocessed(u32),
    /// All is refused, nothing is written.
    Throttle(Limit),
    /// All is written, and the answer gets lost.
    LostReply,
    /// Nothing is written, and the connection breaks.
    LostRequest,
    /// The caller gives up, and all is written later. Only where the table lands late.
    LandsLate,
    Denied,
    /// The worker cannot go on after this.
    Fatal,
}

/// Shared by all its clones.
#[derive(Clone, Default)]
pub struct Table {
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<u64, Item>,
    unanswered: HashSet<u64>,
    script: VecDeque<Fault>,
    describe_script: VecDeque<Kind>,
    /// The tables that were made.
    created: Vec<String>,
    /// Which table each item was written to last.
    tables: BTreeMap<u64, String>,
    /// Draws faults and delays once the script is over.
    random: Option<fastrand::Rng>,
    /// Keys that are never processed.
    stuck: HashSet<u64>,
    held: bool,
    calls: Vec<usize>,
    most_at_once: usize,
    at_once: usize,
    /// Writes of callers that are gone land all the same.
    lands_late: bool,
    /// How many faults of each kind there were.
    met: BTreeMap<&'static str, u64>,
    /// The calls, with their time since the first.
    log: Vec<String>,
    began: Option<Instant>,
}

/// The key of an item, by its value: computed apart from the code under test.
fn key_of(item: &Item) -> u64 {
    match &item["pk"] {
        Value::N(text) => text.parse::<f64>().expect("a number") as u64,
        other => panic!("{other:?} is no N key"),
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The next calls meet these, in order.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().script.extend(faults);
    }

    pub fn describe_fails(&self, kinds: impl IntoIterator<Item = Kind>) {
        self.lock().describe_script.extend(kinds);
    }

    pub fn randomly(&self, rng: Option<fastrand::Rng>) {
        self.lock().random = rng;
    }

    /// Returns this key as unprocessed until `unstick`.
    pub fn stick(&self, key: u64) {
        self.lock().stuck.insert(key);
    }

    pub fn unstick(&self, key: u64) {
        self.lock().stuck.remove(&key);
    }

    /// Keeps all calls waiting until `release`.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    pub fn release(&self) {
        self.lock().held = false;
        self.released.notify_waiters();
    }

    pub fn created(&self) -> Vec<String> {
        self.lock().created.clone()
    }

    /// The table of each item.
    pub fn tables(&self) -> BTreeMap<u64, String> {
        self.lock().tables.clone()
    }

    pub fn in_flight(&self) -> usize {
        self.lock().unanswered.len()
    }

    /// The sizes of all batches so far.
    pub fn calls(&self) -> Vec<usize> {
        self.lock().calls.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.lock().most_at_once
    }

    /// Version by key.
    pub fn versions(&self) -> BTreeMap<u64, u64> {
        self.rows().into_iter().map(|(key, row)| (key, row["v"])).collect()
    }

    /// The items' numbers by key.
    pub fn rows(&self) -> BTreeMap<u64, Row> {
        self.lock().items.iter().map(|(key, item)| (*key, row(item))).collect()
    }

    pub fn lands_late(&self, does: bool) {
        self.lock().lands_late = does;
    }

    pub fn met(&self) -> BTreeMap<&'static str, u64> {
        self.lock().met.clone()
    }

    /// Each call, with its time and what became of it.
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    async fn released(&self) {
        loop {
            let notified = self.released.notified();
            if !self.lock().held {
                return;
            }
            notified.await;
        }
    }

    /// Writes what is to be written, and says what has become of each.
    fn land(&self, vehicle: Vehicle, writes: &[Arc<Write>], unprocessed: &[usize]) -> Vec<Fate> {
        let mut state = self.lock();
        let judge = |state: &State, at: usize, write: &Write| match write.condition.as_deref() {
            _ if unprocessed.contains(&at) => Fate::Unprocessed,
            _ if refuses(write) => Fate::Refused(Error::new(Kind::Invalid, "write a batch to table copies", "ValidationError")),
            Some(condition) if !holds(condition, state.items.get(&key_of(write.item()))) => {
                Fate::ConditionFailed { there: state.items.get(&key_of(write.item())).cloned() }
            }
            _ => Fate::Stored,
        };
        let mut fates: Vec<Fate> = writes.iter().enumerate().map(|(at, write)| judge(&state, at, write)).collect();
        if vehicle == Vehicle::Transaction && fates.iter().any(|fate| *fate != Fate::Stored) {
            fates.iter_mut().filter(|fate| **fate == Fate::Stored).for_each(|fate| *fate = Fate::RolledBack);
        }
        for (write, _) in writes.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Stored) {
            state.apply(write);
        }
        fates
    }
}

impl State {
    fn apply(&mut self, write: &Write) {
        let key = key_of(write.item());
        self.tables.insert(key, write.table.to_string());
        match &write.action {
            Action::Put(item) => drop(self.items.insert(key, item.clone())),
            Action::Delete(only) => {
                assert_eq!(only.len(), 1, "a delete carries exactly the key");
                self.items.remove(&key);
            }
            Action::Update { key: only, set, remove } => {
                assert_eq!(only.len(), 1, "an update carries exactly the key");
                assert!(!set.contains_key("pk"), "an update does not set the key");
                let item = self.items.entry(key).or_insert_with(|| only.clone());
                item.retain(|name, _| !remove.contains(name));
                item.extend(set.clone());
            }
        }
    }
}

fn refuses(write: &Write) -> bool {
    match &write.action {
        Action::Update { set, .. } => set.contains_key("refuse"),
        action => action.item().contains_key("refuse"),
    }
}

/// The two conditions that the sink makes by itself.
fn holds(condition: &Condition, there: Option<&Item>) -> bool {
    match condition.expression.as_str() {
        "attribute_not_exists(#io_key)" => there.is_none(),
        "attribute_not_exists(#io_version) OR #io_version <= :io_version" => {
            let text = |value: &Value| match value {
                Value::S(text) => text.clone(),
                other => panic!("{other:?} is no version"),
            };
            let new = text(&condition.values[":io_version"]);
            there.and_then(|item| item.get(&condition.names["#io_version"])).is_none_or(|old| text(old) <= new)
        }
        other => panic!("an unknown condition: {other}"),
    }
}

/// A call under way: its keys are unanswered until it ends, however it ends.
struct Call {
    table: Table,
    keys: HashSet<u64>,
}

impl Call {
    fn begin(table: &Table, vehicle: Vehicle, writes: &[Arc<Write>]) -> Self {
        let keys: HashSet<u64> = writes.iter().map(|write| key_of(write.item())).collect();
        let most = match vehicle {
            Vehicle::Batch => 25,
            Vehicle::Single => 1,
            Vehicle::Transaction => 100,
        };
        assert!((1..=most).contains(&writes.len()), "{} writes in a {vehicle:?}", writes.len());
        assert_eq!(keys.len(), writes.len(), "a key twice in a request");
        let for_batches = |write: &Arc<Write>| write.condition.is_none() && !matches!(write.action, Action::Update { .. });
        assert!(vehicle != Vehicle::Batch || writes.iter().all(for_batches), "a batch carries no conditions and no updates");
        let mut state = table.lock();
        assert!(state.unanswered.is_disjoint(&keys), "K1: a second unanswered write for one key");
        state.unanswered.extend(&keys);
        state.calls.push(writes.len());
        state.at_once += 1;
        state.most_at_once = state.most_at_once.max(state.at_once);
        Self { table: table.clone(), keys }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        state.unanswered.retain(|key| !self.keys.contains(key));
        state.at_once -= 1;
    }
}

/// A write in the log: its key, and what it does.
fn told(write: &Write) -> String {
    let key = key_of(write.item());
    match &write.action {
        Action::Put(item) => format!("{key} put {:?}", row(item)),
        Action::Delete(_) => format!("{key} delete"),
        Action::Update { set, .. } => format!("{key} set {:?}", row(set)),
    }
}

/// What happens to a call, drawn when it comes.
struct Fortune {
    fault: Fault,
    /// Until it lands, and from then until the answer is there. Milliseconds.
    before: u64,
    after: u64,
}

impl Table {
    fn fortune(&self, vehicle: Vehicle, writes: &[Arc<Write>]) -> Fortune {
        let mut state = self.lock();
        let lands_late = state.lands_late;
        let fortune = match (state.script.pop_front(), &mut state.random) {
            (Some(fault), _) => Fortune { fault, before: 1, after: 1 },
            (None, Some(rng)) => Fortune { fault: random_fault(rng, vehicle, lands_late), before: rng.u64(0..30), after: rng.u64(0..30) },
            (None, None) => Fortune { fault: Fault::Fine, before: 1, after: 1 },
        };
        *state.met.entry(fortune.fault.name()).or_default() += 1;
        let keys: Vec<String> = writes.iter().map(|write| told(write)).collect();
        let since = state.began.get_or_insert_with(Instant::now).elapsed();
        let log = format!("{since:?} {vehicle:?} {keys:?} {:?}", fortune.fault);
        state.log.push(log);
        fortune
    }

    /// The service's side of a call.
    async fn serve(self, vehicle: Vehicle, writes: Vec<Arc<Write>>, fortune: Fortune) -> Result<Vec<Fate>> {
        let Fortune { fault, before, after } = fortune;
        self.released().await;
        tokio::time::sleep(Duration::from_millis(before)).await;
        let error = |kind, why| Err(Error::new(kind, "write a batch to table copies", why));
        let mut unprocessed = Vec::new();
        match fault {
            Fault::Throttle(limit) => return Err(Error::new(Kind::Throttled, "write to table copies", "slow down").throttled_by(limit)),
            Fault::LostRequest => return error(Kind::Unavailable, "connection reset"),
            Fault::Denied => return error(Kind::AccessDenied, "no dynamodb:BatchWriteItem"),
            Fault::Fatal => return error(Kind::Fatal, "a defect"),
            _ if vehicle != Vehicle::Transaction && writes.iter().any(|write| refuses(write)) => {
                return error(Kind::Invalid, "ValidationException");
            }
            Fault::LandsLate => tokio::time::sleep(Duration::from_millis(20 * after)).await,
            Fault::Fine | Fault::LostReply => {}
            Fault::Unprocessed(mask) => unprocessed.extend((0..writes.len()).filter(|at| mask >> (at % 32) & 1 == 1)),
        }
        {
            let state = self.lock();
            unprocessed.extend((0..writes.len()).filter(|at| state.stuck.contains(&key_of(writes[*at].item()))));
        }
        let fates = self.land(vehicle, &writes, &unprocessed);
        tokio::time::sleep(Duration::from_millis(after)).await;
        match fault {
            Fault::LostReply => error(Kind::Unavailable, "time-out"),
            _ => Ok(fates),
        }
    }
}

impl ItemTables for Table {
    async fn create(&self, table: &str, _: &KeySchema) -> Result<()> {
        self.lock().created.push(table.to_owned());
        Ok(())
    }

    async fn describe(&self, table: &str) -> Result<KeySchema> {
        if table.starts_with("missing") && !self.lock().created.iter().any(|made| made == table) {
            return Err(Error::new(Kind::NotFound, format!("describe table {table}"), "as scripted"));
        }
        match self.lock().describe_script.pop_front() {
            Some(kind) => Err(Error::new(kind, "describe table copies", "as scripted")),
            None => Ok(KeySchema { partition: ("pk".into(), KeyType::N), sort: None }),
        }
    }

    async fn write(&self, vehicle: Vehicle, writes: &[Arc<Write>]) -> Result<Written> {
        let call = Call::begin(self, vehicle, writes);
        let fortune = self.fortune(vehicle, writes);
        let gives_up = (fortune.fault == Fault::LandsLate).then(|| Duration::from_millis(fortune.before));
        let serving = self.clone().serve(vehicle, writes.to_vec(), fortune);
        let fates = if self.lock().lands_late {
            // What the service has begun it ends, whoever waits.
            let serving = tokio::spawn(serving);
            match gives_up {
                Some(patience) => {
                    tokio::time::sleep(patience).await;
                    Err(Error::new(Kind::Unavailable, "write to table copies", "time-out"))
                }
                None => serving.await.expect("the table does not panic"),
            }
        } else {
            serving.await
        };
        drop(call);
        fates.map(|fates| Written { fates, consumed: None })
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Fine => "fine",
            Fault::Unprocessed(_) => "unprocessed",
            Fault::Throttle(_) => "throttled",
            Fault::LostReply => "lost replies",
            Fault::LostRequest => "lost requests",
            Fault::LandsLate => "late landings",
            Fault::Denied => "denied",
            Fault::Fatal => "fatal",
        }
    }
}

fn random_fault(rng: &mut fastrand::Rng, vehicle: Vehicle, lands_late: bool) -> Fault {
    const LIMITS: [Limit; 6] =
        [Limit::KeyRange, Limit::IndexKeyRange, Limit::Provisioned, Limit::OnDemandMaximum, Limit::Account, Limit::Unknown];
    match rng.u8(0..20) {
        0 => Fault::Throttle(LIMITS[rng.usize(0..LIMITS.len())]),
        1 | 2 => Fault::LostReply,
        3 => Fault::LostRequest,
        // A single write is stored or throttled.
        4..8 if vehicle == Vehicle::Single => Fault::Throttle(LIMITS[rng.usize(0..LIMITS.len())]),
        4..8 => Fault::Unprocessed(rng.u32(..)),
        8 if rng.u8(0..4) == 0 => Fault::Denied,
        9 if lands_late => Fault::LandsLate,
        _ => Fault::Fine,
    }
}
