//! A topic that takes messages in order and gives receipts when it likes, partition by partition.

use std::{collections::VecDeque, time::Duration};

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{OutboundMessage, Place, Publisher, Receipt, Refusal},
};
use tokio::sync::oneshot;

use super::{
    Published, Service, State, World,
    log::{Actor, What},
};

#[derive(Clone)]
pub struct FakeTopic {
    pub world: World,
    pub run: Actor,
}

/// Taken, and not stored yet.
pub struct Accepted {
    pub sequence: u64,
    message: OutboundMessage,
    receipt: oneshot::Sender<Result<(), Refusal>>,
}

impl Accepted {
    pub fn is_awaited(&self) -> bool {
        !self.receipt.is_closed()
    }

    pub fn place(&self) -> Option<&Place> {
        self.message.place.as_ref()
    }

    /// Whoever sent it may be gone.
    pub fn answer(self, answer: Result<(), Refusal>) {
        let _ = self.receipt.send(answer);
    }
}

impl Publisher for FakeTopic {
    async fn publish(&self, message: OutboundMessage) -> Result<Receipt, Refusal> {
        if message.topic.as_deref() == Some(DEAD_LETTERS) {
            return self.bury(message);
        }
        let property = |name: &str| message.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let sequence: u64 = property("SEQUENCE_NUMBER").and_then(|text| text.parse().ok()).expect("a sequence number");
        assert_eq!(property("EVENT_NAME"), Some("INSERT"));
        assert_eq!(message.key, Some(format!("{sequence:032x}")));
        let (sender, receipt) = oneshot::channel();
        let lane = {
            let mut state = self.world.lock();
            if state.refusals.get(&sequence) == Some(&Refused::AtOnce) {
                // It was its turn, as for the order of what follows.
                state.seen.insert(sequence);
                state.published.push(Published { run: self.run, sequence });
                let error = Error::new(Kind::TooLarge, "publish a message", "scripted: larger than maxMessageSize");
                return Err(Refusal { error, message: Some(Box::new(message)) });
            }
            let home = state.homes[&sequence].clone();
            state.connect(self.run, message.place.as_ref());
            state.tell(self.run, What::Published(home.shard.clone(), sequence));
            state.check_publish(self.run, sequence);
            state.published_at.entry(sequence).or_insert_with(tokio::time::Instant::now);
            state.published.push(Published { run: self.run, sequence });
            let lane = (self.run, home.item % state.partitions);
            let idle = !state.lanes.contains_key(&lane);
            state.lanes.entry(lane).or_default().push_back(Accepted { sequence, message, receipt: sender });
            state.check_window(self.run);
            idle.then_some(lane)
        };
        if let Some(lane) = lane {
            tokio::spawn(deliver(self.world.clone(), lane));
        }
        Ok(Receipt(receipt))
    }
}

impl FakeTopic {
    /// Stores a dead letter, once those are not held any more.
    fn bury(&self, letter: OutboundMessage) -> Result<Receipt, Refusal> {
        let property = letter.properties.iter().find(|(name, _)| name == "dlq.sequenceNumber");
        let sequence: u64 = property.and_then(|(_, text)| text.parse().ok()).expect("a sequence number");
        self.world.lock().check_letter(self.run, sequence);
        let (sender, receipt) = oneshot::channel();
        let (world, run) = (self.world.clone(), self.run);
        tokio::spawn(async move {
            loop {
                let changed = world.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let mut state = world.lock();
                    if !state.hold_letters && !state.waits((run, 0)) {
                        state.note(run, format!("has the dead letter of {sequence} stored"));
                        state.excused.insert(sequence);
                        if !letter.place.as_ref().is_some_and(|place| state.has_letter(place)) {
                            state.dead_letters.push(letter);
                        }
                        break;
                    }
                }
                changed.await;
            }
            let _ = sender.send(Ok(()));
        });
        Ok(Receipt(receipt))
    }
}

/// When the topic refuses a record's message for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    AtOnce,
    WithTheReceipt,
}

/// The dead-letter topic.
pub const DEAD_LETTERS: &str = "persistent://public/default/dead";

impl State {
    fn waits(&self, (run, partition): (Actor, u32)) -> bool {
        let frozen = self.machines.get(&run).is_some_and(|machine| machine.is_frozen());
        self.hold || frozen || self.slow.contains(&partition) || self.cut.contains(&(run, Service::Topic))
    }

    /// Stores what a worker sent last, and answers it.
    pub(super) fn store(&mut self, run: Actor, accepted: Accepted) {
        if self.refusals.contains_key(&accepted.sequence) {
            let error = Error::new(Kind::Invalid, "publish a message", "scripted: incompatible schema");
            let _ = accepted.receipt.send(Err(Refusal { error, message: Some(Box::new(accepted.message)) }));
            return;
        }
        let failed = self.refused.contains(&run) || self.fail_at.is_some_and(|first| accepted.sequence >= first);
        let answer = if failed {
            self.note(run, format!("has its {} refused", accepted.sequence));
            Err(Error::new(Kind::Fatal, "publish a message", "scripted: the topic was terminated").into())
        } else {
            self.check_once(run, accepted.sequence);
            Ok(())
        };
        accepted.answer(answer);
    }

    /// The worker is gone: what is on its way may or may not be stored.
    pub fn lose(&mut self, run: Actor) {
        let lanes: Vec<_> = self.lanes.range((run, 0)..=(run, u32::MAX)).map(|(lane, _)| *lane).collect();
        for lane in lanes {
            // An empty lane is left for its task to close.
            let mut left = self.lanes.get(&lane).expect("it is there").len();
            left = self.random.usize(0..=left);
            while left > 0 {
                let batch = self.batch(lane);
                left = left.saturating_sub(batch.len());
                self.store_batch(lane, batch);
            }
            self.lanes.get_mut(&lane).expect("it is there").clear();
        }
        self.disconnect(run);
    }
}

/// Stores what a worker has sent to one partition, in order, until nothing is left.
async fn deliver(world: World, lane: (Actor, u32)) {
    loop {
        let changed = world.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let (waits, delay) = {
            let mut state = world.lock();
            if state.lanes.get(&lane).is_none_or(VecDeque::is_empty) {
                state.lanes.remove(&lane);
                return;
            }
            (state.waits(lane), state.receipt_delay)
        };
        if waits {
            changed.await;
            continue;
        }
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let mut state = world.lock();
        if state.waits(lane) {
            continue;
        }
        loop {
            let batch = state.batch(lane);
            if batch.is_empty() {
                break;
            }
            state.store_batch(lane, batch);
            if delay > Duration::ZERO {
                break;
            }
        }
    }
}
