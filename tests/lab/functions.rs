//! The program as a function that a real Pulsar runs, by the commands that README has.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::{
    Lab, eventually, lab,
    nar::local_runners,
    table::{self, Item, Table},
    topic::Topic,
};

/// A virtual machine for each command, and a small machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Pulsar's functions worker, with its tools.
pub struct Functions<'l> {
    pub lab: &'l Lab,
    home: PathBuf,
    /// `127.0.0.1:port`
    address: String,
    /// Without symbols: each start downloads it.
    pub program: PathBuf,
}

impl<'l> Functions<'l> {
    pub async fn new(lab: &'l Lab) -> Self {
        let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: scripts/parts run --functions"));
        Self::of(lab, &variable("PULSAR_HTTP_URL"), variable("PARTS_DIR").as_ref()).await
    }

    /// Those of the Pulsar with this URL and its data in this folder.
    pub async fn of(lab: &'l Lab, http_url: &str, folder: &Path) -> Self {
        let home = env::var("PULSAR_HOME").expect("scripts/parts run --functions sets it");
        // Files there may be named by URL.
        let program = folder.join("functions").join(format!("pulsar-io-dynamodb-{}", lab.unique));
        let stripped = Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_pulsar-io-dynamodb")).status().await;
        assert!(stripped.expect("strip runs").success());
        Self { lab, home: home.into(), address: http_url.trim_start_matches("http://").to_owned(), program }
    }

    /// Runs `pulsar-admin`, and fails as it does.
    pub async fn admin(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().await.expect("pulsar-admin runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.home.join("bin/pulsar-admin"));
        command.args(["--admin-url", &format!("http://{}", self.address)]).args(arguments).stdin(Stdio::null());
        command
    }

    /// What Pulsar answers, unless it is an error: it has one, too, for the status of a process that ends while it is asked.
    pub async fn get(&self, path: &str) -> Option<String> {
        self.request("GET", path, "application/json", &[]).await.ok()
    }

    /// Calls Pulsar's REST interface. Fails with what it answers.
    pub async fn request(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<String, String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        let (host, length) = (&self.address, body.len());
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).await.map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(failed)?;
        let good = answer.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
        match answer.split_once("\r\n\r\n") {
            Some((_, body)) if good => Ok(body.to_owned()),
            _ => Err(answer),
        }
    }

    /// The status once `wanted` holds for it.
    async fn status(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.status_of("functions", name, wanted).await
    }

    /// The same of `functions`, `sources` or `sinks`.
    pub async fn status_of(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/admin/v3/{kind}/public/default/{name}/status");
        eventually(&format!("the status of {name}"), PATIENCE, async || {
            serde_json::from_str::<Value>(&self.get(&path).await?).ok().filter(&wanted)
        })
        .await
    }

    /// What a configuration needs to reach DynamoDB Local, with more keys.
    pub fn config(&self, more: Value) -> String {
        let endpoint = &self.lab.dynamodb_endpoint;
        let mut config = json!({"awsRegion": "us-east-1", "awsEndpoint": endpoint, "awsAccessKey": self.lab.access_key, "awsSecretKey": "${AWS_SECRET}"});
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        config.to_string()
    }

    pub fn source_config(&self, table: &Table, more: Value) -> String {
        let mut keys = json!({
            "awsDynamodbStreamArn": format!("table:{}", table.name), "dynamoEndpoint": self.lab.dynamodb_endpoint,
            "applicationName": format!("leases-{}", self.lab.unique), "initialPositionInStream": "TRIM_HORIZON", "checkpointInterval": 500
        });
        keys.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.config(keys)
    }

    /// The processes of a function.
    fn processes(&self, name: &str) -> Vec<u32> {
        let ids = fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let runs = |id: &u32| {
            let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            line.split('\0').nth(1) == Some("-instance-conf") && line.contains(&format!("\"name\":\"{name}\""))
        };
        ids.filter(runs).collect()
    }

    /// Deletes a function; its processes end in their own time, and not by force.
    async fn delete(&self, name: &str) {
        let begin = Instant::now();
        self.request("DELETE", &format!("/admin/v3/functions/public/default/{name}"), "application/json", &[]).await.expect("it may go");
        eventually(&format!("{name} ends"), PATIENCE, async || self.processes(name).is_empty().then_some(())).await;
        assert!(begin.elapsed() < Duration::from_secs(8), "{name} took {:?} to stop", begin.elapsed());
    }
}

