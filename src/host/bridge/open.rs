//! What the shim tells at the start.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    config::{
        self,
        load::{Document, properties},
        sink::{Sink, SinkKeys, aliases::ALIASES},
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
    tenant: String,
    namespace: String,
    name: String,
    /// Which of several parallel instances, from 0 on.
    instance: u32,
    /// Of a source: the topic that it publishes to.
    #[serde(default)]
    topic_name: Option<String>,
    /// Of a sink: the topics that it consumes.
    #[serde(default)]
    inputs: Vec<String>,
    /// As Pulsar has it; Pulsar keeps it, by what is acknowledged.
    processing_guarantees: String,
    /// Whether Pulsar moves a message to a dead-letter topic that is given back often enough.
    #[serde(default)]
    pub redelivers: bool,
    configs: Map<String, Value>,
    /// As Pulsar's provider has resolved them.
    #[serde(default)]
    secrets: Map<String, Value>,
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
    let worker = worker_id(&open.tenant, &open.namespace, &open.name, open.instance);
    let (kind, redelivers) = (open.kind, open.redelivers);
    let document = open.document();
    match kind {
        Direction::Source => {
            let mut source = config::source::check(&document, environment)?;
            source.settings.worker_id = worker;
            Ok(Job::Source(Box::new(source)))
        }
        Direction::Sink => {
            let mut sink = config::sink::check(&document, environment)?;
            sink.settings.worker_id = worker;
            Ok(Job::Sink { sink: Box::new(sink), redelivers })
        }
    }
}

impl Open {
    /// As the file that other hosts read. What Pulsar does by itself here (subscribing, batching, dead letters) is left out.
    fn document(mut self) -> Document {
        // Pulsar fills secrets in under any name, as `${NAME}`; those that are named like a key stand for it.
        let (known, aliases) = match self.kind {
            Direction::Source => (properties::<SourceKeys>(), Default::default()),
            Direction::Sink => (properties::<SinkKeys>(), ALIASES),
        };
        self.secrets.retain(|name, _| known.contains_key(name) || aliases.names.iter().any(|(alias, _)| alias == name));
        let mut top = Map::new();
        for (name, value) in [("tenant", self.tenant), ("namespace", self.namespace), ("name", self.name)] {
            top.insert(name.into(), value.into());
        }
        match self.kind {
            Direction::Source => drop(top.insert("topicName".into(), self.topic_name.into())),
            Direction::Sink => drop(top.insert("inputs".into(), self.inputs.into())),
        }
        top.insert("processingGuarantees".into(), self.processing_guarantees.into());
        top.insert("configs".into(), self.configs.into());
        top.insert("secrets".into(), self.secrets.into());
        Document { name: "of the connector".into(), top }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(changes: &[(&str, Value)]) -> Result<Source> {
        let mut open = json!({
            "kind": "source", "tenant": "public", "namespace": "default", "name": "orders", "instance": 3, "topicName": "out",
            "processingGuarantees": "ATLEAST_ONCE", "configs": {"awsDynamodbStreamArn": "table:orders", "awsRegion": "us-east-1", "numRetries": 5.0},
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
