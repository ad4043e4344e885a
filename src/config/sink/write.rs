//! How messages are written: the mode, versions, conditions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    config::validate::Problems,
    dynamodb::attribute::{Item, Value, item_from_json},
    ports::Condition,
    sink::mode::{self, DELETED, Deletes, Mode, Versioning, What},
};

/// What is done with a message's item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WriteMode {
    #[default]
    Put,
    Insert,
    Update,
    Delete,
    Conditional,
    Transact,
}

/// What orders the versions of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VersionSource {
    #[default]
    SequenceNumber,
    MessageId,
    PublishTime,
    EventTime,
    Attribute,
}

/// What a delete leaves behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DeleteMode {
    Hard,
    #[default]
    Tombstone,
}

/// What becomes of a message whose condition is not met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnConditionFailure {
    #[default]
    Skip,
    DeadLetter,
    Fail,
}

/// The keys of this file, on the same level as all others.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WriteKeys {
    /// `put` replaces the item; `insert` stores it where there is none; `update` sets the attributes that the message has and leaves the others,
    /// but for those that a MODIFY event has in its old image and not in its new one: they are removed;
    /// `delete` removes the item of each message; `conditional` replaces it unless a newer version is there (`versionSource`), which needs no order
    /// of the messages; `transact` puts and deletes up to 100 items (`maxBatchSize`) in one transaction, at twice the write capacity. In all of
    /// them a message that says so (a REMOVE event) deletes. `put`, `delete` and `transact` without a condition share requests, the others make one for each item.
    pub write_mode: WriteMode,
    /// With `conditional`, what tells the newer of two versions of an item. `sequenceNumber`: the change event's (property `SEQUENCE_NUMBER`, or in
    /// the payload). `messageId`: ledger, entry and index in the batch, for keys that stay on one topic partition. `publishTime`, `eventTime`: of two equal ones the last that
    /// comes wins. `attribute`: the item has its version itself, in `versionAttribute`; a delete then needs it too.
    pub version_source: VersionSource,
    /// With `conditional`, the item's attribute for its version. It must not be a key of the table.
    pub version_attribute: String,
    /// With `conditional`, what a delete leaves: `tombstone` (the key, the version, and `_deleted: true`), or nothing: `hard`. After a
    /// hard delete an older put that comes late brings the item back.
    pub delete_mode: DeleteMode,
    /// For how long a tombstone is kept. Seconds; 0 is for ever. Counted from its writing; longer than the longest time that a message may be late.
    pub tombstone_ttl_seconds: u64,
    /// The tombstone's attribute with the end of that time, in epoch seconds. Switch the table's time to live on for it.
    pub tombstone_ttl_attribute: String,
    /// What has to hold of the item that is there for a write to be done, in DynamoDB's language: `attribute_exists(pk) AND #state <> :closed`. With `put`, `update`,
    /// `delete` and `transact`. Nothing is coalesced then, since each write may see what the one before it has left.
    pub condition_expression: Option<String>,
    /// What each `#name` of the condition stands for.
    pub condition_names: BTreeMap<String, String>,
    /// What each `:value` of the condition stands for: a text, a number, true, false, null, or DynamoDB JSON such as `{"SS": ["a"]}`.
    pub condition_values: BTreeMap<String, Json>,
    /// What becomes of a message whose condition is not met (`insert`: the item is there; `conditional`: a newer version is): `skip` counts it, `deadLetter`
    /// copies it to the dead-letter topic, `fail` stops the sink. An item that is there exactly as it would be written counts as written: the message has come twice.
    pub on_condition_failure: OnConditionFailure,
}

impl Default for WriteKeys {
    fn default() -> Self {
        Self {
            write_mode: WriteMode::Put,
            version_source: VersionSource::SequenceNumber,
            version_attribute: "_version".into(),
            delete_mode: DeleteMode::Tombstone,
            // As long as a topic commonly keeps a message.
            tombstone_ttl_seconds: 7 * 24 * 3600,
            tombstone_ttl_attribute: "_expires".into(),
            condition_expression: None,
            condition_names: BTreeMap::new(),
            condition_values: BTreeMap::new(),
            on_condition_failure: OnConditionFailure::Skip,
        }
    }
}

