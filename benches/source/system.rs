//! What is compared, each started as its operator would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{process::Process, stand_in::StandIn, topic::Broker};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Ours,
    /// Apache's pulsar-io-dynamodb 4.0.8 by `pulsar-admin sources localrun`.
    Java,
    /// A producer alone: it reads nothing.
    Bare,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Ours => "ours",
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
        let file = self.folder.join(format!("{name}.yaml"));
        let (endpoint, arn) = (stand_in.endpoint(), stand_in.stream_arn());
        let mut config = format!(
            "tenant: public\nnamespace: default\nname: {name}\ntopicName: persistent://public/default/{name}\nparallelism: 1\nconfigs:\n  \
             awsEndpoint: {endpoint}\n  awsRegion: us-east-1\n  awsDynamodbStreamArn: {arn}\n  dynamoEndpoint: {dynamodb}\n  \
             cloudwatchEndpoint: {endpoint}\n  applicationName: {name}\n  initialPositionInStream: TRIM_HORIZON\n  \
             checkpointInterval: {checkpoint_millis}\n  awsCredentialPluginParam: '{{\"accessKey\":\"local\",\"secretKey\":\"local\"}}'\n",
            dynamodb = self.dynamodb,
        );
        let ours = if system == System::Ours { &self.more[..] } else { &[] };
        ours.iter().chain(more).for_each(|line| config.push_str(&format!("  {line}\n")));
        fs::write(&file, config).expect("target is writable");
        let log = self.folder.join(format!("{name}.log"));
        match system {
            System::Ours => {
                let mut command = Command::new(&self.connector);
                command.args(["source", "--config"]).arg(&file).args(["--pulsar-url", &self.broker.url]);
                Process::start(&mut command, &log, None)
            }
            System::Java => {
                let mut command = Command::new(self.pulsar_home.join("bin/pulsar-admin"));
                command.args(["sources", "localrun", "--broker-service-url", &self.broker.url, "--source-config-file"]).arg(&file);
                command.arg("--archive").arg(self.nar.as_ref().expect("--nar is given"));
                Process::start(&mut command, &log, Some("functions.LocalRunner"))
            }
            System::Bare => unreachable!("a producer is no source"),
        }
    }

    /// Starts a bare producer of so many messages.
    pub fn producer(&self, name: &str, messages: &Path, count: u64) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this executable"));
        command.args(["produce", &self.broker.url, name]).arg(messages).arg(count.to_string());
        Process::start(&mut command, &self.folder.join(format!("{name}.log")), None)
    }
}
