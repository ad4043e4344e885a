//! Workers on one lease table, ours and KCL's, and what can be seen of them from outside: who has put out which record, who owned which row when.
//!
//! The stream is the stand-in, since DynamoDB Local has one open shard a table; the lease table is DynamoDB Local's.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_sdk_dynamodb::{operation::put_item::PutItemError, types::AttributeValue};

use super::{
    Lab, Random,
    connector::Connector,
    eventually,
    table::{self, Item},
    topic::Topic,
};
use crate::support::{
    java,
    stand_in::{StandIn, record::from_event_id},
};

/// A dead worker's shards: 20 to 40 s with KCL (spec §1.4), and its start takes as long again on a small machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// So long may a KCL worker go on with a shard that was taken from it: until its renewal fails, and with the batch that it has then.
const JAVA_NOTICES: u64 = 10_000;
/// So long ours may, where a KCL worker has taken it: until its renewal fails, plus what a busy machine and the look at the table every so often add.
const OURS_NOTICES: u64 = 5_000;
/// How often the table is looked at, and how late a change of a row may be seen by that, in milliseconds.
const LOOK: Duration = Duration::from_millis(100);
const SEEN_LATE: u64 = 1_000;

/// One record as one worker has put it out.
#[derive(Debug, Clone)]
pub struct Emission {
    pub worker: String,
    /// Shard after shard, each the first child of the one before: an item's whole life.
    pub lineage: u64,
    pub number: u64,
    /// When the worker has put it out. Epoch milliseconds.
    pub at: u64,
    /// When it was there.
    pub seen: Instant,
}

#[derive(Debug, Default)]
pub struct Emissions {
    pub all: Vec<Emission>,
    distinct: HashSet<(u64, u64)>,
}

impl Emissions {
    fn add(&mut self, worker: &str, (lineage, number): (u64, u64), at: u64) {
        self.distinct.insert((lineage, number));
        self.all.push(Emission { worker: worker.to_owned(), lineage, number, at, seen: Instant::now() });
    }

    pub fn repeated(&self) -> usize {
        self.all.len() - self.distinct.len()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub owner: Option<String>,
    pub checkpoint: String,
    parents: Vec<String>,
    /// Grows by one with each taking and renewal.
    counter: u64,
}

impl Row {
    fn ended(&self) -> bool {
        self.checkpoint == "SHARD_END"
    }
}

/// For how long one worker, or nobody, owned a row, as looking at it now and then has shown. Epoch milliseconds.
#[derive(Debug)]
pub struct Tenure {
    pub owner: Option<String>,
    pub since: u64,
    /// When, and who came next.
    ended: Option<(u64, Option<String>)>,
}

impl Tenure {
    fn may_put_out(&self, at: u64) -> bool {
        let is_java = |owner: &Option<String>| owner.as_ref().is_some_and(|owner| owner.starts_with("java"));
        let until = match &self.ended {
            None => u64::MAX,
            Some((until, _)) if is_java(&self.owner) => until + JAVA_NOTICES,
            Some((until, next)) if is_java(next) => until + OURS_NOTICES,
            // Between two of ours there is no overlap: a shard is asked for, or taken after its owner has stopped.
            Some((until, _)) => *until,
        };
        self.since <= at + SEEN_LATE && at <= until
    }
}

pub type Rows = BTreeMap<String, Row>;

/// A look at the table that has shown something new. Epoch milliseconds.
#[derive(Debug)]
pub struct Look {
    at: u64,
    /// When the look before it began.
    before: u64,
    rows: Rows,
}

/// A time in which more has happened to a row than was seen: somebody may have owned it in between.
#[derive(Debug)]
struct Blink {
    from: u64,
    until: u64,
    next: Option<String>,
}

impl Blink {
    fn may_put_out(&self, at: u64) -> bool {
        let notices = if self.next.as_ref().is_some_and(|next| next.starts_with("java")) { OURS_NOTICES } else { 0 };
        (self.from..=self.until + notices).contains(&at)
    }
}

pub enum Running {
    Java(Child),
    Ours(Connector),
}

pub struct Fleet<'a> {
    name: &'static str,
    lab: &'a Lab,
    pub stream: StandIn,
    leases: aws_sdk_dynamodb::Client,
    application: String,
    /// Where ours find the lease table, and how long a lease lasts.
    lease_endpoint: String,
    failover: Duration,
    emissions: Arc<Mutex<Emissions>>,
    /// Who owned which shard at which time: only changes are kept.
    history: Arc<Mutex<Vec<Look>>>,
    pub workers: BTreeMap<String, Running>,
    /// Those of ours whose topic is read.
    read: BTreeSet<String>,
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as u64
}

