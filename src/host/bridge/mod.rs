//! A child of the NAR's Java shim (`nar/`): Pulsar IO publishes and consumes, this process decides.
//!
//! ```text
//!   Pulsar's instance (JVM)                     this process
//!   read() ◄── queue ◄── RECORD ◄───────────── FramePublisher ◄── source worker
//!   ack()  ──► queue ──► ACK ────────────────► receipts
//!   write() ── credit ── MESSAGE ────────────► FrameInbox ──────► sink worker
//!   ack()  ◄──────────── ACK, FAIL ◄──────────
//!   close() ─► STOP ─────────────────────────► drain (Z1)
//! ```
//!
//! The end of the input is the end of the parent: nothing is acknowledged any more, so nothing is waited for. The end of this process is the end of the
//! instance, with this process's last words as its exception; Pulsar starts it again (docs/decisions/025).

mod ends;
mod frame;
mod open;
mod pipe;
mod report;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use tokio::{runtime::Builder, sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::{
    ends::{FrameInbox, FramePublisher, MESSAGE_COST, ToldSchemas},
    frame::{FromShim, Outgoing, VERSION},
    open::Job,
    pipe::{Inward, Said, Speaker},
    report::Report,
};
use super::workers::{self, measured, reading};
use crate::{
    config::{sink::Sink, source::Source},
    dynamodb::{client, item_table::ItemTables},
    error::{Error, Kind, Result},
    metrics::{self, health::Health, prometheus::Exporter},
    sink,
    source::{self, clock::Clock},
    supervisor::{DRAIN_DEADLINE, Signals, exit_code, supervise},
};

/// How often the shim hears of metrics, and so that this process is alive. The shim takes a minute of silence for death.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// The shim ends this process 8 s after STOP, since the worker kills the shim after 10.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// What is said and not yet written, beside the answers to messages.
const QUEUE: usize = 1_000;

/// Runs what the shim asks for, until it says STOP or ends. `log` is called once the shim is understood.
pub fn run(environment: &BTreeMap<String, String>) -> Result<ExitCode> {
    let mut input = BufReader::with_capacity(64 * 1024, own(io::stdin().as_fd())?);
    let mut output = own(io::stdout().as_fd())?;
    let wrote = |error| Error::new(Kind::Fatal, "talk to the NAR's shim", error);
    output.write_all(&[VERSION]).map_err(wrote)?;
    let job = match job(&mut input, environment) {
        Ok(Some(job)) => job,
        // The parent has gone before it has said anything.
        Ok(None) => return Ok(ExitCode::SUCCESS),
        Err(error) => {
            let mut outgoing = Outgoing::default();
            outgoing.error(&error.to_string());
            output.write_all(&outgoing.0).map_err(wrote)?;
            return Ok(ExitCode::from(exit_code(&error)));
        }
    };
    let credit = match &job {
        Job::Source(_) => 0,
        Job::Sink { sink, .. } => sink.settings.max_buffered_bytes,
    };
    let mut outgoing = Outgoing::default();
    outgoing.ready(u32::try_from(credit).unwrap_or(i32::MAX as u32));
    output.write_all(&outgoing.0).map_err(wrote)?;

    let most_messages = credit / MESSAGE_COST + 1;
    let (speaker, writing) = pipe::speak(output, QUEUE + most_messages)?;
    let pipes = Pipes { input: Box::new(input), speaker, writing, most_messages };
    match job {
        Job::Source(mut configured) => {
            configured.settings.drain_timeout = DRAIN_TIMEOUT;
            work_on_source(*configured, pipes)
        }
        Job::Sink { mut sink, redelivers } => {
            sink.settings.drain_timeout = DRAIN_TIMEOUT;
            work_on_sink(*sink, redelivers, pipes)
        }
    }
}

/// A file of its own, without the lock and the buffer of the standard library's.
fn own(stream: std::os::fd::BorrowedFd<'_>) -> Result<File> {
    let owned = stream.try_clone_to_owned();
    owned.map(File::from).map_err(|error| Error::new(Kind::Fatal, "open the pipes to the NAR's shim", error))
}

fn job(input: &mut impl Read, environment: &BTreeMap<String, String>) -> Result<Option<Job>> {
    if frame::read_version(input)?.is_none() {
        return Ok(None);
    }
    match frame::read(input)? {
        Some(FromShim::Open(json)) => open::job(&json, environment).map(Some),
        Some(_) => Err(Error::new(Kind::Fatal, "read the shim's frames", "its first frame is not OPEN")),
        None => Ok(None),
    }
}

struct Pipes {
    input: Box<dyn Read + Send>,
    speaker: Speaker,
    writing: JoinHandle<()>,
    most_messages: usize,
}

fn work_on_source(configured: Source, pipes: Pipes) -> Result<ExitCode> {
    let cloudwatch = workers::cloudwatch(&configured);
    let health = Health::default();
    let exporter = metrics::install(&health, cloudwatch.iter().map(|(accumulator, _)| Arc::new(accumulator.clone()) as _).collect())?;
    pipes.host(None, exporter, move |speaker: Speaker, stop: CancellationToken| async move {
        let Some(ready) = stop.run_until_cancelled(reading(&configured, &health)).await else { return Ok(()) };
        let (aws, streams, leases) = ready?;
        let publisher = FramePublisher::new(speaker);
        let working = source::run(configured.settings, Clock::start(), streams, Arc::new(leases), publisher, health.clone(), stop);
        measured(working, cloudwatch, &aws, &health).await
    })
}

fn work_on_sink(configured: Sink, redelivers: bool, pipes: Pipes) -> Result<ExitCode> {
    let health = Health::default();
    let exporter = metrics::install(&health, Vec::new())?;
    let (messages, received) = mpsc::channel(pipes.most_messages);
    let schemas = ToldSchemas::default();
    let inward = Inward { messages, schemas: schemas.clone() };
    pipes.host(Some(inward), exporter, move |speaker: Speaker, stop: CancellationToken| async move {
        let ready = async {
            let aws = client::load(&configured.aws).await?;
            let dynamodb = client::dynamodb(&aws, configured.dynamodb_endpoint.as_deref());
            tracing::info!(topics = ?configured.subscription.topics, table = %configured.settings.table_name, "sink");
            Ok(ItemTables::new(dynamodb))
        };
        let Some(ready) = stop.run_until_cancelled(ready).await else { return Ok(()) };
        let inbox = FrameInbox::new(received, speaker, redelivers);
        sink::run::<_, _, _, FramePublisher>(configured.settings, inbox, Arc::new(schemas), Arc::new(ready?), None, health, stop).await
    })
}

impl Pipes {
    /// Runs a worker with its ends of the pipes, metrics and signals around it, and tells the shim how it has ended.
    fn host<F: Future<Output = Result<()>> + Send + 'static>(
        self,
        inward: Option<Inward>,
        metrics: Exporter,
        worker: impl FnOnce(Speaker, CancellationToken) -> F,
    ) -> Result<ExitCode> {
        let runtime = Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::new(Kind::Fatal, "start the runtime", error))?;
        let Self { input, speaker, writing, .. } = self;
        let (stop, told_to_stop) = (CancellationToken::new(), CancellationToken::new());
        pipe::listen(input, &speaker, inward, stop.clone(), told_to_stop.clone())?;
        let code = runtime.block_on(async {
            let signals = Signals::listen()?;
            let (worker, last_words) = (worker(speaker.clone(), stop.clone()), speaker.clone());
            let working = async move {
                match worker.await {
                    // What the shim gave back unpublished, for one.
                    Err(error) if told_to_stop.is_cancelled() => {
                        tracing::info!(%error, "left unfinished at the stop; it comes again");
                        Ok(())
                    }
                    Err(error) => {
                        let _ = last_words.say(Said::Error(error.to_string())).await;
                        Err(error)
                    }
                    Ok(()) => Ok(()),
                }
            };
            tokio::select! {
                code = supervise(signals, stop.clone(), DRAIN_DEADLINE, working) => Ok(code),
                never = tell(&speaker, &metrics) => match never {},
            }
        });
        drop((speaker, runtime));
        // Last words get out, unless nobody takes them.
        let _ = writing.join();
        code
    }
}

async fn tell(speaker: &Speaker, metrics: &Exporter) -> std::convert::Infallible {
    let mut report = Report::default();
    let mut due = tokio::time::interval(SIGN_OF_LIFE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        metrics.upkeep();
        if speaker.say(Said::Metrics(report.of(&metrics.render()))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
