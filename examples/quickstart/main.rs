//! The quickstart's driver: two tables, one source, one sink, a small shop that writes orders, and one calm screen.
//!
//! `./quickstart` starts Pulsar and DynamoDB Local and then this.

mod compare;
mod events;
mod screen;
mod shop;
mod tables;
mod worker;

use std::{env, io::IsTerminal, process::ExitCode, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::{compare::Comparison, events::Events, screen::Screen, shop::Shop, tables::Tables, worker::Worker};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What `--once` writes.
const ONCE_CHANGES: usize = 500;
/// How long `--once` waits for the copy to be equal.
const ONCE_LIMIT: Duration = Duration::from_secs(120);
/// Changes a second: enough to see something, few enough to read it.
const CHANGES_PER_SECOND: u32 = 8;

#[tokio::main]
async fn main() -> ExitCode {
    let once = env::args().any(|argument| argument == "--once");
    match run(once).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn from_environment(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("{name} is not set; start ./quickstart, which sets it").into())
}

async fn run(once: bool) -> Result<bool> {
    let pulsar_url = from_environment("PULSAR_URL")?;
    let endpoint = from_environment("DYNAMODB_ENDPOINT")?;
    let folder = from_environment("PARTS_DIR")?;

    let tables = Tables::create(&endpoint).await?;
    let mut source = Worker::start("source", "connector-config/source.yaml", &pulsar_url, &endpoint, &folder)?;
    let mut sink = Worker::start("sink", "connector-config/sink.yaml", &pulsar_url, &endpoint, &folder)?;
    let mut events = Events::subscribe(&pulsar_url).await?;

    let outcome = if once {
        bounded(&tables, &mut source, &mut sink, &mut events).await
    } else {
        endless(&tables, &mut source, &mut sink, &mut events, &folder).await
    };
    if !matches!(outcome, Ok(true)) {
        source.show_log();
        sink.show_log();
    }
    let stopped = tokio::join!(source.stop(), sink.stop());
    for stopped in [stopped.0, stopped.1] {
        stopped?;
    }
    outcome
}

/// Writes, waits until the copy is equal, and tells.
async fn bounded(tables: &Tables, source: &mut Worker, sink: &mut Worker, events: &mut Events) -> Result<bool> {
    let mut shop = Shop::default();
    let began = Instant::now();
    shop.change(tables).await?;
    let first = copied(tables, &shop, source, sink, events).await?;
    println!("started    the first change was in the copy after {:.1} s", began.elapsed().as_secs_f64());

    let began = Instant::now();
    while shop.written() < ONCE_CHANGES && first.is_equal() {
        shop.change(tables).await?;
        events.take_waiting().await?;
    }
    let wrote = Instant::now();
    let comparison = copied(tables, &shop, source, sink, events).await?;
    println!(
        "written    {} changes of {} items in {:.1} s: {}",
        shop.written(),
        shop.items(),
        (wrote - began).as_secs_f64(),
        shop.counts()
    );
    println!(
        "published  {} events, {} of them repeated; from the write to the topic {}",
        events.seen(),
        events.repeated(),
        events.latency()
    );
    println!("copied     {:.1} s after the last write", wrote.elapsed().as_secs_f64());
    println!("result     {comparison}");
    for difference in comparison.differences() {
        println!("           {difference}");
    }
    Ok(comparison.is_equal() && events.distinct() == shop.written())
}

/// Waits until the copy is equal and all events are here, or until the deadline.
async fn copied(tables: &Tables, shop: &Shop, source: &mut Worker, sink: &mut Worker, events: &mut Events) -> Result<Comparison> {
    let deadline = Instant::now() + ONCE_LIMIT;
    loop {
        let comparison = Comparison::of(tables).await?;
        if (comparison.is_equal() && events.distinct() >= shop.written()) || Instant::now() >= deadline {
            return Ok(comparison);
        }
        source.check()?;
        sink.check()?;
        events.collect_for(Duration::from_millis(50)).await?;
    }
}

/// Writes and shows until Ctrl-C.
async fn endless(tables: &Tables, source: &mut Worker, sink: &mut Worker, events: &mut Events, folder: &str) -> Result<bool> {
    let mut screen = Screen::open(std::io::stdout().is_terminal());
    let mut shop = Shop::default();
    let mut writes = interval(Duration::from_secs(1) / CHANGES_PER_SECOND);
    let mut frames = interval(Duration::from_millis(if screen.is_terminal() { 250 } else { 2_000 }));
    writes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut probe = compare::Probe::default();
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            event = events.next() => event?,
            () = sleep_until(probe.due()) => probe.look(tables, &shop).await?,
            _ = writes.tick() => {
                shop.change(tables).await?;
                probe.written(&shop);
            }
            _ = frames.tick() => {
                source.check()?;
                sink.check()?;
                let comparison = Comparison::of(tables).await?;
                let health = tokio::join!(source.health(), sink.health());
                screen.draw(&screen::Frame { shop: &shop, events, comparison: &comparison, probe: &probe, source: &health.0, sink: &health.1, folder });
            }
        }
    }
    screen.close();
    println!("stopping: both connectors finish what is under way");
    Ok(true)
}
