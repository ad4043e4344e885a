//! What the shim tells at the start.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    config::{
        self,
        load::{Document, properties},
        sink::{Consumer, Sink, SinkKeys, aliases::ALIASES},
        source::{Source, SourceKeys},
        worker_id,
    },
    error::{Error, Kind, Result},
};

/// The first frame.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Open {
    kind: Direction,
    /// Which of several parallel instances, from 0 on.
    instance: u32,
    connector: Connector,
    /// With the secrets that Pulsar has put in for `${NAME}`.
    configs: Map<String, Value>,
    /// As Pulsar's provider has resolved them.
    secrets: Map<String, Value>,
}

/// Pulsar's `SourceConfig` or `SinkConfig`, of which this is what counts here. The rest Pulsar does by itself: subscribing, batching, dead letters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connector {
    tenant: String,
    namespace: String,
    name: String,
    /// Of a source: the topic that it publishes to.
    #[serde(default)]
    topic_name: Option<String>,
    /// Of a sink: the topics that it consumes.
    #[serde(default)]
    inputs: Vec<String>,
    /// Pulsar keeps it, by what is acknowledged.
    processing_guarantees: String,
    /// Of a sink: a Failover subscription.
    #[serde(default)]
    retain_ordering: Option<bool>,
    /// Of a sink: a Key_Shared subscription.
    #[serde(default)]
    retain_key_ordering: Option<bool>,
    /// Of a sink: how often Pulsar delivers what is given back before it goes to the dead-letter topic. Negative or absent: without end.
    #[serde(default)]
    max_message_retries: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Source,
    Sink,
}

/// What is to run.
#[derive(Debug)]
pub enum Job {
    Source(Box<Source>),
    Sink { sink: Box<Sink>, redelivers: bool },
}

/// Reads the frame's JSON and checks the configuration in it: all problems at once.
pub fn job(json: &[u8], environment: &BTreeMap<String, String>) -> Result<Job> {
    let open: Open = serde_json::from_slice(json)
        .map_err(|error| Error::new(Kind::Configuration, "understand the NAR's shim", format!("its OPEN frame: {error}")))?;
    let connector = &open.connector;
    let worker = worker_id(&connector.tenant, &connector.namespace, &connector.name, open.instance);
    // A Failover subscription does not count deliveries: what is given back would come again for ever.
    let counts = !connector.retain_ordering.unwrap_or_default();
    let (kind, redelivers) = (open.kind, counts && connector.max_message_retries.is_some_and(|retries| retries >= 0));
    let document = open.document();
    match kind {
        Direction::Source => {
            let mut source = config::source::check(&document, environment, config::Transport::PulsarIo)?;
            source.settings.worker_id = worker;
            Ok(Job::Source(Box::new(source)))
        }
        Direction::Sink => {
            let mut sink = config::sink::check(&document, environment, Consumer::PulsarIo { buries: redelivers })?;
            sink.settings.worker_id = worker;
            Ok(Job::Sink { sink: Box::new(sink), redelivers })
        }
    }
}

