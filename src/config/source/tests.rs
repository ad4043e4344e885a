use serde_json::json;

use super::*;
use crate::{
    pulsar::publisher::{Batching, Compression},
    source::{
        convert::{
            Order,
            shape::{Format, MessageKey, Property},
        },
        poison::Policy,
    },
};

fn checked(configs: serde_json::Value) -> Result<Source> {
    let top = json!({"name": "orders", "topicName": "changes", "configs": configs});
    let serde_json::Value::Object(top) = top else { unreachable!("an object") };
    check(&Document { name: "test".into(), top }, &BTreeMap::new(), Transport::Own)
}

fn with(key: &str, value: serde_json::Value) -> Result<Source> {
    checked(json!({"awsDynamodbStreamArn": "table:orders", key: value}))
}

#[test]
fn defaults_are_the_java_connectors() {
    let source = checked(json!({"awsDynamodbStreamArn": "table:orders"})).expect("complete");
    let settings = &source.settings;
    assert_eq!(settings.start, StartPosition::Latest);
    assert_eq!(settings.checkpoint_interval, Duration::from_secs(60));
    assert_eq!(settings.backoff, Duration::from_secs(3));
    assert_eq!(settings.max_in_flight, 1_000);
    assert_eq!((source.streams_endpoint, source.dynamodb_endpoint), (None, None));
}

/// The Java connector's page promises this name, and its runtime gives it one with spaces, which is no table's.
#[test]
fn w10_the_lease_table_has_the_documented_name() {
    let source = checked(json!({"awsDynamodbStreamArn": "table:orders"})).expect("complete");
    assert_eq!(source.lease_table, "pulsar-dynamodb");
}

/// In a container nobody can be asked for the host's name.
#[test]
fn w26_a_worker_has_its_name_from_the_configuration_alone() {
    let source = checked(json!({"awsDynamodbStreamArn": "table:orders"})).expect("complete");
    assert_eq!(source.settings.worker_id, "public/default/orders-0");
}

#[test]
fn w4_an_endpoint_and_a_region_go_together_and_each_endpoint_stands_alone() {
    let endpoints = |configs: serde_json::Value| {
        let source = checked(configs).expect("complete");
        assert_eq!(source.aws.region.as_deref(), Some("eu-north-1"));
        (source.streams_endpoint, source.dynamodb_endpoint)
    };
    let (arn, region) = ("table:orders", "eu-north-1");
    let both =
        endpoints(json!({"awsDynamodbStreamArn": arn, "awsRegion": region, "awsEndpoint": "http://a", "dynamoEndpoint": "http://b"}));
    assert_eq!(both, (Some("http://a".into()), Some("http://b".into())));
    let leases = endpoints(json!({"awsDynamodbStreamArn": arn, "awsRegion": region, "dynamoEndpoint": "http://b"})).1;
    assert_eq!(leases.as_deref(), Some("http://b"));
}

#[test]
fn w14_d2_each_record_once_is_for_the_archive_and_refused_elsewhere() {
    let with = |guarantees: &str, rewind: u64, transport| {
        let configs = json!({"awsDynamodbStreamArn": "table:orders", "applicationName": "app", "rewindOnAdopt": rewind});
        let top = json!({"name": "orders", "topicName": "changes", "processingGuarantees": guarantees, "configs": configs});
        let serde_json::Value::Object(top) = top else { unreachable!("an object") };
        check(&Document { name: "test".into(), top }, &BTreeMap::new(), transport)
    };
    let once = with("EFFECTIVELY_ONCE", 0, Transport::PulsarIo).expect("the archive's").settings.once.expect("each once");
    assert_eq!(&*once.application, "app");
    let refused = with("EFFECTIVELY_ONCE", 0, Transport::Own).expect_err("refused").to_string();
    assert!(refused.contains("processingGuarantees") && refused.contains("sources create --archive"), "{refused}");
    let refused = with("EFFECTIVELY_ONCE", 300_000, Transport::PulsarIo).expect_err("refused").to_string();
    assert!(refused.contains("rewindOnAdopt") && refused.contains("ATLEAST_ONCE"), "{refused}");
    for taken in ["ATLEAST_ONCE", "ATMOST_ONCE"] {
        assert_eq!(with(taken, 300_000, Transport::PulsarIo).expect(taken).settings.once, None);
        with(taken, 0, Transport::Own).expect(taken);
    }
}