impl<'a> Fleet<'a> {
    /// A stream with so many shards that each take so many records a second, and no worker yet.
    pub fn new(name: &'static str, lab: &'a Lab, shards: usize, rate: u64) -> Self {
        let stream = StandIn::start(shards, 1_000);
        for shard in 0..shards {
            stream.state().stream().write_live(shard, rate);
        }
        let application = format!("fleet-{}", lab.unique);
        let leases = table::client(lab);
        let (emissions, history) = (Arc::default(), Arc::default());
        tokio::spawn(watch(leases.clone(), application.clone(), Arc::clone(&history)));
        Self {
            name,
            lab,
            stream,
            leases,
            application,
            lease_endpoint: lab.dynamodb_endpoint.clone(),
            failover: Duration::from_secs(10),
            emissions,
            history,
            workers: BTreeMap::new(),
            read: BTreeSet::new(),
        }
    }

    /// The lease table's name.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// For workers of ours that start from now on.
    pub fn leases_at(&mut self, endpoint: &str, failover: Duration) {
        (self.lease_endpoint, self.failover) = (endpoint.to_owned(), failover);
    }

    pub fn emissions(&self) -> MutexGuard<'_, Emissions> {
        self.emissions.lock().expect("no panic")
    }

    fn history(&self) -> MutexGuard<'_, Vec<Look>> {
        self.history.lock().expect("no panic")
    }

    pub fn start_java(&mut self, name: &str) {
        let mut program = java::program(self.name, "KclWorker").expect("asked before");
        program.env("AWS_ACCESS_KEY_ID", &self.lab.access_key);
        program.args([name, &self.application, &self.stream.stream_arn(), &self.stream.endpoint(), &self.lab.dynamodb_endpoint]);
        let mut child = program.stdout(Stdio::piped()).spawn().expect("java starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (worker, emissions) = (name.to_owned(), self.emissions.clone());
        std::thread::spawn(move || {
            // A worker that is killed may leave half a line.
            for line in lines.map_while(Result::ok) {
                let [_, event_id, at] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
                let (Some(record), Ok(at)) = (from_event_id(event_id), at.parse()) else { continue };
                emissions.lock().expect("no panic").add(&worker, record, at);
            }
        });
        self.workers.insert(name.to_owned(), Running::Java(child));
    }

    /// With a topic of its own, so that one sees who has published what. Returns its name as an owner of leases.
    pub async fn start_ours(&mut self, name: &str) -> String {
        let (worker, emissions) = (format!("public/default/{name}-0"), self.emissions.clone());
        let owner = worker.clone();
        if !self.read.insert(name.to_owned()) {
            self.run_ours(name);
            return owner;
        }
        let mut reader = Topic::from_start(self.lab, &self.topic(name)).await;
        tokio::spawn(async move {
            loop {
                let message = reader.next_whenever().await;
                let record = message.key.as_deref().and_then(from_event_id).expect("an event id of the stand-in");
                emissions.lock().expect("no panic").add(&worker, record, message.publish_time);
            }
        });
        self.run_ours(name);
        owner
    }

    fn topic(&self, name: &str) -> String {
        format!("persistent://public/default/{}-{name}", self.lab.unique)
    }

    /// The process alone, whose topic is read already.
    pub fn run_ours(&mut self, name: &str) {
        let config = format!(
            "name: {name}\ntopicName: {}\nconfigs:\n  awsRegion: us-east-1\n  awsDynamodbStreamArn: {}\n  awsEndpoint: {}\n  \
             dynamoEndpoint: {}\n  applicationName: {}\n  initialPositionInStream: TRIM_HORIZON\n  checkpointInterval: 1000\n  \
             failoverTime: {}\n",
            self.topic(name),
            self.stream.stream_arn(),
            self.stream.endpoint(),
            self.lease_endpoint,
            self.application,
            self.failover.as_millis()
        );
        let connector = Connector::start_as(self.lab, "source", name, &config);
        self.workers.insert(format!("public/default/{name}-0"), Running::Ours(connector));
    }

    pub fn ours(&self, owner: &str) -> &Connector {
        match &self.workers[owner] {
            Running::Ours(connector) => connector,
            Running::Java(_) => panic!("{owner} is a KCL worker"),
        }
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        println!("{}: kill -9 {name}", self.name);
        match self.workers.remove(name).expect("it runs") {
            Running::Java(mut child) => {
                child.kill().expect("kill -9");
                child.wait().expect("it ends");
            }
            Running::Ours(connector) => connector.kill(),
        }
    }

    /// SIGTERM.
    pub async fn stop(&mut self, name: &str) {
        println!("{}: stop {name}", self.name);
        match self.workers.remove(name).expect("it runs") {
            Running::Java(mut child) => {
                assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs").success());
                eventually("the KCL worker ends", PATIENCE, async || child.try_wait().expect("its status")).await;
            }
            Running::Ours(connector) => assert!(connector.stop().await.success(), "Z1: {name} ends cleanly"),
        }
    }

    /// The lease table as it is now; `None` as long as there is none.
    pub async fn rows(&self) -> Option<Rows> {
        rows(&self.leases, &self.application).await
    }

    /// Who owns which row now.
    pub async fn owners(&self) -> BTreeMap<String, Option<String>> {
        self.rows().await.expect("the lease table").into_iter().map(|(shard, row)| (shard, row.owner)).collect()
    }

    /// The shards that may be read and are not finished, with their owners: a child counts once its parents are finished.
    fn unfinished(rows: &Rows) -> impl Iterator<Item = (&String, Option<&String>)> {
        let ended = |parent: &String| rows.get(parent).is_none_or(Row::ended);
        let unfinished = rows.iter().filter(move |(_, row)| !row.ended() && row.parents.iter().all(ended));
        unfinished.map(|(shard, row)| (shard, row.owner.as_ref()))
    }

    /// By chance, a living worker that has shards.
    pub async fn pick(&self, random: &mut Random, kind: impl Fn(&Running) -> bool) -> String {
        let rows = self.rows().await.expect("the lease table");
        let owners: BTreeSet<&String> = Self::unfinished(&rows).filter_map(|(_, owner)| owner).collect();
        let names: Vec<&&String> = owners.iter().filter(|name| self.workers.get(**name).is_some_and(&kind)).collect();
        assert!(!names.is_empty(), "of {:?} none has a shard", self.workers.keys());
        names[random.below(names.len() as u64) as usize].to_string()
    }

    /// The lineages that a worker reads now.
    pub async fn lineages_of(&self, owner: &str) -> BTreeSet<u64> {
        let rows = self.rows().await.expect("the lease table");
        let chains = self.chains();
        let lineage = |shard: &String| *chains.iter().find(|(_, chain)| chain.iter().any(|(id, _)| id == shard)).expect("a shard").0;
        Self::unfinished(&rows).filter(|(_, at)| at.is_some_and(|at| at == owner)).map(|(shard, _)| lineage(shard)).collect()
    }

    /// Waits until nothing is left and all is fair: each shard that may be read has a living owner, each lineage goes on, and no two
    /// workers differ by more than one lease.
    pub async fn settles(&self, phase: &str) {
        let begun = now();
        let lineages: BTreeSet<u64> = (0..self.stream.state().stream().written().len() as u64).collect();
        let last = Mutex::new(String::new());
        let settled = async || {
            let rows = self.rows().await?;
            let open: Vec<String> =
                self.stream.state().stream().shards.iter().filter(|shard| !shard.is_closed()).map(|shard| shard.id.clone()).collect();
            let orphans: Vec<&String> = open.iter().filter(|shard| !self.is_owned_by_the_living(rows.get(*shard))).collect();
            let going_on: BTreeSet<u64> =
                self.emissions().all.iter().rev().take_while(|emission| emission.at > begun).map(|emission| emission.lineage).collect();
            let shares = self.shares(&rows);
            let (most, fewest) = (shares.values().max().unwrap_or(&0), shares.values().min().unwrap_or(&0));
            *last.lock().expect("no panic") =
                format!("without a living owner: {orphans:?}; going on: {going_on:?}; shares {shares:?}; rows {rows:?}");
            let unfinished_parents = Self::unfinished(&rows).count() > open.len();
            (orphans.is_empty() && going_on.is_superset(&lineages) && most - fewest <= 1 && !unfinished_parents).then_some(shares)
        };
        let Ok(shares) = tokio::time::timeout(PATIENCE, eventually(phase, PATIENCE * 2, settled)).await else {
            panic!("{phase}: not settled within {PATIENCE:?}: {}", last.lock().expect("no panic"));
        };
        println!("{}: {phase}: settled after {:.1} s: {shares:?}", self.name, (now() - begun) as f64 / 1000.0);
    }

    fn is_owned_by_the_living(&self, row: Option<&Row>) -> bool {
        row.and_then(|row| row.owner.as_ref()).is_some_and(|owner| self.workers.contains_key(owner))
    }

    /// How many unfinished leases each has.
    fn shares(&self, rows: &Rows) -> BTreeMap<String, usize> {
        let mut shares: BTreeMap<String, usize> = self.workers.keys().map(|name| (name.clone(), 0)).collect();
        for (_, owner) in Self::unfinished(rows) {
            *shares.entry(owner.cloned().unwrap_or_else(|| "nobody".into())).or_default() += 1;
        }
        shares
    }

    /// Ends the writing and waits for the last record.
    pub async fn drains(&self) {
        let shards = self.stream.state().stream().shards.len();
        for shard in 0..shards {
            if !self.stream.state().stream().shards[shard].is_closed() {
                self.stream.state().stream().write_live(shard, 0);
            }
        }
        let written: u64 = self.written().into_iter().map(|(first, end)| end - first).sum();
        let all = async || (self.emissions().distinct.len() as u64 == written).then_some(());
        eventually("D1: every record comes out", PATIENCE, all).await;
    }

    /// The number of the first record of each lineage, and one more than that of its last.
    fn written(&self) -> Vec<(u64, u64)> {
        let firsts: Vec<u64> = self.chains().values().map(|chain| chain[0].1).collect();
        firsts.into_iter().zip(self.stream.state().stream().written()).collect()
    }

    /// Two children of a shard: one goes on with its items, the other has new ones. `backlog`: so many records are written to the shard
    /// before, all at once. The children have their rows while their parent is read, as KCL makes them where a shard sync of its own comes first:
    /// free, and only their parent keeps everybody from them (S1).
    pub async fn split(&self, shard: usize, backlog: u64, rate: u64) {
        println!("{}: {backlog} records for shard {shard}, then a split", self.name);
        let (parent, children) = {
            let mut state = self.stream.state();
            let stream = state.stream();
            if backlog > 0 {
                stream.write(shard, backlog);
                stream.write_live(shard, rate);
            }
            let children = stream.split(shard, 2, Duration::ZERO);
            stream.write_live(children[1], rate);
            (stream.shards[shard].id.clone(), children.into_iter().map(|child| stream.shards[child].id.clone()).collect::<Vec<_>>())
        };
        for child in children {
            let zero = || AttributeValue::N("0".into());
            let row = self.leases.put_item().table_name(&self.application).item("leaseKey", AttributeValue::S(child));
            let row = row.item("checkpoint", AttributeValue::S("TRIM_HORIZON".into())).item("leaseCounter", zero());
            let row = row.item("checkpointSubSequenceNumber", zero()).item("ownerSwitchesSinceCheckpoint", zero());
            let row = row.item("parentShardId", AttributeValue::Ss(vec![parent.clone()]));
            // Whoever was faster has made the same one.
            match row.condition_expression("attribute_not_exists(leaseKey)").send().await {
                Err(error) if !error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                    panic!("the row is written: {error:?}")
                }
                _ => {}
            }
        }
    }

    /// The promises, over everything that happened.
    pub fn check(&self) {
        let mut emissions = self.emissions().all.clone();
        emissions.sort_by_key(|emission| (emission.at, emission.number));
        let written = self.written();
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for emission in &emissions {
            let next = next.entry(emission.lineage).or_insert(written[emission.lineage as usize].0);
            assert!(emission.number <= *next, "O1, S1: record {next} of lineage {} comes after {emission:?}", emission.lineage);
            *next = (*next).max(emission.number + 1);
        }
        for (lineage, (_, end)) in written.iter().enumerate() {
            assert_eq!(next.get(&(lineage as u64)), Some(end), "D1: lineage {lineage}");
        }
        println!("{}: {} records, {} repeated", self.name, emissions.len(), self.emissions().repeated());

        // L1, L2: nobody puts out a shard that has been another's for longer than it may take to notice.
        let chains = self.chains();
        let (tenures, blinks) = (self.tenures(), self.blinks());
        for emission in &emissions {
            let chain = &chains[&emission.lineage];
            let shard = &chain[chain.partition_point(|(_, first)| *first <= emission.number) - 1].0;
            let mine = |tenure: &&Tenure| tenure.owner.as_ref() == Some(&emission.worker);
            let unseen = || blinks.get(shard).is_some_and(|blinks| blinks.iter().any(|blink| blink.may_put_out(emission.at)));
            let owned = tenures[shard].iter().filter(mine).any(|tenure| tenure.may_put_out(emission.at)) || unseen();
            assert!(owned, "L1, L2: put out by a worker that has not had {shard} for too long: {emission:?}, {:?}", tenures[shard]);
        }
    }

    /// Who has owned each shard, one after the other.
    pub fn tenures(&self) -> BTreeMap<String, Vec<Tenure>> {
        let mut tenures: BTreeMap<String, Vec<Tenure>> = BTreeMap::new();
        for Look { at, rows, .. } in self.history().iter() {
            for (shard, row) in rows {
                let of_shard = tenures.entry(shard.clone()).or_default();
                if of_shard.last().is_some_and(|last| last.owner == row.owner) {
                    continue;
                }
                if let Some(last) = of_shard.last_mut() {
                    last.ended = Some((*at, row.owner.clone()));
                }
                of_shard.push(Tenure { owner: row.owner.clone(), since: *at, ended: None });
            }
        }
        tenures
    }

    fn blinks(&self) -> BTreeMap<String, Vec<Blink>> {
        let mut blinks: BTreeMap<String, Vec<Blink>> = BTreeMap::new();
        for looks in self.history().windows(2) {
            let [former, Look { at, before, rows }] = looks else { unreachable!("two") };
            for (shard, row) in rows {
                let Some(last) = former.rows.get(shard).filter(|last| last.owner != row.owner) else { continue };
                if row.counter > last.counter + 1 {
                    let blink = Blink { from: *before, until: *at, next: row.owner.clone() };
                    blinks.entry(shard.clone()).or_default().push(blink);
                }
            }
        }
        blinks
    }

    /// The shards of each lineage, with the numbers of their first records.
    fn chains(&self) -> BTreeMap<u64, Vec<(String, u64)>> {
        let mut chains: BTreeMap<u64, Vec<(String, u64)>> = BTreeMap::new();
        for shard in &self.stream.state().stream().shards {
            chains.entry(shard.lineage).or_default().push((shard.id.clone(), shard.first()));
        }
        chains
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        for running in std::mem::take(&mut self.workers).into_values() {
            if let Running::Java(mut child) = running {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

async fn rows(client: &aws_sdk_dynamodb::Client, table: &str) -> Option<Rows> {
    let items = client.scan().table_name(table).consistent_read(true).send().await.ok()?.items?;
    let text = |item: &Item, name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    let row = |item: Item| {
        let parents = item.get("parentShardId").and_then(|value| value.as_ss().ok()).cloned().unwrap_or_default();
        let checkpoint = text(&item, "checkpoint").expect("a checkpoint");
        let counter = item.get("leaseCounter").and_then(|value| value.as_n().ok()?.parse().ok()).expect("a counter");
        (text(&item, "leaseKey").expect("a key"), Row { owner: text(&item, "leaseOwner"), checkpoint, parents, counter })
    };
    Some(items.into_iter().map(row).collect())
}

async fn watch(client: aws_sdk_dynamodb::Client, table: String, history: Arc<Mutex<Vec<Look>>>) {
    let mut before = now();
    loop {
        let begun = now();
        if let Some(rows) = rows(&client, &table).await {
            let mut history = history.lock().expect("no panic");
            if history.last().is_none_or(|last| last.rows != rows) {
                history.push(Look { at: now(), before, rows });
            }
            before = begun;
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub fn is_java(running: &Running) -> bool {
    matches!(running, Running::Java(_))
}

pub fn is_ours(running: &Running) -> bool {
    matches!(running, Running::Ours(_))
}
