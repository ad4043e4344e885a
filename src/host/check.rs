//! `check --connect`: calls each service once and tells what is missing, before anything runs.

use std::{fmt::Write as _, time::Duration};

use crate::{
    config::{sink::Sink, source::Source},
    dynamodb::{
        client,
        probe::{self, Finding, Outcome, Request},
    },
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::Vehicle,
    pulsar::client::{Settings as PulsarSettings, connect},
    sink::mode::{Deletes, Mode, Versioning, What},
};

/// Longer than it takes until health knows why.
const PULSAR_LIMIT: Duration = Duration::from_secs(12);

/// What each call said, for a person, and whether all that were made work.
#[derive(Debug)]
pub struct Report {
    pub text: String,
    pub works: bool,
}

/// Calls what a source calls.
pub fn source(configured: &Source, pulsar: &PulsarSettings) -> Result<Report> {
    run(of_source(configured, pulsar))
}

/// Calls what a sink calls.
pub fn sink(configured: &Sink, pulsar: &PulsarSettings) -> Result<Report> {
    run(of_sink(configured, pulsar))
}

fn run(calls: impl Future<Output = Result<Report>>) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::new(Kind::Fatal, "start the runtime", error))?.block_on(calls)
}

async fn of_source(configured: &Source, pulsar: &PulsarSettings) -> Result<Report> {
    let aws = client::load(&configured.aws).await?;
    let dynamodb = client::dynamodb(&aws, configured.dynamodb_endpoint.as_deref());
    let streams = client::streams(&aws, configured.streams_endpoint.as_deref());
    let others = configured.dynamodb_endpoint.is_some() || configured.streams_endpoint.is_some();
    let mut findings = vec![probe::identity(&aws, &configured.aws, others).await];
    findings.extend(probe::source(&dynamodb, &streams, &configured.stream, &configured.lease_table).await);
    findings.extend(configured.cloudwatch.as_ref().map(|settings| probe::metrics(&settings.namespace)));
    Ok(report(&findings, reach(pulsar).await, pulsar))
}

async fn of_sink(configured: &Sink, pulsar: &PulsarSettings) -> Result<Report> {
    let aws = client::load(&configured.aws).await?;
    let dynamodb = client::dynamodb(&aws, configured.dynamodb_endpoint.as_deref());
    let mut findings = vec![probe::identity(&aws, &configured.aws, configured.dynamodb_endpoint.is_some()).await];
    match configured.settings.shape.route {
        None => findings.extend(probe::sink(&dynamodb, &configured.settings.table_name, &requests(&configured.settings.mode)).await),
        Some(_) => findings.push(probe::chosen(&configured.settings.table_name)),
    }
    Ok(report(&findings, reach(pulsar).await, pulsar))
}

/// The requests that a mode makes. Any message may ask for a delete.
fn requests(mode: &Mode) -> Vec<Request> {
    match (mode.vehicle(), &mode.what) {
        (Vehicle::Batch, _) => vec![Request::Batch],
        (Vehicle::Transaction, _) => vec![Request::Transaction],
        (Vehicle::Single, What::Delete) => vec![Request::Delete],
        (Vehicle::Single, What::Update) => vec![Request::Update, Request::Delete],
        (Vehicle::Single, What::Newest(Versioning { deletes: Deletes::Tombstone(_), .. })) => vec![Request::Put],
        (Vehicle::Single, What::Put | What::Insert | What::Newest(_)) => vec![Request::Put, Request::Delete],
    }
}

/// Only connects: to look a topic up may create it.
async fn reach(pulsar: &PulsarSettings) -> Result<()> {
    let health = Health::default();
    match tokio::time::timeout(PULSAR_LIMIT, connect(pulsar, &health)).await {
        Ok(connected) => connected.map(drop),
        Err(_) => {
            let why = health.reasons().into_values().next().unwrap_or_else(|| format!("no answer within {PULSAR_LIMIT:?}"));
            Err(Error::new(Kind::Unavailable, format!("connect to Pulsar at {}", pulsar.url), why))
        }
    }
}

fn report(findings: &[Finding], pulsar_answers: Result<()>, pulsar: &PulsarSettings) -> Report {
    let mut text = String::new();
    for Finding { action, on, outcome } in findings {
        let _ = match outcome {
            Outcome::Works(seen) => writeln!(text, "works      {action} on {on}: {seen}"),
            Outcome::NotTried(why) => writeln!(text, "not tried  {action} on {on}: {why}"),
            Outcome::Fails(error) if error.kind() == Kind::AccessDenied => {
                writeln!(text, "FAILS      {action} on {on}: {}\n           allow the IAM action {action} on it", error.why())
            }
            Outcome::Fails(error) => writeln!(text, "FAILS      {action} on {on}: {error}"),
        };
    }
    let _ = match &pulsar_answers {
        Ok(()) => writeln!(text, "works      Pulsar at {}", pulsar.url),
        Err(error) => writeln!(text, "FAILS      Pulsar at {}: {error}", pulsar.url),
    };
    Report { text, works: probe::all_work(findings) && pulsar_answers.is_ok() }
}
