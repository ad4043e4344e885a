//! One shard's ordered window of sends (O1), bounded in records and bytes over all shards (M1). What comes back from it: [`settle`](super::settle).

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{
    checkpoint::Ticket,
    convert::shape::Origin,
    lease::keeper::Holding,
    poison::{Content, Policy},
    progress::Progress,
    settle::{Receipts, stop},
};
use crate::{
    error::{Error, Kind, Result},
    metrics::{
        health::Health,
        shards::{self, Meter},
    },
    ports::{OutboundMessage, Publisher, Receipt, Refusal, SequenceNumber, ShardId, WhileHeld},
};

/// Text of records that is read, converted or on its way, over all shards.
const MAX_BYTES: usize = 128 * 1024 * 1024;
/// Kept free before GetRecords is called: its 1 MB of data is up to twice that as text. Also limits the calls under way to 64.
const PAGE_BYTES: u32 = 2 * 1024 * 1024;

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

/// What the windows of a worker's shards share.
#[derive(Debug, Clone)]
pub struct Outlet<P> {
    pub publisher: P,
    pub budget: Budget,
    /// The budget's records.
    pub max_records: usize,
    pub poison: Policy,
    pub origin: Origin,
    /// The worker's id, for dead letters.
    pub worker: String,
    pub health: Health,
}

/// A record between the publisher and its receipt.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) ticket: Ticket,
    pub(super) of: Source,
    pub(super) fate: Fate,
    pub(super) bytes: usize,
    pub(super) sent: Instant,
    /// Freed with the record.
    pub(super) _record: OwnedSemaphorePermit,
    pub(super) _bytes: Option<OwnedSemaphorePermit>,
    pub(super) _metered: shards::InFlight,
}

#[derive(Debug)]
pub(super) enum Fate {
    Published(Receipt),
    /// Nothing was published: what is to be the dead letter, if there is one.
    Refused {
        error: Error,
        message: Box<OutboundMessage>,
        content: Content,
    },
}

/// The record that a message is made of.
#[derive(Debug, Clone)]
pub struct Source {
    pub sequence: SequenceNumber,
    /// Empty where it is not known.
    pub event_id: String,
    /// Epoch milliseconds.
    pub created: Option<i64>,
    /// What its text takes of the page's room, in bytes.
    pub size: usize,
}

/// The sending half of a shard's window.
#[derive(Debug)]
pub struct Window<P> {
    shard: ShardId,
    outlet: Outlet<P>,
    holding: Holding,
    while_held: WhileHeld,
    progress: Arc<Progress>,
    receipts: mpsc::Sender<Box<InFlight>>,
}

/// A window for one shard. The channel is as long as the budget, which is the bound that counts. Its first 32 places are there from the
/// beginning, also where nothing is sent: boxed, they take 7 KB less, and there may be ten thousand shards.
pub fn window<P: Publisher>(shard: &ShardId, outlet: Outlet<P>, holding: Holding, progress: &Arc<Progress>) -> (Window<P>, Receipts<P>) {
    let (sender, receiver) = mpsc::channel(outlet.max_records.clamp(1, Semaphore::MAX_PERMITS));
    let receipts =
        Receipts { shard: shard.clone(), outlet: outlet.clone(), holding: holding.clone(), progress: progress.clone(), receipts: receiver };
    let while_held = holding.while_held();
    (Window { shard: shard.clone(), outlet, holding, while_held, progress: progress.clone(), receipts: sender }, receipts)
}

