//! The sink's keys.

pub mod aliases;
pub mod delivery;
pub mod input;
pub mod mapping;
pub mod write;

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{
    delivery::DeliveryKeys,
    write::{WriteKeys, WriteMode},
};
use super::{
    ProcessingGuarantees,
    aws::AwsKeys,
    direction,
    load::{self, Document},
    source::{DRAIN_TIMEOUT, endpoint, not_blank, required},
    validate::{Problems, full_topic_name},
    worker_id,
};
use crate::{
    dynamodb::client,
    error::Result,
    pulsar::{
        inbox::{self, Subscription},
        partitions::LOOK_EVERY,
    },
    sink::{Settings, decode::Rules, mode::What},
};

/// Fields of Pulsar's `SinkConfig` that the sink uses.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SinkFields {
    /// Default: `public`.
    pub tenant: Option<String>,
    /// Default: `default`.
    pub namespace: Option<String>,
    /// The connector's name. Required.
    pub name: Option<String>,
    /// The topics to consume. At least one is required.
    pub inputs: Vec<String>,
    /// Topics as keys: consumed like `inputs`. What is said about each is for hosts that Pulsar runs.
    pub input_specs: BTreeMap<String, Value>,
    /// Topics as keys: consumed like `inputs`.
    pub topic_to_serde_class_name: BTreeMap<String, Value>,
    /// Topics as keys: consumed like `inputs`.
    pub topic_to_schema_type: BTreeMap<String, Value>,
    /// With the archive (`sinks create`) Pulsar finds the topics. Refused elsewhere: list the topics in `inputs`.
    pub topics_pattern: Option<String>,
    /// What makes of each message what is to be written. With the archive (`sinks create`) Pulsar runs it; it has to return a `Record`. Refused elsewhere:
    /// run it as a function of its own, in front of the sink.
    pub transform_function: Option<String>,
    /// With `transformFunction`.
    pub transform_function_class_name: Option<String>,
    /// With `transformFunction`.
    pub transform_function_config: Option<String>,
    /// The subscription's name. Default: `tenant/namespace/name`.
    pub source_subscription_name: Option<String>,
    /// Where a subscription starts that does not exist yet: `Latest` (default) or `Earliest`.
    pub source_subscription_position: SubscriptionPosition,
    /// Keep the order of each topic partition: a Failover subscription.
    pub retain_ordering: bool,
    /// Keep the order of each message key: a Key_Shared subscription. Its producers have to send batches by key (Java's `BatcherBuilder.KEY_BASED`) or none. Not together with `retainOrdering`.
    pub retain_key_ordering: bool,
    /// Where messages go that can never be written, with the reason in their properties. Without it, such a message stops the sink.
    pub dead_letter_topic: Option<String>,
    /// `ATLEAST_ONCE` (default); `ATMOST_ONCE` is taken as that, but for the archive (`sinks create`), where Pulsar acknowledges before anything is written, and a crash
    /// loses messages. `EFFECTIVELY_ONCE` is refused: repeating a write is harmless.
    pub processing_guarantees: ProcessingGuarantees,
}

/// Where a new subscription starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubscriptionPosition {
    #[default]
    Latest,
    Earliest,
}

/// How consumers share a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubscriptionType {
    Exclusive,
    Failover,
    Shared,
    #[serde(rename = "Key_Shared")]
    KeyShared,
}

