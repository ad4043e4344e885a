//! A table in memory, with faults by name. Checks K1: a second unanswered write for one key is a panic.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use pulsar_io_dynamodb::{
    dynamodb::attribute::{Item, Value},
    error::{Error, Kind, Result},
    ports::{Action, Fate, ItemTables, KeySchema, KeyType, Vehicle, Write},
};
use tokio::sync::Notify;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it works.
    Fine,
    /// The writes whose bit is set are returned as unprocessed.
    Unprocessed(u32),
    /// All is refused, nothing is written.
    Throttle,
    /// All is written, and the answer gets lost.
    LostReply,
    /// Nothing is written, and the connection breaks.
    LostRequest,
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
    /// All that each item ever was: its versions, and `None` where it was deleted.
    history: HashMap<u64, Vec<Option<u64>>>,
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
}

/// The key of an item, by its value: computed apart from the code under test.
fn key_of(item: &Item) -> u64 {
    match &item["pk"] {
        Value::N(text) => text.parse::<f64>().expect("a number") as u64,
        other => panic!("{other:?} is no N key"),
    }
}

fn version(item: &Item) -> u64 {
    match item.get("v") {
        Some(Value::N(text)) => text.parse().expect("a version"),
        other => panic!("{other:?} is no version"),
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
        self.lock().items.iter().map(|(key, item)| (*key, version(item))).collect()
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

    fn land(&self, writes: &[&Arc<Write>]) {
        let mut state = self.lock();
        for write in writes {
            let key = key_of(write.item());
            state.tables.insert(key, write.table.to_string());
            let becomes = matches!(write.action, Action::Put(_)).then(|| version(write.item()));
            state.history.entry(key).or_default().push(becomes);
            match &write.action {
                Action::Put(item) => state.items.insert(key, item.clone()),
                Action::Delete(only) => {
                    assert_eq!(only.len(), 1, "a delete carries exactly the key");
                    state.items.remove(&key)
                }
                Action::Update { .. } => panic!("an update in a batch"),
            };
        }
    }
}

/// A call under way: its keys are unanswered until it ends, however it ends.
struct Call {
    table: Table,
    keys: HashSet<u64>,
}

impl Call {
    fn begin(table: &Table, writes: &[Arc<Write>]) -> Self {
        let keys: HashSet<u64> = writes.iter().map(|write| key_of(write.item())).collect();
        assert!((1..=25).contains(&writes.len()), "{} writes in a batch", writes.len());
        assert_eq!(keys.len(), writes.len(), "a key twice in a batch");
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

    async fn write(&self, vehicle: Vehicle, writes: &[Arc<Write>]) -> Result<Vec<Fate>> {
        assert_eq!(vehicle, Vehicle::Batch);
        let call = Call::begin(self, writes);
        let (fault, before, after) = {
            let mut state = self.lock();
            let scripted = state.script.pop_front();
            match (scripted, &mut state.random) {
                (Some(fault), _) => (fault, 1, 1),
                (None, Some(rng)) => (random_fault(rng), rng.u64(0..30), rng.u64(0..30)),
                (None, None) => (Fault::Fine, 1, 1),
            }
        };
        self.released().await;
        tokio::time::sleep(Duration::from_millis(before)).await;
        let error = |kind, why| Err(Error::new(kind, "write a batch to table copies", why));
        let refuses = |write: &Arc<Write>| write.item().contains_key("refuse");
        let mut unprocessed = Vec::new();
        match fault {
            Fault::Throttle => return error(Kind::Throttled, "slow down"),
            Fault::LostRequest => return error(Kind::Unavailable, "connection reset"),
            Fault::Denied => return error(Kind::AccessDenied, "no dynamodb:BatchWriteItem"),
            Fault::Fatal => return error(Kind::Fatal, "a defect"),
            _ if writes.iter().any(refuses) => return error(Kind::Invalid, "ValidationException"),
            Fault::Fine | Fault::LostReply => {}
            Fault::Unprocessed(mask) => unprocessed.extend((0..writes.len()).filter(|at| mask >> at & 1 == 1)),
        }
        {
            let state = self.lock();
            unprocessed.extend((0..writes.len()).filter(|at| state.stuck.contains(&key_of(writes[*at].item()))));
        }
        let landed: Vec<&Arc<Write>> = writes.iter().enumerate().filter(|(at, _)| !unprocessed.contains(at)).map(|(_, w)| w).collect();
        self.land(&landed);
        tokio::time::sleep(Duration::from_millis(after)).await;
        drop(call);
        match fault {
            Fault::LostReply => error(Kind::Unavailable, "time-out"),
            _ => Ok((0..writes.len()).map(|at| if unprocessed.contains(&at) { Fate::Unprocessed } else { Fate::Stored }).collect()),
        }
    }
}

fn random_fault(rng: &mut fastrand::Rng) -> Fault {
    match rng.u8(0..20) {
        0 => Fault::Throttle,
        1 | 2 => Fault::LostReply,
        3 => Fault::LostRequest,
        4..8 => Fault::Unprocessed(rng.u32(..)),
        8 if rng.u8(0..4) == 0 => Fault::Denied,
        _ => Fault::Fine,
    }
}
