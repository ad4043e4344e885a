//! The children of shards that have ended: one of those that wait at the same time looks for all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, oneshot};

use super::{
    describe::{Describe, Pages},
    discover,
};
use crate::{
    error::{Error, Kind, Result},
    ports::{Shard, ShardId, StreamReader, StreamStatus},
};

/// When more shards than that have ended at the same time, one listing for all of them costs less than a call for each.
const FEW: usize = 3;

/// The children of a shard as far as the stream shows them.
#[derive(Debug)]
pub struct Found {
    pub children: Vec<Shard>,
    /// More may come: the stream is not disabled.
    pub grows: bool,
}

#[derive(Debug)]
pub struct Children<R> {
    describe: Arc<Describe<R>>,
    waiting: Waiting,
    /// Held by the one that looks for all.
    search: tokio::sync::Mutex<Option<Search>>,
    again: Semaphore,
}

type Waiting = Mutex<BTreeMap<ShardId, oneshot::Sender<Found>>>;

/// The listing that those who wait share.
#[derive(Debug)]
struct Search {
    pages: Pages,
    /// Who waited when it was begun: of them it says in the end whether they have children.
    crowd: BTreeSet<ShardId>,
}

impl<R: StreamReader> Children<R> {
    pub fn new(describe: Arc<Describe<R>>) -> Self {
        Self { describe, waiting: Mutex::default(), search: tokio::sync::Mutex::default(), again: Semaphore::new(FEW) }
    }

    /// Looks once. Empty where the stream shows none yet.
    pub async fn find(&self, parent: &ShardId) -> Result<Found> {
        let (sender, mut receiver) = oneshot::channel();
        lock(&self.waiting).insert(parent.clone(), sender);
        let _entry = Entry { of: self, parent };
        let found = tokio::select! {
            biased;
            found = &mut receiver => found,
            searched = self.search(parent) => {
                searched?;
                receiver.await
            }
        };
        // Nobody drops a sender without an answer but this very call.
        found.map_err(|_| Error::new(Kind::Fatal, format!("find the children of {parent}"), "nobody has answered"))
    }

    /// One more look at the children of a shard, in one call, after the rest of them may have shown up. Empty where others have a better use for
    /// the call: when many shards end at the same time, an audit costs less.
    pub async fn look_again(&self, parent: &ShardId) -> Result<Vec<Shard>> {
        let is_calm = self.describe.is_filtered() && lock(&self.waiting).len() <= FEW;
        let Some(_turn) = self.again.try_acquire().ok().filter(|_| is_calm) else { return Ok(Vec::new()) };
        Ok(self.describe.children(parent).await?.map(|page| page.shards).unwrap_or_default())
    }

    /// Looks for the children of all that wait until `parent` has its answer. Each page answers everybody whose children it completes, also
    /// those that have come since the listing was begun. Cancel-safe: whoever is next goes on with the same listing.
    async fn search(&self, parent: &ShardId) -> Result<()> {
        let (mut search, mut asked) = (self.search.lock().await, false);
        while let Some(crowd) = self.crowd(parent) {
            if crowd.len() <= FEW && !asked && self.describe.is_filtered() {
                (*search, asked) = (None, true);
                if let Some(page) = self.describe.children(parent).await? {
                    self.answer(parent, Found { children: page.shards, grows: grows(page.status) });
                    break;
                }
            }
            // Children are opened after their parents, and listed after them.
            let listing = search.get_or_insert_with(|| Search { pages: Pages::after(crowd.first().cloned()), crowd });
            self.describe.turn_page(&mut listing.pages).await?;
            self.tell(listing);
            if listing.pages.listing.is_complete() {
                *search = None;
            }
        }
        Ok(())
    }

    /// Those that wait, as long as `parent` is one of them.
    fn crowd(&self, parent: &ShardId) -> Option<BTreeSet<ShardId>> {
        let waiting = lock(&self.waiting);
        waiting.contains_key(parent).then(|| waiting.keys().cloned().collect())
    }

    fn answer(&self, parent: &ShardId, found: Found) {
        if let Some(waits) = lock(&self.waiting).remove(parent) {
            // It may have given up.
            let _ = waits.send(found);
        }
    }

    /// What the listing says so far.
    fn tell(&self, search: &Search) {
        let Pages { listing, status, .. } = &search.pages;
        let families = discover::families(listing, |shard| lock(&self.waiting).contains_key(shard));
        for (parent, children) in families {
            self.answer(&parent, Found { children, grows: true });
        }
        if listing.is_complete() {
            for childless in &search.crowd {
                self.answer(childless, Found { children: Vec::new(), grows: grows(*status) });
            }
        }
    }
}

fn grows(status: StreamStatus) -> bool {
    matches!(status, StreamStatus::Enabled | StreamStatus::Enabling)
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<ShardId, oneshot::Sender<Found>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An ended shard among those that wait, until it has its answer or gives up.
struct Entry<'a, R> {
    of: &'a Children<R>,
    parent: &'a ShardId,
}

impl<R> Drop for Entry<'_, R> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.of.waiting);
        waiting.remove(self.parent);
        // The next ones begin anew.
        if waiting.is_empty()
            && let Ok(mut search) = self.of.search.try_lock()
        {
            *search = None;
        }
    }
}
