//! The resources of Function Mesh in `docker/function-mesh/`: each becomes a worker that can start, by way of the command line that the operator
//! makes of it. That this is what the operator makes is shown on resources whose command lines it made itself.

use std::{collections::BTreeMap, fs};

use pulsar_io_dynamodb::{
    error::Result,
    host::functions::{
        instance::Instance,
        plan::{Plan, plan},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{super::containers::text, environment, folder, sink, source};

// The operator's fields, as far as these files have them: Kubernetes would leave out a misspelt one without a word.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    image: String,
    class_name: Option<String>,
    tenant: String,
    namespace: String,
    name: String,
    cluster_name: String,
    #[serde(rename = "replicas")]
    _replicas: u32,
    processing_guarantee: Option<String>,
    input: Option<Input>,
    output: Option<Output>,
    source_config: Option<Value>,
    sink_config: Option<Value>,
    func_config: Option<Value>,
    #[serde(default)]
    secrets_map: Map<String, Value>,
    subscription_name: Option<String>,
    subscription_position: Option<String>,
    #[serde(default)]
    retain_ordering: bool,
    #[serde(default)]
    cleanup_subscription: bool,
    dead_letter_topic: Option<String>,
    max_message_retry: Option<u32>,
    #[serde(default, rename = "autoAck")]
    _auto_ack: bool,
    #[serde(default, rename = "forwardSourceMessageProperty")]
    _forward_source_message_property: bool,
    #[serde(rename = "resources")]
    _resources: Value,
    pulsar: Pulsar,
    #[serde(default)]
    pod: Pod,
    java: Option<Java>,
    generic_runtime: Option<Generic>,
    golang: Option<Go>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    topics: Vec<String>,
    type_class_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Output {
    topic: String,
    type_class_name: Option<String>,
    producer_conf: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pulsar {
    pulsar_config: String,
    auth_secret: Option<String>,
    #[serde(rename = "tlsSecret")]
    _tls_secret: Option<String>,
    tls_config: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tls {
    enabled: bool,
    #[serde(rename = "hostnameVerification")]
    _hostname_verification: bool,
    cert_secret_name: String,
    cert_secret_key: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pod {
    termination_grace_period_seconds: Option<u64>,
    liveness: Option<Liveness>,
    service_account_name: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Liveness {
    #[serde(rename = "initialDelaySeconds")]
    _initial_delay_seconds: u32,
    period_seconds: u32,
    #[serde(rename = "failureThreshold")]
    _failure_threshold: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Java {
    #[serde(rename = "jar")]
    _jar: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Generic {
    #[serde(rename = "functionFile")]
    _function_file: String,
    #[serde(rename = "language")]
    _language: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Go {
    go: String,
    #[serde(rename = "log")]
    _log: Option<Value>,
}

/// Protobuf's JSON leaves out what is empty or the first of its enumeration.
fn without_defaults(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(without_defaults);
        map.retain(|_, value| !value.is_null() && value != &json!(false) && value != "" && value != "ATLEAST_ONCE" && value != "LATEST");
    }
}

fn as_text(value: Option<&Value>) -> Value {
    value.map_or(Value::Null, |value| value.to_string().into())
}

/// The operator's `--function_details`, without `resources`.
fn details(resource: &Resource) -> Value {
    let spec = &resource.spec;
    let configs = spec.source_config.as_ref().or(spec.sink_config.as_ref());
    let identity = || Value::from("org.apache.pulsar.functions.api.utils.IdentityFunction");
    let input = spec.input.as_ref().map(|input| {
        let specs: Map<_, _> = input.topics.iter().map(|topic| (topic.clone(), json!({}))).collect();
        json!({
            "typeClassName": input.type_class_name, "inputSpecs": specs, "subscriptionName": spec.subscription_name,
            "cleanupSubscription": spec.cleanup_subscription,
            "subscriptionPosition": if spec.subscription_position.as_deref() == Some("latest") { "LATEST" } else { "EARLIEST" },
        })
    });
    let output = spec.output.as_ref().map(|output| {
        let mut producer = output.producer_conf.clone();
        if let Some(producer) = &mut producer {
            producer.retain(|_, value| value != "LZ4");
        }
        json!({"typeClassName": output.type_class_name, "topic": output.topic, "producerSpec": producer, "forwardSourceMessageProperty": true})
    });
    let connector = json!({"className": spec.class_name, "configs": as_text(configs), "typeClassName": "[B"});
    let (own, from, to) = match resource.kind.as_str() {
        "Source" => (as_text(configs), Some(connector), output),
        "Sink" => (Value::Null, input, Some(connector)),
        _ => (as_text(spec.func_config.as_ref()), input, output),
    };
    let secrets = (!spec.secrets_map.is_empty()).then(|| Value::Object(spec.secrets_map.clone()));
    let mut details = json!({
        "tenant": spec.tenant, "namespace": spec.namespace, "name": spec.name, "userConfig": own, "secretsMap": as_text(secrets.as_ref()),
        "className": if resource.kind == "Function" { Value::Null } else { identity() },
        "processingGuarantees": spec.processing_guarantee.as_deref().unwrap_or_default().to_uppercase(),
        "autoAck": true, "parallelism": 1, "source": from, "sink": to, "retainOrdering": spec.retain_ordering,
        "componentType": resource.kind.to_uppercase(),
    });
    if let Some(topic) = &spec.dead_letter_topic {
        details["retryDetails"] = json!({"maxMessageRetries": spec.max_message_retry, "deadLetterTopic": topic});
    }
    without_defaults(&mut details);
    details
}

/// The same of a Function with `golang`, which is told less.
fn conf(spec: &Spec) -> Value {
    json!({
        "pulsarServiceURL": "pulsar+ssl://broker:6651", "instanceID": 0, "port": 9093, "metricsPort": 9094, "tenant": spec.tenant, "nameSpace": spec.namespace,
        "name": spec.name, "processingGuarantees": 0, "secretsMap": "", "userConfig": "", "subscriptionName": spec.subscription_name,
        "sourceSpecsTopic": spec.input.as_ref().map(|input| input.topics[0].clone()), "sinkSpecsTopic": spec.output.as_ref().map(|output| output.topic.clone()),
    })
}

/// What a resource starts, in a pod that has the variables and files that it asks for.
fn started(resource: &Resource) -> Result<Plan> {
    let spec = &resource.spec;
    let mut variables = vec![("POD_NAME", "pod-0")];
    variables.extend(spec.secrets_map.keys().map(|name| (name.as_str(), "hush")));
    variables.extend(spec.pod.env.iter().map(|variable| (variable.name.as_str(), variable.value.as_str())));
    let auth = [
        ("clientAuthenticationPlugin", "org.apache.pulsar.client.impl.auth.AuthenticationToken"),
        ("clientAuthenticationParameters", "token:a.b.c"),
    ];
    variables.extend(auth);
    let environment = environment(&variables);
    let arguments: Vec<String> = if spec.golang.is_some() {
        vec!["-instance-conf".into(), conf(spec).to_string()]
    } else {
        let line = [
            "--function_details",
            &details(resource).to_string(),
            "--instance_id",
            "0",
            "--pulsar_serviceurl",
            "pulsar+ssl://broker:6651",
            "--port",
            "9093",
            "--metrics_port",
            "9094",
            "--client_auth_plugin",
            auth[0].1,
            "--client_auth_params",
            auth[1].1,
            "--use_tls",
            "true",
        ]
        .map(str::to_owned);
        line.to_vec()
    };
    plan(&Instance::parse(&arguments, &environment).expect("an instance"), &environment)
}

fn ours(name: &str) -> Resource {
    resource(name, &text(&format!("docker/function-mesh/{name}.yaml")))
}

/// What the custom resource definition of each kind does not have, of the fields that another kind's has: Kubernetes would leave these out as well.
/// (`config/crd/bases` of streamnative/function-mesh at 012f4eef.)
const LACKS: [(&str, &[&str]); 3] = [
    (
        "Source",
        &[
            "input",
            "cleanupSubscription",
            "subscriptionName",
            "subscriptionPosition",
            "retainOrdering",
            "deadLetterTopic",
            "maxMessageRetry",
            "autoAck",
            "funcConfig",
            "sinkConfig",
            "forwardSourceMessageProperty",
        ],
    ),
    ("Sink", &["output", "forwardSourceMessageProperty", "funcConfig", "sourceConfig"]),
    // Of another form there.
    ("Function", &["sourceConfig", "sinkConfig"]),
];

fn resource(name: &str, text: &str) -> Resource {
    let resource: Resource = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let fields: Value = serde_saphyr::from_str(text).expect("YAML");
    let (_, lacks) = LACKS.iter().find(|(kind, _)| *kind == resource.kind).unwrap_or_else(|| panic!("{name}: {}", resource.kind));
    let unknown = lacks.iter().find(|field| !fields["spec"][field].is_null());
    assert_eq!(unknown, None, "{name}: a {} has no such field", resource.kind);
    resource
}

const OURS: [&str; 4] = ["source", "sink", "function-generic", "function-golang"];

#[test]
fn resources_become_what_the_operator_itself_made_of_them() {
    for name in ["source", "sink", "generic"] {
        let file = folder().join(format!("resources/{name}.yaml"));
        let resource = resource(name, &fs::read_to_string(file).expect("readable"));
        let line = fs::read_to_string(folder().join(format!("{name}.cmd"))).expect("readable").replace(r#"'"'"'"#, "\u{1}");
        let made =
            line.split("--function_details '").nth(1).and_then(|rest| rest.split('\'').next()).expect("details").replace('\u{1}', "'");
        let mut made: Value = serde_json::from_str(&made).expect("JSON");
        made.as_object_mut().expect("an object").remove("resources");
        // Texts that hold JSON are compared by what they say.
        let inside = |details: &Value| -> Value {
            let mut details = details.clone();
            for place in ["/userConfig", "/secretsMap", "/source/configs", "/sink/configs"] {
                if let Some(text) = details.pointer_mut(place) {
                    *text = serde_json::from_str(text.as_str().expect("text")).expect("JSON");
                }
            }
            details
        };
        assert_eq!(inside(&details(&resource)), inside(&made), "{name}");
    }
}

#[test]
fn each_of_our_resources_starts_the_worker_that_it_is_for() {
    let keeps = |found: pulsar_io_dynamodb::config::source::Source| {
        assert_eq!((found.stream.as_str(), found.lease_table.as_str()), ("table:orders", "orders-source"));
        assert_eq!(found.topic, "persistent://public/default/orders-changes");
        assert_eq!(found.settings.checkpoint_interval.as_secs(), 5);
    };
    keeps(source(started(&ours("source"))));
    keeps(source(started(&ours("function-golang"))));
    for name in ["sink", "function-generic"] {
        let found = sink(started(&ours(name)));
        assert_eq!((&*found.settings.table_name, found.subscription.name.as_str()), ("orders-copy", "orders-copy"), "{name}");
        assert_eq!(found.dead_letter_topic.as_deref(), Some("persistent://public/default/orders-dead-letters"), "{name}");
        assert_eq!(format!("{:?} {:?}", found.subscription.kind, found.subscription.initial_position), "Failover Earliest", "{name}");
    }
}

#[test]
fn our_resources_fit_the_image_and_what_they_refer_to() {
    let all = text("docker/function-mesh/pulsar.yaml");
    let objects: Vec<Value> = all.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("YAML")).collect();
    let has = |kind: &str, name: &str, key: Option<&str>| {
        objects.iter().any(|object| {
            let keys = |key| !object["data"][key].is_null() || !object["stringData"][key].is_null();
            object["kind"] == kind && object["metadata"]["name"] == name && key.is_none_or(keys)
        })
    };
    for name in OURS {
        let Resource { api_version, spec, .. } = ours(name);
        assert_eq!(api_version, "compute.functionmesh.io/v1alpha1");
        assert_eq!((spec.image.as_str(), spec.cluster_name.as_str()), ("pulsar-io-dynamodb:latest", "pulsar"), "{name}");
        let runtimes = [spec.java.is_some(), spec.generic_runtime.is_some(), spec.golang.is_some()];
        assert_eq!(runtimes.iter().filter(|there| **there).count(), 1, "{name}");
        for key in ["brokerServiceURL", "webServiceURL"] {
            assert!(has("ConfigMap", &spec.pulsar.pulsar_config, Some(key)), "{name}: {key}");
        }
        for key in ["clientAuthenticationPlugin", "clientAuthenticationParameters"] {
            assert!(has("Secret", spec.pulsar.auth_secret.as_deref().expect("authentication"), Some(key)), "{name}: {key}");
        }
        for (variable, secret) in &spec.secrets_map {
            assert!(has("Secret", secret["path"].as_str().expect("a name"), secret["key"].as_str()), "{name}: {variable}");
        }
        if let Some(tls) = &spec.pulsar.tls_config {
            assert!(tls.enabled && has("Secret", &tls.cert_secret_name, Some(&tls.cert_secret_key)), "{name}: TLS");
        }
        if let Some(account) = &spec.pod.service_account_name {
            assert!(has("ServiceAccount", account, None), "{name}: {account}");
        }
        if let Some(go) = &spec.golang {
            assert_eq!(go.go, "/pulsar/bin/pulsar-io-dynamodb");
        }
        // The operator's clean-up would run what the image has not.
        assert!(!spec.cleanup_subscription, "{name}");
        // Its drain takes eight seconds at most; the operator makes no probe without a period.
        assert!(spec.pod.termination_grace_period_seconds.is_some_and(|seconds| seconds > 8), "{name}");
        assert!(spec.pod.liveness.is_some_and(|liveness| liveness.period_seconds > 0), "{name}");
        assert_eq!(spec.pod.annotations.get("prometheus.io/port").map(String::as_str), Some("9094"), "{name}");
    }
}
