//! What is compared, each started as its user would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    items::Keys,
    process::Process,
    stub::{Stub, TABLE},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// From a Pulsar topic.
    Ours,
    /// flink-connector-dynamodb in a local mini cluster, from a generator.
    Flink,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Ours => "ours",
            System::Flink => "Flink's sink",
        }
    }
}

/// Where everything is.
pub struct Places {
    pub pulsar_url: String,
    pub connector: PathBuf,
    /// Flink's libraries and the classes of `flink/`.
    pub class_path: Option<String>,
    pub java: PathBuf,
    /// For configurations and logs.
    pub folder: PathBuf,
    /// Lines of configuration for ours.
    pub more: Vec<String>,
}

impl Places {
    /// Starts our sink on a topic, from its beginning, under a name that is its own.
    pub fn ours(&self, name: &str, topic: &str, stub: &Stub) -> Process {
        let mut config = format!(
            "tenant: public\nnamespace: default\nname: {name}\ninputs:\n  - persistent://public/default/{topic}\nsourceSubscriptionName: {name}\n\
             sourceSubscriptionPosition: Earliest\nretainOrdering: true\nconfigs:\n  awsEndpoint: {endpoint}\n  awsRegion: us-east-1\n  \
             tableName: {TABLE}\n  inputFormat: json\n  awsAccessKey: local\n  awsSecretKey: local\n",
            endpoint = stub.endpoint(),
        );
        self.more.iter().for_each(|line| config.push_str(&format!("  {line}\n")));
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, config).expect("target is writable");
        let mut command = Command::new(&self.connector);
        command.args(["sink", "--config"]).arg(&file).args(["--pulsar-url", &self.pulsar_url]);
        Process::start(&mut command, &self.log(name), &[])
    }

    /// Starts Flink's sink with so many items.
    pub fn flink(&self, name: &str, keys: Keys, items: u64, stub: &Stub) -> Process {
        let mut command = Command::new(&self.java);
        command.args(["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED", "-cp"]);
        command.arg(self.class_path.as_ref().expect("--class-path is given"));
        command.args(["FlinkSink", &stub.endpoint(), TABLE, &items.to_string(), keys.name()]);
        Process::start(&mut command, &self.log(name), &[])
    }

    fn log(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{name}.log"))
    }
}