#[test]
fn each_of_the_fourteen_keys_is_taken() {
    let source = checked(json!({
        "awsEndpoint": "http://streams", "awsRegion": "eu-north-1", "awsDynamodbStreamArn": "arn:aws:dynamodb:eu-north-1:1:table/t/stream/s",
        "awsCredentialPluginName": "", "awsCredentialPluginParam": r#"{"accessKey":"a","secretKey":"hush"}"#,
        "initialPositionInStream": "AT_TIMESTAMP", "startAtTime": 1_700_000_000_000_i64, "applicationName": "app", "checkpointInterval": "250",
        "backoffTime": 10, "numRetries": 5, "receiveQueueSize": 7, "dynamoEndpoint": "http://dynamodb", "cloudwatchEndpoint": "http://cloudwatch",
    }))
    .expect("complete");
    assert_eq!(source.aws.region.as_deref(), Some("eu-north-1"));
    assert_eq!(source.streams_endpoint.as_deref(), Some("http://streams"));
    assert_eq!(source.dynamodb_endpoint.as_deref(), Some("http://dynamodb"));
    assert_eq!(source.settings.start, StartPosition::AtTimestamp(1_700_000_000_000));
    assert_eq!((source.lease_table.as_str(), source.settings.max_in_flight), ("app", 7));
    assert_eq!(source.settings.checkpoint_interval, Duration::from_millis(250));
    assert_eq!(source.settings.backoff, Duration::from_millis(10));
    assert!(!format!("{source:?}").contains("hush"), "a secret shows in Debug");
}

#[test]
fn the_region_is_the_streams_and_a_contradiction_is_told() {
    const ARN: &str = "arn:aws:dynamodb:eu-north-1:1:table/t/stream/s";
    let region = |configs: serde_json::Value| checked(configs).map(|source| source.aws.region);
    assert_eq!(region(json!({"awsDynamodbStreamArn": ARN})).expect("complete").as_deref(), Some("eu-north-1"));
    assert_eq!(region(json!({"awsDynamodbStreamArn": "table:t"})).expect("complete"), None);
    let error = region(json!({"awsDynamodbStreamArn": ARN, "awsRegion": "eu-west-1"})).expect_err("a contradiction");
    assert!(error.to_string().contains("configs.awsRegion: is eu-west-1, but awsDynamodbStreamArn is in eu-north-1"), "{error}");
    let local = json!({"awsDynamodbStreamArn": "arn:aws:dynamodb:ddblocal:0:table/t/stream/s", "awsRegion": "eu-west-1", "awsEndpoint": "http://l"});
    assert_eq!(region(local).expect("an emulator").as_deref(), Some("eu-west-1"));
}

#[test]
fn w24_cloudwatch_costs_nothing_unless_it_is_asked_for() {
    let level = |value| with("cloudwatchMetrics", value).expect("good").cloudwatch.map(|settings| settings.level);
    assert_eq!(checked(json!({"awsDynamodbStreamArn": "table:orders"})).expect("complete").cloudwatch, None);
    assert_eq!((level(json!("off")), level(json!(false))), (None, None));
    assert_eq!((level(json!("summary")), level(json!(true))), (Some(kcl::Level::Summary), Some(kcl::Level::Summary)));
    assert_eq!(level(json!("detailed")), Some(kcl::Level::Detailed));
    let all = json!({
        "awsDynamodbStreamArn": "table:orders", "applicationName": "orders-app", "cloudwatchMetrics": "detailed",
        "cloudwatchShardId": true, "cloudwatchEndpoint": "http://localhost:1",
    });
    let settings = checked(all).expect("complete").cloudwatch.expect("on");
    assert_eq!((settings.namespace.as_str(), settings.shard_id), ("orders-app", true));
    assert_eq!(settings.endpoint.as_deref(), Some("http://localhost:1"));
}

