//! The broker in trouble while changes flow, all of it real: the topic is unloaded again and again, the broker is restarted. The source goes on by
//! itself, nothing is lost, and what comes twice is what was on its way at that moment (D1, O1, C1, H1).

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    env,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_dynamodb::types::StreamViewType;
use tokio::process::Command;

use super::{
    Lab,
    connector::{Connector, source_config},
    eventually, lab, seed,
    shop::{Seen, Shop},
    table::Table,
    topic::{Message, Topic},
    workers::now,
};
use crate::contract::{publisher::admin, pulsar::BROKER};

const CHANGES: usize = 1_500;
const ITEMS: usize = 300;
/// The largest batch: so many messages can be under way to a topic.
const BATCH: usize = 100;
const PATIENCE: Duration = Duration::from_secs(180);
const UNLOADS: usize = 4;

/// The lease's checkpoint at a time, in epoch milliseconds.
type Checkpoints = Vec<(u64, u128)>;

/// A table whose changes flow through one source into one topic.
struct Flow {
    table: Table,
    topic: String,
    source: Connector,
    checkpoints: Arc<Mutex<Checkpoints>>,
}

impl Flow {
    async fn start(lab: &Lab) -> Self {
        let table = Table::create(lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
        let topic = format!("persistent://public/default/{}", lab.unique);
        // The topic keeps what this subscription has not acknowledged.
        drop(Topic::from_start(lab, &topic).await);
        let batch = BATCH.to_string();
        let more = BTreeMap::from([("checkpointInterval", "100"), ("batchingMaxMessages", batch.as_str())]);
        let application = format!("app-{}", lab.unique);
        let source = Connector::start(lab, "source", &source_config(&topic, &table.name, &application, &more));
        let checkpoints = Arc::<Mutex<Checkpoints>>::default();
        tokio::spawn(watch(table.client.clone(), application, checkpoints.clone()));
        Self { table, topic, source, checkpoints }
    }

    /// Writes all changes, so that a part of them is always on its way, while `trouble` is made.
    async fn run(&mut self, lab: &Lab, trouble: impl AsyncFnOnce(&mut Connector, &str)) {
        let mut shop = Shop::new(seed(&lab.unique), ITEMS);
        let published = Cell::new(0);
        let write = async {
            while shop.written < CHANGES {
                shop.change(&self.table, CHANGES - shop.written).await;
            }
        };
        let publish = async {
            trouble(&mut self.source, &self.topic).await;
            let all = async || {
                published.set(self.source.metric("dynamodb_source_published_total").await);
                (published.get() as usize >= CHANGES).then_some(())
            };
            eventually("D1: every change is acknowledged", PATIENCE, all).await;
        };
        tokio::join!(write, publish);
    }

    /// Ends the source and checks what is in the topic, after so many troubles.
    async fn check(self, lab: &Lab, troubles: usize) {
        let Self { topic, source, checkpoints, .. } = self;
        assert!(source.stop().await.success(), "Z1");
        let mut reader = Topic::from_start(lab, &topic).await;
        let (mut seen, mut messages) = (Seen::default(), Vec::new());
        while seen.distinct() < CHANGES {
            let message = reader.next().await;
            seen.add(&message);
            messages.push((sequence(&message), message.publish_time));
        }
        let repeats = repeats(&messages);
        let checkpoints = std::mem::take(&mut *checkpoints.lock().expect("no panic"));
        println!("{}: {} messages, repeated {repeats:?}, {} looks at the checkpoint", lab.unique, messages.len(), checkpoints.len());
        assert!(repeats.len() <= troubles, "nothing is repeated but by trouble: {repeats:?}");
        assert!(repeats.iter().all(|repeated| *repeated <= BATCH), "no more than what was under way: {repeats:?}");
        assert_behind_the_topic(&checkpoints, &messages);
    }
}

fn sequence(message: &Message) -> u128 {
    message.properties["SEQUENCE_NUMBER"].parse().expect("a number")
}

/// How many messages came again at a time, each time. Fails where that is not the very last of what came before, in order.
fn repeats(messages: &[(u128, u64)]) -> Vec<usize> {
    let (mut newest, mut at, mut runs) = (0, None, Vec::new());
    for (sequence, _) in messages {
        if *sequence > newest {
            assert!(at.is_none_or(|at| at == newest), "O1: what is repeated ends with the last one before");
            (newest, at) = (*sequence, None);
        } else {
            match at {
                Some(at) if *sequence > at => *runs.last_mut().expect("begun") += 1,
                _ => runs.push(1),
            }
            at = Some(*sequence);
        }
    }
    runs
}

/// C1: when a checkpoint was there, each record up to it had been sent and was stored by that. What the broker lost is sent again, and later.
fn assert_behind_the_topic(checkpoints: &Checkpoints, messages: &[(u128, u64)]) {
    let mut first_sent: HashMap<u128, u64> = HashMap::new();
    for (sequence, sent) in messages {
        first_sent.entry(*sequence).or_insert(*sent);
    }
    assert!(checkpoints.iter().any(|(_, checkpoint)| *checkpoint > messages[0].0), "a checkpoint was written");
    for (at, checkpoint) in checkpoints {
        let late = first_sent.iter().find(|(sequence, sent)| *sequence <= checkpoint && *sent > at);
        assert_eq!(late, None, "C1: the checkpoint was {checkpoint} at {at}");
    }
}

/// Looks at the lease table's one row.
async fn watch(client: aws_sdk_dynamodb::Client, leases: String, checkpoints: Arc<Mutex<Checkpoints>>) {
    loop {
        let rows = client.scan().table_name(&leases).consistent_read(true).send().await.ok().and_then(|page| page.items);
        let row = rows.and_then(|rows| rows.into_iter().next());
        let checkpoint = row.and_then(|row| row.get("checkpoint")?.as_s().ok()?.parse().ok());
        if let Some(checkpoint) = checkpoint {
            let mut checkpoints = checkpoints.lock().expect("no panic");
            if checkpoints.last().is_none_or(|(_, last)| *last != checkpoint) {
                checkpoints.push((now(), checkpoint));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_o1_c1_a_topic_that_is_unloaded_again_and_again_loses_nothing() {
    let Some(lab) = lab("unload").await else { return };
    let mut flow = Flow::start(&lab).await;
    let unload = async |source: &mut Connector, topic: &str| {
        for unload in 1..=UNLOADS {
            let moment = (CHANGES / (UNLOADS + 1) * unload) as u64;
            let reached = async || (source.metric("dynamodb_source_published_total").await >= moment).then_some(());
            eventually("the source goes on after an unload", PATIENCE, reached).await;
            admin("PUT", topic, "/unload", "").await;
        }
    };
    flow.run(&lab, unload).await;
    assert_eq!(flow.source.health().await.as_deref(), Some(""), "H1");
    flow.check(&lab, UNLOADS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_d1_o1_c1_a_broker_that_is_restarted_is_told_and_loses_nothing() {
    let Some(lab) = lab("restart").await else { return };
    let mut flow = Flow::start(&lab).await;
    let restart = async |source: &mut Connector, _: &str| {
        let reached = async || (source.metric("dynamodb_source_published_total").await >= CHANGES as u64 / 2).then_some(());
        eventually("half is published", PATIENCE, reached).await;
        // Nobody else may be at work with it.
        let _alone = BROKER.write().await;
        let mut restart = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/parts"))
            .arg("restart-pulsar")
            .arg(env::var_os("PARTS_DIR").expect("beside PULSAR_URL"))
            .stdin(Stdio::null())
            .spawn()
            .expect("scripts/parts starts");
        let told = async || {
            let texts = ["no answer from Pulsar", "connect to Pulsar at", "publish to topic"];
            source.health().await.filter(|reasons| texts.iter().any(|text| reasons.contains(text)))
        };
        let reasons = eventually("H1: health says what is wrong", PATIENCE, told).await;
        println!("{}: while the broker is away: {}", lab.unique, reasons.trim());
        assert!(restart.wait().await.expect("it ends").success(), "the broker is there again");
    };
    flow.run(&lab, restart).await;
    assert_eq!(flow.source.health().await.as_deref(), Some(""), "H1: green after the outage");
    flow.check(&lab, 1).await;
}
