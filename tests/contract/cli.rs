//! The built program: its arguments, exit codes, output and signals.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with nothing of this process's environment: no credentials, no settings.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"));
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command.envs([("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "hush-hush"), ("AWS_EC2_METADATA_DISABLED", "true")]);
    command
}

/// Exit code, and both outputs together.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = program().args(arguments).output().expect("the program starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
    (output.status.code().expect("no signal"), text)
}

/// A file that is removed again.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        fs::write(&path, text).expect("written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_version_tells_what_the_program_was_made_of() {
    let (code, output) = run(&["--version"]);
    assert_eq!(code, 0, "{output}");
    let features = if cfg!(feature = "cloudwatch") { "cloudwatch" } else { "none" };
    // The test's build and the program's are one.
    let commit = option_env!("BUILD_COMMIT").unwrap_or("unknown");
    let expected = format!("pulsar-io-dynamodb {}\ncommit: {commit}\nfeatures: {features}\n", env!("CARGO_PKG_VERSION"));
    assert!(output.starts_with(&expected), "{output}");
}

#[test]
fn the_files_that_we_ship_are_good() {
    for kind in ["source", "sink"] {
        let file = format!("connector-config/{kind}.yaml");
        for arguments in [vec!["check", kind, "--config", &file], vec!["check", "--config", &file]] {
            let (code, output) = run(&arguments);
            assert_eq!(code, 0, "{output}");
            assert!(output.contains(&format!("good configuration of a {kind}")), "{output}");
        }
    }
}

#[test]
fn a_bad_file_is_told_whole_with_exit_code_64_and_without_its_secrets() {
    let bad = File::new(
        "bad.yaml",
        "name: s\ntopicNam: t\nconfigs:\n  awsRegoin: x\n  checkpointInterval: soon\n  awsCredentialPluginParam: '{\"accessKey\":\"hush\"}'\n",
    );
    for command in ["check", "source"] {
        let (code, output) = run(&[command, "--config", bad.path()]);
        assert_eq!(code, 64, "{output}");
        for expected in
            ["topicName?", "awsRegion?", "configs.checkpointInterval", "configs.awsDynamodbStreamArn", "configs.awsCredentialPluginParam"]
        {
            assert!(output.contains(expected), "{expected} is not in {output}");
        }
        assert!(!output.contains("hush"), "a secret shows: {output}");
    }
    let broken = File::new("broken.yaml", "configs:\n  awsCredentialPluginParam: \"hush\n  x: 1\n");
    let (code, output) = run(&["check", "--config", broken.path()]);
    assert!(code == 64 && output.contains("line 3") && !output.contains("hush"), "{output}");
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&["--version"]).0, 0);
    let file = "connector-config/sink.yaml";
    for wrong in [
        vec![],
        vec!["source"],
        vec!["source", "--config", "no/such/file"],
        vec!["sink", "--config", file, "--pulsar-url", "http://localhost:8080"],
        vec!["sink", "--config", file, "--log-level", "a=b=c"],
        vec!["sink", "--config", file, "--token", "hush"],
    ] {
        let (code, output) = run(&wrong);
        assert_eq!(code, 64, "{wrong:?}: {output}");
    }
}

#[test]
fn the_reference_and_the_schemas_are_those_of_the_code() {
    for (arguments, file) in [
        (vec!["config-schema", "--markdown"], "connector-config/REFERENCE.md"),
        (vec!["config-schema", "--metrics"], "docs/metrics.md"),
        (vec!["config-schema", "source"], "connector-config/schema/source.json"),
        (vec!["config-schema", "sink"], "connector-config/schema/sink.json"),
        (vec!["config-schema", "--java", "source"], "nar/src/org/apache/pulsar/io/dynamodb/DynamoDBSourceConfig.java"),
        (vec!["config-schema", "--java", "sink"], "nar/src/org/apache/pulsar/io/dynamodb/DynamoDBSinkConfig.java"),
    ] {
        let (code, output) = run(&arguments);
        assert_eq!(code, 0);
        let committed = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
        assert!(output == committed, "{file} is out of date: cargo run -- {} > {file}", arguments.join(" "));
    }
}