#[test]
fn each_wrong_value_names_its_key_and_what_to_write() {
    for (key, value, expected) in [
        ("awsRegion", json!(["a"]), "a list has to be text"),
        ("awsDynamodbStreamArn", json!("orders"), "table:NAME"),
        ("onTrimmed", json!("snapshot"), "snapshot is not supported by this version: write continue or fail"),
        ("onTrimmed", json!("stop"), "onTrimmed"),
        ("awsEndpoint", json!("localhost:8000"), "http://host:port"),
        ("dynamoEndpoint", json!("ftp://x"), "http://host:port"),
        ("cloudwatchEndpoint", json!("x"), "http://host:port"),
        ("applicationName", json!("my app"), "table name"),
        ("initialPositionInStream", json!("latest"), "`LATEST`"),
        ("cloudwatchMetrics", json!("on"), "`summary`"),
        ("cloudwatchMetrics", json!(3), "invalid type"),
        ("cloudwatchShardId", json!("x"), "true or false"),
        ("attributeOrder", json!("SORTED"), "`sorted`"),
        ("messageKey", json!("itemkey"), "`itemKey`"),
        ("eventTime", json!("yes"), "true or false"),
        ("extraProperties", json!(["table"]), "`TABLE`"),
        ("extraProperties", json!({"a": 1}), "a list of texts"),
        ("outputFormat", json!("json"), "`plain`"),
        ("tombstones", json!(true), "needs messageKey: itemKey"),
        ("filter", json!({"eventName": ["INSERT"]}), "a list of mappings"),
        ("filter", json!("INSERT"), "a list of mappings"),
        ("checkpointInterval", json!("soon"), "\"soon\" has to be a whole number"),
        ("checkpointInterval", json!(-1), "-1 has to be a whole number, 0 or more"),
        ("backoffTime", json!(0), "at least 1"),
        ("numRetries", json!({}), "has to be a whole number"),
        ("receiveQueueSize", json!(0), "from 1"),
        ("failoverTime", json!("10 s"), "has to be a whole number"),
        ("failoverTime", json!(100), "from 2000"),
        ("maxLeasesForWorker", json!("many"), "has to be a whole number"),
        ("assumeOwnerDead", json!(["all"]), "has to be text"),
        ("rewindOnAdopt", json!("5m"), "has to be a whole number"),
        ("leaseTableBillingMode", json!("PROVISIONED"), "`keep`"),
        ("awsCredentialPluginParam", json!({"secretKey": "hush"}), "has to be text"),
        ("applicationname", json!("x"), "did you mean applicationName?"),
        ("colour", json!("blue"), "no such key"),
    ] {
        let error = with(key, value).expect_err(key).to_string();
        assert!(error.contains(&format!("configs.{key}: ")), "{key} is not named: {error}");
        assert!(error.contains(expected), "{key}: {error}");
        assert!(!error.contains("hush"), "a secret shows: {error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let top = json!({"topicname": "x", "processingGuarantees": "EFFECTIVELY_ONCE", "configs": {"awsRegion": 7, "checkpointInterval": "x", "bogus": 1}});
    let serde_json::Value::Object(top) = top else { unreachable!("an object") };
    let error = check(&Document { name: "f.yaml".into(), top }, &BTreeMap::new(), Transport::Own).expect_err("wrong").to_string();
    for expected in [
        "f.yaml: 7 problems",
        "- topicname: there is no such key; did you mean topicName?",
        "- name: is missing",
        "- topicName: is missing",
        "- processingGuarantees: EFFECTIVELY_ONCE",
        "- configs.checkpointInterval: ",
        "- configs.bogus: ",
        "- configs.awsDynamodbStreamArn: is missing",
    ] {
        assert!(error.contains(expected), "{expected} is not in {error}");
    }
}

#[test]
fn the_environment_overrides_secrets_and_those_override_plain_keys() {
    let top = json!({
        "name": "n", "topicName": "t", "secrets": {"awsRegion": "from-secret", "applicationName": "from-secret"},
        "configs": {"awsDynamodbStreamArn": "table:t", "awsRegion": "plain", "applicationName": "plain", "dynamoEndpoint": "http://plain"},
    });
    let serde_json::Value::Object(top) = top else { unreachable!("an object") };
    let document = Document { name: "test".into(), top };
    let environment = BTreeMap::from([("PULSAR_IO_DYNAMODB_APPLICATION_NAME".to_string(), "from-environment".to_string())]);
    let source = check(&document, &environment, Transport::Own).expect("complete");
    assert_eq!(source.lease_table, "from-environment");
    assert_eq!(source.aws.region.as_deref(), Some("from-secret"));
    assert_eq!(source.dynamodb_endpoint.as_deref(), Some("http://plain"));

    let typo = BTreeMap::from([("PULSAR_IO_DYNAMODB_AWS_REGOIN".to_string(), "x".to_string())]);
    let error = check(&document, &typo, Transport::Own).expect_err("unknown").to_string();
    assert!(error.contains("did you mean PULSAR_IO_DYNAMODB_AWS_REGION?"), "{error}");
}

#[test]
fn times_are_taken_in_the_java_connectors_forms() {
    for text in [
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.000Z",
        "2023-11-14T23:13:20+01:00",
        "2023-11-14T23:13:20.000+0100",
        "2023-11-14T22:13:20",
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "1700000000000",
    ] {
        assert_eq!(epoch_millis(text), Some(1_700_000_000_000), "{text}");
    }
    assert_eq!(epoch_millis("2023-11-14"), Some(1_699_920_000_000));
    assert_eq!(epoch_millis("2023-11-14 22:13:20"), None, "the Java connector refuses it as well");
    let error = with("initialPositionInStream", json!("AT_TIMESTAMP")).expect_err("no time").to_string();
    assert!(error.contains("configs.startAtTime: is missing"), "{error}");
}

#[test]
fn messages_are_the_java_connectors_unless_asked_otherwise() {
    let shape = checked(json!({"awsDynamodbStreamArn": "table:orders"})).expect("complete").settings.shape;
    assert_eq!((shape.order, shape.key, shape.format), (Order::Compat, MessageKey::EventId, Format::Event));
    assert!(
        !shape.event_time && !shape.tombstones && shape.extra_properties.is_empty() && shape.filter.is_empty() && shape.topic.is_none()
    );
    let shape = checked(json!({
        "awsDynamodbStreamArn": "table:orders", "attributeOrder": "sorted", "messageKey": "itemKey", "eventTime": "true",
        "extraProperties": ["TABLE", "STREAM_ARN", "SHARD_ID", "EVENT_ID"], "outputFormat": "plain", "tombstones": true,
        "filter": [{"eventName": ["INSERT"]}],
    }))
    .expect("complete")
    .settings
    .shape;
    assert_eq!((shape.order, shape.key, shape.format), (Order::Sorted, MessageKey::ItemKey, Format::Plain));
    assert_eq!(shape.extra_properties, [Property::Table, Property::StreamArn, Property::ShardId, Property::EventId]);
    assert!(shape.event_time && shape.tombstones && !shape.filter.is_empty());
}

/// As secrets and the environment give them.
#[test]
fn lists_and_filters_may_be_text() {
    let shape = |key, value: &str| with(key, json!(value)).expect("good").settings.shape;
    assert_eq!(shape("extraProperties", "TABLE, SHARD_ID").extra_properties, [Property::Table, Property::ShardId]);
    assert_eq!(shape("extraProperties", r#"["EVENT_ID"]"#).extra_properties, [Property::EventId]);
    assert!(!shape("filter", r#"[{"eventName":["INSERT"]}]"#).filter.is_empty());
}

#[test]
fn w9_w22_what_becomes_of_poison_has_a_default_and_no_contradiction() {
    const DEAD: &str = "persistent://public/default/dead";
    let policy = |configs: serde_json::Value| {
        let mut keys = json!({"awsDynamodbStreamArn": "table:orders"});
        keys.as_object_mut().expect("a mapping").extend(configs.as_object().expect("a mapping").clone());
        checked(keys).map(|source| source.settings.poison).map_err(|error| error.to_string())
    };
    assert_eq!(policy(json!({})), Ok(Policy::StopShard));
    assert_eq!(policy(json!({"onPoison": "skip"})), Ok(Policy::Skip));
    assert_eq!(policy(json!({"deadLetterTopic": "dead"})), Ok(Policy::DeadLetter(DEAD.into())));
    assert_eq!(policy(json!({"deadLetterTopic": "dead", "onPoison": "deadLetter"})), Ok(Policy::DeadLetter(DEAD.into())));
    for (configs, key, text) in [
        (json!({"onPoison": "deadLetter"}), "configs.deadLetterTopic", "is missing"),
        (json!({"onPoison": "stopShard", "deadLetterTopic": "dead"}), "configs.onPoison", "without effect"),
        (json!({"deadLetterTopic": "changes"}), "configs.deadLetterTopic", "is topicName"),
        (json!({"deadLetterTopic": "a b"}), "configs.deadLetterTopic", "is no topic"),
        (json!({"onPoison": "ignore"}), "configs.onPoison", "stopShard"),
    ] {
        let error = policy(configs).expect_err(key);
        assert!(error.contains(key) && error.contains(text), "{key}: {error}");
    }
}

#[test]
fn w22_a_topic_may_be_a_template() {
    let source = |topic: &str| {
        let top = json!({"name": "orders", "topicName": topic, "configs": {"awsDynamodbStreamArn": "table:orders"}});
        let serde_json::Value::Object(top) = top else { unreachable!("an object") };
        check(&Document { name: "test".into(), top }, &BTreeMap::new(), Transport::Own).map_err(|error| error.to_string())
    };
    let fixed = source("changes").expect("good");
    assert_eq!((fixed.own_topic(), fixed.settings.shape.topic.as_ref()), (Some("persistent://public/default/changes"), None));
    let template = source("${table}-${eventName}").expect("good");
    assert_eq!(template.own_topic(), None);
    assert_eq!(template.settings.shape.topic, Template::parse("persistent://public/default/${table}-${eventName}").ok());
    let error = source("changes-${shard}").expect_err("no such name");
    assert!(error.contains("topicName") && error.contains("${table} or ${eventName}"), "{error}");
}

#[test]
fn batches_and_compression_are_pulsars_settings() {
    let options = |producer_config: serde_json::Value, configs: serde_json::Value| {
        let mut keys = json!({"awsDynamodbStreamArn": "table:orders"});
        keys.as_object_mut().expect("a mapping").extend(configs.as_object().expect("a mapping").clone());
        let top = json!({"name": "orders", "topicName": "changes", "producerConfig": producer_config, "configs": keys});
        let serde_json::Value::Object(top) = top else { unreachable!("an object") };
        check(&Document { name: "test".into(), top }, &BTreeMap::new(), Transport::Own)
            .map(|source| source.publishing)
            .map_err(|error| error.to_string())
    };
    assert_eq!(options(json!({}), json!({})), Ok(Options::default()));
    let asked = options(
        json!({"compressionType": "ZSTD", "maxPendingMessages": 500, "batchBuilder": "DEFAULT", "useThreadLocalProducers": true}),
        json!({"batchingMaxMessages": "10", "batchingMaxBytes": 131_072, "batchingMaxPublishDelayMs": 5}),
    );
    let batching = Batching { max_messages: 10, max_bytes: 131_072, max_delay: Duration::from_millis(5) };
    let expected = Options { batching: Some(batching), compression: Compression::Zstd, max_pending: 500, ..Options::default() };
    assert_eq!(asked, Ok(expected));
    assert_eq!(options(json!({}), json!({"batchingEnabled": false})).expect("good").batching, None);
    assert_eq!(options(json!({}), json!({"compressionType": "LZ4"})).expect("good").compression, Compression::Lz4);
    for (producer_config, configs, key, text) in [
        (json!({"compressionType": "SNAPPY"}), json!({}), "producerConfig.compressionType", "LZ4"),
        (json!({}), json!({"compressionType": "SNAPPY"}), "configs.compressionType", "LZ4"),
        (json!({}), json!({"compressionType": "lz4"}), "configs.compressionType", "LZ4"),
        (json!({"compressionType": "LZ4"}), json!({"compressionType": "ZSTD"}), "configs.compressionType", "contradicts"),
        (json!({"batchBuilder": "KEY_BASED"}), json!({}), "producerConfig.batchBuilder", "batchingEnabled: false"),
        (json!({"cryptoConfig": {"encryptionKeys": ["k"]}}), json!({}), "producerConfig.cryptoConfig", "encrypt"),
        (json!({"comressionType": "LZ4"}), json!({}), "producerConfig.comressionType", "compressionType"),
        (json!({}), json!({"batchingMaxMessages": 0}), "configs.batchingMaxMessages", "1 to 100000"),
        (json!({}), json!({"batchingMaxBytes": 10}), "configs.batchingMaxBytes", "1000"),
        (json!({}), json!({"batchingMaxPublishDelayMs": 60_001}), "configs.batchingMaxPublishDelayMs", "60000"),
    ] {
        let error = options(producer_config, configs).expect_err(key);
        assert!(error.contains(&format!("{key}: ")) && error.contains(text), "{key}: {error}");
    }
}
