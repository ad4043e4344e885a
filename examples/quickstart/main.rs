//! The quickstart's driver: two tables, one source, one sink, a small shop that writes orders, and one calm screen.
//!
//! `./quickstart` starts Pulsar and DynamoDB Local and then this.

mod compare;
mod events;
mod screen;
mod shop;
mod tables;
mod worker;

use std::{env, future::pending, io::IsTerminal, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    compare::{Comparison, Probe},
    events::Events,
    screen::{Frame, Screen},
    shop::Shop,
    tables::Tables,
    worker::Worker,
};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What `--once` writes, and how fast.
const ONCE_CHANGES: usize = 500;
const ONCE_CHANGES_PER_SECOND: u32 = 100;
/// How long `--once` waits for the copy to be equal, from its start.
const ONCE_LIMIT: Duration = Duration::from_secs(120);
/// Without `--once`: enough to see something, few enough to read it.
const CHANGES_PER_SECOND: u32 = 8;
/// As shells have it for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let once = env::args().any(|argument| argument == "--once");
    match run(once).await {
        Ok(End::Equal) => ExitCode::SUCCESS,
        Ok(End::Interrupted) if !once => ExitCode::SUCCESS,
        Ok(End::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Ok(End::Different) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How it ended, where nothing failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Interrupted,
    Equal,
    Different,
}

fn from_environment(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("{name} is not set; start ./quickstart, which sets it").into())
}

/// Ctrl-C, or whoever started us wants an end. Installed once, before anything is started.
fn interruption() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn run(once: bool) -> Result<End> {
    let interruption = interruption()?;
    let pulsar_url = from_environment("PULSAR_URL")?;
    let endpoint = from_environment("DYNAMODB_ENDPOINT")?;
    let folder = from_environment("PARTS_DIR")?;

    let mut workers = Vec::new();
    let outcome = tokio::select! {
        outcome = flow(once, &pulsar_url, &endpoint, &folder, &mut workers) => outcome,
        () = interruption => Ok(End::Interrupted),
    };
    if !matches!(outcome, Ok(End::Equal | End::Interrupted)) {
        workers.iter().for_each(Worker::show_log);
    }
    println!("stopping: source and sink finish what is under way");
    let mut stopped = Ok(());
    for worker in workers {
        stopped = stopped.and(worker.stop().await);
    }
    let end = outcome?;
    stopped.map(|()| end)
}

/// Starts both connectors, writes, and shows what arrives: for ever, or with `once` until the copy is equal or time is up.
async fn flow(once: bool, pulsar_url: &str, endpoint: &str, folder: &str, workers: &mut Vec<Worker>) -> Result<End> {
    let tables = Tables::create(endpoint).await?;
    for (kind, config) in [("source", "connector-config/source.yaml"), ("sink", "connector-config/sink.yaml")] {
        workers.push(Worker::start(kind, config, pulsar_url, endpoint, folder)?);
    }
    let mut events = Events::subscribe(pulsar_url).await?;
    let mut screen = Screen::open(!once && std::io::stdout().is_terminal());
    let mut shop = Shop::default();
    let mut probe = Probe::default();
    let began = Instant::now();
    let mut started = None;
    let mut writes = interval(Duration::from_secs(1) / if once { ONCE_CHANGES_PER_SECOND } else { CHANGES_PER_SECOND });
    let mut frames = interval(if once || screen.is_terminal() { Duration::from_millis(250) } else { Duration::from_secs(2) });
    writes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // One change goes ahead; what starting took is not counted as latency.
        if started.is_none() && probe.seen() > 0 {
            started = Some(began.elapsed());
            (probe, events.latencies) = Default::default();
        }
        let wait = if started.is_some() { once && shop.written() >= ONCE_CHANGES } else { shop.written() > 0 };
        tokio::select! {
            event = events.next() => event?,
            () = at(probe.due()) => probe.look(&tables, &shop).await?,
            _ = writes.tick(), if !wait => {
                shop.change(&tables).await?;
                probe.written(&shop);
            }
            _ = frames.tick(), if !once || wait => {
                workers.iter_mut().try_for_each(Worker::check)?;
                let comparison = Comparison::of(&tables).await?;
                let health = tokio::join!(workers[0].health(), workers[1].health());
                if !once {
                    screen.draw(&Frame { shop: &shop, events: &events, comparison: &comparison, probe: &probe, source: &health.0, sink: &health.1, folder });
                    continue;
                }
                let complete = started.is_some() && comparison.is_equal() && events.distinct() >= shop.written();
                if complete || began.elapsed() >= ONCE_LIMIT {
                    report(&shop, &events, &probe, &comparison, started, began.elapsed());
                    return Ok(if complete { End::Equal } else { End::Different });
                }
            }
        }
    }
}

/// Sleeps until then, or for ever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

fn report(shop: &Shop, events: &Events, probe: &Probe, comparison: &Comparison, started: Option<Duration>, took: Duration) {
    match started {
        Some(started) => println!("started    the first change was in the copy after {:.1} s", started.as_secs_f64()),
        None => println!("started    NO: the first change never came to the copy"),
    }
    println!("written    {} changes of {} items: {}", shop.written(), shop.items(), shop.counts());
    println!("published  {} events for them, {} repeated", events.distinct(), events.repeated());
    println!("latency    from the write until read from the topic: {}", events.latency());
    println!("           from the write until read from the copy:  {}", probe.latency());
    println!("result     {comparison}; {:.1} s in all", took.as_secs_f64());
    for difference in comparison.differences() {
        println!("           {difference}");
    }
}
