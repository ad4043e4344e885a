//! From Apache's Java connector to ours and back, on its own lease table (spec §7, test 4): its hole (W1) is there, and closed by `rewindOnAdopt`;
//! and it goes on from our rows. Rows that never got a position lose nothing (W5, W6).
//!
//! The stream is the stand-in: DynamoDB Local rounds creation times down to the minute, which says nothing about times. It has one
//! shard, since the Java connector loses records by itself where it has two (W7). The lease tables are DynamoDB Local's.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    ops::Range,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};

use serde_json::{Value, json};

use super::{
    Lab,
    connector::Connector,
    eventually, lab,
    table::{self, Item},
    topic::Topic,
    workers::now,
};
use crate::support::{
    java,
    stand_in::{StandIn, record},
};

/// KCL takes its time to start, on a busy machine more.
const PATIENCE: Duration = Duration::from_secs(90);
/// What Pulsar takes of the Java connector; the stream has more.
const SLOW: u64 = 400;

/// Apache's connector with a topic of a certain speed.
struct Peer {
    child: Child,
    /// The numbers of the records that it has handed to Pulsar.
    published: Arc<Mutex<BTreeSet<u64>>>,
}

impl Peer {
    fn start(lab: &Lab, stream: &StandIn, application: &str, records_a_second: u64) -> Self {
        Self::start_from(lab, stream, application, records_a_second, "TRIM_HORIZON")
    }

    fn start_from(lab: &Lab, stream: &StandIn, application: &str, records_a_second: u64, position: &str) -> Self {
        let mut program = Self::program(lab, stream, application, records_a_second, &json!({"initialPositionInStream": position}));
        let mut child = program.stdout(Stdio::piped()).spawn().expect("java starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let published = Arc::<Mutex<BTreeSet<u64>>>::default();
        let into = published.clone();
        std::thread::spawn(move || {
            for number in lines.map_while(Result::ok).filter_map(|line| Some(record::from_event_id(&line)?.1)) {
                into.lock().expect("no panic").insert(number);
            }
        });
        Self { child, published }
    }

    /// With more keys of its configuration.
    fn program(lab: &Lab, stream: &StandIn, application: &str, records_a_second: u64, more: &Value) -> Command {
        let mut configs = json!({
            "awsRegion": "us-east-1", "awsDynamodbStreamArn": stream.stream_arn(), "applicationName": application,
            "awsEndpoint": stream.endpoint(), "cloudwatchEndpoint": stream.endpoint(), "dynamoEndpoint": lab.dynamodb_endpoint,
            "awsCredentialPluginParam": json!({"accessKey": lab.access_key, "secretKey": "local"}).to_string(),
        });
        configs.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let mut program = java::program("upgrade", "JavaConnector").expect("asked before");
        program.args([configs.to_string(), records_a_second.to_string()]);
        program
    }

    fn published(&self) -> BTreeSet<u64> {
        self.published.lock().expect("no panic").clone()
    }

    /// kill -9. Returns what it has published.
    fn kill(mut self) -> BTreeSet<u64> {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it ends");
        // What is in the pipe was handed over.
        let drained = Instant::now() + Duration::from_secs(5);
        while Arc::strong_count(&self.published) > 1 && Instant::now() < drained {
            std::thread::yield_now();
        }
        self.published()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lease table, by its application's name.
struct Leases<'a> {
    client: &'a Client,
    name: String,
}

impl Leases<'_> {
    /// Its only row, once there is one that an owner has.
    async fn row(&self) -> Option<Item> {
        let rows = self.client.scan().table_name(&self.name).consistent_read(true).send().await.ok()?.items?;
        rows.into_iter().next().filter(|row| row.contains_key("leaseOwner"))
    }

    async fn checkpoint(&self) -> Option<String> {
        self.row().await?.get("checkpoint")?.as_s().ok().cloned()
    }

    /// Another table with the same row.
    async fn copy_to(&self, name: &str) {
        let key = AttributeDefinition::builder().attribute_name("leaseKey").attribute_type(ScalarAttributeType::S).build();
        let hash = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build();
        let create = self.client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
        let create = create.attribute_definitions(key.expect("complete")).key_schema(hash.expect("complete"));
        create.send().await.expect("the table is created");
        self.client.put_item().table_name(name).set_item(self.row().await).send().await.expect("put");
    }
}

/// Ours in its place: the Java connector's own keys, and what the guide says to add for the first start.
async fn adopt(lab: &Lab, stream: &StandIn, application: &str, more: &str) -> (Connector, Topic) {
    let topic = format!("persistent://public/default/{application}");
    let config = format!(
        "name: {application}\ntopicName: {topic}\nconfigs:\n  awsRegion: us-east-1\n  awsDynamodbStreamArn: {}\n  awsEndpoint: {}\n  \
         dynamoEndpoint: {}\n  applicationName: {application}\n  assumeOwnerDead: all\n{more}",
        stream.stream_arn(),
        stream.endpoint(),
        lab.dynamodb_endpoint,
    );
    let reader = Topic::from_start(lab, &topic).await;
    (Connector::start_as(lab, "source", application, &config), reader)
}

/// The numbers of what comes, in its order, up to the record `last`.
async fn read_to(topic: &mut Topic, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let message = topic.next().await;
        numbers.push(message.key.as_deref().and_then(record::from_event_id).expect("an event id of the stand-in").1);
    }
    numbers
}

