//! One stream after the other: each is read to its end before the next one begins, so that the changes of an item stay in order (O1).
//!
//! While a stream of a table is read, the table is asked now and then whether it has another one ([`Follow::watch`]); which one is next, [`succession`]
//! says from the rows of the lease table, which survive a restart.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::counter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Settings, Shared,
    catalog::Catalog,
    clock::Clock,
    convert::shape::Origin,
    describe::Describe,
    gap::{OnTrimmed, Parked},
    heal::heal,
    lease::keeper::Keeper,
    publish::Budget,
    share, succession,
    worker::{Ended, Worker},
};
use crate::{
    error::{Error, Kind, Result},
    metrics::{calls::Timed, health::Health, names},
    ports::{Checkpoint, Lease, LeaseTable, Publisher, ShardId, StreamArn, Streams},
};

/// Between two looks for another stream while the one that is read goes on.
const PAUSE: Duration = Duration::from_secs(60);
/// The same while nothing more can come from it.
const SHORT_PAUSE: Duration = Duration::from_secs(5);

/// While it is found out whether somebody renews the leases of another stream.
const SHARE_LOOKS: u32 = 5;

/// The stage of health that tells of the table's streams.
const FOLLOW: &str = "find the stream";

/// What comes after the stream that is read, and what came before it.
#[derive(Debug, Default)]
pub struct Succession {
    successor: OnceLock<StreamArn>,
    hurry: Notify,
    /// Another one may come.
    pub follows: bool,
    /// Earlier streams that were gone before they were finished.
    pub lost: BTreeSet<StreamArn>,
    /// Shards of rows that do not say whose they are, and that are not in the stream.
    foreign: BTreeSet<ShardId>,
}

impl Succession {
    /// Whether there is another stream already.
    pub fn has_successor(&self) -> bool {
        self.successor.get().is_some()
    }

    /// Whether the row is one of this stream.
    pub fn is_own(&self, row: &Lease, stream: &StreamArn) -> bool {
        succession::is_of(row, stream) && !self.foreign.contains(&row.shard)
    }

    /// The stream is disabled or gone: it is time to look for another one.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }
}

/// What all streams of a source have in common.
pub struct Follow<S, L, P> {
    pub settings: Settings,
    pub clock: Clock,
    pub streams: S,
    pub leases: Arc<Timed<L>>,
    pub publisher: P,
    pub health: Health,
    pub stop: CancellationToken,
    /// New with each start.
    pub nonce: String,
}

impl<S: Streams, L: LeaseTable, P: Publisher> Follow<S, L, P> {
    /// Reads one stream after the other until the stop, the end of a stream that has no successor, or an error that nothing heals.
    pub async fn run(self) -> Result<()> {
        // Those that are read to their end, and those of them that were gone before.
        let (mut over, mut lost) = (BTreeSet::new(), BTreeSet::new());
        let Some(mut latest) = self.until_stop(self.latest()).await? else { return Ok(()) };
        let Some(foreign) = self.until_stop(self.share(&latest)).await? else { return Ok(()) };
        loop {
            let Some(rows) = self.until_stop(self.rows()).await? else { return Ok(()) };
            let Some(stream) = succession::next(&rows, &latest, &over) else {
                if !self.streams.follows() {
                    return Err(ended(&latest));
                }
                let why = format!(
                    "{latest} is disabled and read to its end, and the table has no other stream yet; switch one on, with new and old images"
                );
                tracing::warn!("{why}");
                match self.stop.run_until_cancelled(self.watch(&latest, SHORT_PAUSE, &Notify::new(), Some(why))).await {
                    Some(successor) => latest = successor,
                    None => return Ok(()),
                }
                continue;
            };
            let start = succession::start(&rows, &stream, &over, self.settings.start);
            let succession =
                Succession { follows: self.streams.follows(), lost: lost.clone(), foreign: foreign.clone(), ..Succession::default() };
            if stream != latest {
                let _ = succession.successor.set(latest.clone());
            }
            let succession = Arc::new(succession);
            tracing::info!(%stream, ?start, earlier = stream != latest, "reading the stream");
            match self.read(&stream, Settings { start, ..self.settings.clone() }, &succession).await? {
                Ended::Stopped => return Ok(()),
                Ended::Drained => tracing::info!(%stream, "the stream is disabled, and all of it is published"),
                Ended::Replaced => {
                    self.give_up(&stream).await?;
                    lost.insert(stream.clone());
                }
            }
            over.insert(stream);
            latest = succession.successor.get().cloned().unwrap_or(latest);
        }
    }

    /// Reads one stream, and looks out for the next one meanwhile.
    async fn read(&self, stream: &StreamArn, mut settings: Settings, succession: &Arc<Succession>) -> Result<Ended> {
        settings.shape.origin = Origin::of(stream.as_str());
        let (clock, health) = (self.clock, self.health.clone());
        let reader = Arc::new(Timed(Arc::new(self.streams.open(stream))));
        let keeper = Arc::new(Keeper::new(self.leases.clone(), &settings, self.nonce.clone(), clock, health.clone()));
        let catalog = Catalog::new(reader.clone(), self.leases.clone(), &settings, clock, health.clone(), succession.clone());
        let budget = Budget::new(settings.max_in_flight);
        // A child: an error here stops the shards, and not whoever else listens to the host's token.
        let stop = self.stop.child_token();
        let (publisher, parked) = (self.publisher.clone(), Parked::default());
        let worker = Worker::new(Shared { settings, reader, publisher, catalog, budget, parked, clock, health, stop }, keeper);
        let watching = async {
            if succession.follows && !succession.has_successor() {
                let successor = self.watch(stream, PAUSE, &succession.hurry, None).await;
                tracing::info!(%stream, %successor, "the table has another stream; it is read once this one is finished");
                let _ = succession.successor.set(successor);
            }
            pending().await
        };
        tokio::select! {
            biased;
            ended = worker.run() => ended,
            never = watching => never,
        }
    }

