//! One connector process, as an operator starts it.

use std::{
    env,
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Result;

pub struct Worker {
    kind: &'static str,
    child: Child,
    http_address: String,
    log: PathBuf,
}

impl Worker {
    pub fn start(kind: &'static str, config: &str, pulsar_url: &str, endpoint: &str, folder: &str) -> Result<Self> {
        let program = env::current_exe()?.parent().and_then(|examples| examples.parent()).map(|release| release.join("pulsar-io-dynamodb"));
        let program = program.filter(|program| program.exists()).ok_or("build the program first: cargo build --release")?;
        let log = PathBuf::from(folder).join(format!("{kind}.log"));
        let http_address = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let mut command = Command::new(program);
        command
            .args([kind, "--config", config, "--pulsar-url", pulsar_url, "--http-address", &http_address])
            .env_remove("AWS_PROFILE")
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        Ok(Self { kind, child: command.spawn()?, http_address, log })
    }

    /// Fails when the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the {} has ended ({status}); its log is {}", self.kind, self.log.display()).into()),
        }
    }

    /// What `/healthz` says: `ok`, or the first reason why not.
    pub async fn health(&self) -> String {
        let answer = tokio::time::timeout(Duration::from_secs(1), self.get("/healthz")).await;
        match answer {
            Ok(Ok(answer)) => answer.split_once("\r\n\r\n").and_then(|(_, body)| body.lines().next()).unwrap_or("?").to_owned(),
            _ => "starting".into(),
        }
    }

    async fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.http_address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http_address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    pub fn show_log(&self) {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- the end of {}", self.log.display());
        lines[lines.len().saturating_sub(15)..].iter().for_each(|line| eprintln!("{line}"));
    }

    /// SIGTERM, then waits until it has drained; kills it when it does not.
    pub async fn stop(mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        }
        for _ in 0..300 {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(()) } else { Err(format!("the {} ended with {status}", self.kind).into()) };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the {} did not stop within 15 s", self.kind).into())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