impl WriteKeys {
    /// Items that fit in one request of this mode.
    pub fn most_in_a_request(&self) -> u64 {
        if self.write_mode == WriteMode::Transact { 100 } else { 25 }
    }

    /// The mode, and what is wrong with it. `has_dead_letters`: there is a dead-letter topic.
    pub fn mode(&self, has_dead_letters: bool, problems: &mut Problems) -> Mode {
        let own_condition = matches!(self.write_mode, WriteMode::Insert | WriteMode::Conditional);
        let condition = self.condition(problems);
        problems.require(
            !(own_condition && condition.is_some()),
            "configs.conditionExpression",
            "goes with writeMode put, update, delete and transact; insert and conditional have a condition of their own",
        );
        problems.require(
            self.on_condition_failure != OnConditionFailure::DeadLetter || has_dead_letters,
            "configs.onConditionFailure",
            "deadLetter needs a deadLetterTopic; with the archive a maxMessageRetries as well, and no retainOrdering",
        );
        let what = match self.write_mode {
            WriteMode::Put | WriteMode::Transact => What::Put,
            WriteMode::Insert => What::Insert,
            WriteMode::Update => What::Update,
            WriteMode::Delete => What::Delete,
            WriteMode::Conditional => What::Newest(self.versioning(problems)),
        };
        Mode {
            what,
            transact: self.write_mode == WriteMode::Transact,
            condition: condition.map(Arc::new),
            on_condition_failure: match self.on_condition_failure {
                OnConditionFailure::Skip => mode::OnConditionFailure::Skip,
                OnConditionFailure::DeadLetter => mode::OnConditionFailure::DeadLetter,
                OnConditionFailure::Fail => mode::OnConditionFailure::Fail,
            },
        }
    }

    fn versioning(&self, problems: &mut Problems) -> Versioning {
        let (version, ttl) = (self.version_attribute.trim(), self.tombstone_ttl_attribute.trim());
        problems.require(!version.is_empty(), "configs.versionAttribute", "is empty: an attribute's name");
        problems.require(version != DELETED, "configs.versionAttribute", format!("{DELETED} marks a tombstone: choose another name"));
        problems.require(
            !ttl.is_empty() && ttl != version && ttl != DELETED,
            "configs.tombstoneTtlAttribute",
            format!("has to be an attribute of its own: not empty, not versionAttribute, not {DELETED}"),
        );
        let kept = Duration::from_secs(self.tombstone_ttl_seconds);
        Versioning {
            attribute: version.to_owned(),
            source: match self.version_source {
                VersionSource::SequenceNumber => mode::VersionSource::SequenceNumber,
                VersionSource::MessageId => mode::VersionSource::MessageId,
                VersionSource::PublishTime => mode::VersionSource::PublishTime,
                VersionSource::EventTime => mode::VersionSource::EventTime,
                VersionSource::Attribute => mode::VersionSource::Attribute,
            },
            deletes: match self.delete_mode {
                DeleteMode::Hard => Deletes::Hard,
                DeleteMode::Tombstone => Deletes::Tombstone((!kept.is_zero()).then(|| (ttl.to_owned(), kept))),
            },
        }
    }

