//! Sinks that come, go and are killed while the broker and the table fail in every way that can be made here, for as long as is asked for
//! (`SOAK_MINUTES`, 1 by default; `scripts/soak`): at the end each item is what its last message says, nothing is unacknowledged, and the dead-letter topic has
//! what it should have and nothing else (50).

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pulsar_io_dynamodb::ports::{OutboundMessage, Publisher};
use tokio::{process::Command, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Lab, Random,
    connector::{Connector, sink_config},
    eventually, lab, seed,
    table::Table,
    topic::{Topic, publisher},
};
use crate::{
    contract::{publisher::admin, pulsar::BROKER},
    support::throttle::{Faults, Tally, Throttle},
};

const PARTITIONS: u32 = 2;
const ITEMS: u64 = 400;
/// Published at once, each of another item: an item's next message is published when its last one is stored.
const AT_ONCE: u64 = 40;
/// Between two such rounds: the topic is to be busy and not to grow for ever.
const PACE: Duration = Duration::from_millis(100);
/// One of so many messages is a delete, and one cannot be written.
const DELETES: u64 = 5;
const POISON: u64 = 400;
/// The broker needs a quarter of a minute to be there again.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(90);
/// Something has to be written within this time after each trouble, and all of it in the end; more than a machine needs that has other things to do.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the messages say.
#[derive(Debug, Default)]
struct Model {
    published: u64,
    /// Each item's last number.
    items: BTreeMap<String, String>,
    poison: BTreeSet<String>,
}

impl Model {
    /// The next message of an item.
    fn message(&mut self, item: u64, random: &mut Random) -> OutboundMessage {
        self.published += 1;
        let (name, number) = (format!("item-{item}"), self.published);
        let payload = if random.below(POISON) == 0 {
            self.poison.insert(number.to_string());
            format!(r#"{{"pk":"{name}","poison":"{number}"}}"#)
        } else if random.below(DELETES) == 0 {
            self.items.remove(&name);
            format!(r#"{{"pk":"{name}","sk":{item},"op":"d"}}"#)
        } else {
            self.items.insert(name.clone(), number.to_string());
            format!(r#"{{"pk":"{name}","sk":{item},"n":{number},"op":"u"}}"#)
        };
        OutboundMessage { key: Some(name), payload: payload.into_bytes(), ..OutboundMessage::default() }
    }
}

/// Publishes until it is told to stop.
async fn publish(lab: &Lab, topic: &str, seed: u64, stop: CancellationToken) -> Model {
    let (publisher, lanes) = publisher(lab, topic).await;
    let (mut random, mut model) = (Random::new(seed), Model::default());
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        pace.tick().await;
        let messages = (0..AT_ONCE).map(|of| model.message(random.below(ITEMS / AT_ONCE) * AT_ONCE + of, &mut random));
        let stored = messages.collect::<Vec<_>>().into_iter().map(async |message| {
            publisher.publish(message).await.expect("accepted").stored().await.expect("stored");
        });
        join_all(stored).await;
    }
    drop(publisher);
    lanes.finished().await;
    model
}

/// The sinks and what they are driven against.
struct Soak<'l> {
    lab: &'l Lab,
    table: Table,
    topic: String,
    config: String,
    throttle: Throttle,
    random: Random,
    sinks: Vec<Connector>,
    started: u64,
    restarted: Instant,
    /// What has been done, how often.
    done: BTreeMap<&'static str, u64>,
    met: Tally,
}

impl Soak<'_> {
    fn start(&mut self) {
        self.started += 1;
        self.sinks.push(Connector::start_as(self.lab, "sink", &format!("sink-{}", self.started), &self.config));
    }

    fn any(&mut self) -> Connector {
        let at = self.random.below(self.sinks.len() as u64) as usize;
        self.sinks.swap_remove(at)
    }