fn missing(all: Range<u64>, published: &BTreeSet<u64>) -> usize {
    all.filter(|number| !published.contains(number)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn w1_the_hole_that_the_java_connector_leaves_is_closed_and_it_goes_on_from_our_rows() {
    let Some(lab) = lab("upgrade").await else { return };
    if java::program("upgrade", "JavaConnector").is_none() {
        return;
    }
    let client = table::client(&lab);
    let stream = StandIn::start(1, 1_000);
    stream.state().stream().write(0, 6_000);
    let leases = Leases { client: &client, name: format!("upgrade-{}", lab.unique) };

    // The Java connector under load.
    let peer = Peer::start(&lab, &stream, &leases.name, SLOW);
    eventually("the Java connector publishes", PATIENCE, async || (peer.published().len() > 500).then_some(())).await;
    let before = peer.kill();
    let checkpoint = leases.checkpoint().await.as_deref().and_then(record::number).expect("a number");
    let published = before.last().map_or(0, |last| last + 1);
    println!("upgrade: the Java connector has published {published} records and checkpointed {checkpoint}");
    assert!(checkpoint > published, "W1: it checkpoints what Pulsar does not have");

    // Adopted as they are, the rows have a hole.
    let plain = format!("upgrade-plain-{}", lab.unique);
    leases.copy_to(&plain).await;
    let (source, mut topic) = adopt(&lab, &stream, &plain, "").await;
    let mut with_plain = before.clone();
    with_plain.extend(read_to(&mut topic, 5_999).await);
    let hole = missing(0..6_000, &with_plain);
    println!("upgrade: without rewindOnAdopt {hole} records are missing");
    assert_eq!(hole as u64, checkpoint + 1 - published, "W1: the hole is there without rewindOnAdopt");
    assert!(source.stop().await.success());

    // Rewound, they have none.
    let begun = Instant::now();
    let (source, mut topic) = adopt(&lab, &stream, &leases.name, "  rewindOnAdopt: 300000\n").await;
    stream.state().stream().write(0, 1_000);
    let ours = read_to(&mut topic, 6_999).await;
    println!("upgrade: ours has adopted the row and caught up after {:.2?}", begun.elapsed());
    assert!(ours.is_sorted(), "O1");
    let mut all = before;
    all.extend(ours);
    assert_eq!(missing(0..7_000, &all), 0, "W1: rewindOnAdopt closes the hole");

    // Back: what the Java connector does with our row.
    assert!(source.stop().await.success());
    stream.state().stream().write(0, 1_000);
    let peer = Peer::start(&lab, &stream, &leases.name, 10_000);
    let caught_up = async || (peer.published().last() == Some(&7_999)).then_some(());
    eventually("L3: the Java connector goes on from our row", PATIENCE, caught_up).await;
    let after = peer.kill();
    println!("upgrade: back to the Java connector, which begins at record {:?}", after.first());
    assert_eq!(after.first(), Some(&7_000), "L3: it begins at our checkpoint");
    all.extend(after);
    assert_eq!(missing(0..8_000, &all), 0, "D1: nothing is lost on the way back");
}

/// The Java connector refuses AT_TIMESTAMP at its start, with whatever `startAtTime`: it gives the position to KCL before the time, and KCL takes it
/// only with one. Other programs around KCL leave such rows, and KCL never gets on with them (W5). A row at LATEST says nothing about when (W6).
#[tokio::test(flavor = "multi_thread")]
async fn w5_w6_d1_rows_of_java_workers_that_never_got_a_position_lose_nothing() {
    let Some(lab) = lab("positions").await else { return };
    if java::program("positions", "JavaConnector").is_none() {
        return;
    }
    let client = table::client(&lab);
    let stream = StandIn::start(1, 1_000);
    stream.state().stream().write(0, 300);
    let written = now();
    let start_at = (written / 1_000 + 1) * 1_000;
    let [latest, timed] = ["latest", "timed"].map(|name| Leases { client: &client, name: format!("{name}-{}", lab.unique) });

    let peer = Peer::start_from(&lab, &stream, &latest.name, SLOW, "LATEST");
    let mut kcl = java::program("positions", "KclWorker").expect("asked before");
    kcl.env("AWS_ACCESS_KEY_ID", &lab.access_key).args([
        "java-1",
        &timed.name,
        &stream.stream_arn(),
        &stream.endpoint(),
        &lab.dynamodb_endpoint,
        &start_at.to_string(),
    ]);
    let kcl = Peer { child: kcl.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("java starts"), published: Arc::default() };
    let refused = json!({"initialPositionInStream": "AT_TIMESTAMP", "startAtTime": start_at});
    let refused = Peer::program(&lab, &stream, "refused", SLOW, &refused).output().expect("java starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Invalid InitialPosition: AT_TIMESTAMP"), "W5: {said}");

    for (leases, position) in [(&latest, "LATEST"), (&timed, "AT_TIMESTAMP")] {
        let there = async || (leases.checkpoint().await? == position).then_some(());
        eventually("a Java worker owns a row without a position", PATIENCE, there).await;
    }
    assert!(peer.kill().is_empty() && kcl.kill().is_empty());
    // Nobody reads.
    stream.state().stream().write(0, 300);

    let (source, mut topic) = adopt(&lab, &stream, &latest.name, "  initialPositionInStream: LATEST\n").await;
    assert_eq!(read_to(&mut topic, 599).await, Vec::from_iter(0..600), "W6: the whole shard, since nobody knows from when");
    assert!(source.stop().await.success());

    let more = format!("  initialPositionInStream: AT_TIMESTAMP\n  startAtTime: {start_at}\n");
    let (source, mut topic) = adopt(&lab, &stream, &timed.name, &more).await;
    assert_eq!(read_to(&mut topic, 599).await, Vec::from_iter(300..600), "W5: what was written from then on");
    assert!(source.stop().await.success());
}
