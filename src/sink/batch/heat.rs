//! Partition keys that take less than is written to them (spec §5.5): their writes are sent by themselves and at their own pace, so that nothing else has to wait.
//!
//! Which keys those are only a request tells that was throttled for its key range as a whole. Where a request carries other keys too, DynamoDB returns the writes of the
//! busy key unprocessed, without a reason; what was left unprocessed together is sent again together, and so soon alone.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use super::{Target, pace::Pace};
use crate::ports::Moment;

/// A key that takes as many full requests at once is like any other: a partition's 1,000 write units a second are fewer at any usual latency.
const COOL: usize = 10;
/// A key that nothing was written to for so long is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// The keys that are known to be too busy.
#[derive(Debug)]
pub struct Heat {
    /// Writes of a full request.
    batch: usize,
    /// By partition key: a target without a sort key.
    hot: BTreeMap<Target, Hot>,
}

#[derive(Debug)]
struct Hot {
    pace: Pace,
    unanswered: usize,
    /// Nothing is sent before.
    until: Moment,
    /// Items to write.
    waiting: VecDeque<Target>,
}

impl Hot {
    /// When, and how many writes; `None` while an answer has to come first, and where there is nothing to send.
    fn due(&self) -> Option<(Moment, usize)> {
        let room = self.pace.room(self.unanswered)?;
        (!self.waiting.is_empty()).then_some((self.until, room))
    }
}

impl Heat {
    pub fn new(batch: usize) -> Self {
        Self { batch, hot: BTreeMap::new() }
    }

    /// Takes an item that is to be written, if its key is too busy.
    pub fn takes(&mut self, item: &Target) -> bool {
        let hot = if self.hot.is_empty() { None } else { self.hot.get_mut(&partition(item)) };
        let is_hot = hot.is_some();
        if let Some(hot) = hot {
            hot.waiting.push_back(item.clone());
        }
        is_hot
    }

    /// When `next` has something, if no answer comes before.
    pub fn next_due(&self) -> Option<Moment> {
        self.hot.values().filter_map(Hot::due).map(|(until, _)| until).min()
    }

    /// Items of one key that may be written now, while each `fits` with those before: of the key that has waited longest.
    pub fn next(&mut self, now: Moment, most: usize, fits: &mut impl FnMut(&Target) -> bool) -> Option<Vec<Target>> {
        let due = self.hot.values_mut().filter_map(|hot| hot.due().map(|(until, room)| (until, room, hot)));
        let (_, room, hot) = due.filter(|(until, ..)| *until <= now).min_by_key(|(until, ..)| *until)?;
        let fitting = hot.waiting.iter().take(room.min(most)).take_while(|item| fits(item)).count();
        let count = fitting.max(1);
        hot.unanswered += count;
        // Others come first the next time.
        hot.until = now;
        Some(hot.waiting.drain(..count).collect())
    }

    /// A request was throttled for its key range: all its keys are too busy. Its items are to be written again at `retry_at`.
    pub fn throttled(&mut self, items: Vec<Target>, now: Moment, retry_at: Moment) {
        self.hot.retain(|_, hot| hot.unanswered > 0 || !hot.waiting.is_empty() || now < hot.until + FORGET);
        let batch = self.batch;
        for item in items.into_iter().rev() {
            let hot = || Hot { pace: Pace::narrow(batch, COOL), unanswered: 0, until: now, waiting: VecDeque::new() };
            let hot = self.hot.entry(partition(&item)).or_insert_with(hot);
            hot.until = hot.until.max(retry_at);
            hot.waiting.push_front(item);
        }
    }

    /// Items of a request of `next` were answered; so many of them were not taken. Returns the items that wait no more, since their key is like any other again.
    pub fn answered(&mut self, items: &[Target], congested: usize) -> VecDeque<Target> {
        let Some(key) = items.first().map(partition) else { return VecDeque::new() };
        let Some(hot) = self.hot.get_mut(&key) else { return VecDeque::new() };
        hot.unanswered = hot.unanswered.saturating_sub(items.len());
        hot.pace.answered(items.len(), congested);
        if hot.pace.is_open() { self.hot.remove(&key).map(|hot| hot.waiting).unwrap_or_default() } else { VecDeque::new() }
    }

    /// There is nothing to be written of these any more.
    pub fn forget(&mut self, gone: &HashSet<Target>) {
        self.hot.values_mut().for_each(|hot| hot.waiting.retain(|item| !gone.contains(item)));
    }
}

fn partition(item: &Target) -> Target {
    Target { table: item.table.clone(), key: item.key.partition() }
}