    /// DynamoDB refuses a placeholder without a meaning and one that is not used; said here, it is said before the first message.
    fn condition(&self, problems: &mut Problems) -> Option<Condition> {
        let Some(expression) = self.condition_expression.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
            let alone = self.condition_names.is_empty() && self.condition_values.is_empty();
            problems.require(alone, "configs.conditionNames", "and conditionValues are for a conditionExpression, and there is none");
            return None;
        };
        let values = self.condition_values.iter().filter_map(|(name, json)| match value(json) {
            Ok(value) => Some((name.clone(), value)),
            Err(why) => {
                problems.add(format!("configs.conditionValues.{name}"), why);
                None
            }
        });
        let values: Item = values.collect();
        for (sign, key) in [('#', "conditionNames"), (':', "conditionValues")] {
            let used = placeholders(expression, sign);
            let given: Vec<&String> =
                if sign == '#' { self.condition_names.keys().collect() } else { self.condition_values.keys().collect() };
            for name in used.iter().filter(|name| !given.contains(name)) {
                problems.add(format!("configs.{key}"), format!("does not say what {name} of conditionExpression stands for"));
            }
            for name in given.into_iter().filter(|name| !used.contains(name)) {
                problems.add(format!("configs.{key}.{name}"), format!("is not in conditionExpression; a key here begins with {sign}"));
            }
            for name in used.iter().filter(|name| name[1..].starts_with("io_")) {
                problems.add("configs.conditionExpression", format!("{name}: names that begin with io_ are used by the sink itself"));
            }
        }
        Some(Condition { expression: expression.to_owned(), names: self.condition_names.clone(), values })
    }
}

