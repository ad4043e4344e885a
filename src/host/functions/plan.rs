//! From what was registered to a checked configuration: the document that a file would have been, and how to reach Pulsar.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::{details::Details, instance::Instance, numbers, secrets::Secrets};
use crate::{
    config::{
        self, load,
        load::Document,
        sink::{Sink, SinkFields, SinkKeys},
        source::{Source, SourceFields, SourceKeys},
        validate::{Problems, full_topic_name},
    },
    error::{Error, Kind, Result},
    pulsar::client,
};

/// The key of a function's `userConfig` that says which worker it is, where its other keys do not.
const CONNECTOR: &str = "connector";
/// The source's key that no sink has and no source can do without.
const STREAM: &str = "awsDynamodbStreamArn";

/// A worker's own part of the eight seconds that its host leaves it; after that its producers are closed, and its metrics sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pulsar knows an instance by these, so its configuration cannot change them.
const IDENTITY: [&str; 3] = ["tenant", "namespace", "name"];

/// All that a worker needs to start.
pub struct Plan {
    pub worker: Worker,
    pub pulsar: client::Settings,
    /// Its full name.
    pub log_topic: Option<String>,
}

/// Which of the two, with its configuration.
pub enum Worker {
    Source(Box<Source>),
    Sink(Box<Sink>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connector {
    Source,
    Sink,
}

/// Checks all of it: one error tells everything that is wrong.
pub fn plan(instance: &Instance, environment: &BTreeMap<String, String>) -> Result<Plan> {
    let mut problems = Problems::default();
    let registered = Registered::read(instance, environment, &mut problems);
    let worker = registered.check(instance, environment);
    let log_topic = Some(instance.details.log_topic.as_str()).filter(|topic| !topic.is_empty());
    let log_topic = log_topic.map(|topic| full_topic_name(topic, "logTopic", &mut problems));
    let pulsar = config::pulsar::of_a_worker(&instance.access);
    let found = problems.into_result(&described(instance));
    match (found, worker, pulsar) {
        (Ok(()), Ok(worker), Ok(pulsar)) => Ok(Plan { worker, pulsar, log_topic }),
        (found, worker, pulsar) => {
            let errors: Vec<Error> = [found.err(), worker.err(), pulsar.err()].into_iter().flatten().collect();
            let texts: Vec<_> = errors.iter().map(Error::to_string).collect();
            Err(match <[Error; 1]>::try_from(errors) {
                Ok([error]) => error,
                Err(_) => Error::new(Kind::Configuration, format!("start {}", instance.full_name()), texts.join("\n")),
            })
        }
    }
}

fn described(instance: &Instance) -> String {
    format!("of {}", instance.full_name())
}

/// What was registered, read but not checked.
struct Registered {
    connector: Connector,
    /// Pulsar's fields, as they would stand at the top of a file.
    top: Map<String, Value>,
    configs: Map<String, Value>,
    secrets: Map<String, Value>,
}

impl Registered {
    fn read(instance: &Instance, environment: &BTreeMap<String, String>, problems: &mut Problems) -> Self {
        let details = &instance.details;
        let mut secrets = Secrets::new(object(&details.secrets_map, "secrets", problems), environment, problems);
        let named = match details.component_type.as_str() {
            "SOURCE" => Some((Connector::Source, &details.source.configs)),
            "SINK" => Some((Connector::Sink, &details.sink.configs)),
            _ => None,
        };
        let mut given = Value::Object(object(named.map_or(&details.user_config, |(_, configs)| configs), "configs", problems));
        numbers::restore(&mut given);
        secrets.fill_in(&mut given, "configs", problems);
        let Value::Object(mut configs) = given else { unreachable!("it is still an object") };
        // Told by the key alone, since it may be in the environment or a secret.
        let reads_a_stream = configs.contains_key(STREAM) || environment.contains_key(&load::variable(STREAM));
        let connector = match named {
            Some((connector, _)) => connector,
            None => connector(configs.remove(CONNECTOR), reads_a_stream, problems),
        };
        let (fields, keys) = match connector {
            Connector::Source => (names::<SourceFields>(), names::<SourceKeys>()),
            Connector::Sink => (names::<SinkFields>(), names::<SinkKeys>()),
        };
        let secrets_by_key = keys.iter().filter_map(|key| Some((key.clone(), secrets.take(key)?.into()))).collect();
        secrets.report_unused(problems);

        let mut top = match connector {
            Connector::Source => source_fields(details, configs.contains_key("compressionType")),
            Connector::Sink => sink_fields(details),
        };
        if named.is_none() {
            // A function has no options for some of Pulsar's fields of a source or sink.
            let is_field = |name: &String| fields.contains(name) && !keys.contains(name) && !IDENTITY.contains(&name.as_str());
            let names: Vec<_> = configs.keys().filter(|name| is_field(name)).cloned().collect();
            top.extend(names.into_iter().filter_map(|name| configs.remove_entry(&name)));
        }
        top.extend([
            ("tenant".into(), instance.tenant.clone().into()),
            ("namespace".into(), instance.namespace.clone().into()),
            ("name".into(), instance.name.clone().into()),
        ]);
        Self { connector, top, configs, secrets: secrets_by_key }
    }

    fn check(self, instance: &Instance, environment: &BTreeMap<String, String>) -> Result<Worker> {
        let Self { connector, mut top, configs, secrets } = self;
        top.extend([("configs".into(), configs.into()), ("secrets".into(), secrets.into())]);
        let document = Document { name: described(instance), top };
        // Each of several parallel instances is a worker of its own.
        let worker_id = config::worker_id(&instance.tenant, &instance.namespace, &instance.name, instance.id);
        match connector {
            Connector::Source => {
                let mut source = config::source::check(&document, environment, config::Transport::Own)?;
                source.settings.worker_id = worker_id;
                source.settings.drain_timeout = DRAIN_TIMEOUT;
                Ok(Worker::Source(Box::new(source)))
            }
            Connector::Sink => {
                let mut sink = config::sink::check(&document, environment, config::sink::Consumer::Own)?;
                sink.settings.worker_id.clone_from(&worker_id);
                sink.settings.drain_timeout = DRAIN_TIMEOUT;
                sink.subscription.consumer_name = worker_id;
                Ok(Worker::Sink(Box::new(sink)))
            }
        }
    }
}

fn names<T: JsonSchema>() -> Vec<String> {
    load::properties::<T>().into_keys().collect()
}

/// A text that holds a JSON object, or nothing.
fn object(text: &str, what: &str, problems: &mut Problems) -> Map<String, Value> {
    if text.trim().is_empty() {
        return Map::new();
    }
    serde_json::from_str(text).unwrap_or_else(|error| {
        problems.add(what, format!("is no JSON object: {error}"));
        Map::new()
    })
}

fn connector(said: Option<Value>, reads_a_stream: bool, problems: &mut Problems) -> Connector {
    match said.as_ref().map(Value::as_str) {
        Some(Some("source")) => Connector::Source,
        Some(Some("sink")) => Connector::Sink,
        None if reads_a_stream => Connector::Source,
        None => Connector::Sink,
        Some(_) => {
            problems.add(CONNECTOR, "has to be source or sink");
            if reads_a_stream { Connector::Source } else { Connector::Sink }
        }
    }
}

/// This program acknowledges by itself, so that MANUAL says nothing more.
fn guarantees(details: &Details) -> Value {
    match details.processing_guarantees.as_str() {
        "" | "MANUAL" => "ATLEAST_ONCE".into(),
        other => other.into(),
    }
}

/// Pulsar's fields of a source. `compressed`: its own key says how.
fn source_fields(details: &Details, compressed: bool) -> Map<String, Value> {
    let mut producer = details.sink.producer_spec.clone();
    producer.retain(|_, value| value != "");
    if let Some(crypto) = producer.remove("cryptoSpec") {
        producer.insert("cryptoConfig".into(), crypto);
    }
    if !producer.is_empty() && !compressed {
        // The first of its enumeration, which protobuf's JSON leaves out.
        producer.entry("compressionType").or_insert("LZ4".into());
    }
    let mut fields =
        Map::from_iter([("processingGuarantees".into(), guarantees(details)), ("producerConfig".into(), Value::Object(producer))]);
    // A missing one is told as such.
    if !details.sink.topic.is_empty() {
        fields.insert("topicName".into(), details.sink.topic.clone().into());
    }
    fields
}

/// Pulsar's fields of a sink.
fn sink_fields(details: &Details) -> Map<String, Value> {
    let source = &details.source;
    let Value::Object(mut fields) = json!({
        "processingGuarantees": guarantees(details),
        "inputSpecs": source.input_specs,
        "sourceSubscriptionPosition": if source.subscription_position == "EARLIEST" { "Earliest" } else { "Latest" },
        "retainOrdering": details.retain_ordering || source.subscription_type == "FAILOVER",
        "retainKeyOrdering": details.retain_key_ordering || source.subscription_type == "KEY_SHARED",
    }) else {
        unreachable!("an object")
    };
    let given = [("sourceSubscriptionName", &source.subscription_name), ("deadLetterTopic", &details.retry_details.dead_letter_topic)];
    fields.extend(given.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), text.as_str().into())));
    fields
}