/// Keys of the sink below `configs`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SinkKeys {
    #[serde(flatten)]
    pub aws: AwsKeys,
    #[serde(flatten)]
    pub write: WriteKeys,
    #[serde(flatten)]
    pub delivery: DeliveryKeys,
    /// The table to write to. It has to exist, unless `autoCreate` makes it. With expressions (those of `primaryKey`) it is chosen for each message
    /// among `allowedTables`: `orders-${property.region}`; what a table's name cannot have becomes `_`. Required.
    pub table_name: Option<String>,
    /// URL of DynamoDB, instead of the region's own.
    pub aws_endpoint: Option<String>,
    #[serde(flatten)]
    pub input: input::InputKeys,
    #[serde(flatten)]
    pub mapping: mapping::MappingKeys,
    /// How consumers share the subscription: `Exclusive`, `Failover`, `Shared` or `Key_Shared`. Default: by `retainOrdering` and
    /// `retainKeyOrdering`, else `Shared`, as Pulsar does. Refused with the archive, where Pulsar subscribes.
    pub subscription_type: Option<SubscriptionType>,
    /// Items in one request. 1 to 25, with `writeMode: transact` to 100, which are DynamoDB's limits.
    pub max_batch_size: u64,
    /// Requests under way at once. 1 to 1,000.
    pub max_in_flight_requests: u64,
    /// Messages received and not yet stored. At least `maxBatchSize`, 1,000,000 at most.
    pub max_buffered_messages: u64,
    /// Payload bytes received and not yet stored. Bytes, at least 1 MiB. The Pulsar client holds up to 2,000 messages beside them.
    pub max_buffered_bytes: u64,
    /// How long a batch that is not full waits for more. Milliseconds.
    pub flush_timeout: u64,
    /// Let a newer write of an item replace an older one that still waits: fewer writes, the same final item. `false` writes every version.
    pub coalesce: bool,
    /// The first delay after throttling or unprocessed items; it grows with further ones. Milliseconds, at least 1.
    pub backoff_time: u64,
}

impl Default for SinkKeys {
    fn default() -> Self {
        Self {
            aws: AwsKeys::default(),
            write: WriteKeys::default(),
            delivery: DeliveryKeys::default(),
            table_name: None,
            aws_endpoint: None,
            input: input::InputKeys::default(),
            mapping: mapping::MappingKeys::default(),
            subscription_type: None,
            max_batch_size: 25,
            // Flink's sink's default. 50 times 25 items in 15 ms are more than a new table takes.
            max_in_flight_requests: 50,
            // Three times what may be under way: more only takes memory.
            max_buffered_messages: 4_000,
            max_buffered_bytes: 32 * 1024 * 1024,
            // Long enough to fill a batch from a busy topic, short enough not to be noticed on a quiet one.
            flush_timeout: 20,
            coalesce: true,
            backoff_time: 100,
        }
    }
}

/// A checked configuration of a sink.
#[derive(Debug, Clone)]
pub struct Sink {
    pub settings: Settings,
    pub aws: client::Settings,
    pub dynamodb_endpoint: Option<String>,
    pub subscription: Subscription,
    pub dead_letter_topic: Option<String>,
}

/// Who consumes the topics, as far as it matters to what a configuration may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    /// This program's own client.
    Own,
    /// Pulsar IO, below which the archive's process runs.
    PulsarIo {
        /// What is given back ends in a dead-letter topic.
        buries: bool,
    },
}

