//! The archive that Pulsar runs as a source and as a sink, by the commands that people have for the Java connector's.

use std::{env, fs, ops::Range, path::Path, process::Stdio};

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use super::{
    Lab, eventually,
    functions::{Functions, PATIENCE, item, sum},
    lab,
    table::{self, Table},
    topic::Topic,
};

/// The archive with this build's executable, made by the command that README has.
pub async fn archive(functions: &Functions<'_>) -> String {
    archive_with(&functions.program, &functions.program.with_extension("nar")).await
}

/// The archive `file` with this executable.
async fn archive_with(executable: &Path, file: &Path) -> String {
    let machine = if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let executable = format!("{machine}={}", executable.display());
    let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/nar/build"));
    let output = build.arg("--output").arg(file).arg(executable).output().await.expect("nar/build runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file.to_str().expect("text").to_owned()
}

/// A native process and the virtual machine over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    pub machine: u32,
    pub native: u32,
}

fn processes() -> Vec<u32> {
    fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The virtual machines of `localrun` for this connector, below the tool's own.
pub fn local_runners(name: &str) -> Vec<u32> {
    processes().into_iter().filter(|id| line(*id).contains("LocalRunner") && line(*id).contains(name)).collect()
}

/// The command line of a process, its words ended by zeros.
fn line(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default()
}

/// The instances below virtual machines whose command lines have this text, in any order.
pub fn instances(name: &str) -> Vec<Instance> {
    let parent = |id: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let natives = processes().into_iter().filter(|id| line(*id).split('\0').nth(1) == Some("bridge"));
    natives.filter_map(|native| Some(Instance { machine: parent(native)?, native })).filter(|of| line(of.machine).contains(name)).collect()
}

pub async fn signal(signal: &str, id: u32) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().await.expect("kill runs").success());
}

pub async fn gone(what: &str, id: u32) {
    eventually(what, PATIENCE, async || (!Path::new(&format!("/proc/{id}")).exists()).then_some(())).await;
}

pub async fn ended(name: &str) {
    eventually(&format!("{name} ends"), PATIENCE, async || instances(name).is_empty().then_some(())).await;
}

/// Waits until the log of the first instance has all these texts.
pub async fn logged(functions: &Functions<'_>, name: &str, texts: &[&str]) {
    let log = functions.program.with_file_name("public").join("default").join(name).join(format!("{name}-0.log"));
    let told = async || texts.iter().all(|text| fs::read_to_string(&log).is_ok_and(|log| log.contains(text))).then_some(());
    eventually(&format!("{texts:?} in {}", log.display()), PATIENCE, told).await;
}

/// Waits until the copy has so many items, and compares.
pub async fn same(orders: &Table, copy: &Table, items: usize) {
    let original = orders.items().await;
    eventually("the copy", PATIENCE, async || (copy.items().await.len() == items).then_some(())).await;
    table::assert_equal(&original, &copy.items().await);
}

/// Waits until the topic has so many messages, and the sink has acknowledged each (A1).
pub async fn acknowledged(functions: &Functions<'_>, topic: &str, sink: &str, messages: u64) {
    let path = format!("/admin/v2/persistent/public/default/{topic}/stats?getPreciseBacklog=true");
    eventually(&format!("{messages} acknowledged messages"), PATIENCE, async || {
        let stats: Value = serde_json::from_str(&functions.request("GET", &path, "application/json", &[]).await.ok()?).ok()?;
        let subscription = &stats["subscriptions"][format!("public/default/{sink}")];
        (stats["msgInCounter"] == messages && subscription["msgBacklog"] == 0).then_some(())
    })
    .await;
}

/// As by a clean stop.
async fn assert_released(lab: &Lab) {
    let leases = table::client(lab).scan().table_name(format!("leases-{}", lab.unique)).send().await.expect("scan");
    let rows = leases.items.unwrap_or_default();
    assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains_key("leaseOwner")), "released: {rows:?}");
}

