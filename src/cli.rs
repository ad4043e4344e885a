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
    /// Check a configuration and tell all that is wrong with it. Nothing is created, and without --connect nothing is called.
    Check(Check),
    /// Show a source's leases: which worker reads which shard, and how far it is; give them up, or read again from another position.
    Leases(Leases),
    /// What the NAR's Java shim starts: frames on standard input and output.
    #[command(hide = true)]
    Bridge(Log),
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
    /// How to authenticate otherwise: the Java class of the plugin, such as AuthenticationBasic, AuthenticationTls or AuthenticationOAuth2.
    #[arg(long, value_name = "CLASS", env = "PULSAR_AUTH_PLUGIN")]
    pub auth_plugin: Option<String>,
    /// A file with the plugin's parameters. The parameters themselves may be in the variable PULSAR_AUTH_PARAMS.
    #[arg(long, value_name = "FILE", env = "PULSAR_AUTH_PARAMS_FILE")]
    pub auth_params_file: Option<PathBuf>,
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
    /// Call each service once as well, Pulsar too, and tell which IAM action is missing. Nothing is changed.
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    pub pulsar: Pulsar,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Debug, Args)]
pub struct Leases {
    #[command(subcommand)]
    pub action: Option<LeasesAction>,
    /// The source's configuration file: it says which lease table, which stream and which credentials.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Look twice, so many seconds apart, to tell living owners from dead ones: a living one renews its leases every 3 to 4 seconds. 0 looks once.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub wait: u64,
    /// Do not ask the stream how old checkpoints are and what comes after them.
    #[arg(long)]
    pub no_lag: bool,
}

#[derive(Debug, Subcommand)]
pub enum LeasesAction {
    /// Take leases from their owners, so that any worker can have them at once. Nothing is lost, something may be published twice.
    Release(Wanted),
    /// Set where the reading of shards goes on: records are published again, or skipped.
    Reset {
        #[command(flatten)]
        wanted: Wanted,
        /// TRIM_HORIZON (the oldest that the stream has), LATEST (what is written from now on), or a time: 2026-11-21T08:00:00Z, 2026-11-21, epoch
        /// milliseconds.
        #[arg(long, value_name = "POSITION")]
        to: String,
    },
}

/// Which leases to change, and how sure the operator is.
#[derive(Debug, Args)]
pub struct Wanted {
    /// The shards whose leases are meant.
    #[arg(value_name = "SHARD", required_unless_present = "all", conflicts_with = "all")]
    pub shards: Vec<String>,
    /// All leases of the table.
    #[arg(long)]
    pub all: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Also where the owner is alive: it loses the lease at its next renewal.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ConfigSchema {
    /// Whose schema. Not needed for --markdown and --metrics.
    #[arg(required_unless_present_any = ["markdown", "metrics"])]
    pub kind: Option<Kind>,
    /// Print the reference of all keys as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Print the configuration class of the NAR instead.
    #[arg(long, hide = true, conflicts_with_all = ["markdown", "metrics"])]
    pub java: bool,
    /// Print the page of all metrics as Markdown.
    #[arg(long)]
    pub metrics: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Source,
    Sink,
}
