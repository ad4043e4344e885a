//! EFFECTIVELY_ONCE with the archive and a topic that deduplicates: each record is in the topic exactly once, whatever is killed in the middle (D2).
//!
//! `ONCE_RECORDS` says how many records there are: 20,000 without it.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    time::Instant,
};

use serde_json::json;
use tokio::time::timeout;

use super::{
    Lab, Random, eventually,
    functions::{Functions, PATIENCE},
    lab,
    nar::{archive, ended, instances, signal},
    seed, table,
    topic::Topic,
};
use crate::support::stand_in::{StandIn, record::from_event_id};

const SHARDS: usize = 2;

/// What happens in the middle.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// kill -9 of a native process.
    KillProcess,
    /// kill -9 of a virtual machine.
    KillMachine,
    /// A clean end and a new start of all, two of them then. Over once the second one has got a shard from the first.
    TwoInstances,
    /// SIGSTOP of a native process until it has lost its leases, and SIGCONT.
    Freeze,
}

fn records() -> u64 {
    env::var("ONCE_RECORDS").map_or(20_000, |text| text.parse().expect("ONCE_RECORDS is a number"))
}

/// A namespace whose topics deduplicate. Returns the topic's name.
async fn topic(functions: &Functions<'_>, lab: &Lab) -> String {
    let namespace = format!("public/{}", lab.unique);
    let path = format!("/admin/v2/namespaces/{namespace}");
    functions.request("PUT", &path, "application/json", b"{}").await.expect("a namespace");
    functions.request("POST", &format!("{path}/deduplication"), "application/json", b"true").await.expect("deduplication on");
    format!("persistent://{namespace}/changes")
}

/// What has come of each record, by shard and number.
#[derive(Default)]
struct Seen {
    counts: HashMap<(u64, u64), u32>,
    messages: u64,
}

impl Seen {
    async fn add(&mut self, topic: &mut Topic) {
        // A virtual machine starts in seconds, and in minutes where others work on the same machine.
        let message = timeout(PATIENCE * 3, topic.next_whenever()).await.expect("a message, within the time of a restart");
        let key = message.key.as_deref().and_then(from_event_id).expect("an event id");
        *self.counts.entry(key).or_default() += 1;
        self.messages += 1;
    }

    async fn until(&mut self, topic: &mut Topic, records: u64) {
        while (self.counts.len() as u64) < records {
            self.add(topic).await;
        }
    }
}

async fn happen(event: Event, functions: &Functions<'_>, name: &str, random: &mut Random) {
    let there = eventually("instances", PATIENCE, async || Some(instances(name)).filter(|there| !there.is_empty())).await;
    let one = there[random.below(there.len() as u64) as usize];
    match event {
        Event::KillProcess => signal("-KILL", one.native).await,
        Event::KillMachine => signal("-KILL", one.machine).await,
        Event::TwoInstances => {
            functions.admin(&["sources", "update", "--name", name, "--parallelism", "2"]).await;
            let table = format!("leases-{}", functions.lab.unique);
            eventually("each has a shard", PATIENCE, async || {
                let rows = table::client(functions.lab).scan().table_name(&table).send().await.expect("scan").items.unwrap_or_default();
                let owners: BTreeSet<_> = rows.iter().filter_map(|row| row.get("leaseOwner")?.as_s().ok()).collect();
                (owners.len() == 2).then_some(())
            })
            .await;
        }
        Event::Freeze => signal("-STOP", one.native).await,
    }
    println!("{event:?}: {one:?}");
}

async fn each_once(test: &str, events: &[Event]) {
    let Some(lab) = lab(test).await else { return };
    let mut random = Random::new(seed(test));
    let (functions, records) = (Functions::new(&lab).await, records());
    let (archive, topic) = (archive(&functions).await, topic(&functions, &lab).await);
    let name = format!("{test}-{}", lab.unique);
    let stream = StandIn::start(SHARDS, 600);
    let write = |count: u64| (0..SHARDS).for_each(|shard| stream.state().stream().write(shard, count));
    let (parts, shards) = (events.len() as u64 + 1, SHARDS as u64);
    let part = records / parts / shards * shards;
    write(part / shards);
    let config = functions.config(json!({
        "awsDynamodbStreamArn": stream.stream_arn(), "awsEndpoint": stream.endpoint(), "dynamoEndpoint": lab.dynamodb_endpoint, "awsSecretKey": "local",
        "applicationName": format!("leases-{}", lab.unique), "initialPositionInStream": "TRIM_HORIZON",
    }));
    let create = ["sources", "create", "--archive", &archive, "--name", &name, "--destination-topic-name", &topic];
    let once = ["--processing-guarantees", "EFFECTIVELY_ONCE", "--runtime-flags", "-Dpulsar.io.dynamodb.silence.ms=12000"];
    let mut reader = Topic::from_start(&lab, &topic).await;
    let (mut seen, began) = (Seen::default(), Instant::now());
    functions.admin(&[&create[..], &once, &["--source-config", &config]].concat()).await;
    for (at, event) in (1..).zip(events) {
        seen.until(&mut reader, at * part - random.below(part / 2)).await;
        happen(*event, &functions, &name, &mut random).await;
        write(part / shards);
    }
    seen.until(&mut reader, parts * part).await;
    // What was published twice stands before these, at the latest.
    write(1);
    let records = parts * part + shards;
    seen.until(&mut reader, records).await;
    let twice = seen.counts.values().filter(|count| **count > 1).count();
    println!("{test}: {} messages of {} records in {:?}, {twice} of them twice", seen.messages, seen.counts.len(), began.elapsed());
    assert_eq!((seen.messages, twice), (records, 0));
    functions.admin(&["sources", "delete", "--name", &name]).await;
    ended(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_each_record_is_there_once_after_kills_of_the_native_process() {
    each_once("once-process", &[Event::KillProcess, Event::KillProcess]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_each_record_is_there_once_after_a_kill_of_the_virtual_machine() {
    each_once("once-machine", &[Event::KillMachine]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_each_record_is_there_once_after_a_handover_between_two_instances_and_a_kill_of_one() {
    each_once("once-two", &[Event::TwoInstances, Event::KillMachine, Event::Freeze]).await;
}
