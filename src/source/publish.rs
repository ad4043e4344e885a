//! One shard's ordered window of sends (O1), bounded in records and bytes over all shards (M1), and what comes back from it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, histogram};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{
    checkpoint::{Ticket, Tracker},
    lease::keeper::Holding,
};
use crate::{
    error::{Error, Kind, Result},
    metrics::{
        health::Health,
        names,
        shards::{self, Meter},
    },
    ports::{Mark, OutboundMessage, Publisher, Receipt, SequenceNumber, ShardId},
};

/// Text of records that is read, converted or on its way, over all shards.
const MAX_BYTES: usize = 128 * 1024 * 1024;
/// Kept free before GetRecords is called: its 1 MB of data is up to twice that as text. Also limits the calls under way to 64.
const PAGE_BYTES: u32 = 2 * 1024 * 1024;
/// Without a receipt for so long, health turns red (H1).
const SLOW_RECEIPT: Duration = Duration::from_secs(60);

/// What may be in memory at once, over all shards of the worker.
#[derive(Debug, Clone)]
pub struct Budget {
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Room for one page; what a record takes of it is free again once the record is stored.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

impl Budget {
    pub fn new(max_records: usize) -> Self {
        Self { records: Arc::new(Semaphore::new(max_records.clamp(1, Semaphore::MAX_PERMITS))), bytes: Arc::new(Semaphore::new(MAX_BYTES)) }
    }

