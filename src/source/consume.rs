//! One shard from the lease that was taken to its end, its loss, its handover, or the stop of the worker.
//!
//! Three things go on at once: reading hands records to the window, receipts come back, and the lease is kept. The lease goes first:
//! without it nothing else may go on.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    checkpoint::Tracker,
    convert::{Order, Record},
    heal,
    lease::{
        keeper::{Closed, Holding, Kept, Tenure},
        mark,
    },
    once::Numbering,
    poll,
    progress::Progress,
    publish::{self, Outlet},
};
use crate::{
    error::{Error, Kind, Result},
    ports::{Checkpoint, Holder, Lease, LeaseTable, Publisher, ReadFrom, ShardId, StreamReader},
};

/// How a shard's task ended, but for errors that end the worker.
#[derive(Debug)]
pub enum Outcome {
    /// SHARD_END is written. The row as it is now, and the children's, which were created before.
    Finished { lease: Lease, children: Vec<Lease> },
    /// The lease is not ours any more, or could not be renewed in time.
    Lost(Lease),
    /// What was acknowledged is checkpointed. The lease is free, or the asker's.
    GivenUp(Lease),
}

enum End {
    Shard { children: Vec<Lease> },
    Stopped,
}

/// Consumes the shard. An error ends the worker: what was acknowledged before it is checkpointed, and the lease is free.
pub async fn consume<R: StreamReader, L: LeaseTable, P: Publisher>(shared: &Shared<R, L, P>, mut tenure: Tenure<L>) -> Result<Outcome> {
    let lease = tenure.lease().clone();
    let from = mark::go_on(&lease, shared.clock.epoch_millis());
    let numbering =
        shared.settings.once.as_ref().map(|once| Numbering::new(once, shared.reader.arn(), &lease.shard, &from, tenure.goes_on));
    let tracker = if mark::is_ours(&lease) || !mark::is_rewound(&lease, shared.settings.rewind_on_adopt) {
        Tracker::new(from)
    } else {
        Tracker::adopting(from)
    };
    let progress = Arc::new(Progress::new(tracker, numbering, shared.health.shards().enter(&lease.shard, &lease.parents)));
    tracing::info!(shard = %lease.shard, from = ?lease.checkpoint, "reading");
    // Ends the reading of this shard alone.
    let stop = shared.stop.child_token();
    let mut asker = None;
    let end = {
        // Boxed, since there may be ten thousand of them and a local that is pinned is held twice.
        let mut work = Box::pin(work(shared, &lease, tenure.holding(), &progress, &stop));
        loop {
            tokio::select! {
                biased;
                kept = tenure.keep(&progress) => match kept {
                    // The lease is kept until the receipts are there.
                    Ok(Kept::Asked(holder)) => {
                        tracing::info!(shard = %lease.shard, to = %holder, "asked to hand over");
                        stop.cancel();
                        asker = Some(holder);
                    }
                    // Before SHARD_END may be written, this ends only with an error.
                    Ok(Kept::Ended) => {}
                    Err(lost) => break Err(lost),
                },
                end = &mut work => break end,
            }
        }
    };
    let end = match end {
        Err(error) if matches!(error.kind(), Kind::Poison | Kind::TrimmedData) => {
            tracing::error!(shard = %lease.shard, "{error}");
            shared.health.red(stopped_stage(&lease.shard), &error);
            let _parked = (error.kind() == Kind::TrimmedData).then(|| shared.parked.park(&lease.shard, &error, shared.clock.now()));
            park(&mut tenure, &progress, &stop, &mut asker).await
        }
        Ok(End::Shard { children }) => {
            progress.end();
            loop {
                match tenure.keep(&progress).await {
                    Ok(Kept::Ended) => break Ok(End::Shard { children }),
                    // It is over anyway.
                    Ok(Kept::Asked(_)) => {}
                    Err(error) => break Err(error),
                }
            }
        }
        other => other,
    };
    for stage in ["shard", "publish"] {
        shared.health.green(&format!("{stage} {}", lease.shard));
    }
    shared.health.green(&stopped_stage(&lease.shard));
    match end {
        Ok(End::Shard { children }) => {
            tracing::info!(shard = %lease.shard, children = children.len(), "the shard is finished");
            Ok(Outcome::Finished { lease: tenure.lease().clone(), children })
        }
        // When the worker stops, whoever comes first may have it: the asker may stop as well.
        Ok(End::Stopped) => {
            let to = asker.filter(|_| !shared.stop.is_cancelled());
            let Closed { lease, unsettled } = tenure.close(&progress, to.as_ref()).await;
            if unsettled && must_end(shared, &progress) {
                return Err(producer_stays(&lease.shard, "Pulsar did not acknowledge everything in time"));
            }
            Ok(Outcome::GivenUp(lease))
        }
        Err(error) if error.kind() == Kind::LeaseLost => {
            if must_end(shared, &progress) {
                return Err(producer_stays(&lease.shard, error.why()));
            }
            tracing::warn!(shard = %lease.shard, %error, "reading of this shard stops here");
            Ok(Outcome::Lost(tenure.lease().clone()))
        }
        Err(error) => {
            tenure.close(&progress, None).await;
            Err(error)
        }
    }
}

