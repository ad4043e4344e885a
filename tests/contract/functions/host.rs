//! The program as an instance: what it answers, and what ends it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pulsar_io_dynamodb::host::functions::proto::{FunctionStatus, HealthCheckResult, MetricsData};
use serde_json::json;

use crate::{lab::eventually, support::grpc};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two ports that nobody has.
pub fn free_ports() -> (u16, u16) {
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [first, second] = free.map(|free| free.local_addr().expect("bound").port());
    (first, second)
}

/// Ends with its test.
pub struct Started(pub Child);

impl Started {
    pub fn of(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
    }

    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().expect("kill runs").success());
    }

    async fn exit(&mut self) -> Option<i32> {
        eventually("the process ends", PATIENCE, async || self.0.try_wait().expect("its status")).await.code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program as Pulsar's worker starts it: nothing listens where Pulsar should be.
fn program((port, metrics_port): (u16, u16), config: &serde_json::Value) -> Command {
    let conf = json!({
        "pulsarServiceURL": "pulsar://127.0.0.1:1", "instanceID": 0, "port": port, "metricsPort": metrics_port, "clusterName": "c",
        "tenant": "public", "nameSpace": "default", "name": "f", "sourceInputSpecs": {"in": "{}"}, "userConfig": config.to_string()
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"));
    command.env_clear().args(["-instance-conf", &conf.to_string()]);
    command
}

/// Status, once somebody answers and `wanted` holds.
pub async fn status(port: u16, wanted: impl Fn(&FunctionStatus) -> bool) -> FunctionStatus {
    eventually("the status", PATIENCE, async || grpc::call(port, "GetFunctionStatus").await.filter(&wanted)).await
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[tokio::test]
async fn h1_a_wrong_configuration_is_told_in_the_status_until_somebody_stops_it() {
    let ports = free_ports();
    let mut instance = Started::of(&mut program(ports, &json!({"tableName": "copy", "awsRegoin": "x", "maxBatchSize": 26})));
    let status = status(ports.0, |_| true).await;
    assert!(!status.running, "{status:?}");
    for problem in ["awsRegion?", "configs.maxBatchSize: has to be from 1 to 25"] {
        assert!(status.failure_exception.contains(problem), "{problem} is not in {}", status.failure_exception);
    }
    assert_eq!((status.num_system_exceptions, status.latest_system_exceptions.len()), (1, 1));
    assert_eq!(grpc::call(ports.0, "HealthCheck").await, Some(HealthCheckResult { success: false }));
    instance.terminate();
    assert_eq!(instance.exit().await, Some(64));
}

#[tokio::test]
async fn h1_z1_an_instance_that_waits_for_pulsar_runs_says_so_and_ends_at_once() {
    let ports = free_ports();
    let mut instance =
        Started::of(&mut program(ports, &json!({"tableName": "copy", "awsRegion": "x", "awsAccessKey": "a", "awsSecretKey": "b"})));
    assert!(status(ports.0, |_| true).await.running);
    let told = status(ports.0, |status| !status.failure_exception.is_empty()).await;
    assert!(told.running && told.failure_exception.contains("pulsar://127.0.0.1:1"), "{told:?}");
    assert!(told.num_system_exceptions > 0 && !told.latest_system_exceptions.is_empty(), "{told:?}");
    let since = chrono::Utc::now().timestamp_millis() - told.latest_system_exceptions[0].ms_since_epoch;
    assert!((0..120_000).contains(&since), "milliseconds: {since}");

    let metrics: MetricsData = grpc::call(ports.0, "GetMetrics").await.expect("an answer");
    assert!(metrics.system_exceptions_total >= told.num_system_exceptions, "{metrics:?}");
    assert!(metrics.user_metrics["process_resident_memory_bytes"] > 0.0, "{metrics:?}");
    let reset: MetricsData = grpc::call(ports.0, "GetAndResetMetrics").await.expect("an answer");
    assert!(reset.system_exceptions_total_1min > 0, "{reset:?}");
    assert_eq!(grpc::outcome(ports.0, "ResetMetrics").await.map(|(status, body)| (status, body.len())), Some(("0".into(), 0)));
    assert_eq!(grpc::outcome(ports.0, "NoSuchCall").await.map(|(status, _)| status), Some("12".into()));

    for path in ["/", "/metrics"] {
        let page = get(ports.1, path);
        let whose = r#"{tenant="public",namespace="public/default",name="f",instance_id="0",cluster="c",fqfn="public/default/f""#;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        for series in
            [format!("pulsar_function_system_exceptions_total{whose}}}"), format!("dynamodb_errors_total{whose},stage=\"pulsar\"")]
        {
            assert!(page.contains(&series), "{series} is not in {page}");
        }
    }
    let begin = Instant::now();
    instance.terminate();
    assert_eq!(instance.exit().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8), "took {:?}", begin.elapsed());
}

#[tokio::test]
async fn z1_an_instance_ends_when_the_worker_that_started_it_is_killed() {
    let ports = free_ports();
    let program = program(ports, &json!({"tableName": "copy", "awsRegion": "x"}));
    let mut worker = Command::new("sh");
    worker.env_clear().args(["-c", "\"$0\" \"$@\" >/dev/null 2>&1 & echo $!; wait"]).arg(program.get_program()).args(program.get_args());
    let mut worker = worker.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("sh runs");
    let mut id = String::new();
    BufReader::new(worker.stdout.take().expect("piped")).read_line(&mut id).expect("a line");
    let lives = || Command::new("kill").args(["-0", id.trim()]).stderr(Stdio::null()).status().expect("kill runs").success();
    assert!(status(ports.0, |_| true).await.running && lives());
    worker.kill().expect("kill -9");
    worker.wait().expect("it is dead");
    eventually("the orphan ends", PATIENCE, async || (!lives()).then_some(())).await;
}

#[tokio::test]
async fn a_port_that_is_taken_ends_it_so_that_its_host_gives_another() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let ports = (taken.local_addr().expect("bound").port(), 0);
    let output = program(ports, &json!({"tableName": "copy", "awsRegion": "x"})).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(&format!("0.0.0.0:{}", ports.0)), "{told}");
}
