//! The executable as the NAR's shim starts it; this is the shim.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const READY: u8 = 1;
const ERROR: u8 = 6;
const OPEN: u8 = 16;
const STOP: u8 = 19;

/// Killed when the test ends early.
struct Bridge {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Bridge {
    /// Starts it; both sides say their versions.
    fn start(version: u8) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"))
            .arg("bridge")
            .env_clear()
            .env("PULSAR_IO_DYNAMODB_NATIVE_PATH", "is no key")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        input.write_all(&[version]).expect("it reads");
        let mut theirs = [0];
        output.read_exact(&mut theirs).expect("its version");
        assert_eq!(theirs, [1]);
        Self { child, input: Some(input), output }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut frame = u32::try_from(body.len() + 1).expect("short").to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend(body);
        self.input.as_mut().expect("open").write_all(&frame).expect("it reads");
    }

    fn open(kind: &str, configs: Value) -> Self {
        let mut bridge = Self::start(1);
        let connector = json!({
            "tenant": "public", "namespace": "default", "name": "orders", "topicName": "out", "inputs": ["in"],
            "processingGuarantees": "ATLEAST_ONCE",
        });
        let open = json!({"kind": kind, "instance": 0, "connector": connector, "configs": configs, "secrets": {}});
        bridge.send(OPEN, open.to_string().as_bytes());
        bridge
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.output.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize - 1;
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).expect("all of it");
        (head[4], body)
    }

    /// The next frame is an error; its text.
    fn error(&mut self) -> String {
        let (kind, body) = self.frame();
        assert_eq!(kind, ERROR);
        String::from_utf8(body[4..].to_vec()).expect("UTF-8")
    }

    fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            std::thread::yield_now();
        }
        panic!("it does not end");
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Nobody listens at port 1.
fn unreachable() -> Value {
    json!({
        "awsRegion": "us-east-1", "awsDynamodbStreamArn": "table:orders", "awsAccessKey": "a", "awsSecretKey": "b",
        "awsEndpoint": "http://127.0.0.1:1", "dynamoEndpoint": "http://127.0.0.1:1",
    })
}

#[test]
fn a_shim_of_another_version_is_refused_with_a_sentence() {
    let mut bridge = Bridge::start(2);
    let error = bridge.error();
    assert!(error.contains("version 2 of the frame protocol") && error.contains("same archive"), "{error}");
    assert_eq!(bridge.exit().code(), Some(64));
}

#[test]
fn all_that_is_wrong_with_a_configuration_is_told_at_once() {
    let mut bridge = Bridge::open("source", json!({"awsDynamodbStreamArn": "nonsense", "awsRegoin": "x"}));
    let error = bridge.error();
    assert!(error.contains("nonsense") && error.contains("did you mean awsRegion?"), "{error}");
    assert_eq!(bridge.exit().code(), Some(64));
}

#[test]
fn a_good_configuration_is_ready_before_any_service_is_called_and_stop_ends_it_cleanly_z1() {
    for kind in ["source", "sink"] {
        let configs = if kind == "source" {
            unreachable()
        } else {
            json!({"awsRegion": "us-east-1", "tableName": "copy", "awsEndpoint": "http://127.0.0.1:1", "awsAccessKey": "a", "awsSecretKey": "b"})
        };
        let mut bridge = Bridge::open(kind, configs);
        assert_eq!(bridge.frame().0, READY);
        bridge.send(STOP, &[]);
        assert_eq!(bridge.exit().code(), Some(0), "{kind}");
    }
}

#[test]
fn the_end_of_the_parent_is_the_end_of_the_child() {
    let mut bridge = Bridge::open("source", unreachable());
    assert_eq!(bridge.frame().0, READY);
    // As the end of the JVM does, by whatever signal.
    drop(bridge.input.take());
    bridge.exit();
}