/// Checks a document as a sink's configuration: all problems at once.
pub fn check(document: &Document, environment: &BTreeMap<String, String>, consumer: Consumer) -> Result<Sink> {
    direction::writes(document)?;
    let mut problems = Problems::default();
    let fields: SinkFields = load::top(document, &mut problems);
    let keys: SinkKeys = load::configs(document, environment, &aliases::ALIASES, &mut problems);

    let name = required(fields.name.clone(), "name", &mut problems);
    let topics = topics(&fields, &mut problems);
    let dead_letter_topic =
        not_blank(fields.dead_letter_topic.clone()).map(|topic| full_topic_name(&topic, "deadLetterTopic", &mut problems));
    problems.require(
        !dead_letter_topic.as_ref().is_some_and(|topic| topics.contains(topic)),
        "deadLetterTopic",
        "is one of the inputs: what cannot be written would come back for ever",
    );
    let buries = match consumer {
        Consumer::Own => dead_letter_topic.is_some(),
        Consumer::PulsarIo { buries } => buries,
    };
    problems.require(
        consumer == Consumer::Own || keys.subscription_type.is_none(),
        "configs.subscriptionType",
        "is for sinks that subscribe by themselves, and Pulsar subscribes here: leave it out; retainOrdering: true makes it Failover, retainKeyOrdering: true Key_Shared",
    );
    problems.require(
        fields.transform_function.is_none(),
        "transformFunction",
        "is not supported by this host: run it as a function of its own, in front of the sink",
    );
    problems.require(fields.topics_pattern.is_none(), "topicsPattern", "is not supported by this version: list the topics in inputs");
    problems.require(
        !(fields.retain_ordering && fields.retain_key_ordering),
        "retainKeyOrdering",
        "is given together with retainOrdering; keep one of them",
    );
    problems.require(
        !fields.retain_ordering || !matches!(keys.subscription_type, Some(SubscriptionType::Shared | SubscriptionType::KeyShared)),
        "configs.subscriptionType",
        "does not keep the order that retainOrdering asks for: write Failover or Exclusive, or leave one of the two out",
    );
    problems.require(
        fields.processing_guarantees != ProcessingGuarantees::EffectivelyOnce,
        "processingGuarantees",
        "EFFECTIVELY_ONCE is not for the sink: write ATLEAST_ONCE; what comes again is written again and makes the same items, and with writeMode: conditional \
         never older ones",
    );
    let table = required(keys.table_name.clone(), "configs.tableName", &mut problems);
    endpoint(&keys.aws_endpoint, "configs.awsEndpoint", &mut problems);
    let most = keys.write.most_in_a_request();
    problems.require((1..=most).contains(&keys.max_batch_size), "configs.maxBatchSize", format!("has to be from 1 to {most}"));
    problems.require((1..=1_000).contains(&keys.max_in_flight_requests), "configs.maxInFlightRequests", "has to be from 1 to 1000");
    let buffered = keys.max_batch_size..=1_000_000;
    problems.require(
        buffered.contains(&keys.max_buffered_messages),
        "configs.maxBufferedMessages",
        "has to be from maxBatchSize to 1000000",
    );
    problems.require(keys.max_buffered_bytes >= 1024 * 1024, "configs.maxBufferedBytes", "has to be at least 1048576 (1 MiB)");
    problems.require(keys.backoff_time >= 1, "configs.backoffTime", "has to be at least 1 (milliseconds)");
    keys.delivery.check(buries, &mut problems);
    let mode = keys.write.mode(buries, &mut problems);
    let kind = subscription_type(&fields, &keys);
    problems.require(
        keys.write.write_mode != WriteMode::Update || kind != inbox::SubscriptionType::Shared,
        "configs.writeMode",
        "update changes items step by step, and a Shared subscription keeps no order of the steps: write retainOrdering: true, or another subscriptionType",
    );
    let rules = keys.input.rules(&mut problems);
    let shape = keys.mapping.shape(&table, &mut problems);
    let created_key = keys.mapping.created_key(&mut problems);
    let aws = keys.aws.settings(&mut problems);
    problems.into_result(&document.name)?;

    let tenant = fields.tenant.clone().unwrap_or_else(|| "public".into());
    let namespace = fields.namespace.clone().unwrap_or_else(|| "default".into());
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Sink {
        settings: Settings {
            table_name: table.into(),
            created_key,
            rules: Rules { old_images: mode.what == What::Update, ..rules },
            shape,
            mode,
            max_batch: count(keys.max_batch_size),
            max_in_flight: count(keys.max_in_flight_requests),
            max_buffered: count(keys.max_buffered_messages),
            max_buffered_bytes: count(keys.max_buffered_bytes),
            coalesce: keys.coalesce,
            flush_timeout: Duration::from_millis(keys.flush_timeout),
            backoff: Duration::from_millis(keys.backoff_time),
            by_key: kind == inbox::SubscriptionType::KeyShared,
            max_write_capacity: keys.delivery.max_write_capacity,
            fail_on_error: keys.delivery.fail_on_error,
            drain_timeout: DRAIN_TIMEOUT,
            worker_id: worker_id(&tenant, &namespace, &name, 0),
        },
        aws,
        dynamodb_endpoint: not_blank(keys.aws_endpoint.clone()),
        subscription: Subscription {
            topics,
            name: not_blank(fields.source_subscription_name.clone()).unwrap_or_else(|| format!("{tenant}/{namespace}/{name}")),
            kind,
            initial_position: match fields.source_subscription_position {
                SubscriptionPosition::Latest => inbox::InitialPosition::Latest,
                SubscriptionPosition::Earliest => inbox::InitialPosition::Earliest,
            },
            consumer_name: worker_id(&tenant, &namespace, &name, 0),
            receiver_queue: u32::try_from(keys.max_buffered_messages.min(1_000)).unwrap_or(1_000),
            look_every: LOOK_EVERY,
        },
        dead_letter_topic,
    })
}