impl Open {
    /// As the file that other hosts read.
    fn document(mut self) -> Document {
        // Pulsar fills secrets in under any name, as `${NAME}`; those that are named like a key stand for it.
        let (known, aliases) = match self.kind {
            Direction::Source => (properties::<SourceKeys>(), Default::default()),
            Direction::Sink => (properties::<SinkKeys>(), ALIASES),
        };
        self.secrets.retain(|name, _| known.contains_key(name) || aliases.names.iter().any(|(alias, _)| alias == name));
        let Connector { tenant, namespace, name, topic_name, inputs, processing_guarantees, retain_ordering, retain_key_ordering, .. } =
            self.connector;
        let mut top: Vec<(&str, Value)> = vec![
            ("tenant", tenant.into()),
            ("namespace", namespace.into()),
            ("name", name.into()),
            ("processingGuarantees", processing_guarantees.into()),
            ("configs", self.configs.into()),
            ("secrets", self.secrets.into()),
        ];
        match self.kind {
            Direction::Source => top.push(("topicName", topic_name.into())),
            Direction::Sink => top.extend([
                ("inputs", inputs.into()),
                ("retainOrdering", retain_ordering.unwrap_or_default().into()),
                ("retainKeyOrdering", retain_key_ordering.unwrap_or_default().into()),
            ]),
        }
        Document { name: "of the connector".into(), top: top.into_iter().map(|(name, value)| (name.into(), value)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(changes: &[(&str, Value)]) -> Result<Source> {
        let connector = json!({
            "tenant": "public", "namespace": "default", "name": "orders", "topicName": "out", "processingGuarantees": "ATLEAST_ONCE",
            // Pulsar's own affair, and refused where we publish by ourselves.
            "batchBuilder": "KEY_BASED", "parallelism": 4,
        });
        let mut open = json!({
            "kind": "source", "instance": 3, "connector": connector, "secrets": {},
            "configs": {"awsDynamodbStreamArn": "table:orders", "awsRegion": "us-east-1", "numRetries": 5.0},
        });
        for (key, value) in changes {
            open[key] = value.clone();
        }
        match job(open.to_string().as_bytes(), &BTreeMap::new())? {
            Job::Source(source) => Ok(*source),
            Job::Sink { .. } => unreachable!("a source was asked for"),
        }
    }

    #[test]
    fn a_parallel_instance_is_a_worker_of_its_own() {
        let source = source(&[("configs", json!({"awsDynamodbStreamArn": "table:orders", "awsRegion": "us-east-1"}))]).expect("complete");
        assert_eq!(source.settings.worker_id, "public/default/orders-3");
        assert_eq!(source.topic, "persistent://public/default/out");
    }

    fn sink(connector: Value, configs: Value) -> Result<Job> {
        let mut whole = json!({
            "tenant": "public", "namespace": "default", "name": "copy", "inputs": ["in"], "processingGuarantees": "ATLEAST_ONCE"
        });
        whole.as_object_mut().expect("an object").extend(connector.as_object().expect("an object").clone());
        let mut all = json!({"tableName": "copy", "awsRegion": "us-east-1"});
        all.as_object_mut().expect("an object").extend(configs.as_object().expect("an object").clone());
        let open = json!({"kind": "sink", "instance": 0, "connector": whole, "secrets": {}, "configs": all});
        job(open.to_string().as_bytes(), &BTreeMap::new())
    }

    #[test]
    fn what_is_pulsars_own_affair_is_not_asked_of_the_sink() {
        let pattern = json!({"inputs": ["persistent://public/default/orders-.*"], "transformFunction": "builtin://transforms"});
        sink(pattern, json!({})).expect("Pulsar consumes and transforms");
        for kind in ["Shared", "Exclusive"] {
            let error = sink(json!({}), json!({"subscriptionType": kind})).expect_err(kind).to_string();
            assert!(error.contains("configs.subscriptionType: is for sinks that subscribe by themselves"), "{error}");
        }
        let dead_letter = || json!({"onConditionFailure": "deadLetter", "conditionExpression": "attribute_exists(pk)"});
        sink(json!({"maxMessageRetries": 2, "deadLetterTopic": "dead"}), dead_letter()).expect("Pulsar buries");
        let error = sink(json!({"deadLetterTopic": "dead"}), dead_letter()).expect_err("it would not").to_string();
        assert!(error.contains("configs.onConditionFailure: deadLetter needs"), "{error}");
        let error = sink(json!({"maxMessageRetries": 2}), json!({"failOnError": true})).expect_err("both").to_string();
        assert!(error.contains("configs.failOnError"), "{error}");
    }

    #[test]
    fn k1_a_sink_knows_the_subscription_that_pulsar_has_made_for_it() {
        for (retained, by_key, counts) in [
            (json!({"retainKeyOrdering": true, "retainOrdering": false, "maxMessageRetries": 2}), true, true),
            (json!({"retainOrdering": null, "maxMessageRetries": 0}), false, true),
            (json!({"retainOrdering": true, "maxMessageRetries": 2}), false, false),
            (json!({"maxMessageRetries": -1}), false, false),
        ] {
            let Job::Sink { sink, redelivers } = sink(retained.clone(), json!({})).expect("complete") else { panic!("a sink") };
            assert_eq!((sink.settings.by_key, redelivers), (by_key, counts), "{retained}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once_and_no_secret() {
        let error = source(&[
            ("configs", json!({"awsDynamodbStreamArn": "nonsense", "awsRegoin": "x"})),
            ("secrets", json!({"awsSecretAccessKey": "hush", "ANY_NAME": "hush"})),
        ]);
        let error = error.expect_err("wrong").to_string();
        assert!(error.contains("did you mean awsRegion?") && error.contains("nonsense") && !error.contains("hush"), "{error}");
        assert!(!error.contains("ANY_NAME"), "{error}");
    }

    #[test]
    fn an_unknown_field_of_the_shim_is_refused_with_a_sentence() {
        let error = source(&[("compression", json!("new"))]).expect_err("unknown").to_string();
        assert!(error.contains("OPEN frame") && error.contains("compression"), "{error}");
    }
}
