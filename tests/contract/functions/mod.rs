//! The command lines of Pulsar's functions worker and of Function Mesh, as they make them.

mod host;
mod mesh;
mod resources;

use std::{collections::BTreeMap, fs, path::PathBuf};

use pulsar_io_dynamodb::{
    config::{load, sink::Sink, source::Source},
    error::Result,
    host::functions::{
        instance::Instance,
        plan::{Plan, Worker, plan},
    },
    pulsar::{
        auth::{Authentication, ClientCertificate, Token},
        inbox::{InitialPosition, SubscriptionType},
        publisher::Compression,
    },
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/contract/functions")
}

fn captured() -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join("instance-conf.json")).expect("readable")).expect("JSON")
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of(conf: &Value, variables: &[(&str, &str)]) -> Result<Plan> {
    let environment = environment(variables);
    plan(&Instance::parse(&["-instance-conf".into(), conf.to_string()], &environment).expect("an instance"), &environment)
}

fn source(plan: Result<Plan>) -> Source {
    match plan.unwrap_or_else(|error| panic!("{error}")).worker {
        Worker::Source(source) => *source,
        Worker::Sink(_) => panic!("a sink"),
    }
}

fn sink(plan: Result<Plan>) -> Sink {
    match plan.unwrap_or_else(|error| panic!("{error}")).worker {
        Worker::Sink(sink) => *sink,
        Worker::Source(_) => panic!("a source"),
    }
}

fn failure(plan: Result<Plan>) -> String {
    plan.err().expect("refused").to_string()
}

/// The captured one with another `userConfig`, as the worker writes it: in both places, all numbers as doubles.
fn with_config(config: &Value, more: &Value) -> Value {
    let mut conf = captured();
    let mut details: Value = serde_json::from_str(conf["functionDetails"].as_str().expect("text")).expect("JSON");
    let mut doubles = config.clone();
    for value in doubles.as_object_mut().expect("an object").values_mut() {
        if let Some(number) = value.as_i64() {
            *value = json!(number as f64);
        }
    }
    conf["userConfig"] = doubles.to_string().into();
    details["userConfig"] = doubles.to_string().into();
    details["secretsMap"] = "".into();
    // Refused by the source.
    details["sink"]["producerSpec"]["batchBuilder"] = "".into();
    conf["secretsMap"] = "".into();
    merge(&mut details, more);
    conf["functionDetails"] = details.to_string().into();
    conf
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
        }
        (into, more) => *into = more.clone(),
    }
}

#[test]
fn the_captured_one_is_read_whole() {
    let conf = captured();
    let environment = environment(&[("AWS_SECRET", "hush")]);
    let instance = Instance::parse(&["-instance-conf".into(), conf.to_string()], &environment).expect("an instance");
    assert_eq!((instance.id, instance.port, instance.metrics_port), (0, 43_837, Some(33_187)));
    assert_eq!((instance.full_name().as_str(), instance.cluster.as_str()), ("public/default/probe1", "standalone"));
    assert_eq!(instance.details.log_topic, "logt");
    // Its configuration is made up: each key of it is told, and nothing else is wrong with it.
    let told = plan(&instance, &environment).err().expect("unknown keys").to_string();
    for key in ["q", "b", "f", "n", "o.x"] {
        assert!(told.contains(&format!("- configs.{key}: there is no such key")), "{told}");
    }
    assert!(told.contains("- configs.tableName: is missing") && told.contains("6 problems"), "{told}");
}

#[test]
fn a_function_is_a_source_with_what_its_options_say() {
    let config = json!({
        "awsDynamodbStreamArn": "table:orders", "awsRegion": "eu-west-1", "applicationName": "orders", "checkpointInterval": 5_000,
        "receiveQueueSize": 77, "initialPositionInStream": "TRIM_HORIZON", "deadLetterTopic": "dead"
    });
    let mut conf = with_config(&config, &json!({}));
    conf["instanceID"] = 2.into();
    let found = source(of(&conf, &[]));
    assert_eq!(
        (found.topic.as_str(), found.stream.as_str(), found.lease_table.as_str()),
        ("persistent://public/default/t2", "table:orders", "orders")
    );
    assert_eq!((found.settings.worker_id.as_str(), found.settings.max_in_flight), ("public/default/probe1-2", 77));
    assert_eq!(found.settings.checkpoint_interval.as_secs(), 5);
    assert_eq!(found.publishing.compression, Compression::Zstd);
    assert_eq!(found.publishing.max_pending, 500);
    assert!(
        failure(of(&with_config(&config, &json!({"sink": {"producerSpec": {"batchBuilder": "KEY_BASED"}}})), &[])).contains("KEY_BASED")
    );
}

