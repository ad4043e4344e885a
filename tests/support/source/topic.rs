//! A topic that takes messages in order and gives receipts when it likes. Every message is checked: O1, S1, L2.

use std::time::Duration;

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{OutboundMessage, Publisher, Receipt},
};
use tokio::sync::oneshot;

use super::{Published, State, World, settings};

#[derive(Clone)]
pub struct FakeTopic(pub World);

/// Taken, and not stored yet.
pub struct Accepted {
    pub sequence: u64,
    receipt: oneshot::Sender<Result<()>>,
}

impl Publisher for FakeTopic {
    async fn publish(&self, message: OutboundMessage) -> Result<Receipt> {
        let property = |name: &str| message.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let sequence: u64 = property("SEQUENCE_NUMBER").and_then(|text| text.parse().ok()).expect("a sequence number");
        assert_eq!(property("EVENT_NAME"), Some("INSERT"));
        assert_eq!(message.key, Some(format!("{sequence:032x}")));
        let (sender, receipt) = oneshot::channel();
        {
            let mut state = self.0.lock();
            state.check_publish(sequence);
            let run = state.run;
            state.seen.insert(sequence);
            state.published.push(Published { run, sequence });
            state.queue.push_back(Accepted { sequence, receipt: sender });
        }
        self.0.changed.notify_waiters();
        Ok(Receipt(receipt))
    }
}

impl State {
    fn check_publish(&mut self, sequence: u64) {
        let shard = self.homes.get(&sequence).expect("published what was written").clone();
        // O1 in one shard and one start of the worker: strictly forward.
        if let Some(before) = self.last.insert((self.run, shard.clone()), sequence).filter(|before| *before >= sequence) {
            self.violation(format!("O1: {sequence} after {before} in {shard}"));
        }
        if self.landed.get(&shard).is_none_or(|landed| landed.elapsed() >= settings().failover) {
            self.violation(format!("L2: {sequence} of {shard}, whose lease anybody could own by now"));
        }
        // S1: whatever the ancestors have is stored.
        let mut parent = self.shards[&shard].shard.parent.clone();
        while let Some(ancestor) = parent.as_ref().and_then(|id| self.shards.get(id)) {
            if ancestor.records[ancestor.trimmed..].iter().any(|record| !record.before_start && !self.stored.contains(&record.sequence)) {
                let text = format!("S1: {sequence} of {shard} before the end of {}", ancestor.shard.id);
                self.violations.push(text);
                break;
            }
            parent = ancestor.shard.parent.clone();
        }
        // O1 for an item over shards: whoever has not seen a change yet sees the older ones first.
        let records = || self.shards.values().flat_map(|shard| &shard.records[shard.trimmed..]);
        let item = records().find(|record| record.sequence == sequence).map(|record| record.item);
        let skipped = records().any(|record| {
            Some(record.item) == item && record.sequence < sequence && !record.before_start && !self.seen.contains(&record.sequence)
        });
        if skipped {
            self.violation(format!("O1: {sequence} of item {item:?} before an older change of it"));
        }
    }
}

/// Stores what was taken and sends the receipts, in order.
pub async fn deliver(world: World) {
    loop {
        let changed = world.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let delay = {
            let state = world.lock();
            (!state.hold && !state.queue.is_empty()).then_some(state.receipt_delay)
        };
        let Some(delay) = delay else {
            changed.await;
            continue;
        };
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let mut state = world.lock();
        if state.hold {
            continue;
        }
        let Some(accepted) = state.queue.pop_front() else { continue };
        let failed = state.fail_at.is_some_and(|first| accepted.sequence >= first);
        let answer = if failed {
            Err(Error::new(Kind::Fatal, "publish a message", "scripted: the topic was terminated"))
        } else {
            state.stored.insert(accepted.sequence);
            Ok(())
        };
        let _ = accepted.receipt.send(answer);
    }
}
