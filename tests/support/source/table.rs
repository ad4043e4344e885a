//! A lease table in memory, with the conditions of the real one.

use pulsar_io_dynamodb::{
    error::Result,
    ports::{Claim, Holder, Lease, LeaseTable, Mark, ShardId},
};
use tokio::time::Instant;

use super::{
    Call, State, World,
    log::{Actor, What},
};

pub struct FakeTable {
    pub world: World,
    pub run: Actor,
}

impl FakeTable {
    /// One conditional write, with the promise of the port: a write of ours that had landed counts as done.
    async fn write(&self, call: Call, seen: &Lease, change: impl FnOnce(&mut Lease)) -> Result<Claim> {
        let mut written = seen.clone();
        written.counter += 1;
        change(&mut written);
        let (run, before) = (self.run, seen.clone());
        let serve = move |state: &mut State| Ok(state.land(run, call, &before, written));
        let claim = self.world.call(run, call, &seen.shard, serve).await?;
        self.world.lock().told(run, call, &seen.shard, &claim);
        Ok(claim)
    }
}

impl State {
    fn land(&mut self, run: Actor, call: Call, seen: &Lease, mut written: Lease) -> Claim {
        let outcome = |state: &mut Self, text| state.tell(run, What::Answered(call, seen.shard.clone(), text));
        let Some(row) = self.rows.get(&seen.shard).cloned() else {
            outcome(self, "no such row");
            return Claim::Lost(None);
        };
        let is_wanted = |by: &Holder| Some(&by.id) == written.owner.as_ref() && Some(&by.nonce) == written.nonce.as_ref();
        let is_withdrawn = call == Call::HandOver && !row.wanted_by.as_ref().is_some_and(is_wanted);
        if row.counter != seen.counter || row.owner != seen.owner || is_withdrawn {
            let same = row.counter == written.counter && row.owner == written.owner && row.checkpoint == written.checkpoint;
            if same && row.nonce == written.nonce {
                outcome(self, "had landed before");
                return Claim::Landed(row);
            }
            outcome(self, "refused");
            return Claim::Lost(Some(row));
        }
        // A write changes what it is about, and leaves the rest.
        if matches!(call, Call::Renew | Call::Checkpoint) {
            written.wanted_by = row.wanted_by.clone();
        }
        written.mark = written.mark.or_else(|| row.mark.clone());
        self.check_write(run, call, &row, &written);
        outcome(self, "done");
        self.rows.insert(written.shard.clone(), written.clone());
        self.landed.insert(written.shard.clone(), Instant::now());
        Claim::Held(written)
    }
}

impl LeaseTable for FakeTable {
    async fn ensure(&self) -> Result<()> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Lease>> {
        let serve = |state: &mut State| Ok(state.rows.values().cloned().collect());
        self.world.call(self.run, Call::ListLeases, &ShardId::new(""), serve).await
    }

    async fn create(&self, lease: &Lease) -> Result<bool> {
        let (run, row) = (self.run, lease.clone());
        let serve = move |state: &mut State| {
            let new = !state.rows.contains_key(&row.shard);
            state.tell(run, What::Answered(Call::Create, row.shard.clone(), if new { "done" } else { "is there" }));
            state.rows.entry(row.shard.clone()).or_insert(row);
            Ok(new)
        };
        self.world.call(self.run, Call::Create, &lease.shard, serve).await
    }

    async fn take(&self, seen: &Lease, owner: &str, nonce: &str) -> Result<Claim> {
        let switched = seen.owner.as_ref().is_some_and(|previous| previous != owner);
        self.write(Call::Take, seen, |row| {
            row.owner = Some(owner.into());
            row.nonce = Some(nonce.into());
            row.wanted_by = None;
            row.owner_switches += u64::from(switched);
        })
        .await
    }

    async fn ask(&self, seen: &Lease, by: &Holder) -> Result<Claim> {
        let (run, before, by) = (self.run, seen.clone(), by.clone());
        let serve = move |state: &mut State| {
            // Whose the lease is once it is handed over.
            state.nonces.insert(by.nonce.clone(), run);
            let Some(row) = state.rows.get_mut(&before.shard) else { return Ok(Claim::Lost(None)) };
            if row.owner == before.owner && row.wanted_by == before.wanted_by {
                row.wanted_by = Some(by);
                let row = row.clone();
                state.tell(run, What::Answered(Call::Ask, before.shard, "done"));
                return Ok(Claim::Held(row));
            }
            Ok(if row.wanted_by == Some(by) { Claim::Landed(row.clone()) } else { Claim::Lost(Some(row.clone())) })
        };
        self.world.call(run, Call::Ask, &seen.shard, serve).await
    }

    async fn renew(&self, held: &Lease) -> Result<Claim> {
        self.write(Call::Renew, held, |_| {}).await
    }

    async fn withdraw(&self, seen: &Lease, by: &Holder) -> Result<Claim> {
        let (run, shard, by) = (self.run, seen.shard.clone(), by.clone());
        let serve = move |state: &mut State| {
            let Some(row) = state.rows.get_mut(&shard) else { return Ok(Claim::Lost(None)) };
            let is_there = row.wanted_by.as_ref() == Some(&by);
            if is_there {
                row.wanted_by = None;
            }
            Ok(if is_there { Claim::Held(row.clone()) } else { Claim::Lost(Some(row.clone())) })
        };
        self.world.call(run, Call::Withdraw, &seen.shard, serve).await
    }

    async fn checkpoint(&self, held: &Lease, mark: &Mark) -> Result<Claim> {
        self.write(Call::Checkpoint, held, |row| {
            row.checkpoint = mark.checkpoint.clone();
            row.mark = Some(mark.clone());
            row.owner_switches = 0;
        })
        .await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool> {
        let (run, before) = (self.run, seen.clone());
        let serve = move |state: &mut State| {
            let row = state.rows.get(&before.shard);
            let done = row.is_none_or(|row| row.counter == before.counter && row.checkpoint == before.checkpoint);
            state.tell(run, What::Answered(Call::Delete, before.shard.clone(), if done { "done" } else { "refused" }));
            if done {
                state.rows.remove(&before.shard);
            }
            Ok(done)
        };
        self.world.call(self.run, Call::Delete, &seen.shard, serve).await
    }

    async fn release(&self, held: &Lease) -> Result<Claim> {
        self.write(Call::Release, held, |row| {
            row.owner = None;
            row.nonce = None;
            row.wanted_by = None;
        })
        .await
    }

    async fn hand_over(&self, held: &Lease, to: &Holder) -> Result<Claim> {
        self.write(Call::HandOver, held, |row| {
            row.owner = Some(to.id.clone());
            row.nonce = Some(to.nonce.clone());
            row.wanted_by = None;
            row.owner_switches += 1;
        })
        .await
    }
}
