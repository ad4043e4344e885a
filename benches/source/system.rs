//! What is compared, each started as its operator would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use crate::{process::Process, stand_in::StandIn, topic::Broker};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Ours,
    /// Ours as a function, by `pulsar-admin functions localrun`. Only where it is asked for, as the next.
    Function,
    /// Ours from the archive, by `pulsar-admin sources localrun`: a Java instance, and our process under it. Both count.
    Archive,
    /// Apache's pulsar-io-dynamodb 4.0.8 by `pulsar-admin sources localrun`.
    Java,
    /// A producer alone: it reads nothing.
    Bare,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Ours => "ours",
            System::Function => "as a function",
            System::Archive => "from the archive",
            System::Java => "Java connector",
            System::Bare => "bare producer",
        }
    }
}

/// Where everything is.
pub struct Places {
    pub broker: Broker,
    pub dynamodb: String,
    pub connector: PathBuf,
    pub nar: Option<PathBuf>,
    /// Ours.
    pub archive: Option<PathBuf>,
    pub pulsar_home: PathBuf,
    /// For configurations and logs.
    pub folder: PathBuf,
    /// Lines of configuration for ours alone.
    pub more: Vec<String>,
}

impl Places {
    /// Starts a source of a stand-in's stream into a topic, both by a name that is its own.
    pub fn source(&self, system: System, name: &str, stand_in: &StandIn, checkpoint_millis: u64) -> Process {
        self.source_with(system, name, stand_in, checkpoint_millis, &[])
    }

    /// The same with lines of configuration more.
    pub fn source_with(&self, system: System, name: &str, stand_in: &StandIn, checkpoint_millis: u64, more: &[String]) -> Process {
        let credentials = json!({"accessKey": "local", "secretKey": "local"}).to_string();
        let mut configs = json!({
            "awsEndpoint": stand_in.endpoint(), "awsRegion": "us-east-1", "awsDynamodbStreamArn": stand_in.stream_arn(), "dynamoEndpoint": self.dynamodb,
            "cloudwatchEndpoint": stand_in.endpoint(), "applicationName": name, "initialPositionInStream": "TRIM_HORIZON",
            "checkpointInterval": checkpoint_millis, "awsCredentialPluginParam": credentials,
        });
        let ours = if system == System::Java { &[] } else { &self.more[..] };
        for (key, value) in ours.iter().chain(more).filter_map(|line| line.split_once(": ")) {
            configs[key] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        }
        let topic = format!("persistent://public/default/{name}");
        // YAML, too.
        let file = self.folder.join(format!("{name}.json"));
        let config =
            json!({"tenant": "public", "namespace": "default", "name": name, "topicName": topic, "parallelism": 1, "configs": configs});
        fs::write(&file, config.to_string()).expect("target is writable");
        let log = self.folder.join(format!("{name}.log"));
        if system == System::Ours {
            let mut command = Command::new(&self.connector);
            command.args(["source", "--config"]).arg(&file).args(["--pulsar-url", &self.broker.url]);
            return Process::start(&mut command, &log, &[]);
        }
        let mut command = Command::new(self.pulsar_home.join("bin/pulsar-admin"));
        command.args([
            if system == System::Function { "functions" } else { "sources" },
            "localrun",
            "--broker-service-url",
            &self.broker.url,
        ]);
        match system {
            System::Function => {
                command.arg("--go").arg(&self.connector).args(["--name", name, "--inputs", "unused", "--output", &topic]);
                command.args(["--user-config", &configs.to_string()]);
                Process::start(&mut command, &log, &["-instance-conf"])
            }
            System::Archive => {
                command.arg("--source-config-file").arg(&file).arg("--archive").arg(self.archive.as_ref().expect("--archive is given"));
                Process::start(&mut command, &log, &["functions.LocalRunner", " bridge "])
            }
            System::Java => {
                command.arg("--source-config-file").arg(&file).arg("--archive").arg(self.nar.as_ref().expect("--nar is given"));
                Process::start(&mut command, &log, &["functions.LocalRunner"])
            }
            System::Ours | System::Bare => unreachable!("one is started above, the other is no source"),
        }
    }

    /// Starts a bare producer of so many messages.
    pub fn producer(&self, name: &str, messages: &Path, count: u64) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this executable"));
        command.args(["produce", &self.broker.url, name]).arg(messages).arg(count.to_string());
        Process::start(&mut command, &self.folder.join(format!("{name}.log")), &[])
    }
}