    /// Waits until there is room for a page: a topic that takes nothing stops the reading (M1).
    pub async fn page(&self) -> Result<Room> {
        self.bytes.clone().acquire_many_owned(PAGE_BYTES).await.map(Room).map_err(|_| closed())
    }
}

/// What a shard's stages share about how far it is.
#[derive(Debug)]
pub struct Progress {
    tracker: Mutex<Tracker>,
    changed: Notify,
    meter: Meter,
}

impl Progress {
    pub fn new(tracker: Tracker, meter: Meter) -> Self {
        Self { tracker: Mutex::new(tracker), changed: Notify::new(), meter }
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A record that needs no publishing.
    pub fn skip(&self, sequence: SequenceNumber) {
        let ticket = self.lock().begin(sequence);
        self.done(ticket);
    }

    /// All records are handed on, and the children have leases: SHARD_END may be written once all receipts are there.
    pub fn end(&self) {
        self.lock().end();
        self.changed.notify_one();
    }

    pub fn due(&self) -> Option<Mark> {
        self.lock().due()
    }

    pub fn wrote(&self, mark: &Mark) {
        let mut tracker = self.lock();
        tracker.wrote(mark);
        self.meter.checkpointed(tracker.due().is_some());
    }

    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Something has become due.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn done(&self, ticket: Ticket) {
        let mut tracker = self.lock();
        let was_due = tracker.due().is_some();
        tracker.done(ticket);
        if !was_due && tracker.due().is_some() {
            self.meter.unwritten(true);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record between the publisher and its receipt.
#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    receipt: Receipt,
    bytes: usize,
    sent: Instant,
    /// Epoch milliseconds.
    created: Option<i64>,
    /// Freed with the record.
    _record: OwnedSemaphorePermit,
    _bytes: Option<OwnedSemaphorePermit>,
    _metered: shards::InFlight,
}

/// The record that a message is made of.
#[derive(Debug, Clone)]
pub struct Source {
    pub sequence: SequenceNumber,
    /// Epoch milliseconds.
    pub created: Option<i64>,
    /// What its text takes of the page's room, in bytes.
    pub size: usize,
}

/// The sending half of a shard's window.
#[derive(Debug)]
pub struct Window<P> {
    shard: ShardId,
    publisher: P,
    budget: Budget,
    holding: Holding,
    progress: Arc<Progress>,
    receipts: mpsc::Sender<InFlight>,
}

/// The receiving half: everything sent and not yet settled, in order.
#[derive(Debug)]
pub struct Receipts {
    shard: ShardId,
    progress: Arc<Progress>,
    health: Health,
    receipts: mpsc::Receiver<InFlight>,
}

/// A window for one shard. The channel is as long as the budget, which is the bound that counts.
pub fn window<P: Publisher>(
    shard: &ShardId,
    publisher: P,
    budget: &Budget,
    max_records: usize,
    holding: Holding,
    progress: &Arc<Progress>,
    health: &Health,
) -> (Window<P>, Receipts) {
    let (sender, receiver) = mpsc::channel(max_records.clamp(1, Semaphore::MAX_PERMITS));
    let window = Window { shard: shard.clone(), publisher, budget: budget.clone(), holding, progress: progress.clone(), receipts: sender };
    (window, Receipts { shard: shard.clone(), progress: progress.clone(), health: health.clone(), receipts: receiver })
}

impl<P: Publisher> Window<P> {
    /// Hands a record's message to the publisher once there is room.
    ///
    /// Errors with `LeaseLost` where the lease is not good any more (L2), or with the publisher's error, which is final.
    pub async fn send(&self, message: OutboundMessage, of: Source, room: &mut Room) -> Result<()> {
        let record = self.budget.records.clone().acquire_owned().await.map_err(|_| closed())?;
        let slot = self.receipts.reserve().await.map_err(|_| closed())?;
        if !self.holding.is_good() {
            return Err(Error::new(Kind::LeaseLost, format!("publish records of {}", self.shard), "the lease was not renewed in time"));
        }
        let (bytes, sent) = (message.payload.len(), Instant::now());
        let receipt = self.publisher.publish(message).await?;
        // No await from here on: a record that was accepted is known to the window.
        slot.send(InFlight {
            ticket: self.progress.lock().begin(of.sequence),
            receipt,
            bytes,
            sent,
            created: of.created,
            _record: record,
            _bytes: room.0.split(of.size.min(room.0.num_permits())),
            _metered: self.progress.meter.sent(bytes),
        });
        Ok(())
    }

    pub fn skip(&self, sequence: SequenceNumber) {
        self.progress.skip(sequence);
    }

    pub fn meter(&self) -> &Meter {
        self.progress.meter()
    }
}

impl Receipts {
    /// Takes the receipts in order until the window is closed and empty. Errors with the first receipt that failed: it is final, and so
    /// are all later ones.
    pub async fn settle(mut self) -> Result<()> {
        let stage = format!("publish {}", self.shard);
        let (published, bytes) = (counter!(names::SOURCE_PUBLISHED), counter!(names::SOURCE_PUBLISHED_BYTES));
        let seconds = histogram!(names::SOURCE_PUBLISH_SECONDS);
        while let Some(sent) = self.receipts.recv().await {
            self.progress.meter.waits_for(Some((sent.sent, sent.created)));
            let stored = sent.receipt.stored();
            tokio::pin!(stored);
            let result = loop {
                match tokio::time::timeout(SLOW_RECEIPT, &mut stored).await {
                    Ok(result) => break result,
                    Err(_) => {
                        let seconds = sent.sent.elapsed().as_secs();
                        self.health.red(stage.clone(), format!("Pulsar has not acknowledged a record of {} for {seconds} s", self.shard));
                    }
                }
            };
            self.health.green(&stage);
            result?;
            self.progress.done(sent.ticket);
            if self.receipts.is_empty() {
                self.progress.meter.waits_for(None);
            }
            published.increment(1);
            bytes.increment(sent.bytes as u64);
            seconds.record(sent.sent.elapsed());
        }
        Ok(())
    }
}

fn closed() -> Error {
    Error::new(Kind::Fatal, "publish a record", "the shard's window is closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ports::Checkpoint, source::clock::Clock};

    /// Stores everything at once.
    #[derive(Debug, Clone, Default)]
    struct Topic(Arc<Mutex<Vec<OutboundMessage>>>);

    impl Publisher for Topic {
        async fn publish(&self, message: OutboundMessage) -> Result<Receipt> {
            self.0.lock().expect("not poisoned").push(message);
            let (sender, receipt) = tokio::sync::oneshot::channel();
            sender.send(Ok(())).expect("the receipt is waited for");
            Ok(Receipt(receipt))
        }
    }

    fn progress() -> Arc<Progress> {
        let begin = Mark { epoch: 1, ordinal: 0, checkpoint: Checkpoint::TrimHorizon };
        Arc::new(Progress::new(Tracker::new(begin), Meter::detached()))
    }

    fn message() -> OutboundMessage {
        OutboundMessage { payload: b"{}".to_vec(), ..OutboundMessage::default() }
    }

    fn source(number: u64, size: usize) -> Source {
        Source { sequence: SequenceNumber::parse(&format!("{number:021}")).expect("digits"), created: None, size }
    }

    #[tokio::test(start_paused = true)]
    async fn l2_nothing_is_published_after_the_lease_has_run_out() {
        let (topic, budget, progress) = (Topic::default(), Budget::new(10), progress());
        let holding = Holding::until_moment(Clock::start(), Duration::from_secs(8));
        let (window, receipts) = window(&ShardId::new("shard"), topic.clone(), &budget, 10, holding, &progress, &Health::default());
        let mut room = budget.page().await.expect("room");
        tokio::time::advance(Duration::from_millis(7_999)).await;
        window.send(message(), source(1, 2), &mut room).await.expect("sent");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(window.send(message(), source(2, 2), &mut room).await.expect_err("too late").kind(), Kind::LeaseLost);
        drop(window);
        receipts.settle().await.expect("settled");
        let stored = Checkpoint::At(source(1, 2).sequence);
        assert_eq!(progress.due(), Some(Mark { epoch: 1, ordinal: 1, checkpoint: stored }));
        let published = topic.0.lock().expect("not poisoned");
        assert_eq!(*published, [message()]);
    }

    #[tokio::test(start_paused = true)]
    async fn m1_what_a_record_takes_is_free_once_it_is_stored() {
        let (budget, progress) = (Budget::new(2), progress());
        let holding = Holding::until_moment(Clock::start(), Duration::MAX / 2);
        let (window, receipts) = window(&ShardId::new("shard"), Topic::default(), &budget, 2, holding, &progress, &Health::default());
        let mut room = budget.page().await.expect("room");
        window.send(message(), source(1, 1_000), &mut room).await.expect("sent");
        window.send(message(), source(2, PAGE_BYTES as usize * 2), &mut room).await.expect("more than the page's room counts as all of it");
        assert_eq!((budget.records.available_permits(), budget.bytes.available_permits()), (0, MAX_BYTES - PAGE_BYTES as usize));
        drop((window, room));
        receipts.settle().await.expect("settled");
        assert_eq!((budget.records.available_permits(), budget.bytes.available_permits()), (2, MAX_BYTES));
    }
}