    /// Makes sure that no connector on another stream uses the lease table (spec R20). Returns the shards of rows that are nobody's.
    ///
    /// Errors where one does. Takes the failover time where it may be so: a living owner renews three times in it.
    async fn share(&self, stream: &StreamArn) -> Result<BTreeSet<ShardId>> {
        let rows = self.rows().await?;
        let suspects = self.suspects(&rows, stream).await?;
        if suspects.is_empty() {
            return Ok(BTreeSet::new());
        }
        tracing::warn!(leases = suspects.len(), first = %suspects[0].shard, "the lease table has leases of another stream; looking whether they are renewed");
        for _ in 0..SHARE_LOOKS {
            tokio::time::sleep(self.settings.failover / SHARE_LOOKS).await;
            let rows = self.rows().await?;
            let renewed: Vec<Lease> = share::kept_up(&suspects, &rows).into_iter().cloned().collect();
            // A listing may have lagged behind.
            let others = if renewed.is_empty() { renewed } else { self.suspects(&renewed, stream).await? };
            if let Some(refusal) = share::refusal(&others.iter().collect::<Vec<_>>(), stream) {
                return Err(refusal);
            }
        }
        let foreign: BTreeSet<_> =
            self.suspects(&suspects, stream).await?.into_iter().filter(|row| row.stream.is_none()).map(|row| row.shard).collect();
        tracing::warn!(leases = suspects.len(), "nobody renews them: they are left alone");
        Ok(foreign)
    }

    /// The rows that may be another connector's.
    async fn suspects(&self, rows: &[Lease], stream: &StreamArn) -> Result<Vec<Lease>> {
        let (follows, now) = (self.streams.follows(), self.clock.epoch_millis());
        let suspects = |rows: &[Lease], is_listed: &dyn Fn(&ShardId) -> bool| share::suspects(rows, stream, follows, is_listed, now);
        let found = suspects(rows, &|_| false);
        if found.iter().all(|row| row.stream.is_some()) {
            return Ok(found);
        }
        let reader = Arc::new(Timed(Arc::new(self.streams.open(stream))));
        let listing = Describe::new(reader, self.clock, self.health.clone(), Arc::default()).whole().await?;
        Ok(suspects(&found, &|shard| listing.get(shard).is_some()))
    }

    /// Waits for a stream of the table that comes after this one. `waits`: why nothing is read until then.
    async fn watch(&self, stream: &StreamArn, pause: Duration, hurry: &Notify, waits: Option<String>) -> StreamArn {
        let tell = || match &waits {
            Some(why) => self.health.red(FOLLOW, why),
            None => self.health.green(FOLLOW),
        };
        tell();
        loop {
            tokio::select! {
                biased;
                () = hurry.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            match self.latest().await {
                Ok(latest) if stream.precedes(&latest) => {
                    self.health.green(FOLLOW);
                    return latest;
                }
                Ok(_) => tell(),
                // The table has no stream any more, say: one may be switched on.
                Err(error) => self.health.red(FOLLOW, error),
            }
        }
    }

    /// Waits, with red health, while the table does not exist or cannot be asked.
    async fn latest(&self) -> Result<StreamArn> {
        heal(FOLLOW, self.clock, &self.health, Duration::ZERO, || self.streams.latest()).await
    }

    async fn rows(&self) -> Result<Vec<Lease>> {
        heal("leases", self.clock, &self.health, Duration::ZERO, || self.leases.list()).await
    }

    /// A stream is gone that was not finished (G1). Its rows stay until the next one has its own: they say that it is read from its beginning.
    async fn give_up(&self, stream: &StreamArn) -> Result<()> {
        let mut shards = Vec::new();
        for row in self.rows().await? {
            if row.stream.as_ref() == Some(stream) && row.checkpoint != Checkpoint::ShardEnd {
                counter!(names::SOURCE_GAPS).increment(1);
                tracing::error!(%stream, shard = %row.shard, after = ?row.checkpoint, "a gap: the stream is gone before this shard was finished");
                shards.push(format!("{} after {:?}", row.shard, row.checkpoint));
            }
        }
        if !shards.is_empty() && self.settings.on_trimmed == OnTrimmed::Fail {
            let why = format!(
                "the stream is gone, and its records were not all read: {}. Bring them from elsewhere if they are needed; to go on with the table's \
                 next stream: onTrimmed: continue and a restart",
                shards.join(", ")
            );
            return Err(Error::new(Kind::TrimmedData, format!("read {stream} without a gap"), why));
        }
        Ok(())
    }

    /// `None` when the stop came first.
    async fn until_stop<T>(&self, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        self.stop.run_until_cancelled(work).await.transpose()
    }
}

/// What a stream says that was named by its own ARN and will never have anything new.
fn ended(stream: &StreamArn) -> Error {
    let why = "the stream is disabled and everything in it is published; later changes are in another stream: set awsDynamodbStreamArn to \
               table:NAME, which follows the table's streams, or to the new stream's ARN";
    Error::new(Kind::Fatal, format!("go on reading {stream}"), why)
}
