//! Workers of ours and real KCL 1.13.3 workers (`tests/java/KclWorker.java`) on one lease table (spec §7, test 3): no shard owned twice, none
//! left, nothing lost, each item's changes in order, through Java only → mixed → ours only → back to Java.
//!
//! The stream is the stand-in, since DynamoDB Local has one open shard a table; the lease table is DynamoDB Local's.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Lab, Random,
    connector::Connector,
    eventually, lab, seed,
    table::{self, Item},
    topic::Topic,
};
use crate::support::{
    java,
    stand_in::{StandIn, record::from_event_id},
};

const SHARDS: usize = 4;
/// Changes a second of each shard.
const RATE: u64 = 40;
/// A dead worker's shards: 20 to 40 s with KCL (spec §1.4), and its start takes as long again on a small machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// So long may a KCL worker go on with a shard that was taken from it: until its renewal fails, and with the batch that it has then.
const JAVA_NOTICES: u64 = 10_000;
/// So long ours may: until its renewal fails, plus what a busy machine and the look at the table every so often add.
const OURS_NOTICES: u64 = 5_000;

/// One record as one worker has put it out.
#[derive(Debug, Clone)]
struct Emission {
    worker: String,
    /// Shard after shard, each the first child of the one before: an item's whole life.
    lineage: u64,
    number: u64,
    /// Epoch milliseconds.
    at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    owner: Option<String>,
    ended: bool,
}

type Rows = BTreeMap<String, Row>;

enum Running {
    Java(Child),
    Ours(Connector),
}

struct Fleet<'a> {
    lab: &'a Lab,
    stream: StandIn,
    leases: aws_sdk_dynamodb::Client,
    application: String,
    emissions: Arc<Mutex<Vec<Emission>>>,
    /// Who owned which shard at which time: only changes are kept.
    history: Arc<Mutex<Vec<(u64, Rows)>>>,
    workers: BTreeMap<String, Running>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as u64
}

impl<'a> Fleet<'a> {
    fn new(lab: &'a Lab) -> Self {
        let stream = StandIn::start(SHARDS, 1_000);
        for shard in 0..SHARDS {
            stream.state().stream().write_live(shard, RATE);
        }
        let application = format!("fleet-{}", lab.unique);
        let leases = table::client(lab);
        let (emissions, history) = (Arc::default(), Arc::default());
        tokio::spawn(watch(leases.clone(), application.clone(), Arc::clone(&history)));
        Self { lab, stream, leases, application, emissions, history, workers: BTreeMap::new() }
    }

