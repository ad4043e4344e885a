//! One shard from the lease that was taken to its end, its loss, or the stop of the worker.
//!
//! Three things go on at once: reading hands records to the window, receipts come back, and the lease is kept. The lease goes first:
//! without it nothing else may go on.

use std::sync::Arc;

use super::{
    Shared,
    lease::keeper::{Holding, Tenure},
    poll,
    publish::{self, Progress},
};
use crate::{
    error::{Kind, Result},
    ports::{Lease, LeaseTable, Publisher, StreamReader},
};

/// How a shard's task ended, but for errors that end the worker.
#[derive(Debug)]
pub enum Outcome {
    /// SHARD_END is written. The row as it is now, and the children's, which were created before.
    Finished { lease: Lease, children: Vec<Lease> },
    /// The lease is not ours any more, or could not be renewed in time.
    Lost(Lease),
    /// The worker stops: what was acknowledged is checkpointed, the lease is free.
    Released,
}

enum End {
    Shard { children: Vec<Lease> },
    Stopped,
}

/// Consumes the shard. An error ends the worker: what was acknowledged before it is checkpointed, and the lease is free.
pub async fn consume<R: StreamReader, L: LeaseTable, P: Publisher>(shared: &Shared<R, L, P>, mut tenure: Tenure<L>) -> Result<Outcome> {
    let lease = tenure.lease().clone();
    let holding = tenure.holding();
    let progress = Arc::new(Progress::new(lease.checkpoint.clone(), shared.health.shards().enter(&lease.shard, &lease.parents)));
    tracing::info!(shard = %lease.shard, from = ?lease.checkpoint, "reading");
    let end = tokio::select! {
        biased;
        // Before SHARD_END may be written, this ends only with an error.
        Err(lost) = tenure.keep(&progress) => Err(lost),
        end = work(shared, &lease, holding, &progress) => end,
    };
    let end = match end {
        Ok(End::Shard { children }) => {
            progress.end();
            tenure.keep(&progress).await.map(|()| End::Shard { children })
        }
        other => other,
    };
    for stage in ["shard", "publish"] {
        shared.health.green(&format!("{stage} {}", lease.shard));
    }
    match end {
        Ok(End::Shard { children }) => {
            tracing::info!(shard = %lease.shard, children = children.len(), "the shard is finished");
            Ok(Outcome::Finished { lease: tenure.lease().clone(), children })
        }
        Ok(End::Stopped) => {
            tenure.close(&progress).await;
            Ok(Outcome::Released)
        }
        Err(error) if error.kind() == Kind::LeaseLost => {
            tracing::warn!(shard = %lease.shard, %error, "reading of this shard stops here");
            Ok(Outcome::Lost(tenure.lease().clone()))
        }
        Err(error) => {
            tenure.close(&progress).await;
            Err(error)
        }
    }
}

/// Reads, publishes and settles until the shard's end or the stop of the worker. Whatever ends the reading, what was sent is settled.
async fn work<R: StreamReader, L: LeaseTable, P: Publisher>(
    shared: &Shared<R, L, P>,
    lease: &Lease,
    holding: Holding,
    progress: &Arc<Progress>,
) -> Result<End> {
    let (mut window, receipts) = publish::window(
        &lease.shard,
        shared.publisher.clone(),
        &shared.budget,
        shared.settings.max_in_flight,
        holding,
        progress,
        &shared.health,
    );
    let settle = receipts.settle();
    tokio::pin!(settle);
    let read = tokio::select! {
        biased;
        () = shared.stop.cancelled() => Ok(End::Stopped),
        // A receipt that failed; the window is open, so settling does not end otherwise.
        Err(error) = &mut settle => return Err(error),
        read = poll::read(shared, lease, &mut window) => read.map(|()| End::Shard { children: Vec::new() }),
    };
    // Closes the window: settling ends with the last receipt.
    drop(window);
    tokio::select! {
        biased;
        settled = &mut settle => settled?,
        () = drain_limit(shared) => {
            let waiting = progress.waiting();
            tracing::warn!(shard = %lease.shard, waiting, "Pulsar did not acknowledge everything in time; those records will be published again");
            return read.and(Ok(End::Stopped));
        }
    }
    match read? {
        End::Stopped => Ok(End::Stopped),
        End::Shard { .. } => tokio::select! {
            biased;
            () = shared.stop.cancelled() => Ok(End::Stopped),
            children = shared.catalog.lease_children(lease) => Ok(End::Shard { children: children? }),
        },
    }
}

/// Z1: a stop waits for receipts, but not for ever.
async fn drain_limit<R, L, P>(shared: &Shared<R, L, P>) {
    shared.stop.cancelled().await;
    tokio::time::sleep(shared.settings.drain_timeout).await;
}
