//! DescribeStream within its budget: the stream page by page, and the children of one shard.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::histogram;
use tokio::{sync::Mutex, time::Instant};

use super::{clock::Clock, discover::Listing, follow::Succession, heal::heal};
use crate::{
    error::{Error, Kind, Result},
    metrics::{health::Health, names},
    ports::{ShardId, ShardPage, StreamReader, StreamStatus},
};

/// All consumers of a stream share ten DescribeStream calls a second; this worker leaves half of them.
const INTERVAL: Duration = Duration::from_millis(200);

/// The stage of health that tells of it.
pub const DISCOVER: &str = "discover";

/// Each call is repeated until it succeeds; errors only with what neither time nor a person heals.
#[derive(Debug)]
pub struct Describe<R> {
    reader: Arc<R>,
    clock: Clock,
    health: Health,
    succession: Arc<Succession>,
    /// When it may be called next.
    next_call: Mutex<Instant>,
    /// The endpoint does not know CHILD_SHARDS.
    unfiltered: AtomicBool,
}

/// A listing of the stream under way.
#[derive(Debug)]
pub struct Pages {
    pub listing: Listing,
    /// As the last page said.
    pub status: StreamStatus,
    after: Option<ShardId>,
}

impl Pages {
    /// From after this shard on; from the beginning without one.
    pub fn after(from: Option<ShardId>) -> Self {
        Self { listing: Listing::after(from.clone()), status: StreamStatus::Enabled, after: from }
    }
}

impl<R: StreamReader> Describe<R> {
    pub fn new(reader: Arc<R>, clock: Clock, health: Health, succession: Arc<Succession>) -> Self {
        let (next_call, unfiltered) = (Mutex::new(Instant::now()), AtomicBool::new(false));
        Self { reader, clock, health, succession, next_call, unfiltered }
    }

    /// Lists from the beginning to the end.
    pub async fn whole(&self) -> Result<Listing> {
        let mut pages = Pages::after(None);
        while self.turn_page(&mut pages).await? {}
        Ok(pages.listing)
    }

    /// Adds the next page; `false` when there is none. Cancel-safe.
    pub async fn turn_page(&self, pages: &mut Pages) -> Result<bool> {
        if pages.listing.is_complete() {
            return Ok(false);
        }
        let page = match self.call(|| self.list(pages.after.as_ref())).await {
            // The shard to start from is not there any more.
            Err(error) if error.kind() == Kind::Invalid && pages.after.is_some() && pages.listing.is_empty() => {
                tracing::warn!(%error, "the stream is listed from its beginning");
                *pages = Pages::after(None);
                self.call(|| self.list(None)).await?
            }
            answer => answer?,
        };
        pages.status = page.status;
        pages.listing.add(page.shards, page.next.is_none());
        pages.after = page.next;
        Ok(true)
    }

    /// Whether the children of one shard can be asked for, as far as that is known.
    pub fn is_filtered(&self) -> bool {
        !self.unfiltered.load(Ordering::Relaxed)
    }

    /// The children of a shard, in one call. `None` where only a listing tells: the endpoint does not know the filter, or not the parent.
    pub async fn children(&self, parent: &ShardId) -> Result<Option<ShardPage>> {
        // A parent that is trimmed is not known any more; a stream that is gone tells so when it is listed.
        let unless_missing = |answer: Result<_>| match answer {
            Err(error) if error.kind() == Kind::NotFound => Ok(Err(error)),
            answer => answer.map(Ok),
        };
        match self.call(|| async { unless_missing(self.reader.children(parent).await) }).await? {
            Ok(Some(mut page)) => {
                page.shards.retain(|shard| shard.parent.as_ref() == Some(parent));
                Ok(Some(page))
            }
            Ok(None) => {
                self.unfiltered.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "the stream is listed instead");
                Ok(None)
            }
        }
    }

    /// One page, or what its absence means.
    async fn list(&self, after: Option<&ShardId>) -> Result<ShardPage> {
        let error = match self.reader.list_shards(after).await {
            Err(error) if error.kind() == Kind::NotFound => error,
            answer => return answer,
        };
        self.succession.hurry();
        Err(match after {
            Some(_) => Error::new(Kind::Invalid, "list the stream from a shard on", error),
            None if self.succession.has_successor() => Error::new(Kind::StreamReplaced, format!("read {}", self.reader.arn()), error.why()),
            None => error,
        })
    }

    async fn call<T, Fut: Future<Output = Result<T>>>(&self, mut call: impl FnMut() -> Fut) -> Result<T> {
        heal(DISCOVER, self.clock, &self.health, Duration::ZERO, || {
            let call = call();
            async {
                self.turn().await;
                call.await
            }
        })
        .await
    }

    /// Waits for this call's place in the budget.
    async fn turn(&self) {
        let came = Instant::now();
        // Held while it sleeps, and moved on after that: a caller that gives up in between leaves nothing reserved.
        let mut next = self.next_call.lock().await;
        tokio::time::sleep_until(*next).await;
        *next = Instant::now() + INTERVAL;
        histogram!(names::SOURCE_DESCRIBE_WAIT).record(came.elapsed());
    }
}