pub async fn put(orders: &Table, numbers: Range<usize>) {
    for number in numbers {
        orders.put(item(number)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_z1_h1_a_source_and_a_sink_run_from_the_archive_survive_every_fault_and_leave_nothing_behind() {
    let Some(lab) = lab("nar").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, topic) = (name("nar-source"), name("nar-sink"), name("nar-changes"));
    put(&orders, 0..30).await;
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
    let quickly = ["--runtime-flags", "-Dpulsar.io.dynamodb.silence.ms=12000"];
    functions.admin(&[&create[..], &quickly, &["--retain-ordering", "--sink-config", &config, "--secrets", secrets]].concat()).await;

    same(&orders, &copy, 30).await;
    for (kind, name, counts) in
        [("sources", &source, ["numReceivedFromSource", "numWritten"]), ("sinks", &sink, ["numReadFromPulsar", "numWrittenToSink"])]
    {
        let status = functions.status_of(kind, name, |status| counts.iter().all(|count| sum(status, count) == 30)).await;
        assert_eq!((&status["numInstances"], &status["numRunning"]), (&1.into(), &1.into()), "{status}");
        assert_eq!(status["instances"][0]["status"]["error"], "", "{status}");
    }
    acknowledged(&functions, &topic, &sink, 30).await;

    // A native process is killed, another one hangs. The instance ends with it and says why, and Pulsar starts it again.
    let one = |name: &str| -> Instance { instances(name).try_into().map(|[one]: [Instance; 1]| one).expect("one instance") };
    let (killed, hanging) = (one(&source), one(&sink));
    signal("-KILL", killed.native).await;
    signal("-STOP", hanging.native).await;
    put(&orders, 30..40).await;
    same(&orders, &copy, 40).await;
    gone("the hanging process", hanging.native).await;
    for (kind, name, why) in [("sources", &source, "exit code 137"), ("sinks", &sink, "it gave no sign of life for 12 s")] {
        functions.status_of(kind, name, |status| status["numRunning"] == 1 && sum(status, "numRestarts") >= 1).await;
        logged(&functions, name, &[&format!("The DynamoDB connector's native process has ended: {why}")]).await;
    }

    // One virtual machine is killed, the other stopped and started again: nothing of them stays, and they go on where they were.
    let orphaned = one(&sink);
    signal("-KILL", orphaned.machine).await;
    gone("the process without its parent", orphaned.native).await;
    functions.admin(&["sources", "stop", "--name", &source]).await;
    ended(&source).await;
    put(&orders, 40..45).await;
    functions.admin(&["sources", "start", "--name", &source]).await;
    same(&orders, &copy, 45).await;

    for (kind, name) in [("sources", &source), ("sinks", &sink)] {
        functions.admin(&[kind, "delete", "--name", name]).await;
        ended(name).await;
    }
    assert_released(&lab).await;
}

/// The commands for a connector in Pulsar's own folder, the REST interface that every tool calls, and two instances.
#[tokio::test(flavor = "multi_thread")]
async fn d1_z1_built_in_types_the_rest_interface_and_two_instances() {
    let Some(lab) = lab("nar-types").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = archive(&functions).await;
    let built_in = functions.program.with_file_name("../connectors/pulsar-io-dynamodb.nar");
    fs::copy(&archive, &built_in).expect("copied");
    functions.request("POST", "/admin/v3/sources/reloadBuiltInSources", "application/json", &[]).await.expect("reloaded");
    functions.request("POST", "/admin/v3/sinks/reloadBuiltInSinks", "application/json", &[]).await.expect("reloaded");
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, topic) = (name("source"), name("sink"), name("changes"));
    put(&orders, 0..10).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--source-type", "dynamodb", "--name", &source, "--destination-topic-name", &topic];
    functions.admin(&[&create[..], &["--parallelism", "2", "--source-config", &config]].concat()).await;
    let configs: Value = serde_json::from_str(&functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}))).expect("JSON");
    let mut config = json!({
        "tenant": "public", "namespace": "default", "name": sink, "inputs": [topic], "sourceSubscriptionPosition": "Earliest",
        "retainOrdering": true, "configs": configs,
    });
    let path = format!("/admin/v3/sinks/public/default/{sink}");
    let form = form(&config, Some(&fs::read(&archive).expect("the archive")));
    functions.request("POST", &path, FORM, &form).await.expect("created");
    same(&orders, &copy, 10).await;
    let status = functions.status_of("sources", &source, |status| sum(status, "numWritten") == 10 && status["numRunning"] == 2).await;
    assert_eq!(sum(&status, "numReceivedFromSource"), 10, "one shard, one of the two: {status}");
    assert_eq!(instances(&source).len(), 2);

    // From the upload to the built-in type, as `sinks update --sink-type dynamodb` does.
    config["archive"] = "builtin://dynamodb".into();
    functions.request("PUT", &path, FORM, &self::form(&config, None)).await.expect("updated");
    logged(&functions, &sink, &[r#"builtin: "dynamodb""#]).await;
    put(&orders, 10..15).await;
    same(&orders, &copy, 15).await;
    // What the first one had written a moment before may have come again.
    functions.status_of("sinks", &sink, |status| sum(status, "numWrittenToSink") >= 5 && status["numRunning"] == 1).await;

    // The built-in type from the start, by its command.
    let (by_command, other) = (name("by-command"), Table::create(&lab, "other", None).await);
    let config = functions.config(json!({"tableName": other.name, "awsSecretKey": "local"}));
    let create = ["sinks", "create", "--sink-type", "dynamodb", "--name", &by_command, "--inputs", &topic, "--subs-position", "Earliest"];
    functions.admin(&[&create[..], &["--sink-config", &config]].concat()).await;
    same(&orders, &other, 15).await;
    logged(&functions, &by_command, &[r#"builtin: "dynamodb""#]).await;

    for (kind, name) in [("sources", &source), ("sinks", &sink), ("sinks", &by_command)] {
        let path = format!("/admin/v3/{kind}/public/default/{name}");
        functions.request("DELETE", &path, "application/json", &[]).await.expect("it may go");
        ended(name).await;
    }
    assert_released(&lab).await;
    fs::remove_file(built_in).expect("it is there");
}

const FORM: &str = "multipart/form-data; boundary=part";

/// What `curl -F sinkConfig=…;type=application/json -F data=@ARCHIVE` sends.
fn form(config: &Value, archive: Option<&[u8]>) -> Vec<u8> {
    let mut form = format!(
        "--part\r\nContent-Disposition: form-data; name=\"sinkConfig\"\r\nContent-Type: application/json\r\n\r\n{config}\r\n--part"
    );
    let mut form = match archive {
        Some(archive) => {
            form +=
                "\r\nContent-Disposition: form-data; name=\"data\"; filename=\"a.nar\"\r\nContent-Type: application/octet-stream\r\n\r\n";
            [form.as_bytes(), archive, b"\r\n--part"].concat()
        }
        None => form.into_bytes(),
    };
    form.extend(b"--\r\n");
    form
}

/// `localrun` has its instances as threads of one virtual machine, as the thread runtime has them in the worker's.
#[tokio::test(flavor = "multi_thread")]
async fn z1_h1_localrun_has_source_and_sink_as_threads_and_leaves_no_process_behind() {
    let Some(lab) = lab("nar-local").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, broken, topic) = (name("source"), name("sink"), name("broken"), name("changes"));
    put(&orders, 0..10).await;
    let parts = functions.program.parent().and_then(Path::parent).expect("the folder of the parts");
    let logs = format!("-Dpulsar.log.dir={} -Dpulsar.log.immediateFlush=true", parts.display());
    let run = |arguments: &[&str], native: Option<&Path>| {
        let mut command = functions.command(&[arguments, &["--archive", archive, "--broker-service-url", &lab.pulsar_url]].concat());
        command.env("PULSAR_EXTRA_OPTS", &logs).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        native.map(|file| command.env("PULSAR_IO_DYNAMODB_NATIVE_PATH", file));
        command.spawn().expect("pulsar-admin runs")
    };
    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let publish = ["sources", "localrun", "--destination-topic-name", &topic, "--source-config", &config, "--name"];
    let mut running = vec![run(&[&publish[..], &[&source, "--parallelism", "2"]].concat(), None)];
    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}));
    let write = ["sinks", "localrun", "--inputs", &topic, "--subs-position", "Earliest", "--sink-config", &config, "--name", &sink];
    running.push(run(&write, None));
    same(&orders, &copy, 10).await;
    let started = eventually("both threads", PATIENCE, async || <[Instance; 2]>::try_from(instances(&source)).ok()).await;
    assert_eq!(started[0].machine, started[1].machine, "threads of one virtual machine");
    logged(&functions, &source, &["pulsar_io_dynamodb::source: the source has started"]).await;

    // As Ctrl-C does.
    for name in [&source, &sink] {
        signal("-INT", instances(name)[0].machine).await;
        ended(name).await;
    }
    for mut tool in running {
        tool.wait().await.expect("it ends");
    }
    assert_released(&lab).await;

    // What cannot be started says so.
    let forbidden = functions.program.with_extension("forbidden");
    fs::write(&forbidden, "no permission to run it").expect("written");
    let mut tool = run(&[&publish[..], &[&broken]].concat(), Some(&forbidden));
    logged(&functions, &broken, &[&format!("Cannot run program \"{}\": error=13, Permission denied", forbidden.display())]).await;
    // It tries again and again, in a virtual machine below the tool's.
    for machine in local_runners(&broken) {
        signal("-KILL", machine).await;
    }
    tool.wait().await.expect("it ends with it");
}