    fn start_java(&mut self, name: &str) {
        let mut program = java::program("mixed-fleet", "KclWorker").expect("asked before");
        program.args([name, &self.application, &self.stream.stream_arn(), &self.stream.endpoint(), &self.lab.dynamodb_endpoint]);
        let mut child = program.stdout(Stdio::piped()).spawn().expect("java starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (worker, emissions) = (name.to_owned(), self.emissions.clone());
        std::thread::spawn(move || {
            // A worker that is killed may leave half a line.
            for line in lines.map_while(Result::ok) {
                let [_, event_id, at] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
                let (Some((lineage, number)), Ok(at)) = (from_event_id(event_id), at.parse()) else { continue };
                emissions.lock().expect("no panic").push(Emission { worker: worker.clone(), lineage, number, at });
            }
        });
        self.workers.insert(name.to_owned(), Running::Java(child));
    }

    /// With a topic of its own, so that one sees who has published what.
    async fn start_ours(&mut self, name: &str) {
        let topic = format!("persistent://public/default/{}-{name}", self.lab.unique);
        let mut reader = Topic::from_start(self.lab, &topic).await;
        let (worker, emissions) = (format!("public/default/{name}-0"), self.emissions.clone());
        let owner = worker.clone();
        tokio::spawn(async move {
            loop {
                let message = reader.next_whenever().await;
                let (lineage, number) = message.key.as_deref().and_then(from_event_id).expect("an event id of the stand-in");
                let at = message.publish_time;
                emissions.lock().expect("no panic").push(Emission { worker: worker.clone(), lineage, number, at });
            }
        });
        let config = format!(
            "name: {name}\ntopicName: {topic}\nconfigs:\n  awsRegion: us-east-1\n  awsDynamodbStreamArn: {}\n  awsEndpoint: {}\n  \
             dynamoEndpoint: {}\n  applicationName: {}\n  initialPositionInStream: TRIM_HORIZON\n  checkpointInterval: 1000\n",
            self.stream.stream_arn(),
            self.stream.endpoint(),
            self.lab.dynamodb_endpoint,
            self.application
        );
        self.workers.insert(owner, Running::Ours(Connector::start_as(self.lab, "source", name, &config)));
    }

    /// kill -9.
    fn kill(&mut self, name: &str) {
        println!("mixed-fleet: kill -9 {name}");
        match self.workers.remove(name).expect("it runs") {
            Running::Java(mut child) => {
                child.kill().expect("kill -9");
                child.wait().expect("it ends");
            }
            Running::Ours(connector) => connector.kill(),
        }
    }

    /// SIGTERM.
    async fn stop(&mut self, name: &str) {
        println!("mixed-fleet: stop {name}");
        match self.workers.remove(name).expect("it runs") {
            Running::Java(mut child) => {
                assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs").success());
                eventually("the KCL worker ends", PATIENCE, async || child.try_wait().expect("its status")).await;
            }
            Running::Ours(connector) => assert!(connector.stop().await.success(), "Z1: {name} ends cleanly"),
        }
    }

    /// By chance, a living worker that has shards.
    async fn pick(&self, random: &mut Random, kind: impl Fn(&Running) -> bool) -> String {
        let rows = rows(&self.leases, &self.application).await.expect("the lease table");
        let owners: BTreeSet<String> = rows.into_values().filter(|row| !row.ended).filter_map(|row| row.owner).collect();
        let names: Vec<&String> = owners.iter().filter(|name| self.workers.get(*name).is_some_and(&kind)).collect();
        assert!(!names.is_empty(), "of {:?} none has a shard", self.workers.keys());
        names[random.below(names.len() as u64) as usize].clone()
    }

    /// Waits until nothing is left: each shard that may be read has a living owner, and each lineage goes on.
    async fn settles(&self, phase: &str) {
        let begun = now();
        let lineages: BTreeSet<u64> = (0..self.stream.state().stream().written().len() as u64).collect();
        let last = Mutex::new(String::new());
        let settled = async || {
            let rows = rows(&self.leases, &self.application).await?;
            let open: Vec<String> =
                self.stream.state().stream().shards.iter().filter(|shard| !shard.is_closed()).map(|shard| shard.id.clone()).collect();
            let orphans: Vec<&String> = open.iter().filter(|shard| !self.is_owned_by_the_living(rows.get(*shard))).collect();
            let going_on: BTreeSet<u64> =
                self.emissions.lock().expect("no panic").iter().filter(|emission| emission.at > begun).map(|e| e.lineage).collect();
            *last.lock().expect("no panic") = format!("without a living owner: {orphans:?}; going on: {going_on:?}; rows {rows:?}");
            (orphans.is_empty() && going_on.is_superset(&lineages)).then_some(())
        };
        if tokio::time::timeout(PATIENCE, eventually(phase, PATIENCE * 2, settled)).await.is_err() {
            panic!("{phase}: not settled within {PATIENCE:?}: {}", last.lock().expect("no panic"));
        }
        println!("mixed-fleet: {phase}: settled after {:.1} s: {}", (now() - begun) as f64 / 1000.0, self.shares().await);
    }

    fn is_owned_by_the_living(&self, row: Option<&Row>) -> bool {
        row.and_then(|row| row.owner.as_ref()).is_some_and(|owner| self.workers.contains_key(owner))
    }

    /// How many unfinished leases each has.
    async fn shares(&self) -> String {
        let mut shares: BTreeMap<String, usize> = self.workers.keys().map(|name| (name.clone(), 0)).collect();
        for row in rows(&self.leases, &self.application).await.unwrap_or_default().into_values().filter(|row| !row.ended) {
            *shares.entry(row.owner.unwrap_or_else(|| "nobody".into())).or_default() += 1;
        }
        format!("{shares:?}")
    }

    /// Ends the writing and waits for the last record.
    async fn drains(&self) {
        let shards = self.stream.state().stream().shards.len();
        for shard in 0..shards {
            if !self.stream.state().stream().shards[shard].is_closed() {
                self.stream.state().stream().write_live(shard, 0);
            }
        }
        let written: u64 = self.written().into_iter().map(|(first, end)| end - first).sum();
        let all = async || {
            let emissions = self.emissions.lock().expect("no panic");
            let distinct: BTreeSet<(u64, u64)> = emissions.iter().map(|emission| (emission.lineage, emission.number)).collect();
            (distinct.len() as u64 == written).then_some(())
        };
        eventually("D1: every record comes out", PATIENCE, all).await;
    }

    /// The number of the first record of each lineage, and one more than that of its last.
    fn written(&self) -> Vec<(u64, u64)> {
        let mut state = self.stream.state();
        let first = |lineage| state.streams.last().and_then(|stream| stream.shards.iter().find(|shard| shard.lineage == lineage));
        let firsts: Vec<u64> = (0..).map_while(|lineage| Some(first(lineage)?.first())).collect();
        firsts.into_iter().zip(state.stream().written()).collect()
    }

    /// Two children of a shard: one goes on with its items, the other has new ones.
    fn split(&self, shard: usize) {
        println!("mixed-fleet: split {shard}");
        let mut state = self.stream.state();
        let children = state.stream().split(shard, 2, Duration::ZERO);
        state.stream().write_live(children[1], RATE);
    }

    /// The promises, over everything that happened.
    fn check(&self) {
        let mut emissions = self.emissions.lock().expect("no panic").clone();
        emissions.sort_by_key(|emission| (emission.at, emission.number));
        let written = self.written();
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for emission in &emissions {
            let next = next.entry(emission.lineage).or_insert(written[emission.lineage as usize].0);
            assert!(emission.number <= *next, "O1: record {next} of lineage {} comes after {emission:?}", emission.lineage);
            *next = (*next).max(emission.number + 1);
        }
        for (lineage, (_, end)) in written.iter().enumerate() {
            assert_eq!(next.get(&(lineage as u64)), Some(end), "D1: lineage {lineage}");
        }
        let distinct: u64 = written.iter().map(|(first, end)| end - first).sum();
        println!("mixed-fleet: {distinct} records, {} repeated", emissions.len() as u64 - distinct);

        // L1, L2: nobody puts out a shard that has been another's for longer than it takes to notice.
        let chains = self.chains();
        let history = self.history.lock().expect("no panic");
        assert!(history.len() > 4, "the lease table was hardly seen: {} changes", history.len());
        for emission in &emissions {
            let notices = if emission.worker.starts_with("java") { JAVA_NOTICES } else { OURS_NOTICES };
            let owned = history.iter().enumerate().any(|(at, (from, rows))| {
                let until = history.get(at + 1).map_or(u64::MAX, |next| next.0);
                let during = *from <= emission.at + 500 && until.saturating_add(notices) >= emission.at;
                during
                    && chains[&emission.lineage].iter().any(|id| rows.get(id).and_then(|row| row.owner.as_ref()) == Some(&emission.worker))
            });
            assert!(owned, "L1, L2: put out by a worker that has not had its shard for {notices} ms: {emission:?}");
        }
    }

    /// The shards of each lineage.
    fn chains(&self) -> BTreeMap<u64, Vec<String>> {
        let mut chains: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for shard in &self.stream.state().stream().shards {
            chains.entry(shard.lineage).or_default().push(shard.id.clone());
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

/// The lease table as it is now; `None` as long as there is none.
async fn rows(client: &aws_sdk_dynamodb::Client, table: &str) -> Option<Rows> {
    let items = client.scan().table_name(table).consistent_read(true).send().await.ok()?.items?;
    let text = |item: &Item, name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    let row = |item: Item| {
        let ended = text(&item, "checkpoint").as_deref() == Some("SHARD_END");
        (text(&item, "leaseKey").expect("a key"), Row { owner: text(&item, "leaseOwner"), ended })
    };
    Some(items.into_iter().map(row).collect())
}

async fn watch(client: aws_sdk_dynamodb::Client, table: String, history: Arc<Mutex<Vec<(u64, Rows)>>>) {
    loop {
        if let Some(rows) = rows(&client, &table).await {
            let mut history = history.lock().expect("no panic");
            if history.last().is_none_or(|(_, last)| *last != rows) {
                history.push((now(), rows));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_java(running: &Running) -> bool {
    matches!(running, Running::Java(_))
}

fn is_ours(running: &Running) -> bool {
    matches!(running, Running::Ours(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_l3_o1_d1_a_fleet_of_kcl_workers_and_ours() {
    let Some(lab) = lab("mixed-fleet").await else { return };
    if java::program("mixed-fleet", "KclWorker").is_none() {
        return;
    }
    let mut random = Random::new(seed("mixed-fleet"));
    let mut fleet = Fleet::new(&lab);

    fleet.start_java("java-1");
    fleet.start_java("java-2");
    fleet.settles("Java only").await;

    fleet.start_ours("ours-1").await;
    fleet.start_ours("ours-2").await;
    let victim = fleet.pick(&mut random, is_java).await;
    fleet.kill(&victim);
    fleet.settles("mixed, after a KCL worker's death").await;
    let shard = random.below(SHARDS as u64) as usize;
    fleet.split(shard);
    fleet.settles("mixed, after a split").await;
    let victim = fleet.pick(&mut random, is_ours).await;
    fleet.kill(&victim);
    fleet.settles("mixed, after the death of one of ours").await;
    fleet.start_ours("ours-3").await;

    let last = fleet.pick(&mut random, is_java).await;
    if random.below(2) == 0 {
        fleet.kill(&last);
    } else {
        fleet.stop(&last).await;
    }
    fleet.settles("ours only").await;
    println!("mixed-fleet: every shard rolls");
    fleet.stream.state().stream().roll();
    fleet.settles("ours only, after a roll").await;

    fleet.start_java("java-3");
    let victim = fleet.pick(&mut random, is_ours).await;
    fleet.kill(&victim);
    fleet.settles("mixed on the way back").await;
    let last = fleet.pick(&mut random, is_ours).await;
    fleet.stop(&last).await;
    fleet.settles("back to Java").await;

    fleet.drains().await;
    fleet.check();
}