impl<P: Publisher> Window<P> {
    /// Hands a record's message to the publisher once there is room. One that is refused at once is handed on as such ([`Self::refuse`]);
    /// `keys` is the event without its images, for one that is too large.
    ///
    /// Errors with `LeaseLost` where the lease is not good any more (L2), `Poison` where the record stops the shard, or with the publisher's
    /// error, which is final.
    pub async fn send(&self, message: OutboundMessage, of: Source, room: &mut Room, keys: impl FnOnce() -> Vec<u8> + Send) -> Result<()> {
        let place = self.progress.place(&of.sequence).await;
        let record = self.room().await?;
        let slot = self.receipts.reserve().await.map_err(|_| closed())?;
        self.holding.still_good(&self.shard)?;
        let (bytes, sent) = (message.payload.len(), Instant::now());
        let message = OutboundMessage { while_held: self.while_held.clone(), place, ..message };
        let fate = match self.outlet.publisher.publish(message).await {
            Ok(receipt) => Fate::Published(receipt),
            Err(Refusal { error, message: None }) => return Err(error),
            Err(Refusal { error, message: Some(_) }) if self.outlet.poison == Policy::StopShard => {
                return Err(stop(&self.shard, &of, &error));
            }
            Err(Refusal { error, message: Some(message) }) if error.kind() == Kind::TooLarge => {
                let message = Box::new(OutboundMessage { payload: keys(), ..*message });
                Fate::Refused { error, message, content: Content::Keys }
            }
            Err(Refusal { error, message: Some(message) }) => Fate::Refused { error, message, content: Content::Message },
        };
        // No await from here on: a record that was accepted is known to the window.
        slot.send(self.in_flight(fate, bytes, sent, of, record, room));
        Ok(())
    }

    /// Hands on a record that cannot be published: it is settled by policy in its turn, after all earlier ones.
    ///
    /// Errors where the policy is that the shard stops. Nothing after the record is published then.
    pub async fn refuse(&self, error: Error, message: OutboundMessage, content: Content, of: Source, room: &mut Room) -> Result<()> {
        if self.outlet.poison == Policy::StopShard {
            return Err(stop(&self.shard, &of, &error));
        }
        let place = self.progress.place(&of.sequence).await;
        let record = self.room().await?;
        let slot = self.receipts.reserve().await.map_err(|_| closed())?;
        let fate = Fate::Refused { error, message: Box::new(OutboundMessage { place, ..message }), content };
        slot.send(self.in_flight(fate, 0, Instant::now(), of, record, room));
        Ok(())
    }

    /// Waits for the room of one record. A shard that has its share waits for its own next receipt and takes nothing from the others.
    async fn room(&self) -> Result<OwnedSemaphorePermit> {
        let records = &self.outlet.budget.records;
        loop {
            let free_slots = self.receipts.capacity();
            if is_fair(self.receipts.max_capacity() - free_slots, records.available_permits()) {
                break;
            }
            // The slots are given back at once: what counts is that there is one more.
            let _more = self.receipts.reserve_many(free_slots + 1).await.map_err(|_| closed())?;
        }
        records.clone().acquire_owned().await.map_err(|_| closed())
    }

    fn in_flight(
        &self,
        fate: Fate,
        bytes: usize,
        sent: Instant,
        of: Source,
        record: OwnedSemaphorePermit,
        room: &mut Room,
    ) -> Box<InFlight> {
        Box::new(InFlight {
            ticket: self.progress.begin(of.sequence.clone()),
            fate,
            bytes,
            sent,
            _record: record,
            _bytes: room.0.split(of.size.min(room.0.num_permits())),
            _metered: self.progress.meter().sent(bytes),
            of,
        })
    }

    pub fn skip(&self, sequence: SequenceNumber) {
        self.progress.skip(sequence);
    }

    /// Records before the next one are gone. `now`: epoch milliseconds.
    pub fn gap(&self, now: i64) {
        self.progress.gap(now);
    }

    pub fn meter(&self) -> &Meter {
        self.progress.meter()
    }
}

/// Whether a shard with so many records on their way may send another: while there is room for as many again. One that Pulsar does not answer
/// stops at half of the budget, two at a third each, or at a half and a quarter, and some room is left for the others (spec W13). Switches
/// share the buffers of their ports by this rule.
fn is_fair(on_their_way: usize, free: usize) -> bool {
    on_their_way == 0 || on_their_way <= free
}