/// Each `#name` or `:value` of an expression, once. Expressions have no literals, so nothing is quoted.
fn placeholders(expression: &str, sign: char) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices(sign) {
        let rest = &expression[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = format!("{sign}{}", &rest[..end]);
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

fn value(json: &Json) -> Result<Value, String> {
    match json {
        Json::String(text) => Ok(Value::S(text.clone())),
        Json::Number(number) => Ok(Value::N(number.to_string())),
        Json::Bool(truth) => Ok(Value::Bool(*truth)),
        Json::Null => Ok(Value::Null),
        Json::Array(_) => Err(r#"is a list: write DynamoDB JSON, such as {"L": [{"S": "a"}]} or {"SS": ["a"]}"#.into()),
        Json::Object(_) => {
            let mut item = item_from_json(&format!(r#"{{"value":{json}}}"#)).map_err(|why| format!("is no DynamoDB JSON: {why}"))?;
            item.remove("value").ok_or_else(|| "is no DynamoDB JSON".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        config::{
            load::Document,
            sink::{Consumer, Sink, check},
        },
        error::Result,
        ports::Vehicle,
    };

    fn checked(top: Json, configs: Json) -> Result<Sink> {
        let mut all = json!({"name": "n", "inputs": ["a"], "retainOrdering": true, "configs": {"tableName": "copy"}});
        all.as_object_mut().expect("an object").extend(top.as_object().expect("an object").clone());
        all["configs"].as_object_mut().expect("an object").extend(configs.as_object().expect("an object").clone());
        let Json::Object(top) = all else { unreachable!("an object") };
        check(&Document { name: "test".into(), top }, &BTreeMap::new(), Consumer::Own)
    }

    fn mode(configs: Json) -> Mode {
        checked(json!({}), configs.clone()).unwrap_or_else(|error| panic!("{configs}: {error}")).settings.mode
    }

    #[test]
    fn each_mode_has_its_request() {
        for (configs, vehicle, coalesces) in [
            (json!({}), Vehicle::Batch, true),
            (json!({"writeMode": "put", "conditionExpression": "attribute_exists(pk)"}), Vehicle::Single, false),
            (json!({"writeMode": "insert"}), Vehicle::Single, false),
            (json!({"writeMode": "update"}), Vehicle::Single, true),
            (json!({"writeMode": "delete"}), Vehicle::Batch, true),
            (json!({"writeMode": "conditional"}), Vehicle::Single, true),
            (json!({"writeMode": "transact", "maxBatchSize": 100}), Vehicle::Transaction, true),
            (json!({"writeMode": "transact", "conditionExpression": "attribute_exists(pk)"}), Vehicle::Transaction, false),
        ] {
            let mode = mode(configs.clone());
            assert_eq!((mode.vehicle(), mode.may_coalesce()), (vehicle, coalesces), "{configs}");
        }
    }

    #[test]
    fn versions_have_their_defaults() {
        let What::Newest(versioning) = mode(json!({"writeMode": "conditional"})).what else { panic!("no versions") };
        assert_eq!((versioning.attribute.as_str(), versioning.source), ("_version", mode::VersionSource::SequenceNumber));
        assert_eq!(versioning.deletes, Deletes::Tombstone(Some(("_expires".into(), Duration::from_secs(604_800)))));
        let hard = mode(json!({"writeMode": "conditional", "deleteMode": "hard", "versionSource": "messageId", "versionAttribute": "v"}));
        let What::Newest(versioning) = hard.what else { panic!("no versions") };
        assert_eq!((versioning.deletes, versioning.source), (Deletes::Hard, mode::VersionSource::MessageId));
        let What::Newest(kept) = mode(json!({"writeMode": "conditional", "tombstoneTtlSeconds": 0})).what else { panic!("no versions") };
        assert_eq!(kept.deletes, Deletes::Tombstone(None), "for ever");
    }

    #[test]
    fn a_condition_has_names_and_values() {
        let condition = mode(json!({"conditionExpression": "#s <> :closed AND size(#s) < :n AND #t IN (:set)",
            "conditionNames": {"#s": "state", "#t": "a.b"}, "conditionValues": {":closed": "closed", ":n": 10, ":set": {"SS": ["a"]}}}));
        let condition = condition.condition.expect("a condition");
        assert_eq!(condition.names["#t"], "a.b");
        let values = [(":closed", Value::S("closed".into())), (":n", Value::N("10".into())), (":set", Value::Ss(vec!["a".into()]))];
        assert_eq!(condition.values, values.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn each_contradiction_names_its_key_and_what_to_write() {
        for (top, configs, expected) in [
            (json!({}), json!({"maxBatchSize": 26}), "configs.maxBatchSize: has to be from 1 to 25"),
            (json!({}), json!({"writeMode": "transact", "maxBatchSize": 101}), "configs.maxBatchSize: has to be from 1 to 100"),
            (json!({}), json!({"writeMode": "upsert"}), "configs.writeMode"),
            (
                json!({}),
                json!({"writeMode": "insert", "conditionExpression": "attribute_exists(a)"}),
                "insert and conditional have a condition of their own",
            ),
            (json!({}), json!({"conditionNames": {"#a": "b"}}), "there is none"),
            (
                json!({}),
                json!({"conditionExpression": "#a = :b", "conditionValues": {":b": 1}}),
                "configs.conditionNames: does not say what #a",
            ),
            (
                json!({}),
                json!({"conditionExpression": "attribute_exists(a)", "conditionValues": {":b": 1}}),
                "configs.conditionValues.:b: is not in",
            ),
            (json!({}), json!({"conditionExpression": "a = :b", "conditionValues": {":b": [1]}}), "configs.conditionValues.:b: is a list"),
            (
                json!({}),
                json!({"conditionExpression": "a = :b", "conditionValues": {":b": {"X": 1}}}),
                "configs.conditionValues.:b: is no DynamoDB JSON",
            ),
            (json!({}), json!({"conditionExpression": "a = :io_b", "conditionValues": {":io_b": 1}}), "used by the sink itself"),
            (json!({}), json!({"onConditionFailure": "deadLetter"}), "deadLetter needs a deadLetterTopic"),
            (json!({}), json!({"writeMode": "conditional", "versionAttribute": ""}), "configs.versionAttribute: is empty"),
            (json!({}), json!({"writeMode": "conditional", "versionAttribute": "_deleted"}), "marks a tombstone"),
            (json!({}), json!({"writeMode": "conditional", "tombstoneTtlAttribute": "_version"}), "configs.tombstoneTtlAttribute"),
            (json!({"retainOrdering": false}), json!({"writeMode": "update"}), "configs.writeMode: update changes items step by step"),
        ] {
            let error = checked(top, configs.clone()).expect_err("a contradiction").to_string();
            assert!(error.contains(expected), "{configs}: {error}");
        }
    }
}
