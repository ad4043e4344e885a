//! What `leases` says of a running source, and that the source goes on from where a reset has put it. The stream is the stand-in: DynamoDB Local
//! rounds creation times down to the minute, so that LATEST would leave out what comes within it.

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::process::Command;

use super::{Lab, connector::Connector, eventually, lab, topic::Topic};
use crate::support::stand_in::{StandIn, record::event_id};

/// Exit code and output.
async fn leases(lab: &Lab, config: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"));
    command.arg("leases").args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    command.env_remove("AWS_PROFILE").env("AWS_ENDPOINT_URL", &lab.dynamodb_endpoint);
    command.envs([("AWS_ACCESS_KEY_ID", lab.access_key.as_str()), ("AWS_SECRET_ACCESS_KEY", "local")]);
    let output = command.output().await.expect("it starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
    println!("leases {arguments:?}\n{text}");
    (output.status.code().expect("no signal"), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_on_from_where_a_reset_has_put_it() {
    let Some(lab) = lab("leases").await else { return };
    let stream = StandIn::start(1, 1_000);
    stream.state().stream().write(0, 10);
    let topic = format!("persistent://public/default/{}", lab.unique);
    let config = format!(
        "name: orders\ntopicName: {topic}\nconfigs:\n  awsRegion: us-east-1\n  awsDynamodbStreamArn: {}\n  awsEndpoint: {}\n  applicationName: {}\n  \
         initialPositionInStream: TRIM_HORIZON\n  checkpointInterval: 100\n",
        stream.stream_arn(),
        stream.endpoint(),
        lab.unique
    );
    let mut reader = Topic::from_start(&lab, &topic).await;
    let source = Connector::start(&lab, "source", &config);
    for number in 0..10 {
        assert_eq!(reader.next().await.key, Some(event_id(0, number)));
    }

    let caught_up = async || {
        let (code, text) = leases(&lab, &source.config, &["--wait", "0"]).await;
        (code == 0 && text.contains("  0 s  ")).then_some(())
    };
    eventually("the checkpoint reaches the last record", Duration::from_secs(30), caught_up).await;
    let (code, text) = leases(&lab, &source.config, &[]).await;
    assert!(code == 0 && text.contains("1 running") && text.contains("public/default/orders-0: 1"), "{text}");
    let (code, text) = leases(&lab, &source.config, &["reset", "--all", "--to", "TRIM_HORIZON", "--yes"]).await;
    assert!(code == 1 && text.contains("is alive"), "{text}");

    // While it runs, by force: it loses the lease, takes it again, and begins again.
    let (code, text) = leases(&lab, &source.config, &["reset", "--all", "--to", "TRIM_HORIZON", "--yes", "--force"]).await;
    assert_eq!(code, 0, "{text}");
    for number in 0..10 {
        assert_eq!(reader.next().await.key, Some(event_id(0, number)), "O1: everything again, in the same order");
    }

    // While it is stopped: what is written now is skipped.
    let file = source.config.clone();
    assert!(source.stop().await.success());
    stream.state().stream().write(0, 5);
    // LATEST begins with the second in which it is said: creation times are whole seconds.
    let second = SystemTime::now();
    let over = async || (second.elapsed().expect("time goes on") > Duration::from_secs(2)).then_some(());
    eventually("the second is over", Duration::from_secs(5), over).await;
    let (code, text) = leases(&lab, &file, &["reset", "--all", "--to", "LATEST", "--yes"]).await;
    assert!(code == 0 && text.contains("SKIPPED"), "{text}");
    stream.state().stream().write(0, 5);
    let source = Connector::start(&lab, "source", &config);
    assert_eq!(reader.next().await.key, Some(event_id(0, 15)), "what was written before is skipped");
    let log = source.log_text();
    assert!(log.contains("initialPositionInStream counts only for shards without a lease"), "R14: {log}");
    assert!(source.stop().await.success());
}
