//! What comes back of one shard's records, in their order: receipts, and records that are settled by policy instead.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use metrics::{counter, histogram};
use tokio::{sync::mpsc, time::Instant};

use super::{
    convert::shape::Origin,
    lease::keeper::Holding,
    poison::{self, Case, Content, Policy},
    progress::Progress,
    publish::{Fate, InFlight, Outlet, Source},
};
use crate::{
    error::{Error, Result},
    metrics::names,
    ports::{OutboundMessage, Publisher, Receipt, Refusal, ShardId},
};

/// Without a receipt for so long, health turns red (H1).
const SLOW_RECEIPT: Duration = Duration::from_secs(60);

/// The receiving half: everything sent and not yet settled, in order.
#[derive(Debug)]
pub struct Receipts<P> {
    pub(super) shard: ShardId,
    pub(super) outlet: Outlet<P>,
    pub(super) holding: Holding,
    pub(super) progress: Arc<Progress>,
    pub(super) receipts: mpsc::Receiver<Box<InFlight>>,
}

impl<P: Publisher> Receipts<P> {
    /// Takes the receipts in order until the window is closed and empty. Errors with the first receipt that failed: it is final, and so
    /// are all later ones. A record that was refused is settled by policy, or stops the shard with an error of the kind `Poison`.
    pub async fn settle(mut self) -> Result<()> {
        let (published, bytes) = (counter!(names::SOURCE_PUBLISHED), counter!(names::SOURCE_PUBLISHED_BYTES));
        let seconds = histogram!(names::SOURCE_PUBLISH_SECONDS);
        while let Some(record) = self.receipts.recv().await {
            let InFlight { ticket, of, fate, bytes: size, sent, _record, _bytes, _metered } = *record;
            self.progress.meter().waits_for(Some((sent, of.created)));
            let refused = match fate {
                Fate::Published(receipt) => match self.stored(receipt, sent).await {
                    Ok(()) => None,
                    Err(Refusal { error, message: Some(message) }) => Some((error, *message, Content::Message)),
                    Err(Refusal { error, message: None }) => return Err(error),
                },
                Fate::Refused { error, message, content } => Some((error, *message, content)),
            };
            match refused {
                None => {
                    published.increment(1);
                    bytes.increment(size as u64);
                    seconds.record(sent.elapsed());
                }
                Some((error, message, content)) => self.resolve(&of, error, message, content).await?,
            }
            self.progress.done(ticket);
            if self.receipts.is_empty() {
                self.progress.meter().waits_for(None);
            }
        }
        Ok(())
    }

    /// Waits for a receipt; says so in health where that takes long (H1).
    async fn stored(&self, receipt: Receipt, sent: Instant) -> Result<(), Refusal> {
        let stored = receipt.stored();
        tokio::pin!(stored);
        // Most are there already, and a time limit costs more than they do.
        if let Some(result) = stored.as_mut().now_or_never() {
            return result;
        }
        let mut told = None;
        let result = loop {
            match tokio::time::timeout(SLOW_RECEIPT, &mut stored).await {
                Ok(result) => break result,
                Err(_) => {
                    let stage = told.get_or_insert_with(|| format!("publish {}", self.shard));
                    let seconds = sent.elapsed().as_secs();
                    let reason = format!("Pulsar has not acknowledged a record of {} for {seconds} s", self.shard);
                    self.outlet.health.red(stage.clone(), reason);
                }
            }
        };
        if let Some(stage) = told {
            self.outlet.health.green(&stage);
        }
        result
    }

    /// Does with a record what the policy says. Once this returns, the checkpoint may pass it (C1).
    async fn resolve(&self, of: &Source, error: Error, message: OutboundMessage, content: Content) -> Result<()> {
        let policy = &self.outlet.poison;
        let case = Case { error: &error, shard: &self.shard, sequence: &of.sequence, event_id: &of.event_id };
        match policy {
            Policy::StopShard => return Err(stop(&self.shard, of, &error)),
            Policy::Skip => {}
            Policy::DeadLetter(topic) => {
                let Origin { stream_arn, table } = &self.outlet.origin;
                let sender = poison::Sender { stream_arn, table, worker: &self.outlet.worker, topic };
                self.bury(of, poison::dead_letter(case, sender, message, content)).await?;
            }
        }
        tracing::error!("{}", case.told(policy));
        count(policy, &error);
        Ok(())
    }

    /// Publishes a dead letter, or as much of it as its topic takes. Errors with `LeaseLost` as [`Window::send`](super::publish::Window::send) does (L2).
    async fn bury(&self, of: &Source, mut letter: OutboundMessage) -> Result<()> {
        loop {
            self.holding.still_good(&self.shard)?;
            let sent = Instant::now();
            let refusal = match self.outlet.publisher.publish(letter).await {
                Ok(receipt) => match self.stored(receipt, sent).await {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refusal,
                },
                Err(refusal) => refusal,
            };
            let Refusal { error, message: Some(refused) } = refusal else { return Err(refusal.error) };
            letter = poison::reduced(*refused).ok_or_else(|| stop(&self.shard, of, &error))?;
        }
    }
}

/// The error that stops a shard, counted.
pub(super) fn stop(shard: &ShardId, of: &Source, error: &Error) -> Error {
    count(&Policy::StopShard, error);
    Case { error, shard, sequence: &of.sequence, event_id: &of.event_id }.stop()
}

fn count(policy: &Policy, error: &Error) {
    counter!(names::SOURCE_POISON, "policy" => policy.name(), "reason" => poison::reason(error)).increment(1);
}