    /// One trouble, at a moment that nobody has chosen.
    async fn trouble(&mut self) {
        let pause = Duration::from_millis(self.random.below(4_000));
        tokio::time::sleep(pause).await;
        let what = match self.random.below(10) {
            0 | 1 => {
                self.any().kill();
                if self.sinks.is_empty() || self.random.below(2) == 0 {
                    self.start();
                }
                "killed"
            }
            2 | 3 if self.sinks.len() > 1 => {
                assert!(self.any().stop().await.success(), "Z1");
                "stopped"
            }
            2..=4 if self.sinks.len() < 3 => {
                self.start();
                "joined"
            }
            5 => {
                let partition = self.random.below(PARTITIONS.into());
                admin("PUT", &format!("{}-partition-{partition}", self.topic), "/unload", "").await;
                "unloaded"
            }
            6 if self.restarted.elapsed() >= BETWEEN_RESTARTS => {
                self.restart_broker().await;
                self.restarted = Instant::now();
                "broker restarted"
            }
            7 => {
                self.fail(Faults { refused: 100, ..Faults::default() });
                tokio::time::sleep(Duration::from_millis(500 + self.random.below(3_000))).await;
                self.fail(Faults::default());
                "table refuses all"
            }
            _ => {
                let [refused, lost, unprocessed] = [40, 10, 40].map(|most| self.random.below(most + 1));
                self.fail(Faults { refused, lost, unprocessed });
                "other faults"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn fail(&mut self, faults: Faults) {
        let Tally { refused, lost, unprocessed, passed } = self.throttle.fail(faults);
        let met = &mut self.met;
        for (sum, more) in
            [(&mut met.refused, refused), (&mut met.lost, lost), (&mut met.unprocessed, unprocessed), (&mut met.passed, passed)]
        {
            *sum += more;
        }
    }

    async fn restart_broker(&self) {
        let _alone = BROKER.write().await;
        let mut restart = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/parts"));
        restart.arg("restart-pulsar").arg(env::var_os("PARTS_DIR").expect("beside PULSAR_URL"));
        let status = restart.stdin(Stdio::null()).status().await.expect("scripts/parts starts");
        assert!(status.success(), "the broker is there again");
    }

    /// Whatever the trouble was, the sinks go on by themselves.
    async fn goes_on(&mut self) {
        let before = numbers(&self.table).await;
        let (table, sinks) = (&self.table, &mut self.sinks);
        let goes_on = async || {
            for sink in &mut *sinks {
                // Fails where one has ended by itself.
                sink.metric("dynamodb_sink_items_written_total").await;
            }
            (numbers(table).await != before).then_some(())
        };
        eventually("somebody writes", PATIENCE, goes_on).await;
    }
}

async fn numbers(table: &Table) -> BTreeMap<String, String> {
    let page = table.client.scan().table_name(&table.name).consistent_read(true).send().await.expect("a scan");
    let text = |value: &aws_sdk_dynamodb::types::AttributeValue| value.as_s().or(value.as_n()).expect("text").clone();
    page.items.unwrap_or_default().iter().map(|item| (text(&item["pk"]), text(&item["n"]))).collect()
}

/// Entries that are not acknowledged, of all partitions.
async fn backlog(topic: &str, subscription: &str) -> u64 {
    let stats = admin("GET", topic, "/partitioned-stats?getPreciseBacklog=true", "").await;
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    stats["subscriptions"][subscription]["msgBacklog"].as_u64().unwrap_or_else(|| panic!("no backlog of {subscription}: {stats}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn s50_k1_a1_z1_the_last_message_of_each_item_stays_whatever_fails() {
    let Some(lab) = lab("soak").await else { return };
    let minutes: f64 = env::var("SOAK_MINUTES").map_or(1.0, |minutes| minutes.parse().expect("SOAK_MINUTES is a number"));
    let seed = seed("soak");
    let table = Table::create(&lab, "soaked", None).await;
    let topic = format!("persistent://public/default/{}", table.name);
    let dead = format!("{topic}-dead");
    admin("PUT", &topic, "/partitions", &PARTITIONS.to_string()).await;
    // What is published to it before somebody reads it stays.
    drop(Topic::from_start(&lab, &dead).await);
    let mut draws = Random::new(seed + 1);
    let throttle = Throttle::of_batches(&lab.dynamodb_endpoint, &table.name, move |bound| draws.below(bound)).await;
    let proxied = Lab { dynamodb_endpoint: throttle.endpoint(), ..lab };
    let more = "  excludeFields: [op]\n  deleteMarker: {field: op, values: [d]}\n  maxBatchSize: 10\n  maxInFlightRequests: 4\n  flushTimeout: 20\n";
    let config = sink_config(&topic, &table.name, &format!("deadLetterTopic: {dead}")) + more;
    let mut soak = Soak {
        lab: &proxied,
        table,
        topic: topic.clone(),
        config,
        throttle,
        random: Random::new(seed + 2),
        sinks: Vec::new(),
        started: 0,
        restarted: Instant::now(),
        done: BTreeMap::new(),
        met: Tally::default(),
    };
    soak.fail(Faults { refused: 20, lost: 5, unprocessed: 20 });
    soak.start();
    soak.start();

    let stop = CancellationToken::new();
    let trouble = async {
        let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
        soak.goes_on().await;
        // Each run has one, however short it is.
        soak.restart_broker().await;
        *soak.done.entry("broker restarted").or_default() += 1;
        while Instant::now() < end {
            soak.trouble().await;
            soak.goes_on().await;
        }
        soak.fail(Faults::default());
        stop.cancel();
    };
    let (model, ()) = tokio::join!(publish(&proxied, &topic, seed, stop.clone()), trouble);

    let subscription = soak.table.name.clone();
    let (mut found, mut left) = (BTreeMap::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        (found, left) = (numbers(&soak.table).await, backlog(&topic, &subscription).await);
        if found == model.items && left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let names: BTreeSet<&String> = found.keys().chain(model.items.keys()).collect();
    let wrong: Vec<_> = names.into_iter().map(|name| (name, model.items.get(name), found.get(name))).filter(|(_, a, b)| a != b).collect();
    let Soak { sinks, table, done, met, .. } = soak;
    println!("soak: {minutes} minutes, {} messages, {} poisonous; {done:?}; {met:?}", model.published, model.poison.len());
    assert!(
        wrong.is_empty(),
        "{} items are not what their last message says (wanted, found): {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert_eq!(left, 0, "A1: all is acknowledged");
    for sink in sinks {
        assert!(sink.stop().await.success(), "Z1");
    }
    assert_eq!(numbers(&table).await, model.items, "something older came after it");
    let (mut letters, mut buried) = (Topic::from_start(&proxied, &dead).await, BTreeSet::new());
    // A message may be there twice, and after all of them there must be no other one.
    while buried != model.poison {
        buried.insert(poison(&letters.next().await.json));
    }
    while let Ok(letter) = tokio::time::timeout(Duration::from_secs(1), letters.next_whenever()).await {
        assert!(model.poison.contains(&poison(&letter.json)), "{letter:?}");
    }
    assert!(met.passed > 0 && met.refused > 0 && met.lost > 0 && met.unprocessed > 0 && done.len() > 1, "it was in trouble");
}

/// The number of a message that cannot be written. Fails where it could have been.
fn poison(letter: &serde_json::Value) -> String {
    letter["poison"].as_str().unwrap_or_else(|| panic!("{letter} is no dead letter")).to_owned()
}
