//! One connector process, as an operator runs it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Lab, eventually};

pub struct Connector {
    child: Child,
    http_address: String,
    pub log: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
}

impl Connector {
    /// Starts `source` or `sink` with this configuration file. Its log goes on in the same file over restarts.
    pub fn start(lab: &Lab, kind: &str, config: &str) -> Self {
        Self::start_as(lab, kind, kind, config)
    }

    /// The same under a name of its own, beside others of its kind.
    pub fn start_as(lab: &Lab, kind: &str, name: &str, config: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&lab.unique);
        fs::create_dir_all(&folder).expect("target is writable");
        let file = folder.join(format!("{name}.yaml"));
        fs::write(&file, config).expect("target is writable");
        let log = folder.join(format!("{name}.log"));
        let stderr = File::options().append(true).create(true).open(&log).expect("target is writable");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let http_address = format!("127.0.0.1:{port}");
        let child = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"))
            .args([kind, "--config"])
            .arg(&file)
            .args(["--pulsar-url", &lab.pulsar_url, "--http-address", &http_address])
            .env_remove("AWS_PROFILE")
            .env("AWS_ENDPOINT_URL", &lab.dynamodb_endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", &lab.access_key)
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the connector starts");
        Self { child, http_address, log, config: file }
    }

    /// As a crash: nothing is drained, nothing is said.
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, then waits for the clean end (Z1).
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.exit("the connector ends after SIGTERM").await
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "SIG{name}");
    }

    /// Waits until the process ends by itself.
    pub async fn exit(&mut self, what: &str) -> ExitStatus {
        eventually(what, Duration::from_secs(60), async || self.child.try_wait().expect("its status")).await
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The sum of a metric over its labels; 0 as long as it has not been counted, or the process does not answer yet.
    pub async fn metric(&mut self, name: &str) -> u64 {
        if let Some(status) = self.child.try_wait().expect("its status") {
            panic!("the connector has ended by itself: {status}");
        }
        let Some(text) = self.get("/metrics").await else { return 0 };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| line.rsplit_once(' '));
        let wanted = samples.filter(|(series, _)| series.split('{').next() == Some(name));
        wanted.filter_map(|(_, value)| value.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// What `/healthz` says: nothing when all is well. `None` as long as the process does not answer.
    pub async fn health(&self) -> Option<String> {
        let answer = self.answer("/healthz").await?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some(if head.starts_with("HTTP/1.1 200") { String::new() } else { body.to_owned() })
    }

    /// The most memory that the process has had, in bytes. `None` where the system does not tell.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
        Some(kilobytes.parse::<u64>().ok()? * 1024)
    }

    async fn get(&self, path: &str) -> Option<String> {
        self.answer(path).await.filter(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    async fn answer(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.http_address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http_address);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.log_text();
            let from = log.len().saturating_sub(6_000);
            eprintln!("--- end of {} ---\n{}", self.log.display(), log.get(from..).unwrap_or(&log));
        }
    }
}

/// A source's configuration file, with more keys below `configs`.
pub fn source_config(topic: &str, table: &str, application: &str, more: &BTreeMap<&str, &str>) -> String {
    let more: String = more.iter().map(|(key, value)| format!("  {key}: {value}\n")).collect();
    format!(
        "tenant: public\nnamespace: default\nname: {application}\ntopicName: {topic}\nconfigs:\n  awsRegion: us-east-1\n  \
         awsDynamodbStreamArn: table:{table}\n  applicationName: {application}\n  initialPositionInStream: TRIM_HORIZON\n{more}"
    )
}

/// A sink's configuration file, with more keys at the top.
pub fn sink_config(topic: &str, table: &str, more: &str) -> String {
    format!(
        "tenant: public\nnamespace: default\nname: {table}\ninputs: [\"{topic}\"]\nsourceSubscriptionName: {table}\n\
         sourceSubscriptionPosition: Earliest\nretainOrdering: true\n{more}\nconfigs:\n  awsRegion: us-east-1\n  tableName: {table}\n"
    )
}
