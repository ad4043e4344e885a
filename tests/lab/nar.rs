//! The archive that Pulsar runs as a source and as a sink, by the commands that people have for the Java connector's.

use std::{env, fs};

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use super::{
    eventually,
    functions::{Functions, PATIENCE, item, sum},
    lab,
    table::{self, Table},
    topic::Topic,
};

/// The archive with this build's executable, made by the command that README has.
async fn archive(functions: &Functions<'_>) -> String {
    let file = functions.program.with_extension("nar");
    let machine = if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let executable = format!("{machine}={}", functions.program.display());
    let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/nar/build"));
    let output = build.arg("--output").arg(&file).arg(executable).output().await.expect("nar/build runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file.to_str().expect("text").to_owned()
}

/// The native processes under the instances of a connector.
fn natives(name: &str) -> Vec<u32> {
    let line = |id: u32| fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let parent = |id: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let ids = fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let runs = |id: &u32| line(*id).split('\0').nth(1) == Some("bridge") && parent(*id).is_some_and(|parent| line(parent).contains(name));
    ids.filter(runs).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_z1_h1_a_source_and_a_sink_run_from_the_archive_survive_a_kill_and_leave_nothing_behind() {
    let Some(lab) = lab("nar").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, topic) = (name("nar-source"), name("nar-sink"), name("nar-changes"));
    for number in 0..30 {
        orders.put(item(number)).await;
    }
    let secrets = r#"{"awsSecretKey":"local"}"#;
    // The secret is no part of the configuration.
    let without = |config: String| {
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config.as_object_mut().expect("an object").remove("awsSecretKey");
        config.to_string()
    };
    let config = without(functions.source_config(&orders, json!({})));
    let create = ["sources", "create", "--archive", archive, "--name", &source, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--source-config", &config, "--secrets", secrets]].concat()).await;
    let config = without(functions.config(json!({"tableName": copy.name})));
    let create = ["sinks", "create", "--archive", archive, "--name", &sink, "--inputs", &topic, "--subs-position", "Earliest"];
    functions.admin(&[&create[..], &["--retain-ordering", "--sink-config", &config, "--secrets", secrets]].concat()).await;

    let same = async |items: usize| {
        let original = orders.items().await;
        eventually("the copy", PATIENCE, async || (copy.items().await.len() == items).then_some(())).await;
        table::assert_equal(&original, &copy.items().await);
    };
    same(30).await;
    for (kind, name, counts) in
        [("sources", &source, ["numReceivedFromSource", "numWritten"]), ("sinks", &sink, ["numReadFromPulsar", "numWrittenToSink"])]
    {
        let status = functions.status_of(kind, name, |status| counts.iter().all(|count| sum(status, count) == 30)).await;
        assert_eq!((&status["numInstances"], &status["numRunning"]), (&1.into(), &1.into()), "{status}");
        assert_eq!(status["instances"][0]["status"]["error"], "", "{status}");
    }

    // The native process is killed: its instance ends with it, and Pulsar starts another.
    for name in [&source, &sink] {
        let before = natives(name);
        assert_eq!(before.len(), 1, "{name}");
        assert!(Command::new("kill").args(["-KILL", &before[0].to_string()]).status().await.expect("kill runs").success());
        eventually("another process", PATIENCE, async || natives(name).iter().any(|id| *id != before[0]).then_some(())).await;
    }
    for number in 30..40 {
        orders.put(item(number)).await;
    }
    same(40).await;
    for (kind, name) in [("sources", &source), ("sinks", &sink)] {
        functions.status_of(kind, name, |status| status["numRunning"] == 1 && sum(status, "numRestarts") == 1).await;
    }

    // Stopped and started again, it goes on where it was.
    functions.admin(&["sources", "stop", "--name", &source]).await;
    eventually("the source ends", PATIENCE, async || natives(&source).is_empty().then_some(())).await;
    for number in 40..45 {
        orders.put(item(number)).await;
    }
    functions.admin(&["sources", "start", "--name", &source]).await;
    same(45).await;

    for (kind, name) in [("sources", &source), ("sinks", &sink)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        eventually(&format!("{name} ends"), PATIENCE, async || natives(name).is_empty().then_some(())).await;
    }
    let leases = table::client(&lab).scan().table_name(format!("leases-{}", lab.unique)).send().await.expect("scan");
    let rows = leases.items.unwrap_or_default();
    assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains_key("leaseOwner")), "released, as by a clean stop: {rows:?}");
}

/// What is wrong with a configuration is in the instance's log, all of it, and an update heals it. (Pulsar ends the virtual machine for
/// it and starts it again and again, so its status has the restarts and no text.)
#[tokio::test(flavor = "multi_thread")]
async fn h1_what_is_wrong_with_a_source_from_the_archive_is_in_its_log_and_an_update_heals_it() {
    let Some(lab) = lab("nar-wrong").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let (name, topic) = (format!("nar-wrong-{}", lab.unique), format!("nar-wrong-changes-{}", lab.unique));
    orders.put(item(1)).await;
    let secret = json!({"awsSecretKey": "local"});
    let wrong = functions.source_config(&orders, json!({"awsSecretKey": "local", "checkpointIntervall": 1, "receiveQueueSize": 0}));
    let create = ["sources", "create", "--archive", archive, "--name", &name, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--source-config", &wrong]].concat()).await;
    let log = functions.program.with_file_name("public").join("default").join(&name).join(format!("{name}-0.log"));
    let problems = ["did you mean checkpointInterval?", "configs.receiveQueueSize: has to be from 1"];
    let told = async || problems.iter().all(|problem| fs::read_to_string(&log).is_ok_and(|text| text.contains(problem))).then_some(());
    eventually("both problems in the log", PATIENCE, told).await;
    // Between its start and its end the virtual machine counts as running.
    let given_up = |status: &Value| sum(status, "numRestarts") > 0 && status["numRunning"] == 0;
    functions.status_of("sources", &name, given_up).await;

    let good = functions.source_config(&orders, secret);
    functions.admin(&["sources", "update", "--archive", archive, "--name", &name, "--source-config", &good]).await;
    let mut reader = Topic::from_start(&lab, &topic).await;
    let message = timeout(PATIENCE, reader.next_whenever()).await.expect("a message, once it is started again");
    assert_eq!(message.json["dynamodb"]["Keys"]["sk"]["N"], "1");
    functions.status_of("sources", &name, |status| status["numRunning"] == 1).await;
    functions.admin(&["sources", "delete", "--name", &name]).await;
    eventually("it ends", PATIENCE, async || natives(&name).is_empty().then_some(())).await;
}
