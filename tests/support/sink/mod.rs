//! Fakes of the sink's ports.
//!
//! All messages are about items with the N key `pk`; a put carries its version `v`, unique in a test. So the fakes know what each
//! message means and check the invariants where they could break: the table K1, the broker A1.

pub mod broker;
pub mod dead_topic;
pub mod model;
pub mod registry;
pub mod table;

use std::{sync::Arc, time::Duration};

use pulsar_io_dynamodb::{
    error::Result,
    metrics::health::Health,
    ports::{Schema, SchemaKind},
    sink::{Settings, decode::Rules, mode::Mode, run, shape::Shape},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    broker::{Broker, Consumer},
    dead_topic::DeadTopic,
    model::Rule,
    registry::Registry,
    table::Table,
};

/// What a message does to its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Put(u64),
    /// Carries the version under a second name too: one of three, so that updates leave something of one another.
    Set(u64),
    Delete,
    /// Cannot be read.
    Poison,
    /// The table refuses it: nothing before sending finds that.
    Refused(u64),
}

/// One message: an item's key and what happens to it. `form` picks one of the ways to say so.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub key: u64,
    pub effect: Effect,
    pub form: usize,
    /// A put in Avro, by this version of the schema (see `avro_schema`).
    pub schema: Option<u8>,
    /// Where not 0, the message has this SEQUENCE_NUMBER.
    pub sequence: u64,
}

/// A put by a schema version.
pub fn avro(key: u64, version: u64, schema: u8) -> Message {
    Message { schema: Some(schema), ..put(key, version) }
}

