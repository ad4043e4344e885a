//! The source's benchmark: ours, the Java connector and a bare Pulsar producer, on the same records and the same Pulsar, one after the other in
//! each round. `benches/source/run` sets up what it needs; README tells what came out.

mod many;
mod measure;
#[path = "../common/process.rs"]
mod process;
mod produce;
#[path = "../common/publish.rs"]
mod publish;
#[path = "../common/report.rs"]
mod report;
#[allow(dead_code, reason = "tests need the rest of it")]
#[path = "../../tests/support/stand_in/mod.rs"]
mod stand_in;
mod system;
mod topic;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::{measure::Bench, system::System};

// The connector's, so that the bare producer has it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Records a second, CPU and memory, with everything in the stream from the beginning.
    CatchUp,
    /// From a record's creation to its publish, and memory when idle.
    Live,
    /// From the start of the process to the first publish, without and with a lease table.
    Start,
    /// kill -9 in a catch-up, and a start at once.
    Kill,
    /// Thousands of shards in one worker, and their rollover. Only ours, and only where it is asked for.
    Many,
}

#[derive(Parser)]
enum Cli {
    /// Measures, prints a table, and writes it as JSON as well.
    Run(Run),
    /// The bare producer. Started by `run`.
    Produce { url: String, topic: String, messages: PathBuf, count: usize },
    /// Serves a stream for trials by hand, until it is killed.
    StandIn { shards: usize, records: u64, per_second: u64 },
}

#[derive(clap::Args)]
pub struct Run {
    /// Each part so often for each system; the table has medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, value_delimiter = ',', default_value = "catch-up,live,start,kill")]
    parts: Vec<Part>,
    #[arg(long, value_delimiter = ',', default_value = "ours,java,bare")]
    systems: Vec<System>,
    #[arg(long, default_value_t = 4)]
    shards: usize,
    /// Shards for many.
    #[arg(long, default_value_t = 10_000)]
    many: usize,
    /// In each shard, for catch-up and kill.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// Of a record's JSON text.
    #[arg(long, default_value_t = 1_300)]
    record_bytes: usize,
    /// Changes a second, on one shard, for live.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    #[arg(long, default_value_t = 30)]
    live_seconds: u64,
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// The connector; that of this build when it is left out.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_pulsar-io-dynamodb"))]
    connector: PathBuf,
    /// The Java connector's archive, made by java-peer/build.
    #[arg(long)]
    nar: Option<PathBuf>,
    /// Ours, made by nar/build, for the system `archive`.
    #[arg(long)]
    archive: Option<PathBuf>,
    /// A line of configuration more for ours, such as receiveQueueSize: 5000.
    #[arg(long)]
    config: Vec<String>,
    #[arg(long, default_value = "target/bench-source.json")]
    json: PathBuf,
    // cargo bench adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

async fn signalled() {
    let mut end = signal(SignalKind::terminate()).expect("a handler");
    tokio::select! {
        _ = end.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match Cli::parse() {
        Cli::Run(run) => {
            let bench = Bench::new(run);
            // Whoever is ended by a signal ends what it has started: dropped, a process is killed.
            let results = runtime.block_on(async {
                tokio::select! {
                    results = bench.run() => Some(results),
                    () = signalled() => None,
                }
            });
            let Some(results) = results else { return ExitCode::FAILURE };
            report::write(&results, &bench.run.json);
        }
        Cli::Produce { url, topic, messages, count } => runtime.block_on(produce::produce(&url, &topic, &messages, count)),
        Cli::StandIn { shards, records, per_second } => {
            let stand_in = stand_in::StandIn::start(shards, 1_300);
            for shard in 0..shards {
                stand_in.state().stream().write(shard, records);
                stand_in.state().stream().write_live(shard, per_second);
            }
            println!("{} {}", stand_in.endpoint(), stand_in.stream_arn());
            runtime.block_on(std::future::pending::<()>());
        }
    }
    ExitCode::SUCCESS
}
