//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Moves data between Amazon DynamoDB and Apache Pulsar.
#[derive(Debug, Parser)]
#[command(name = "pulsar-io-dynamodb", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish the changes of a DynamoDB table to a Pulsar topic.
    Source(Run),
    /// Write the messages of Pulsar topics to a DynamoDB table.
    Sink(Run),
    /// Check a configuration and tell all that is wrong with it. Nothing is created or called.
    Check(Check),
    /// Print the configuration's JSON schema or reference, or the page of all metrics.
    ConfigSchema(ConfigSchema),
}

#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file: YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    #[command(flatten)]
    pub pulsar: Pulsar,
    /// Serve /metrics, /healthz and /status here. Off by default.
    #[arg(long, value_name = "HOST:PORT", env = "PULSAR_IO_DYNAMODB_HTTP_ADDRESS")]
    pub http_address: Option<SocketAddr>,
    #[command(flatten)]
    pub log: Log,
}

/// How to reach Pulsar. Secrets are never arguments: other users of the machine could see them.
#[derive(Debug, Args)]
pub struct Pulsar {
    /// pulsar://host:6650 or pulsar+ssl://host:6651
    #[arg(long, value_name = "URL", env = "PULSAR_URL")]
    pub pulsar_url: Option<String>,
    /// Pulsar's own conf/client.conf.
    #[arg(long, value_name = "FILE", env = "PULSAR_CLIENT_CONF")]
    pub client_conf: Option<PathBuf>,
    /// A file with the token to authenticate with. The token itself may be in the variable PULSAR_TOKEN.
    #[arg(long, value_name = "FILE", env = "PULSAR_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with certificates to trust.
    #[arg(long, value_name = "FILE", env = "PULSAR_TRUST_CERTS")]
    pub trust_certs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Log {
    /// text for a person, json for a machine.
    #[arg(long, value_enum, default_value = "text", env = "PULSAR_IO_DYNAMODB_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// error, warn, info, debug or trace, also for a part: info,pulsar_io_dynamodb=debug
    #[arg(long, value_name = "FILTER", default_value = crate::pulsar::DEFAULT_LOG_FILTER, env = "PULSAR_IO_DYNAMODB_LOG")]
    pub log_level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct Check {
    /// What the file is for. Without it, it is a sink's where it has a field that only sinks have, such as `inputs`, else a source's.
    pub kind: Option<Kind>,
    /// The configuration file: YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct ConfigSchema {
    /// Whose schema. Not needed for --markdown and --metrics.
    #[arg(required_unless_present_any = ["markdown", "metrics"])]
    pub kind: Option<Kind>,
    /// Print the reference of all keys as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Print the page of all metrics as Markdown.
    #[arg(long)]
    pub metrics: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Source,
    Sink,
}
