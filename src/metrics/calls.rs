//! Times every call of the stream and of the lease table, at the seam: the stages need not think of it.

use std::{future::Future, sync::Arc};

use metrics::histogram;
use tokio::time::Instant;

use super::names;
use crate::{
    error::Result,
    ports::{Claim, Holder, Lease, LeaseTable, Mark, Page, ReadFrom, ShardId, ShardPage, StreamArn, StreamReader},
};

/// A port whose calls are timed.
#[derive(Debug)]
pub struct Timed<T>(pub Arc<T>);

/// Records when it is dropped: a call that nobody waits for any more is one, too.
struct Timer<'a> {
    call: &'static str,
    shard: Option<&'a ShardId>,
    started: Instant,
    outcome: &'static str,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        match self.shard {
            Some(shard) => {
                histogram!(names::SOURCE_CALL_SECONDS, "call" => self.call, "outcome" => self.outcome, names::SHARD => shard.to_string())
                    .record(took)
            }
            None => histogram!(names::SOURCE_CALL_SECONDS, "call" => self.call, "outcome" => self.outcome).record(took),
        }
    }
}

/// A call of the AWS SDK is some 10 KB of state, and each layer around it would hold that twice: boxed here, a shard's task stays small, of
/// which there may be ten thousand.
fn timed<'a, T: 'a>(
    call: &'static str,
    shard: Option<&'a ShardId>,
    future: impl Future<Output = Result<T>> + Send + 'a,
) -> impl Future<Output = Result<T>> + Send + 'a {
    let future = Box::pin(future);
    async move {
        let mut timer = Timer { call, shard, started: Instant::now(), outcome: "abandoned" };
        let result = future.await;
        timer.outcome = if result.is_ok() { "ok" } else { "error" };
        result
    }
}

impl<R: StreamReader> StreamReader for Timed<R> {
    fn arn(&self) -> &StreamArn {
        self.0.arn()
    }

    async fn list_shards(&self, after: Option<&ShardId>) -> Result<ShardPage> {
        timed("list_shards", None, self.0.list_shards(after)).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Option<ShardPage>> {
        timed("children", None, self.0.children(parent)).await
    }

    async fn shard_iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        timed("get_iterator", None, self.0.shard_iterator(shard, from)).await
    }

    async fn get_records(&self, shard: &ShardId, iterator: &str) -> Result<Page> {
        timed("get_records", Some(shard), self.0.get_records(shard, iterator)).await
    }
}

impl<L: LeaseTable> LeaseTable for Timed<L> {
    async fn ensure(&self) -> Result<()> {
        timed("ensure_table", None, self.0.ensure()).await
    }

    async fn list(&self) -> Result<Vec<Lease>> {
        timed("list_leases", None, self.0.list()).await
    }

    async fn create(&self, lease: &Lease) -> Result<bool> {
        timed("create_lease", None, self.0.create(lease)).await
    }

    async fn take(&self, seen: &Lease, owner: &str, nonce: &str) -> Result<Claim> {
        timed("take_lease", None, self.0.take(seen, owner, nonce)).await
    }

    async fn renew(&self, held: &Lease) -> Result<Claim> {
        timed("renew_lease", None, self.0.renew(held)).await
    }

    async fn ask(&self, seen: &Lease, by: &Holder) -> Result<Claim> {
        timed("ask_for_lease", None, self.0.ask(seen, by)).await
    }

    async fn withdraw(&self, seen: &Lease, by: &Holder) -> Result<Claim> {
        timed("withdraw", None, self.0.withdraw(seen, by)).await
    }

    async fn checkpoint(&self, held: &Lease, mark: &Mark) -> Result<Claim> {
        timed("checkpoint", Some(&held.shard), self.0.checkpoint(held, mark)).await
    }

    async fn release(&self, held: &Lease) -> Result<Claim> {
        timed("release_lease", None, self.0.release(held)).await
    }

    async fn hand_over(&self, held: &Lease, to: &Holder) -> Result<Claim> {
        timed("hand_over_lease", None, self.0.hand_over(held, to)).await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool> {
        timed("delete_lease", None, self.0.delete(seen)).await
    }
}