pub fn item(number: usize) -> Item {
    Item::from([("pk".into(), AttributeValue::S(format!("item-{number}"))), ("sk".into(), AttributeValue::N(number.to_string()))])
}

/// The sum of a number over all instances.
pub fn sum(status: &Value, number: &str) -> u64 {
    status["instances"].as_array().expect("instances").iter().map(|instance| instance["status"][number].as_u64().unwrap_or_default()).sum()
}

const SECRETS: &str = r#"{"AWS_SECRET":"local"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn d1_z1_h1_a_source_and_a_sink_run_as_functions_show_true_numbers_and_survive_a_kill() {
    let Some(lab) = lab("functions").await else { return };
    let functions = Functions::new(&lab).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let name = |what: &str| format!("{what}-{}", lab.unique);
    let (source, sink, topic, log_topic) = (name("source"), name("sink"), name("changes"), name("log"));
    for number in 0..30 {
        orders.put(item(number)).await;
    }

    // Before the first line: a topic that nobody has subscribed to may drop it.
    let mut reader = Topic::from_start(&lab, &log_topic).await;

    // By file, with a log topic, two in parallel.
    let program = functions.program.to_str().expect("text");
    let config = functions.source_config(&orders, json!({}));
    let create =
        ["functions", "create", "--go", program, "--name", &source, "--inputs", "unused", "--output", &topic, "--parallelism", "2"];
    functions.admin(&[&create[..], &["--log-topic", &log_topic, "--user-config", &config, "--secrets", SECRETS]].concat()).await;
    // By a package's URL.
    let package = format!("function://public/default/{}@1", name("package"));
    functions.admin(&["packages", "upload", &package, "--path", program, "--description", "the connector"]).await;
    let config = functions.config(json!({"tableName": copy.name}));
    let create = ["functions", "create", "--go", &package, "--name", &sink, "--inputs", &topic, "--subs-position", "Earliest"];
    functions.admin(&[&create[..], &["--retain-ordering", "--user-config", &config, "--secrets", SECRETS]].concat()).await;

    let original = orders.items().await;
    eventually("the copy", PATIENCE, async || (copy.items().await.len() == 30).then_some(())).await;
    table::assert_equal(&original, &copy.items().await);
    for (name, instances) in [(&source, 2), (&sink, 1)] {
        let status = functions.status(name, |status| sum(status, "numSuccessfullyProcessed") == 30).await;
        assert_eq!((&status["numInstances"], &status["numRunning"]), (&instances.into(), &instances.into()), "{status}");
        assert_eq!((sum(&status, "numReceived"), sum(&status, "numSystemExceptions"), sum(&status, "numRestarts")), (30, 0, 0), "{status}");
        let busy = status["instances"].as_array().expect("instances").iter().find(|instance| instance["status"]["numReceived"] == 30);
        let busy = &busy.expect("one shard, one worker")["status"];
        assert!(busy["averageLatency"].as_f64().is_some_and(|millis| millis > 0.0 && millis < 60_000.0), "{busy}");
        let since = chrono::Utc::now().timestamp_millis() - busy["lastInvocationTime"].as_i64().expect("a time");
        assert!((0..300_000).contains(&since), "milliseconds: {since}");
    }
    let stats: Value = serde_json::from_str(&functions.admin(&["functions", "stats", "--name", &sink]).await).expect("JSON");
    assert_eq!((&stats["receivedTotal"], &stats["processedSuccessfullyTotal"]), (&30.into(), &30.into()), "{stats}");
    let users = &stats["instances"][0]["metrics"]["userMetrics"];
    assert_eq!(users["dynamodb_sink_items_written_total{op=\"put\"}"], 30.0, "{users}");
    let page = functions.get("/metrics/").await.expect("the broker answers");
    for series in ["pulsar_function_processed_successfully_total", "dynamodb_sink_messages_received_total"] {
        let line = page.lines().find(|line| line.starts_with(series) && line.contains(&format!("name=\"{sink}\"")));
        assert!(line.is_some_and(|line| line.ends_with(" 30")), "{series}: {line:?}");
    }

    let line = tokio::time::timeout(PATIENCE, reader.next_whenever()).await.expect("a line");
    assert_eq!(line.properties["fqn"], format!("public/default/{source}"));

    // Pulsar looks every 30 s, and starts it again.
    for id in functions.processes(&sink) {
        assert!(Command::new("kill").args(["-KILL", &id.to_string()]).status().await.expect("kill runs").success());
    }
    for number in 30..40 {
        orders.put(item(number)).await;
    }
    let original = orders.items().await;
    eventually("the copy goes on", PATIENCE, async || (copy.items().await.len() == 40).then_some(())).await;
    table::assert_equal(&original, &copy.items().await);
    functions.status(&sink, |status| sum(status, "numRestarts") == 1 && status["numRunning"] == 1).await;

    functions.delete(&sink).await;
    functions.delete(&source).await;
    let leases = Table { client: table::client(&lab), name: format!("leases-{}", lab.unique) };
    let rows = leases.client.scan().table_name(&leases.name).send().await.expect("scan").items.unwrap_or_default();
    assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains_key("leaseOwner")), "released, as by a clean stop: {rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_what_is_wrong_with_a_function_is_in_its_status_and_an_update_heals_it() {
    let Some(lab) = lab("wrong").await else { return };
    let functions = Functions::new(&lab).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let (name, topic) = (format!("source-{}", lab.unique), format!("changes-{}", lab.unique));
    orders.put(item(1)).await;
    // By the URL of a file.
    let program = format!("file://{}", functions.program.display());
    let wrong = functions.source_config(&orders, json!({"checkpointIntervall": 1, "receiveQueueSize": 0}));
    let create = ["functions", "create", "--go", &program, "--name", &name, "--inputs", "unused", "--output", &topic];
    functions.admin(&[&create[..], &["--user-config", &wrong, "--secrets", SECRETS]].concat()).await;
    let status = functions.status(&name, |status| !status["instances"][0]["status"]["error"].as_str().unwrap_or_default().is_empty()).await;
    let told = status["instances"][0]["status"]["error"].as_str().expect("text");
    for problem in ["did you mean checkpointInterval?", "configs.receiveQueueSize: has to be from 1"] {
        assert!(told.contains(problem), "{problem} is not in {told}");
    }
    assert_eq!((&status["numRunning"], sum(&status, "numRestarts")), (&0.into(), 0), "{status}");

    let config = functions.source_config(&orders, json!({}));
    // pulsar-admin does not update a function of Go's without its file and its topics.
    let update = ["functions", "update", "--go", &program, "--name", &name, "--inputs", "unused", "--output", &topic];
    functions.admin(&[&update[..], &["--user-config", &config, "--secrets", SECRETS]].concat()).await;
    let mut reader = Topic::from_start(&lab, &topic).await;
    assert_eq!(reader.next().await.json["dynamodb"]["Keys"]["sk"]["N"], "1");
    let status = functions.status(&name, |status| status["numRunning"] == 1 && sum(status, "numSuccessfullyProcessed") == 1).await;
    assert_eq!(status["instances"][0]["status"]["error"], "", "{status}");
    functions.delete(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z1_localrun_publishes_and_leaves_no_process_behind() {
    let Some(lab) = lab("localrun").await else { return };
    let functions = Functions::new(&lab).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let (name, topic) = (format!("source-{}", lab.unique), format!("changes-{}", lab.unique));
    orders.put(item(1)).await;
    let mut reader = Topic::from_start(&lab, &topic).await;
    let config = functions.source_config(&orders, json!({}));
    let program = functions.program.to_str().expect("text");
    let run = ["functions", "localrun", "--go", program, "--name", &name, "--inputs", "unused", "--output", &topic];
    let mut command =
        functions.command(&[&run[..], &["--broker-service-url", &lab.pulsar_url, "--user-config", &config, "--secrets", SECRETS]].concat());
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("pulsar-admin runs");
    assert_eq!(reader.next().await.json["dynamodb"]["Keys"]["sk"]["N"], "1");
    let started = functions.processes(&name);
    assert_eq!(started.len(), 1);
    let runners = local_runners(&name);
    assert_eq!(runners.len(), 1);
    // As a terminal's Ctrl-C does: everybody is told, and then each tells its child once more. Who is not told would start it again.
    let everybody = [running.id().expect("it runs"), runners[0], started[0]].map(|id| id.to_string());
    assert!(Command::new("kill").arg("-INT").args(everybody).status().await.expect("kill runs").success());
    running.wait().await.expect("it ends");
    let ended = async || (functions.processes(&name).is_empty() && local_runners(&name).is_empty()).then_some(());
    eventually("the function ends", PATIENCE, ended).await;
    let leases = table::client(&lab).scan().table_name(format!("leases-{}", lab.unique)).send().await.expect("scan");
    let rows = leases.items.unwrap_or_default();
    assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains_key("leaseOwner")), "released, as by a clean stop: {rows:?}");
}