/// Whether another owner of the shard could not publish before this process ends (D2).
fn must_end<R, L, P>(shared: &Shared<R, L, P>, progress: &Progress) -> bool {
    progress.has_producer() && !shared.stop.is_cancelled()
}

fn producer_stays(shard: &ShardId, why: &str) -> Error {
    let then = "with EFFECTIVELY_ONCE its next owner can publish only when this process has ended, so it ends; Pulsar starts it again";
    Error::new(Kind::Fatal, format!("keep the lease of {shard}"), format!("{why}: {then}"))
}

fn stopped_stage(shard: &ShardId) -> String {
    format!("record of {shard}")
}

/// Keeps the lease of a shard that a record or a gap has stopped: another worker could not go on either, and what was published before it is to
/// be checkpointed. Until the worker stops, is asked to hand over, or loses the lease.
async fn park<L: LeaseTable>(
    tenure: &mut Tenure<L>,
    progress: &Progress,
    stop: &CancellationToken,
    asker: &mut Option<Holder>,
) -> Result<End> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            kept = tenure.keep(progress) => match kept? {
                Kept::Asked(holder) => {
                    *asker = Some(holder);
                    return Ok(End::Stopped);
                }
                // Only the end of the shard is written as one.
                Kept::Ended => {}
            },
        }
    }
}

/// Reads, publishes and settles until the shard's end or `stop`. Whatever ends the reading, what was sent is settled.
async fn work<R: StreamReader, L: LeaseTable, P: Publisher>(
    shared: &Shared<R, L, P>,
    lease: &Lease,
    holding: Holding,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<End> {
    let settings = &shared.settings;
    let outlet = Outlet {
        publisher: shared.publisher.clone(),
        budget: shared.budget.clone(),
        max_records: settings.max_in_flight,
        poison: settings.poison.clone(),
        origin: settings.shape.origin.clone(),
        worker: settings.worker_id.clone(),
        health: shared.health.clone(),
    };
    let (mut window, receipts) = publish::window(&lease.shard, outlet, holding, progress);
    let mut settle = Box::pin(receipts.settle());
    let reading = async {
        let from = begin(shared, lease).await?;
        poll::read(shared, &from, &mut window).await
    };
    let read = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(End::Stopped),
        // A receipt that failed; the window is open, so settling does not end otherwise.
        Err(error) = &mut settle => return Err(error),
        read = reading => read.map(|()| End::Shard { children: Vec::new() }),
    };
    // Closes the window: settling ends with the last receipt.
    drop(window);
    tokio::select! {
        biased;
        settled = &mut settle => settled?,
        () = drain_limit(stop, shared.settings.drain_timeout) => {
            let waiting = progress.waiting();
            tracing::warn!(shard = %lease.shard, waiting, "Pulsar did not acknowledge everything in time; those records will be published again");
            return read.and(Ok(End::Stopped));
        }
    }
    match read? {
        End::Stopped => Ok(End::Stopped),
        End::Shard { .. } => tokio::select! {
            biased;
            () = stop.cancelled() => Ok(End::Stopped),
            children = shared.catalog.lease_children(lease) => Ok(End::Shard { children: children? }),
        },
    }
}

/// The row to read by: the lease's own, or one that starts before a checkpoint that the Java connector wrote (spec W1). That checkpoint may be
/// ahead of Pulsar, so reading begins `rewind_on_adopt` before the time of its record.
async fn begin<R: StreamReader, L: LeaseTable, P: Publisher>(shared: &Shared<R, L, P>, lease: &Lease) -> Result<Lease> {
    let rewind = shared.settings.rewind_on_adopt;
    let Checkpoint::At(sequence) = &lease.checkpoint else { return Ok(lease.clone()) };
    if !mark::is_rewound(lease, rewind) {
        return Ok(lease.clone());
    }
    let stage = format!("shard {}", lease.shard);
    let page = heal::heal(&stage, shared.clock, &shared.health, shared.settings.backoff, || async {
        let iterator = shared.reader.shard_iterator(&lease.shard, &ReadFrom::At(sequence.clone())).await?;
        shared.reader.get_records(&lease.shard, &iterator).await
    });
    let reached = match page.await {
        // Where it tells no time, the whole shard is read.
        Ok(page) => page.records.first().and_then(|record| Record::read(record, Order::Compat).ok()?.created_at),
        // The record is not there any more: what is left is younger, and whether something is missing shows when it is read on (G1).
        Err(error) if matches!(error.kind(), Kind::TrimmedData | Kind::NotFound) => return Ok(lease.clone()),
        Err(error) => return Err(error),
    };
    let start_at = reached.map(|created| created - i64::try_from(rewind.as_millis()).unwrap_or(i64::MAX)).max(lease.start_at);
    tracing::info!(shard = %lease.shard, checkpoint = %sequence, ?rewind, "adopting the checkpoint of another connector: records before it are published again");
    Ok(Lease { checkpoint: Checkpoint::TrimHorizon, start_at, ..lease.clone() })
}

/// Z1: a stop waits for receipts, but not for ever.
async fn drain_limit(stop: &CancellationToken, limit: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(limit).await;
}