fn closed() -> Error {
    Error::new(Kind::Fatal, "publish a record", "the shard's window is closed")
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex, time::Duration};

    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        ports::{Checkpoint, Mark},
        source::{checkpoint::Tracker, clock::Clock},
    };

    /// Stores everything at once.
    #[derive(Debug, Clone, Default)]
    struct Topic(Arc<Mutex<Vec<OutboundMessage>>>);

    impl Publisher for Topic {
        async fn publish(&self, message: OutboundMessage) -> Result<Receipt, Refusal> {
            self.0.lock().expect("not poisoned").push(message);
            let (sender, receipt) = tokio::sync::oneshot::channel();
            sender.send(Ok(())).expect("the receipt is waited for");
            Ok(Receipt(receipt))
        }
    }

    /// Stores nothing before it is told to, topic by topic.
    #[derive(Debug, Clone, Default)]
    struct Topics(Arc<Mutex<HashMap<Arc<str>, Vec<Answer>>>>);

    type Answer = oneshot::Sender<Result<(), Refusal>>;

    impl Publisher for Topics {
        async fn publish(&self, message: OutboundMessage) -> Result<Receipt, Refusal> {
            let (sender, receipt) = oneshot::channel();
            self.0.lock().expect("not poisoned").entry(message.topic.expect("a topic")).or_default().push(sender);
            Ok(Receipt(receipt))
        }
    }

    impl Topics {
        fn store(&self, topic: &str) {
            for receipt in self.0.lock().expect("not poisoned").remove(topic).expect("messages") {
                receipt.send(Ok(())).expect("waited for");
            }
        }
    }

    fn outlet<P: Publisher>(publisher: &P, max_records: usize) -> Outlet<P> {
        Outlet {
            publisher: publisher.clone(),
            budget: Budget::new(max_records),
            max_records,
            poison: Policy::default(),
            origin: Origin::default(),
            worker: "t/n/s-0".into(),
            health: Health::default(),
        }
    }

    fn progress() -> Arc<Progress> {
        let begin = Mark { epoch: 1, ordinal: 0, checkpoint: Checkpoint::TrimHorizon };
        Arc::new(Progress::new(Tracker::new(begin), None, Meter::detached()))
    }

    fn message() -> OutboundMessage {
        OutboundMessage { payload: b"{}".to_vec(), ..OutboundMessage::default() }
    }

    fn source(number: u64, size: usize) -> Source {
        Source { sequence: SequenceNumber::parse(&format!("{number:021}")).expect("digits"), event_id: String::new(), created: None, size }
    }

    #[tokio::test(start_paused = true)]
    async fn l2_nothing_is_published_after_the_lease_has_run_out() {
        let (topic, progress) = (Topic::default(), progress());
        let outlet = outlet(&topic, 10);
        let holding = Holding::until_moment(Clock::start(), Duration::from_secs(8));
        let (window, receipts) = window(&ShardId::new("shard"), outlet.clone(), holding, &progress);
        let mut room = outlet.budget.page().await.expect("room");
        tokio::time::advance(Duration::from_millis(7_999)).await;
        window.send(message(), source(1, 2), &mut room, Vec::new).await.expect("sent");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(window.send(message(), source(2, 2), &mut room, Vec::new).await.expect_err("too late").kind(), Kind::LeaseLost);
        drop(window);
        receipts.settle().await.expect("settled");
        let stored = Checkpoint::At(source(1, 2).sequence);
        assert_eq!(progress.due(), Some(Mark { epoch: 1, ordinal: 1, checkpoint: stored }));
        let published = topic.0.lock().expect("not poisoned");
        assert_eq!(*published, [message()]);
    }

    #[tokio::test(start_paused = true)]
    async fn l2_o1_a_message_may_be_sent_while_its_lease_is_held_and_never_again_after() {
        let (topic, progress) = (Topic::default(), progress());
        let holding = Holding::until_moment(Clock::start(), Duration::from_secs(8));
        let (window, _receipts) = window(&ShardId::new("shard"), outlet(&topic, 10), holding, &progress);
        let mut room = window.outlet.budget.page().await.expect("room");
        window.send(message(), source(1, 2), &mut room, Vec::new).await.expect("sent");
        let sent = topic.0.lock().expect("not poisoned")[0].while_held.clone();
        tokio::time::advance(Duration::from_millis(7_999)).await;
        assert!(sent.may_send());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!sent.may_send() && !sent.may_send());
    }

    #[test]
    fn w13_whoever_waits_leaves_room_for_others() {
        // Shards that Pulsar does not answer, in turn and one after the other.
        for shards in 1..=8 {
            let (mut own, mut free) = (vec![0_usize; shards], 1_000_usize);
            while own.iter().any(|own| is_fair(*own, free)) {
                for own in &mut own {
                    let one = usize::from(is_fair(*own, free));
                    *own += one;
                    free -= one;
                }
            }
            assert!(free >= 1_000 / (1 + shards) - 2 * shards, "{shards} shards leave {free}");
            free = 1_000;
            for _ in 0..shards {
                free -= (0..).take_while(|own| is_fair(*own, free - own)).count();
            }
            assert!(free > 0, "{shards} shards leave nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn m1_what_a_record_takes_is_free_once_it_is_stored() {
        let (outlet, progress) = (outlet(&Topic::default(), 2), progress());
        let budget = outlet.budget.clone();
        let holding = Holding::until_moment(Clock::start(), Duration::MAX / 2);
        let (window, receipts) = window(&ShardId::new("shard"), outlet, holding, &progress);
        let mut room = budget.page().await.expect("room");
        window.send(message(), source(1, 1_000), &mut room, Vec::new).await.expect("sent");
        window
            .send(message(), source(2, PAGE_BYTES as usize * 2), &mut room, Vec::new)
            .await
            .expect("more than the page's room counts as all of it");
        assert_eq!((budget.records.available_permits(), budget.bytes.available_permits()), (0, MAX_BYTES - PAGE_BYTES as usize));
        drop((window, room));
        receipts.settle().await.expect("settled");
        assert_eq!((budget.records.available_permits(), budget.bytes.available_permits()), (2, MAX_BYTES));
    }
    #[tokio::test(start_paused = true)]
    async fn c1_the_prefix_is_one_over_all_topics() {
        let (topics, progress) = (Topics::default(), progress());
        let outlet = outlet(&topics, 10);
        let holding = Holding::until_moment(Clock::start(), Duration::MAX / 2);
        let (window, receipts) = window(&ShardId::new("shard"), outlet.clone(), holding, &progress);
        let mut room = outlet.budget.page().await.expect("room");
        for (number, topic) in [(1, "insert"), (2, "insert"), (3, "modify"), (4, "insert")] {
            let message = OutboundMessage { topic: Some(topic.into()), ..message() };
            window.send(message, source(number, 2), &mut room, Vec::new).await.expect("sent");
        }
        drop(window);
        let mut settle = Box::pin(receipts.settle());
        let at = |number| Some(Checkpoint::At(source(number, 2).sequence));
        topics.store("insert");
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut settle).await.is_err(), "one topic is slow");
        assert_eq!(progress.due().map(|mark| mark.checkpoint), at(2), "record 3 has no receipt, although record 4 has");
        topics.store("modify");
        settle.await.expect("settled");
        assert_eq!(progress.due().map(|mark| mark.checkpoint), at(4));
    }

    #[tokio::test(start_paused = true)]
    async fn l2_no_dead_letter_is_published_after_the_lease_has_run_out() {
        for seconds in [7, 8] {
            let (topics, progress) = (Topics::default(), progress());
            let outlet = Outlet { poison: Policy::DeadLetter("dead".into()), ..outlet(&topics, 10) };
            let holding = Holding::until_moment(Clock::start(), Duration::from_secs(8));
            let (window, receipts) = window(&ShardId::new("shard"), outlet.clone(), holding, &progress);
            let mut room = outlet.budget.page().await.expect("room");
            let message = OutboundMessage { topic: Some("t".into()), ..message() };
            window.send(message.clone(), source(1, 2), &mut room, Vec::new).await.expect("sent");
            drop(window);
            tokio::time::advance(Duration::from_secs(seconds)).await;
            let answer = topics.0.lock().expect("not poisoned").remove("t").expect("a message").remove(0);
            let error = Error::new(Kind::Invalid, "publish", "refused");
            answer.send(Err(Refusal { error, message: Some(Box::new(message)) })).expect("waited for");
            let settled = tokio::time::timeout(Duration::from_millis(1), receipts.settle()).await;
            let buried = topics.0.lock().expect("not poisoned").contains_key("dead");
            match seconds {
                7 => assert!(buried && settled.is_err(), "its receipt is waited for"),
                _ => assert_eq!((buried, settled.expect("at once").expect_err("too late").kind()), (false, Kind::LeaseLost)),
            }
        }
    }
}