/// All that is to be consumed, each once.
fn topics(fields: &SinkFields, problems: &mut Problems) -> Vec<String> {
    let mut topics = Vec::new();
    let maps = [&fields.input_specs, &fields.topic_to_serde_class_name, &fields.topic_to_schema_type];
    for name in
        fields.inputs.iter().chain(maps.into_iter().flat_map(BTreeMap::keys)).map(|name| name.trim()).filter(|name| !name.is_empty())
    {
        let topic = full_topic_name(name, "inputs", problems);
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    problems.require(!topics.is_empty(), "inputs", "is missing: the topics to consume");
    // `regexPattern` in Pulsar's own code, `isRegexPattern` in what its tools write.
    let pattern = fields.input_specs.values().any(|spec| spec["isRegexPattern"] == true || spec["regexPattern"] == true);
    problems.require(!pattern, "inputSpecs", "patterns are not supported by this version: list the topics in inputs");
    topics
}

/// Pulsar's rule (`SinkConfigUtils`), unless the key says it.
fn subscription_type(fields: &SinkFields, keys: &SinkKeys) -> inbox::SubscriptionType {
    match keys.subscription_type {
        Some(SubscriptionType::Exclusive) => inbox::SubscriptionType::Exclusive,
        Some(SubscriptionType::Failover) => inbox::SubscriptionType::Failover,
        Some(SubscriptionType::Shared) => inbox::SubscriptionType::Shared,
        Some(SubscriptionType::KeyShared) => inbox::SubscriptionType::KeyShared,
        None if fields.retain_ordering => inbox::SubscriptionType::Failover,
        None if fields.retain_key_ordering => inbox::SubscriptionType::KeyShared,
        None => inbox::SubscriptionType::Shared,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(top: Value) -> Result<Sink> {
        let Value::Object(top) = top else { unreachable!("an object") };
        check(&Document { name: "test".into(), top }, &BTreeMap::new(), Consumer::Own)
    }

    #[test]
    fn a_short_file_is_complete() {
        let sink = checked(json!({"name": "orders", "inputs": ["a", "b"], "configs": {"tableName": "copy"}})).expect("complete");
        assert_eq!(sink.subscription.topics, ["persistent://public/default/a", "persistent://public/default/b"]);
        assert_eq!(sink.subscription.name, "public/default/orders");
        assert_eq!(sink.subscription.kind, inbox::SubscriptionType::Shared);
        assert_eq!(sink.subscription.initial_position, inbox::InitialPosition::Latest);
        assert_eq!((&*sink.settings.table_name, sink.settings.max_batch), ("copy", 25));
        assert_eq!(sink.settings.rules.format, crate::sink::decode::InputFormat::Auto);
        assert!(sink.settings.coalesce);
    }

    #[test]
    fn order_decides_the_subscription_unless_its_type_is_given() {
        for (fields, expected) in [
            (json!({"retainOrdering": true}), inbox::SubscriptionType::Failover),
            (json!({"retainKeyOrdering": true}), inbox::SubscriptionType::KeyShared),
            (
                json!({"retainOrdering": true, "configs": {"tableName": "copy", "subscriptionType": "Exclusive"}}),
                inbox::SubscriptionType::Exclusive,
            ),
        ] {
            let mut top = json!({"name": "orders", "inputs": ["a"], "configs": {"tableName": "copy"}});
            top.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
            assert_eq!(checked(top).expect("complete").subscription.kind, expected, "{fields}");
        }
    }

    #[test]
    fn an_order_that_the_subscription_cannot_keep_is_refused() {
        for kind in ["Shared", "Key_Shared"] {
            let configs = json!({"tableName": "copy", "subscriptionType": kind});
            let error = checked(json!({"name": "n", "inputs": ["a"], "retainOrdering": true, "configs": configs})).expect_err(kind);
            assert!(error.to_string().contains("configs.subscriptionType: does not keep the order"), "{error}");
        }
    }

    #[test]
    fn pulsars_other_fields_are_accepted_and_typos_are_not() {
        checked(json!({"name": "n", "inputs": ["a"], "parallelism": 2, "autoAck": true, "timeoutMs": 7, "configs": {"tableName": "copy"}}))
            .expect("one file serves every host");
        let error = checked(json!({"name": "n", "input": ["a"], "configs": {"tableName": "copy"}})).expect_err("a typo").to_string();
        assert!(error.contains("- input: there is no such key; did you mean inputs?") && error.contains("- inputs: is missing"), "{error}");
    }

    #[test]
    fn topics_come_from_all_of_pulsars_fields_once() {
        let top = json!({
            "name": "n", "inputs": ["a", "persistent://public/default/a"], "inputSpecs": {"b": {"schemaType": "json"}},
            "topicToSchemaType": {"c": "json"}, "configs": {"tableName": "copy"}
        });
        let topics = checked(top).expect("complete").subscription.topics;
        assert_eq!(topics, ["a", "b", "c"].map(|topic| format!("persistent://public/default/{topic}")));
    }

    #[test]
    fn what_would_change_the_result_is_refused() {
        for (key, value, expected) in [
            ("deadLetterTopic", json!("persistent://public/default/a"), "for ever"),
            ("transformFunction", json!("builtin://transforms"), "in front of the sink"),
            ("inputSpecs", json!({"x.*": {"isRegexPattern": true}}), "patterns"),
            ("topicsPattern", json!("x.*"), "list the topics"),
        ] {
            let mut top = json!({"name": "n", "inputs": ["a"], "configs": {"tableName": "copy"}});
            top[key] = value;
            let error = checked(top).expect_err(key).to_string();
            assert!(error.contains(&format!("{key}: ")) && error.contains(expected), "{key}: {error}");
        }
    }

    #[test]
    fn one_environment_may_serve_both_workers() {
        let environment = |name: &str| BTreeMap::from([(name.to_owned(), "value".to_owned())]);
        let Value::Object(top) = json!({"name": "n", "inputs": ["a"], "configs": {"tableName": "copy"}}) else { unreachable!("an object") };
        let document = Document { name: "test".into(), top };
        check(&document, &environment("PULSAR_IO_DYNAMODB_APPLICATION_NAME"), Consumer::Own).expect("the source's");
        let error = check(&document, &environment("PULSAR_IO_DYNAMODB_TABLENAME"), Consumer::Own).expect_err("nobody's").to_string();
        assert!(error.contains("did you mean PULSAR_IO_DYNAMODB_TABLE_NAME?"), "{error}");
    }

    #[test]
    fn each_wrong_value_names_its_key_and_what_to_write() {
        for (key, value, expected) in [
            ("tableName", json!("a b"), "table name"),
            ("inputFormat", json!("xml"), "`change-event`"),
            ("subscriptionType", json!("shared"), "`Shared`"),
            ("maxBatchSize", json!(26), "from 1 to 25"),
            ("maxBatchSize", json!(0), "from 1 to 25"),
            ("maxInFlightRequests", json!(0), "from 1"),
            ("maxBufferedMessages", json!(24), "maxBatchSize"),
            ("maxBufferedBytes", json!(1000), "1048576"),
            ("flushTimeout", json!("x"), "\"x\" has to be a whole number"),
            ("coalesce", json!("maybe"), "true or false"),
            ("backoffTime", json!(0), "at least 1"),
            ("maxWriteCapacity", json!(0), "at least 1"),
            ("awsDynamodbStreamArn", json!("x"), "no such key"),
        ] {
            let mut configs = json!({"tableName": "copy"});
            configs[key] = value;
            let error = checked(json!({"name": "n", "inputs": ["a"], "configs": configs})).expect_err(key).to_string();
            assert!(error.contains(&format!("configs.{key}: ")) && error.contains(expected), "{key}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_mapping_is_said() {
        for (configs, key, expected) in [
            (json!({"primaryKey": ["pk=valeu.id"]}), "primaryKey", "\"valeu.id\" is none of value.FIELD"),
            (json!({"primaryKey": "a,b,c"}), "primaryKey", "more than two attributes"),
            (json!({"tableName": "o-${topicName}"}), "allowedTables", "is missing: the tables that tableName may come to"),
            (json!({"tableName": "o-${tpic}", "allowedTables": "o-*"}), "tableName", "${tpic} is unknown"),
            (json!({"allowedTables": "o-*"}), "allowedTables", "leave it out"),
            (json!({"autoCreate": true}), "keySchema", "[\"pk:S\"]"),
            (json!({"autoCreate": true, "keySchema": ["pk"]}), "keySchema", "has no type: write it as pk:S"),
            (json!({"ttlSeconds": 5}), "ttlAttribute", "is missing"),
            (json!({"ttlAttribute": "t"}), "ttlAttribute", "needs ttlSeconds"),
            (json!({"ttlAttribute": "t", "ttlField": "e", "ttlFrom": "eventTime"}), "ttlFrom", "leave one of them out"),
            (json!({"deleteMarker": {"field": "op"}}), "deleteMarker", "{field: NAME, values: [VALUE]}"),
            (json!({"renameFields": {"a": "c", "b": "c"}}), "renameFields", "two attributes the name c"),
            (json!({"setAttributes": {"a": "S"}}), "setAttributes", "`SS`"),
            (json!({"metadataAttributes": {"a": "topicc"}}), "metadataAttributes", "is none of"),
            (json!({"nulls": "drop"}), "nulls", "`omit-nested`"),
            (json!({"temporalFormat": "java"}), "temporalFormat", "`risingwave`"),
            (json!({"protobufMessage": "x.Y"}), "protobufDescriptorFile", "protoc --include_imports"),
            (
                json!({"protobufMessage": "x.Y", "protobufDescriptorFile": "no/such.pb"}),
                "protobufDescriptorFile",
                "no/such.pb cannot be used",
            ),
        ] {
            let mut all = json!({"tableName": "copy"});
            all.as_object_mut().expect("an object").extend(configs.as_object().expect("an object").clone());
            let error = checked(json!({"name": "n", "inputs": ["a"], "configs": all})).expect_err(key).to_string();
            assert!(error.contains(&format!("configs.{key}: ")) && error.contains(expected), "{configs}: {error}");
        }
    }

    #[test]
    fn a_mapping_is_taken_from_one_file() {
        let configs = json!({"tableName": "copy", "primary_key": "id,at", "sink.ignore-nulls": "true", "temporalFormat": "flink",
            "staticAttributes": {"v": 1.10, "tags": {"SS": ["a"]}, "m": {"x": null}}, "deleteMarker": {"property": "op", "values": ["d", 1]}});
        let sink = checked(json!({"name": "n", "inputs": ["a"], "configs": configs})).expect("complete");
        let shape = &sink.settings.shape;
        assert_eq!(shape.primary_key.keys().collect::<Vec<_>>(), ["at", "id"]);
        assert_eq!(shape.fields.nulls, crate::sink::shape::Nulls::Omit);
        assert_eq!(
            crate::dynamodb::attribute::to_json(&shape.fixed),
            r#"{"m":{"M":{"x":{"NULL":true}}},"tags":{"SS":["a"]},"v":{"N":"1.1"}}"#
        );
        assert_eq!(shape.delete_marker.as_ref().expect("a marker").values, ["d", "1"]);
        assert_eq!(sink.settings.rules.temporal, crate::sink::decode::TemporalFormat::Flink);
    }
}
