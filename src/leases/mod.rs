//! `pulsar-io-dynamodb leases`: shows a source's leases to a person, gives some up, or moves them to another position.

pub mod change;
pub mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::json;
use tokio::{
    runtime,
    time::{sleep, timeout},
};

use self::view::{Next, Position};
use crate::{
    cli::{Leases, LeasesAction},
    config::{self, load, source::Source},
    dynamodb::{client, lease_table::LeaseTable, stream_reader::StreamReader, streams::resolve_stream},
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{Checkpoint, Lease, LeaseTable as _, ShardId, StreamArn},
    source::clock::epoch_millis,
};

/// Questions to the stream under way at once: few, since the workers read the same shards, and a shard can take two readers.
const QUESTIONS: usize = 4;
/// A table that does not say by then which stream it has is left without its lags.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// The lease table and the streams that its shards may be of.
pub struct Context {
    table: LeaseTable,
    table_name: String,
    failover: Duration,
    /// The stream that the configuration means; why it is not known otherwise.
    stream: Result<StreamArn>,
    reader: Box<dyn Fn(&StreamArn) -> StreamReader + Send + Sync>,
}

/// Runs the command: 0 when done, 1 when it was refused, 64 when it was called wrongly.
pub fn run(command: &Leases, environment: &BTreeMap<String, String>) -> Result<ExitCode> {
    let file = command.config.as_ref().ok_or_else(|| {
        Error::new(Kind::Configuration, "run the leases command", "--config FILE is missing: the source's configuration file")
    })?;
    let configured = config::source::check(&load::read(file)?, environment, config::Transport::PulsarIo)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(Kind::Fatal, "start the runtime", error))?;
    runtime.block_on(async {
        let context = Context::open(configured).await?;
        match &command.action {
            None => show(&context, command).await,
            Some(LeasesAction::Release(wanted)) => change::release(&context, wanted).await,
            Some(LeasesAction::Reset { wanted, to }) => change::reset(&context, wanted, to).await,
        }
    })
}

impl Context {
    async fn open(configured: Source) -> Result<Self> {
        let aws = client::load(&configured.aws).await?;
        let dynamodb = client::dynamodb(&aws, configured.dynamodb_endpoint.as_deref());
        let streams = client::streams(&aws, configured.streams_endpoint.as_deref());
        let resolved = timeout(RESOLVE_LIMIT, resolve_stream(&dynamodb, &configured.stream, &Health::default())).await;
        let stream = resolved.unwrap_or_else(|_| {
            let doing = format!("find the stream of {} (dynamodb:DescribeTable)", configured.stream);
            Err(Error::new(Kind::Unavailable, doing, format!("no answer within {RESOLVE_LIMIT:?}")))
        });
        Ok(Self {
            table: LeaseTable::new(dynamodb, configured.lease_table.clone()),
            table_name: configured.lease_table,
            failover: configured.settings.failover,
            stream,
            reader: Box::new(move |arn| StreamReader::new(streams.clone(), arn.as_str())),
        })
    }

    /// Reads the stream that a lease's shard is of: a row of the Java connector does not say it.
    fn reader_of(&self, lease: &Lease) -> Option<StreamReader> {
        lease.stream.as_ref().or(self.stream.as_ref().ok()).map(&self.reader)
    }
}

async fn show(context: &Context, command: &Leases) -> Result<ExitCode> {
    let wait = Duration::from_secs(command.wait);
    let first = context.table.list().await?;
    // Both take their time.
    let ((), (positions, trouble)) = tokio::join!(sleep(wait), async {
        if command.no_lag { (BTreeMap::new(), BTreeSet::new()) } else { positions(context, &first).await }
    });
    let second = if wait.is_zero() { first.clone() } else { context.table.list().await? };
    let between = (!wait.is_zero()).then_some(wait);
    let lines = view::lines(&first, &second, between, context.failover, &positions, epoch_millis());
    if command.json {
        let shown = json!({
            "table": context.table_name,
            "stream": context.stream.as_ref().ok().map(StreamArn::as_str),
            "lookedSeconds": command.wait,
            "failoverSeconds": context.failover.as_secs(),
            "leases": lines,
            "trouble": trouble,
        });
        println!("{shown:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("Table {}. {}\n", context.table_name, view::summary(&lines));
    print!("{}", view::table(&lines));
    let looked = if wait.is_zero() {
        "One look: nobody knows which owners are alive.".to_owned()
    } else {
        format!(
            "Two looks, {} s apart: running has been renewed in between, silent has not. A silent owner's lease is free {} s after its last renewal.",
            wait.as_secs(),
            context.failover.as_secs()
        )
    };
    println!("\n{looked}");
    if !command.no_lag {
        println!(
            "AGE: since the checkpoint's own record was created. LAG: since the oldest record after the checkpoint was, 0 where there is none."
        );
    }
    for trouble in trouble {
        println!("Not known: {trouble}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the checkpoints stand in the stream, and what kept some from being known.
async fn positions(context: &Context, leases: &[Lease]) -> (BTreeMap<ShardId, Position>, BTreeSet<String>) {
    let unfinished = leases.iter().filter(|lease| lease.checkpoint != Checkpoint::ShardEnd);
    let asked = futures_util::stream::iter(unfinished).map(|lease| async move {
        let position = match context.reader_of(lease) {
            Some(reader) => position(&reader, lease).await,
            None => Err(context.stream.clone().err().unwrap_or_else(|| Error::new(Kind::NotFound, "find the stream", "unknown"))),
        };
        (lease.shard.clone(), position)
    });
    let (mut known, mut trouble) = (BTreeMap::new(), BTreeSet::new());
    let mut asked = asked.buffer_unordered(QUESTIONS);
    while let Some((shard, position)) = asked.next().await {
        match position {
            Ok(position) => drop(known.insert(shard, position)),
            Err(error) => drop(trouble.insert(error.to_string())),
        }
    }
    (known, trouble)
}

async fn position(reader: &StreamReader, lease: &Lease) -> Result<Position> {
    let after = match &lease.checkpoint {
        Checkpoint::At(number) => Some(number),
        // The first record at all is the next one, unless the lease's own start leaves it out.
        Checkpoint::TrimHorizon if lease.start_at.is_none() => None,
        _ => return Ok(Position::default()),
    };
    match reader.glance(&lease.shard, after).await {
        Ok(glance) => {
            let next = glance.next.map_or(if glance.at_tip { Next::Nothing } else { Next::Unknown }, Next::Created);
            Ok(Position { reached: glance.reached, next })
        }
        Err(error) if error.kind() == Kind::TrimmedData => Ok(Position { reached: None, next: Next::Trimmed }),
        Err(error) => Err(error),
    }
}
