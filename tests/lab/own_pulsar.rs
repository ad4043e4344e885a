//! A Pulsar with settings of its own, beside the one that all tests share: as long as it is not dropped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use super::Lab;

/// A virtual machine that starts on a small machine beside others.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct OwnPulsar {
    script: Child,
    /// Its end is the script's, also where this process is killed.
    stdin: ChildStdin,
    pub url: String,
    /// `http://127.0.0.1:port`
    pub http_url: String,
    /// Its data and its logs.
    pub folder: PathBuf,
}

impl OwnPulsar {
    /// Starts it with these options of `scripts/parts run`.
    pub async fn start(lab: &Lab, options: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-pulsar", lab.unique));
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parts"))
            .args(["run", "--alone"])
            .args(options)
            .arg(&folder)
            .args(["sh", "-c", "echo $PULSAR_URL $PULSAR_HTTP_URL; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("scripts/parts runs");
        let stdin = script.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(script.stdout.take().expect("a pipe")).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it starts in time").expect("text");
        let line = line.unwrap_or_else(|| panic!("Pulsar did not start: see {}", folder.display()));
        let (url, http_url) = line.split_once(' ').expect("two addresses");
        Self { script, stdin, url: url.to_owned(), http_url: http_url.to_owned(), folder }
    }

    /// Stops it, and waits for that.
    pub async fn stop(mut self) {
        drop(self.stdin);
        self.script.wait().await.expect("it ends");
    }
}
