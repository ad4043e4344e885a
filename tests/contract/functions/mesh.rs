//! Function Mesh's command lines, run by `bash` as they are: only the folder `/pulsar` is elsewhere, so that a test needs no rights, and
//! where the program answers, it has ports of its own.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pulsar_io_dynamodb::{
    error::Result,
    host::functions::{
        instance::{Instance, is_meant},
        plan::{Plan, plan},
    },
};
use secrecy::ExposeSecret;

use super::{
    environment, failure, folder,
    host::{Started, free_ports, status},
    sink,
};

/// A pod's file system, which is removed again.
struct Pod(PathBuf);

impl Pod {
    /// `put` puts a program where the command lines look for `java`, `pulsar_rust_instance` and the function itself.
    fn new(name: &str, put: impl Fn(&Path)) -> Self {
        let root = std::env::temp_dir().join(format!("pod-{}-{name}", std::process::id()));
        let bin = root.join("bin");
        fs::create_dir_all(&bin).expect("created");
        for name in ["java", "pulsar_rust_instance", "ddb-native"] {
            put(&bin.join(name));
        }
        Self(root)
    }

    fn root(&self) -> &Path {
        &self.0
    }

    /// The shell that runs a command line, in the environment that the operator gives the pod. `ports` stand for its two.
    fn shell(&self, line: &str, variables: &BTreeMap<String, String>, ports: (u16, u16)) -> Command {
        let line = fs::read_to_string(folder().join(format!("{line}.cmd"))).expect("readable");
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(
            line.replace("/pulsar/", &format!("{}/", self.0.display()))
                .replace("9093", &ports.0.to_string())
                .replace("9094", &ports.1.to_string()),
        );
        let path = format!("{}/bin:{}", self.0.display(), std::env::var("PATH").expect("a path"));
        shell.env_clear().envs(variables).env("PATH", path).current_dir(&self.0).stdin(Stdio::null());
        shell
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const POD: &[(&str, &str)] = &[
    ("POD_NAME", "ddb-native-function-1"),
    ("brokerServiceURL", "pulsar+ssl://broker:6651"),
    ("clientAuthenticationPlugin", "org.apache.pulsar.client.impl.auth.AuthenticationToken"),
    ("clientAuthenticationParameters", "token:a.b.c"),
    ("tlsTrustCertsFilePath", "/etc/tls/pulsar-functions/ca.pem"),
    ("AWS_SECRET_ACCESS_KEY", "hush"),
];

/// What the program is called with, and what it makes of it.
fn run(line: &str, variables: &[(&str, &str)]) -> Result<(Instance, Result<Plan>)> {
    let pod = Pod::new(line, |program| {
        fs::write(program, "#!/bin/sh\nprintf '%s\\0' \"$@\" >arguments\n").expect("written");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("executable");
    });
    let environment = environment(variables);
    let output = pod.shell(line, &environment, (9093, 9094)).output().expect("bash runs");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let arguments = fs::read_to_string(pod.root().join("arguments")).expect("it was called");
    let arguments: Vec<String> = arguments.strip_suffix('\0').unwrap_or_default().split('\0').map(str::to_owned).collect();
    assert!(is_meant(&arguments), "{line}: {arguments:?}");
    let instance = Instance::parse(&arguments, &environment)?;
    let plan = plan(&instance, &environment);
    Ok((instance, plan))
}

#[test]
fn a_source_resource_arrives_intact() {
    let (instance, plan) = run("source", POD).expect("an instance");
    assert_eq!(
        (instance.full_name().as_str(), instance.id, instance.port, instance.metrics_port),
        ("public/default/ddb-source", 1, 9093, Some(9094))
    );
    assert_eq!(instance.cluster, "pulsar-1");
    let expected = r#"{"awsCredentialPluginParam":"{\"accessKey\":\"it's\",\"secretKey\":\"y\"}","awsDynamodbStreamArn":"arn:aws:dynamodb:us-east-1:1:table/t/stream/x","awsRegion":"us-east-1","false":5,"initialPositionInStream":"TRIM_HORIZON"}"#;
    assert_eq!(instance.details.source.configs, expected);
    // The resource asks for both; the rest of it is good.
    let told = failure(plan);
    for problem in ["2 problems", "processingGuarantees: EFFECTIVELY_ONCE", "configs.false: there is no such key"] {
        assert!(told.contains(problem), "{problem} is not in {told}");
    }
}

#[test]
fn a_sink_resource_arrives_intact_and_can_start() {
    let (instance, plan) = run("sink", POD).expect("an instance");
    assert_eq!((instance.full_name().as_str(), instance.id), ("public/default/ddb-sink", 1));
    let access = &instance.access;
    assert_eq!((access.url.as_str(), access.auth_params.expose_secret()), ("pulsar+ssl://broker:6651", "token:a.b.c"));
    let found = sink(plan);
    assert_eq!((&*found.settings.table_name, found.subscription.name.as_str()), ("orders", "ddb"));
    assert_eq!(found.subscription.topics, ["persistent://public/default/in"]);
    assert_eq!(found.dead_letter_topic.as_deref(), Some("persistent://public/default/dlq"));
}

#[test]
fn without_authentication_the_empty_options_take_nothing_away() {
    let (instance, plan) = run("sink", &[("POD_NAME", "x-0"), ("brokerServiceURL", "pulsar://broker:6650")]).expect("an instance");
    assert_eq!((instance.id, instance.access.auth_plugin.as_str(), instance.access.auth_params.expose_secret()), (0, "", ""));
    assert!(plan.is_ok_and(|plan| plan.pulsar.authentication.is_none()));
}

#[test]
fn generic_and_java_functions_arrive_intact() {
    for line in ["generic", "java-function"] {
        let (instance, plan) = run(line, POD).expect("an instance");
        assert_eq!((instance.full_name().as_str(), instance.id), ("public/default/ddb-native", 1));
        let expected = r#"{"awsRegion":"us-east-1","false":5,"nested":{"a":"b c"},"q":"it's","tableName":"my orders"}"#;
        assert_eq!(instance.details.user_config, expected);
        assert_eq!(instance.access.trust_certs, "/etc/tls/pulsar-functions/ca.pem");
        let told = failure(plan);
        for problem in ["4 problems", "configs.false", "configs.nested", "configs.q", "\"my orders\""] {
            assert!(told.contains(problem), "{line}: {problem} is not in {told}");
        }
    }
}

#[test]
fn a_golang_function_is_configured_by_its_pods_variables() {
    let table = [("PULSAR_IO_DYNAMODB_TABLE_NAME", "orders"), ("PULSAR_IO_DYNAMODB_AWS_REGION", "us-east-1")];
    let (instance, plan) = run("go-simple", &[POD, &table].concat()).expect("an instance");
    assert_eq!((instance.full_name().as_str(), instance.id, instance.port), ("public/default/ddb-native", 1, 9093));
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((plan.pulsar.url.as_str(), plan.pulsar.authentication.is_some()), ("pulsar+ssl://broker:6651", true));
    let found = sink(Ok(plan));
    assert_eq!((&*found.settings.table_name, found.subscription.name.as_str()), ("orders", "sub1"));
    assert_eq!(found.subscription.topics, ["persistent://public/default/ddb-dummy-in"]);
}

#[test]
fn what_function_mesh_breaks_is_told_with_the_way_out() {
    let error = run("go-userconf", POD).err().expect("its quotes are lost").to_string();
    assert!(error.contains("leave funcConfig empty") && error.contains("PULSAR_IO_DYNAMODB_"), "{error}");
}

#[tokio::test]
async fn the_program_itself_stands_where_java_was_to_be() {
    let program = Path::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"));
    let unreachable = ("brokerServiceURL", "pulsar://127.0.0.1:1");
    let variables: Vec<_> = POD.iter().copied().filter(|(name, _)| *name != unreachable.0).chain([unreachable]).collect();
    for (line, problems) in [
        ("source", &["processingGuarantees: EFFECTIVELY_ONCE", "configs.false"][..]),
        ("generic", &["configs.false", "configs.nested", "configs.q", "\"my orders\""][..]),
        ("java-function", &["configs.false", "configs.nested", "configs.q", "\"my orders\""][..]),
        ("sink", &[][..]),
    ] {
        let pod = Pod::new(&format!("real-{line}"), |place| symlink(program, place).expect("a link"));
        let ports = free_ports();
        let _instance = Started::of(&mut pod.shell(line, &environment(&variables), ports));
        let status = status(ports.0, |_| true).await;
        assert_eq!((status.running, status.instance_id.as_str()), (problems.is_empty(), "1"), "{line}: {status:?}");
        for problem in problems {
            assert!(status.failure_exception.contains(problem), "{line}: {problem} is not in {}", status.failure_exception);
        }
    }
}
