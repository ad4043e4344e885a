//! A topic partition that is another consumer's now: nothing of it is sent any more (K1).

use std::collections::HashSet;

use super::{Batches, Lane, State, Stored, Target, Ticket};

impl Batches {
    /// What has come from this topic partition is void. Returns its messages, except those on their way to the dead-letter topic, which get there. Its
    /// writes in unanswered requests are not sent again, whatever becomes of them.
    pub fn leave(&mut self, topic: &str) -> Vec<Ticket> {
        self.stored.forget(topic);
        let mut left = Vec::new();
        self.lanes.values_mut().for_each(|lane| lane.leave(topic, &mut left));
        let gone: HashSet<Target> = self.lanes.iter().filter(|(_, lane)| lane.ops.is_empty()).map(|(key, _)| key.clone()).collect();
        if !gone.is_empty() {
            self.lanes.retain(|key, _| !gone.contains(key));
            self.ready.retain(|(_, key)| !gone.contains(key));
            let delayed = self.delayed.values_mut().chain(&mut self.suspects);
            delayed.for_each(|keys| keys.retain(|key| !gone.contains(key)));
            self.delayed.retain(|_, keys| !keys.is_empty());
            self.suspects.retain(|keys| !keys.is_empty());
            self.heat.forget(&gone);
        }
        left
    }

    /// Whether a write of what had come from this topic partition before it was left is unanswered.
    pub fn is_leaving(&self, topic: &str) -> bool {
        self.lanes.values().any(|lane| lane.ops.iter().any(|op| op.void && *op.place.0.topic == *topic))
    }

    /// These keys' writes are not stored. Returns which of them have anything left to write.
    pub(super) fn unsent(&mut self, mut keys: Vec<Target>) -> Vec<Target> {
        keys.retain(|key| {
            let lane = self.lane(key);
            lane.state = State::Ready;
            lane.drop_void();
            let is_over = lane.ops.is_empty();
            if is_over {
                self.lanes.remove(key);
            }
            !is_over
        });
        keys
    }
}

impl Lane {
    fn leave(&mut self, topic: &str, left: &mut Vec<Ticket>) {
        let (covered, buried) = match self.state {
            State::Ready => (0, 0),
            State::InFlight { covers } => (covers, 0),
            State::Burying => (0, 1),
        };
        let mut at = 0..;
        let mut fewer = 0;
        self.ops.retain_mut(|op| {
            let at = at.next().unwrap_or_default();
            if *op.place.0.topic != *topic || at < buried {
                return true;
            }
            left.push(op.ticket);
            op.void = at < covered;
            fewer += usize::from(!op.void && at < self.one_by_one);
            op.void
        });
        self.one_by_one -= fewer;
    }

    /// The first operations are not in a request any more.
    pub(super) fn drop_void(&mut self) {
        let one_by_one = self.ops.iter().take(self.one_by_one).filter(|op| !op.void).count();
        self.ops.retain(|op| !op.void);
        self.one_by_one = one_by_one;
    }
}

impl Stored {
    /// Somebody else may have written since.
    fn forget(&mut self, topic: &str) {
        self.newest.retain(|_, (place, _)| *place.0.topic != *topic);
    }
}