#[test]
fn what_a_function_has_no_option_for_is_said_in_its_configuration() {
    let config = json!({"awsDynamodbStreamArn": "table:t", "topicName": "t-${eventName}", "name": "another"});
    let told = failure(of(&with_config(&config, &json!({})), &[]));
    assert!(told.contains("configs.name: there is no such key"), "an instance keeps the name that Pulsar knows it by: {told}");
    let config = json!({"awsDynamodbStreamArn": "table:t", "awsRegion": "x", "topicName": "t-${eventName}"});
    assert_eq!(source(of(&with_config(&config, &json!({})), &[])).topic, "persistent://public/default/t-${eventName}");
    let config = json!({"tableName": "copy", "awsRegion": "x", "deadLetterTopic": "dead", "maxBatchSize": 7});
    let found = sink(of(&with_config(&config, &json!({})), &[]));
    assert_eq!((found.dead_letter_topic.as_deref(), found.settings.max_batch), (Some("persistent://public/default/dead"), 7));
}

#[test]
fn a_function_is_a_sink_with_what_its_options_say() {
    let config = json!({"tableName": "copy", "awsRegion": "eu-west-1"});
    let found = sink(of(&with_config(&config, &json!({"source": {"subscriptionType": "FAILOVER"}})), &[]));
    assert_eq!(found.subscription.topics, ["t1b", "t1", "t3"].map(|topic| format!("persistent://public/default/{topic}")));
    assert_eq!((found.subscription.name.as_str(), found.subscription.kind), ("mysub", SubscriptionType::Failover));
    assert_eq!(found.subscription.initial_position, InitialPosition::Earliest);
    assert_eq!(
        (found.settings.worker_id.as_str(), found.subscription.consumer_name.as_str()),
        ("public/default/probe1-0", "public/default/probe1-0")
    );

    let plain = json!({"source": {"subscriptionName": "", "subscriptionPosition": "LATEST"}});
    let found = sink(of(&with_config(&config, &plain), &[]));
    assert_eq!((found.subscription.name.as_str(), found.subscription.kind), ("public/default/probe1", SubscriptionType::Shared));
    assert_eq!(found.subscription.initial_position, InitialPosition::Latest);
    let pattern = json!({"source": {"inputSpecs": {"x.*": {"isRegexPattern": true}}}});
    assert!(failure(of(&with_config(&config, &pattern), &[])).contains("patterns are not supported"));
}

#[test]
fn a_stream_makes_it_a_source_and_a_key_says_it_outright() {
    let arn = ("PULSAR_IO_DYNAMODB_AWS_DYNAMODB_STREAM_ARN", "table:orders");
    assert_eq!(source(of(&with_config(&json!({"awsRegion": "x"}), &json!({})), &[arn])).stream, "table:orders");
    sink(of(&with_config(&json!({"awsRegion": "x", "tableName": "copy", "connector": "sink"}), &json!({})), &[arn]));
    let told = failure(of(&with_config(&json!({"connector": "both", "tableName": "copy"}), &json!({})), &[]));
    assert!(told.contains("connector: has to be source or sink"), "{told}");
}

#[test]
fn older_workers_say_the_same_in_single_keys() {
    let mut conf = with_config(&json!({"tableName": "copy", "awsRegion": "x"}), &json!({}));
    let keys = conf.as_object_mut().expect("an object");
    let newer = sink(of(&Value::Object(keys.clone()), &[]));
    keys.remove("functionDetails");
    let single = sink(of(&Value::Object(keys.clone()), &[]));
    assert_eq!(format!("{:?}", single.subscription), format!("{:?}", newer.subscription));
    // Before it knew of several topics.
    keys.remove("sourceInputSpecs");
    let oldest = sink(of(&Value::Object(keys.clone()), &[]));
    assert_eq!(oldest.subscription.topics, ["persistent://public/default/t3"]);
    keys.insert("isRegexPatternSubscription".into(), true.into());
    keys.remove("regexPatternSubscription");
    assert!(failure(of(&Value::Object(keys.clone()), &[])).contains("patterns are not supported"));
}

#[test]
fn guarantees_are_pulsars_and_manual_says_nothing_more() {
    let config = json!({"awsDynamodbStreamArn": "table:t", "awsRegion": "x"});
    for taken in ["ATLEAST_ONCE", "ATMOST_ONCE", "MANUAL"] {
        source(of(&with_config(&config, &json!({"processingGuarantees": taken})), &[]));
    }
    let told = failure(of(&with_config(&config, &json!({"processingGuarantees": "NO_SUCH"})), &[]));
    assert!(told.contains("processingGuarantees"), "{told}");
}

#[test]
fn secrets_are_taken_by_the_name_of_a_key_or_where_something_refers_to_them() {
    let config = json!({"awsDynamodbStreamArn": "table:t", "awsRegion": "x", "awsAccessKey": "AK", "awsSecretKey": "plain", "applicationName": "${APP}"});
    let secrets = json!({"awsSecretKey": {"path": "aws", "key": "secret"}, "APP": "text"});
    let conf = with_config(&config, &json!({"secretsMap": secrets.to_string()}));
    let found = source(of(&conf, &[("awsSecretKey", "hush")]));
    assert_eq!(found.lease_table, "text");
    assert!(!format!("{found:?}").contains("hush"), "a secret shows");
    let told = failure(of(&conf, &[]));
    assert!(told.contains("secrets.awsSecretKey: is not there") && !told.contains("plain"), "{told}");
}