/// Even versions have the key first, odd ones the version.
pub fn avro_schema(version: u8) -> Schema {
    let (first, second) = if version.is_multiple_of(2) { ("pk", "v") } else { ("v", "pk") };
    let field = |name: &str| format!(r#"{{"name":"{name}","type":"long"}}"#);
    let definition = format!(r#"{{"type":"record","name":"Item","fields":[{},{}]}}"#, field(first), field(second));
    Schema { kind: SchemaKind::Avro, definition: definition.into(), properties: Default::default() }
}

/// A small number in Avro's variable-length encoding.
fn avro_long(number: u64) -> Vec<u8> {
    let mut zigzag = number << 1;
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

pub fn put(key: u64, version: u64) -> Message {
    Message { key, effect: Effect::Put(version), form: version as usize, schema: None, sequence: 0 }
}

pub fn delete(key: u64) -> Message {
    Message { key, effect: Effect::Delete, form: 0, schema: None, sequence: 0 }
}

pub fn poison(key: u64) -> Message {
    Message { key, effect: Effect::Poison, form: 0, schema: None, sequence: 0 }
}

pub fn refused(key: u64, version: u64) -> Message {
    Message { key, effect: Effect::Refused(version), form: 0, schema: None, sequence: 0 }
}

impl Message {
    pub fn payload(&self) -> Vec<u8> {
        if let (Some(schema), Effect::Put(v)) = (self.schema, self.effect) {
            let (first, second) = if schema.is_multiple_of(2) { (self.key, v) } else { (v, self.key) };
            return [avro_long(first), avro_long(second)].concat();
        }
        self.text().into()
    }

    fn text(&self) -> String {
        let key = self.key;
        match self.effect {
            Effect::Poison => format!("{{\"pk\": {key}"),
            Effect::Refused(v) => format!(r#"{{"pk":{{"N":"{key}"}},"v":{{"N":"{v}"}},"refuse":{{"BOOL":true}}}}"#),
            Effect::Delete => format!(r#"{{"eventName":"REMOVE","dynamodb":{{"Keys":{{"pk":{{"N":"{key}.0"}}}}}}}}"#),
            Effect::Set(v) => format!(r#"{{"pk":{key},"v":{v},"a{}":{v}}}"#, v % 3),
            Effect::Put(v) => match self.form % 4 {
                0 => format!(r#"{{"pk":{key},"v":{v}}}"#),
                1 => format!(r#"{{"pk":{{"N":"{key}.00"}},"v":{{"N":"{v}"}}}}"#),
                2 => format!(r#"{{"Item":{{"pk":{{"N":"0{key}"}},"v":{{"N":"{v}"}}}}}}"#),
                _ => {
                    let image = format!(r#"{{"pk":{{"N":"{key}"}},"v":{{"N":"{v}"}}}}"#);
                    format!(
                        r#"{{"eventName":"MODIFY","dynamodb":{{"Keys":{{"pk":{{"N":"{key}E0"}}}},"NewImage":{image},"OldImage":{image}}}}}"#
                    )
                }
            },
        }
    }
}

/// A broker, a table and a dead-letter topic, which outlive the workers between them.
pub struct World {
    pub broker: Broker,
    pub table: Table,
    pub dead_topic: DeadTopic,
    pub registry: Registry,
    pub health: Health,
    pub settings: Settings,
    pub with_dead_topic: bool,
}

impl World {
    pub fn new() -> Self {
        let (table, dead_topic) = (Table::default(), DeadTopic::default());
        let settings = Settings {
            table_name: "copies".into(),
            created_key: None,
            rules: Rules::default(),
            shape: Shape::default(),
            mode: Mode::default(),
            max_batch: 25,
            max_in_flight: 8,
            max_buffered: 1000,
            max_buffered_bytes: 1 << 20,
            coalesce: true,
            flush_timeout: Duration::from_millis(10),
            backoff: Duration::from_millis(50),
            by_key: false,
            max_write_capacity: None,
            fail_on_error: false,
            drain_timeout: Duration::from_secs(20),
            worker_id: "public/default/copier-0".into(),
        };
        Self {
            broker: Broker::new(table.clone(), dead_topic.clone()),
            table,
            dead_topic,
            registry: Registry::default(),
            health: Health::default(),
            settings,
            with_dead_topic: true,
        }
    }

    /// Messages are written, and the fakes judge what is written, by this rule.
    pub fn follow(&mut self, rule: Rule) {
        self.settings.mode = rule.mode();
        self.broker.follow(rule);
        self.table.lands_late(rule == Rule::Newest);
    }

    pub fn start(&self) -> Running {
        self.start_with(self.broker.connect())
    }

    /// One more sink on the subscription, which waits for its turn.
    pub fn join(&self) -> Running {
        self.start_with(self.broker.join())
    }

    pub fn start_with(&self, consumer: Consumer) -> Running {
        let stop = CancellationToken::new();
        let worker = run(
            self.settings.clone(),
            consumer,
            Arc::new(self.registry.clone()),
            Arc::new(self.table.clone()),
            self.with_dead_topic.then(|| self.dead_topic.clone()),
            self.health.clone(),
            stop.clone(),
        );
        Running { handle: tokio::spawn(worker), stop }
    }

    /// Waits until every entry is acknowledged.
    pub async fn all_acked(&self) {
        eventually("all entries are acknowledged", || self.broker.unacked().is_empty()).await;
    }

    /// The table holds what the last writable message of each key says.
    pub fn assert_last_message_wins(&self) {
        assert_eq!(self.table.rows(), self.broker.expected(), "the last message for each key wins");
    }
}

/// A worker at work.
pub struct Running {
    handle: JoinHandle<Result<()>>,
    stop: CancellationToken,
}

impl Running {
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Result<()> {
        let joined = tokio::time::timeout(Duration::from_secs(3600), self.handle).await.expect("the worker ends");
        joined.expect("the worker does not panic")
    }

    pub fn is_running(&self) -> bool {
        !self.handle.is_finished()
    }

    /// As `kill -9`: whatever is under way may have landed or not.
    pub async fn kill(self, table: &Table) {
        self.handle.abort();
        let _ = self.handle.await;
        eventually("the calls are dropped", || table.in_flight() == 0).await;
    }
}

/// Polls until `condition` holds; panics after ten minutes of (paused) time.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(600), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}
