//! A lease table in memory, with the conditions of the real one. Every checkpoint is checked: C1, C2, L1.

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{Checkpoint, Claim, Lease, LeaseTable},
};

use tokio::time::Instant;

use super::{Call, State, World, number};

pub struct FakeTable(pub World);

impl FakeTable {
    /// One conditional write, with the promise of the port: a write of ours that had landed counts as done.
    async fn write(&self, call: Call, seen: &Lease, change: impl FnOnce(&mut Lease)) -> Result<Claim> {
        let lost_reply = self.0.call(call, &seen.shard).await?;
        let mut written = seen.clone();
        written.counter += 1;
        change(&mut written);
        let claim = self.land(call, seen, written);
        // The reply has its way to go as well: whoever stops waiting meanwhile does not know what was written.
        self.0.travel().await;
        if lost_reply {
            return Err(Error::new(Kind::Unavailable, format!("{call:?} {}", seen.shard), "scripted: the reply is lost"));
        }
        Ok(claim)
    }

    fn land(&self, call: Call, seen: &Lease, written: Lease) -> Claim {
        let mut state = self.0.lock();
        let Some(row) = state.rows.get(&seen.shard).cloned() else { return Claim::Lost(None) };
        if row.counter != seen.counter || row.owner != seen.owner {
            let landed = row.counter == written.counter && row.owner == written.owner && row.checkpoint == written.checkpoint;
            return if landed && row.nonce == written.nonce { Claim::Held(row) } else { Claim::Lost(Some(row)) };
        }
        if call == Call::Checkpoint {
            state.check_checkpoint(&row, &written);
        }
        state.rows.insert(written.shard.clone(), written.clone());
        state.landed.insert(written.shard.clone(), Instant::now());
        if call == Call::Take {
            // Reading starts again at the checkpoint.
            let tenure = (state.run, written.shard.clone());
            state.last.remove(&tenure);
        }
        Claim::Held(written)
    }
}

impl State {
    fn check_checkpoint(&mut self, before: &Lease, after: &Lease) {
        // A shard that the stream has dropped has nothing left to pass.
        let Some(shard) = self.shards.get(&after.shard) else { return };
        let stored = |sequence: &u64| self.stored.contains(sequence);
        let broken = match (&before.checkpoint, &after.checkpoint) {
            (Checkpoint::ShardEnd, _) => Some("C2: a checkpoint after SHARD_END"),
            (Checkpoint::At(a), Checkpoint::At(b)) if b <= a => Some("C2: a checkpoint that is not ahead"),
            (_, Checkpoint::At(at)) => {
                let mut passed = shard.records[shard.trimmed..].iter().filter(|record| number(record.sequence) <= *at);
                passed.any(|record| !stored(&record.sequence) && !record.before_start).then_some("C1: passes a record without receipt")
            }
            (_, Checkpoint::ShardEnd) => {
                let all = shard.records[shard.trimmed..].iter().all(|record| stored(&record.sequence) || record.before_start);
                (!all || !shard.shard.closed).then_some("C2: SHARD_END before the last receipt")
            }
            _ => Some("C2: a sentinel as checkpoint"),
        };
        if let Some(broken) = broken {
            let text = format!("{broken}: {:?} -> {:?} of {}", before.checkpoint, after.checkpoint, after.shard);
            self.violation(text);
        }
    }
}

impl LeaseTable for FakeTable {
    async fn ensure(&self) -> Result<()> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Lease>> {
        self.0.call(Call::ListLeases, &pulsar_io_dynamodb::ports::ShardId::new("")).await?;
        Ok(self.0.lock().rows.values().cloned().collect())
    }

    async fn create(&self, lease: &Lease) -> Result<bool> {
        let lost_reply = self.0.call(Call::Create, &lease.shard).await?;
        let mut state = self.0.lock();
        if state.rows.contains_key(&lease.shard) {
            return Ok(false);
        }
        state.rows.insert(lease.shard.clone(), lease.clone());
        if lost_reply {
            return Err(Error::new(Kind::Unavailable, format!("create {}", lease.shard), "scripted: the reply is lost"));
        }
        Ok(true)
    }

    async fn take(&self, seen: &Lease, owner: &str, nonce: &str) -> Result<Claim> {
        let switched = seen.owner.as_ref().is_some_and(|previous| previous != owner);
        self.write(Call::Take, seen, |row| {
            row.owner = Some(owner.into());
            row.nonce = Some(nonce.into());
            row.owner_switches += u64::from(switched);
        })
        .await
    }

    async fn renew(&self, held: &Lease) -> Result<Claim> {
        self.write(Call::Renew, held, |_| {}).await
    }

    async fn checkpoint(&self, held: &Lease, checkpoint: &Checkpoint) -> Result<Claim> {
        self.write(Call::Checkpoint, held, |row| {
            row.checkpoint = checkpoint.clone();
            row.owner_switches = 0;
        })
        .await
    }

    async fn release(&self, held: &Lease) -> Result<Claim> {
        self.write(Call::Release, held, |row| {
            row.owner = None;
            row.nonce = None;
        })
        .await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool> {
        let lost_reply = self.0.call(Call::Delete, &seen.shard).await?;
        {
            let mut state = self.0.lock();
            match state.rows.get(&seen.shard) {
                Some(row) if row.counter != seen.counter || row.checkpoint != seen.checkpoint => return Ok(false),
                _ => state.rows.remove(&seen.shard),
            };
        }
        if lost_reply {
            return Err(Error::new(Kind::Unavailable, format!("delete {}", seen.shard), "scripted: the reply is lost"));
        }
        Ok(true)
    }
}