#[test]
fn authentication_and_tls_are_the_workers() {
    let base = with_config(&json!({"tableName": "copy", "awsRegion": "x"}), &json!({}));
    let with = |keys: Value| {
        let mut conf = base.clone();
        merge(&mut conf, &keys);
        of(&conf, &[])
    };
    let plugin = "org.apache.pulsar.client.impl.auth.AuthenticationToken";
    for (params, expected) in [("token:a.b.c", "a.b.c"), (r#"{"token":"a.b.c"}"#, "a.b.c")] {
        let plan = with(json!({"clientAuthenticationPlugin": plugin, "clientAuthenticationParameters": params}));
        let found = plan.unwrap_or_else(|error| panic!("{error}")).pulsar.authentication;
        assert!(matches!(found, Some(Authentication::Token(Token::Text(token))) if token.expose_secret() == expected), "{params}");
    }
    let keys = json!({
        "pulsarServiceURL": "pulsar+ssl://broker:6651", "clientAuthenticationPlugin": plugin,
        "clientAuthenticationParameters": "file:///secrets/token", "tlsTrustCertsFilePath": "/ca.pem"
    });
    let pulsar = with(keys).unwrap_or_else(|error| panic!("{error}")).pulsar;
    assert_eq!((pulsar.url.as_str(), pulsar.trust_certs), ("pulsar+ssl://broker:6651", Some("/ca.pem".into())));
    assert!(matches!(pulsar.authentication, Some(Authentication::Token(Token::File(path))) if path.as_os_str() == "/secrets/token"));

    let tls = |url: &str| {
        json!({"pulsarServiceURL": url, "clientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth.AuthenticationTls",
            "clientAuthenticationParameters": "tlsCertFile:/client.pem,tlsKeyFile:/key.pem"})
    };
    let pulsar = with(tls("pulsar+ssl://broker:6651")).unwrap_or_else(|error| panic!("{error}")).pulsar;
    let pair = ClientCertificate { certificate: "/client.pem".into(), key: "/key.pem".into() };
    assert!(matches!(pulsar.authentication, Some(Authentication::Certificate(found)) if found == pair));
    let told = failure(with(tls("pulsar://broker:6650")));
    assert!(told.contains("clientAuthenticationPlugin: AuthenticationTls needs a URL that starts with pulsar+ssl://"), "{told}");
    let keys = json!({"clientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth.oauth2.AuthenticationOAuth2",
        "clientAuthenticationParameters": r#"{"issuerUrl":"https://issuer","privateKey":"data:application/json;base64,e30="}"#});
    let pulsar = with(keys).unwrap_or_else(|error| panic!("{error}")).pulsar;
    assert!(matches!(pulsar.authentication, Some(Authentication::OAuth2(_))));

    let told = failure(with(json!({
        "pulsarServiceURL": "pulsar+ssl://b", "tlsAllowInsecureConnection": true, "clientAuthenticationPlugin": plugin,
        "clientAuthenticationParameters": "hush"
    })));
    for expected in
        ["2 problems", "tlsAllowInsecureConnection: connections without verification", "clientAuthenticationParameters: has to be"]
    {
        assert!(told.contains(expected) && !told.contains("hush"), "{expected} is not in {told}");
    }
    let other = with(json!({"clientAuthenticationPlugin": "org.apache.pulsar.client.impl.auth.AuthenticationSasl"}));
    assert!(failure(other).contains("AuthenticationSasl is not supported"));
}

#[test]
fn the_files_that_we_ship_for_functions_are_good() {
    let shipped = |name: &str| {
        let file = load::read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("connector-config").join(name)).expect("readable").top;
        let text = |key: &str| file.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let inputs: serde_json::Map<String, Value> =
            file["inputs"].as_array().expect("a list").iter().map(|topic| (topic.as_str().expect("text").into(), "{}".into())).collect();
        json!({
            "pulsarServiceURL": "pulsar://broker", "port": 1, "tenant": text("tenant"), "nameSpace": text("namespace"), "name": text("name"),
            "sourceInputSpecs": inputs, "sinkSpecsTopic": text("output"), "userConfig": file["userConfig"].to_string()
        })
    };
    let found = source(of(&shipped("function-source.yaml"), &[]));
    assert_eq!((found.topic.as_str(), found.stream.as_str()), ("persistent://public/default/orders-changes", "table:orders"));
    let found = sink(of(&shipped("function-sink.yaml"), &[]));
    assert_eq!(found.subscription.topics, ["persistent://public/default/orders-changes"]);
}