/// A sink that runs. Killed when the test ends early.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    seen: String,
    /// Dropped in time, or else the program is killed, so that a line that never comes fails the test instead of hanging it.
    _watch: mpsc::Sender<()>,
}

impl Running {
    fn sink(pulsar: &str, arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(["sink", "--config", "connector-config/sink.yaml", "--pulsar-url", pulsar]).args(arguments);
        let mut child = command.env("PULSAR_TOKEN", "hush").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (watch, finished) = mpsc::channel::<()>();
        let id = child.id().to_string();
        std::thread::spawn(move || {
            if finished.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &id]).status();
            }
        });
        Self { child, lines, seen: String::new(), _watch: watch }
    }

    /// Reads the log up to a line with this text.
    fn wait_for(&mut self, text: &str) -> String {
        for line in &mut self.lines {
            let line = line.expect("text");
            self.seen += &line;
            self.seen.push('\n');
            if line.contains(text) {
                return line;
            }
        }
        panic!("{text} is not in {}", self.seen);
    }

    fn signal(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill is there");
        assert!(killed.success());
    }

    /// Waits for the end; the rest of the log is in `seen` then.
    fn end(&mut self) -> ExitStatus {
        for line in &mut self.lines {
            self.seen += &line.expect("text");
            self.seen.push('\n');
        }
        self.child.wait().expect("it has ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Port 1 of the loopback: nobody listens there.
const NOBODY: &str = "pulsar://127.0.0.1:1";

#[test]
fn z1_a_signal_ends_a_worker_that_waits_for_pulsar() {
    let mut sink = Running::sink(NOBODY, &["--log-format", "json"]);
    let line = sink.wait_for("trying again");
    sink.signal();
    let asked = Instant::now();
    assert_eq!(sink.end().code(), Some(0), "{}", sink.seen);
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());

    assert!(line.contains("127.0.0.1:1"), "the log does not say what cannot be reached: {line}");
    for line in sink.seen.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        assert!(!parsed["target"].as_str().expect("a target").starts_with("pulsar::"), "the library's own noise: {line}");
    }
}

#[test]
fn h1_health_is_red_while_pulsar_cannot_be_reached() {
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let mut sink = Running::sink(NOBODY, &["--http-address", &address]);
    sink.wait_for("trying again");
    let begin = Instant::now();
    let answer = loop {
        let answer = get(&address, "/healthz");
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        assert!(begin.elapsed() < PATIENCE, "still green: {answer}");
        std::thread::park_timeout(Duration::from_millis(200));
    };
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("pulsar: could not connect to Pulsar at pulsar://127.0.0.1:1"), "{answer}");
    let metrics = get(&address, "/metrics");
    assert!(metrics.contains("# HELP dynamodb_errors_total") && metrics.contains("stage=\"pulsar\""), "{metrics}");
    assert!(get(&address, "/health").starts_with("HTTP/1.1 404"));

    let taken = program().args(["sink", "--config", "connector-config/sink.yaml", "--http-address", &address]).output().expect("it starts");
    assert_eq!(taken.status.code(), Some(64), "a port in use is noticed before any work starts");
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_token_is_not_in_the_log_even_at_trace() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("pulsar://{}", server.local_addr().expect("bound"));
    let mut sink = Running::sink(&url, &["--log-level", "trace"]);
    let (mut connection, _) = server.accept().expect("the client connects");
    let mut sent = [0; 512];
    let length = connection.read(&mut sent).expect("the handshake");
    assert!(sent[..length].windows(4).any(|window| window == b"hush"), "the token was not sent: this test proves nothing");
    drop((connection, server));
    sink.wait_for("trying again");
    sink.signal();
    sink.end();
    // As text and as the bytes that a protocol message shows.
    assert!(!sink.seen.contains("hush") && !sink.seen.contains("104, 117, 115, 104"), "a secret shows:\n{}", sink.seen);
}
