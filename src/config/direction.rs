//! A sink's file that is run as a source, or the other way round: one sentence instead of a list of unknown keys.

use super::load::Document;
use crate::error::{Error, Kind, Result};

/// What only a sink's file has, and what only a source's: at the top, and below `configs`.
const OF_A_SINK: (&[&str], &[&str]) = (&["inputs", "inputSpecs", "sourceSubscriptionName"], &["tableName", "table-name", "table"]);
const OF_A_SOURCE: (&[&str], &[&str]) = (&["topicName"], &["awsDynamodbStreamArn"]);

fn has(document: &Document, (top, configs): (&[&str], &[&str])) -> bool {
    let below = document.top.get("configs").and_then(|configs| configs.as_object());
    top.iter().any(|name| document.top.contains_key(*name)) || configs.iter().any(|name| below.is_some_and(|keys| keys.contains_key(*name)))
}

/// Errors where a source is to be started with a sink's configuration.
pub fn reads(document: &Document) -> Result<()> {
    if !has(document, OF_A_SINK) || has(document, OF_A_SOURCE) {
        return Ok(());
    }
    let why = "it is the configuration of a DynamoDB sink, which can only be used to write to DynamoDB. It cannot be used as a source: start it with \
               `pulsar-io-dynamodb sink`, or write a source's configuration, with topicName and configs.awsDynamodbStreamArn";
    Err(Error::new(Kind::Configuration, format!("read from DynamoDB with {}", document.name), why))
}

/// Errors where a sink is to be started with a source's configuration.
pub fn writes(document: &Document) -> Result<()> {
    if !has(document, OF_A_SOURCE) || has(document, OF_A_SINK) {
        return Ok(());
    }
    let why = "it is the configuration of a DynamoDB source, which can only be used to read from DynamoDB. It cannot be used as a sink: start it with \
               `pulsar-io-dynamodb source`, or write a sink's configuration, with inputs and configs.tableName";
    Err(Error::new(Kind::Configuration, format!("write to DynamoDB with {}", document.name), why))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Transport, sink, source};

    #[test]
    fn a_file_for_the_other_direction_gets_one_sentence() {
        let document = |top: Value| Document { name: "x.yaml".into(), top: top.as_object().expect("an object").clone() };
        for configs in [json!({"tableName": "copy"}), json!({"table-name": "copy", "connector": "dynamodb"})] {
            let a_sink = document(json!({"name": "n", "inputs": ["a"], "configs": configs}));
            let error = source::check(&a_sink, &BTreeMap::new(), Transport::Own).expect_err("a sink's").to_string();
            assert!(error.contains("can only be used to write") && error.contains("cannot be used as a source"), "{error}");
            assert!(!error.contains("no such key"), "{error}");
        }
        let a_source = document(json!({"name": "n", "topicName": "a", "configs": {"awsDynamodbStreamArn": "table:orders"}}));
        let error = sink::check(&a_source, &BTreeMap::new(), sink::Consumer::Own).expect_err("a source's").to_string();
        assert!(error.contains("cannot be used as a sink"), "{error}");
        // What cannot be told gets the list.
        let neither = document(json!({"name": "n"}));
        assert!(
            source::check(&neither, &BTreeMap::new(), Transport::Own)
                .expect_err("incomplete")
                .to_string()
                .contains("topicName: is missing")
        );
    }
}
