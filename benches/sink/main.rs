//! The sink's benchmark: ours from a real Pulsar topic, and Flink's DynamoDB sink from a generator, with the same items, against the same stub of
//! a table, one after the other in each round. `benches/sink/run` sets up what it needs; README tells what came out.

mod items;
mod measure;
#[allow(dead_code, reason = "the source's benchmark needs the rest of it")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/publish.rs"]
mod publish;
#[path = "../common/report.rs"]
mod report;
mod stub;
mod system;
mod topic;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::{measure::Bench, system::System};

#[derive(Parser)]
pub struct Run {
    /// Each setting so often for each system; the table has medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only settings whose name has this text.
    #[arg(long, default_value = "")]
    only: String,
    #[arg(long, value_delimiter = ',', default_value = "ours,flink")]
    systems: Vec<System>,
    /// For ours; Flink gets as many where nothing goes wrong, and fewer where that would take minutes.
    #[arg(long, default_value_t = 600_000)]
    items: u64,
    /// Of the stub's faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The connector; that of this build when it is left out.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_pulsar-io-dynamodb"))]
    connector: PathBuf,
    /// Flink's libraries, and where `flink/FlinkSink.java` was compiled to.
    #[arg(long)]
    class_path: Option<String>,
    #[arg(long, default_value = "java")]
    java: PathBuf,
    /// A line of configuration more for ours.
    #[arg(long)]
    config: Vec<String>,
    #[arg(long, default_value = "target/bench-sink.json")]
    json: PathBuf,
    // cargo bench adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = Bench::new(Run::parse());
    // Whoever is ended by a signal ends what it has started: dropped, a process is killed.
    let results = runtime.block_on(async {
        let mut end = signal(SignalKind::terminate()).expect("a handler");
        tokio::select! {
            results = bench.run() => Some(results),
            _ = end.recv() => None,
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    let Some(results) = results else { return ExitCode::FAILURE };
    report::write(&results, &bench.run.json);
    ExitCode::SUCCESS
}