/// What is wrong with a configuration is in the instance's log, all of it, and an update heals it; and so is that the executable is not for this machine.
/// (Pulsar ends the virtual machine for it and starts it again and again, so its status has the restarts and no text.)
#[tokio::test(flavor = "multi_thread")]
async fn h1_what_is_wrong_with_a_source_from_the_archive_is_in_its_log_and_an_update_heals_it() {
    let Some(lab) = lab("nar-wrong").await else { return };
    let functions = Functions::new(&lab).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let (name, topic) = (format!("nar-wrong-{}", lab.unique), format!("nar-wrong-changes-{}", lab.unique));
    orders.put(item(1)).await;
    let config = |more: Value| functions.source_config(&orders, more);
    let create = ["sources", "create", "--destination-topic-name", &topic, "--source-config"];
    let wrong = config(json!({"awsSecretKey": "local", "checkpointIntervall": 1, "receiveQueueSize": 0}));
    functions.admin(&[&create[..], &[&wrong, "--name", &name, "--archive", archive]].concat()).await;
    // Its header says that it is for a machine that nobody has.
    let foreign = functions.program.with_extension("foreign");
    let mut program = fs::read(&functions.program).expect("the program");
    program[18] = 0xfe;
    fs::write(&foreign, program).expect("written");
    let elsewhere = format!("nar-elsewhere-{}", lab.unique);
    let other = archive_with(&foreign, &foreign.with_extension("foreign.nar")).await;
    functions.admin(&[&create[..], &[&config(json!({"awsSecretKey": "local"})), "--name", &elsewhere, "--archive", &other]].concat()).await;

    logged(&functions, &name, &["did you mean checkpointInterval?", "configs.receiveQueueSize: has to be from 1"]).await;
    logged(&functions, &elsewhere, &["it did not start: is it an executable for this machine?"]).await;
    // Between its start and its end the virtual machine counts as running.
    let given_up = |status: &Value| sum(status, "numRestarts") > 0 && status["numRunning"] == 0;
    for name in [&name, &elsewhere] {
        functions.status_of("sources", name, given_up).await;
    }

    functions.admin(&["sources", "delete", "--name", &elsewhere]).await;
    let good = config(json!({"awsSecretKey": "local"}));
    functions.admin(&["sources", "update", "--archive", archive, "--name", &name, "--source-config", &good]).await;
    let mut reader = Topic::from_start(&lab, &topic).await;
    let message = timeout(PATIENCE, reader.next_whenever()).await.expect("a message, once it is started again");
    assert_eq!(message.json["dynamodb"]["Keys"]["sk"]["N"], "1");
    functions.status_of("sources", &name, |status| status["numRunning"] == 1).await;
    functions.admin(&["sources", "delete", "--name", &name]).await;
    ended(&name).await;
}
