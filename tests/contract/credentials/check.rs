//! The built program, with the configuration that a person writes.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use tokio::task::spawn_blocking;

use crate::support::aws::{Aws, ROOT};

/// Says the same as nothing; takes the time that it takes until nobody has answered.
const WITHOUT_TOKEN: &str = "--log-level=info";

/// Writes the configuration and runs `check --connect` with nothing of this process's environment. Exit code and both outputs.
async fn check(kind: &str, test: &str, configs: &str, environment: &[(&str, &str)], more: &[&str]) -> (i32, String) {
    let path: PathBuf = env::temp_dir().join(format!("{}-{test}.yaml", std::process::id()));
    let fields = if kind == "sink" { "name: n\ninputs: [t]" } else { "name: n\ntopicName: t" };
    fs::write(&path, format!("{fields}\nconfigs:\n{configs}")).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"));
    command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(environment.iter().copied()).stdin(Stdio::null());
    command.args(["check", kind, "--connect", "--config"]).arg(&path).args(more);
    // Nobody listens there; and with no token, nobody is asked.
    command.args(["--pulsar-url", "pulsar://127.0.0.1:1"]);
    if !more.contains(&WITHOUT_TOKEN) {
        command.args(["--token-file", "/no/such/token"]);
    }
    let output = spawn_blocking(move || command.output()).await.expect("no panic").expect("the program starts");
    fs::remove_file(path).expect("removed");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
    (output.status.code().expect("no signal"), text)
}

fn source_of(aws: &Aws, more: &str) -> String {
    let endpoint = aws.endpoint();
    format!(
        "  awsRegion: us-east-1\n  awsDynamodbStreamArn: table:orders\n  applicationName: leases\n  awsEndpoint: {endpoint}\n  dynamoEndpoint: {endpoint}\n{more}"
    )
}

#[tokio::test]
async fn each_call_of_a_source_is_made_once_and_a_missing_permission_is_named() {
    let aws = Aws::start().await;
    let role = format!(
        "  awsStsEndpoint: {}\n  awsRoleArn: arn:aws:iam::1:role/source\n  awsRoleSource: {{awsAccessKey: {}, awsSecretKey: {}}}\n",
        aws.endpoint(),
        ROOT.0,
        ROOT.1
    );
    let configs = source_of(&aws, &role);
    let (code, output) = check("source", "source-works", &configs, &[], &[]).await;
    assert!(code == 1 && output.contains("FAILS      Pulsar at pulsar://127.0.0.1:1") && output.contains("/no/such/token"), "{output}");
    assert_eq!(output.matches("FAILS").count(), 1, "{output}");
    assert!(output.contains("works      sts:GetCallerIdentity on the credentials: arn:aws:iam::1:role/source"), "{output}");
    let calls: Vec<_> = aws.state().calls.iter().map(|(operation, _)| operation.clone()).collect();
    let expected = [
        "DescribeTable",
        "DescribeStream",
        "GetShardIterator",
        "GetRecords",
        "DescribeTable",
        "Scan",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
    ];
    assert_eq!(calls, expected);
    for action in expected {
        assert!(output.contains(&format!("works      dynamodb:{action} on")), "{action}: {output}");
    }

    for action in expected {
        aws.state().denied = vec![action];
        let (code, output) = check("source", "source-denied", &configs, &[], &[]).await;
        assert!(code == 1 && output.contains(&format!("FAILS      dynamodb:{action} on")), "{action}: {output}");
        assert!(output.contains(&format!("allow the IAM action dynamodb:{action} on it")), "{action}: {output}");
        assert!(!output.contains("hush"), "a secret shows: {output}");
    }
}

/// With the environment alone, by Flink's names.
#[tokio::test]
async fn each_call_of_a_sink_is_made_once_and_a_missing_permission_is_named() {
    let aws = Aws::start().await;
    let configs = format!("  table: orders\n  aws: {{region: us-east-1, endpoint: '{}', credentials.provider: ENV_VAR}}\n", aws.endpoint());
    let environment = [("AWS_ACCESS_KEY_ID", ROOT.0), ("AWS_SECRET_ACCESS_KEY", ROOT.1)];
    let (_, output) = check("sink", "sink-works", &configs, &environment, &[]).await;
    for action in ["DescribeTable", "BatchWriteItem"] {
        assert!(output.contains(&format!("works      dynamodb:{action} on orders")), "{action}: {output}");
    }
    assert!(output.contains("not tried  sts:GetCallerIdentity"), "{output}");
    aws.state().denied = vec!["BatchWriteItem"];
    let (code, output) = check("sink", "sink-denied", &configs, &environment, &[]).await;
    assert!(code == 1 && output.contains("allow the IAM action dynamodb:BatchWriteItem on it"), "{output}");

    let (code, output) = check("sink", "sink-no-environment", &configs, &[], &[]).await;
    assert!(code == 1 && output.contains("environment variable not set"), "{output}");
    assert!(!output.contains("hush"), "a secret shows: {output}");
}

#[tokio::test]
async fn trusting_everybody_is_warned_about() {
    let aws = Aws::start_with_tls().await;
    let configs = source_of(&aws, "  trustAllCertificates: true\n  awsAccessKey: AKROOT\n  awsSecretKey: hush-root-secret\n");
    let (code, output) = check("source", "trusting", &configs, &[], &[WITHOUT_TOKEN]).await;
    assert!(code == 1 && output.contains("FAILS      Pulsar at pulsar://127.0.0.1:1: could not connect"), "{output}");
    assert!(output.contains("Connection refused") || output.contains("retry limit"), "{output}");
    assert!(output.contains("WARN") && output.contains("NO CERTIFICATE IS VERIFIED"), "{output}");
    assert!(output.contains("works      dynamodb:GetRecords"), "{output}");
}

/// Requests and answers of STS have secrets in them; no log level shows them.
#[tokio::test]
async fn secrets_are_not_in_the_log_even_at_trace() {
    let aws = Aws::start().await;
    aws.state().external_id = Some("hush-external");
    let token = env::temp_dir().join(format!("{}-trace-token", std::process::id()));
    fs::write(&token, "hush-token").expect("written");
    for (name, credentials) in [
        (
            "role",
            "awsRoleArn: arn:aws:iam::1:role/r\n  awsExternalId: hush-external\n  awsAccessKey: AKROOT\n  awsSecretKey: hush-root-secret"
                .to_owned(),
        ),
        ("web", format!("awsRoleArn: arn:aws:iam::1:role/r\n  awsWebIdentityTokenFile: {}", token.display())),
        (
            "process",
            r#"awsCredentialProcess: echo '{"Version":1,"AccessKeyId":"AKROOT","SecretAccessKey":"hush","SessionToken":"hush"}'"#
                .to_owned(),
        ),
        ("static", "awsAccessKey: AKROOT\n  awsSecretKey: hush-root-secret\n  awsSessionToken: hush".to_owned()),
    ] {
        let configs = source_of(&aws, &format!("  awsStsEndpoint: {}\n  {credentials}\n", aws.endpoint()));
        let (_, output) = check("source", &format!("trace-{name}"), &configs, &[], &["--log-level", "trace"]).await;
        assert!(output.contains("works      dynamodb:GetRecords"), "{name}: {output}");
        assert!(output.contains("TRACE") && !output.contains("hush"), "{name}: a secret shows:\n{output}");
    }
    fs::remove_file(token).expect("removed");
}
