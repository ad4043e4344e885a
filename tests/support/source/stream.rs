//! A stand-in for the Streams API, scripted by name.

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{Page, ReadFrom, Shard, ShardId, ShardPage, StreamArn, StreamReader},
};

use tokio::time::Instant;

use super::{Call, State, World, number};

pub struct FakeStream(pub World, pub StreamArn);

/// Small, so that listings have pages.
const SHARDS_IN_A_PAGE: usize = 3;

impl State {
    fn visible(&self) -> Vec<Shard> {
        let visible = self.shards.values().filter(|shard| shard.hidden_until <= Instant::now());
        visible.map(|shard| shard.shard.clone()).collect()
    }

    fn there(&self) -> Result<()> {
        if self.stream_gone { Err(Error::new(Kind::NotFound, "describe the stream", "scripted: the stream is gone")) } else { Ok(()) }
    }
}

impl StreamReader for FakeStream {
    fn arn(&self) -> &StreamArn {
        &self.1
    }

    async fn list_shards(&self, after: Option<&ShardId>) -> Result<ShardPage> {
        self.0.call(Call::ListShards, after.unwrap_or(&ShardId::new(""))).await?;
        let state = self.0.lock();
        state.there()?;
        let all = state.visible();
        let shards: Vec<Shard> =
            all.iter().filter(|shard| after.is_none_or(|after| shard.id > *after)).take(SHARDS_IN_A_PAGE).cloned().collect();
        let next = shards.last().map(|shard| shard.id.clone()).filter(|last| all.last().is_some_and(|end| end.id != *last));
        Ok(ShardPage { status: state.status, shards, next })
    }

    async fn children(&self, parent: &ShardId) -> Result<Option<ShardPage>> {
        self.0.call(Call::Children, parent).await?;
        let state = self.0.lock();
        state.there()?;
        if !state.knows_children {
            return Ok(None);
        }
        let shards = state.visible().into_iter().filter(|shard| shard.parent.as_ref() == Some(parent)).collect();
        Ok(Some(ShardPage { status: state.status, shards, next: None }))
    }

    async fn shard_iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        self.0.call(Call::ShardIterator, shard).await?;
        let state = self.0.lock();
        state.there()?;
        let missing = || Error::new(Kind::NotFound, format!("get an iterator for {shard}"), "scripted: no such shard");
        let there = state.shards.get(shard).ok_or_else(missing)?;
        let index = match from {
            ReadFrom::TrimHorizon => there.trimmed,
            ReadFrom::At(at) => there.records.partition_point(|record| number(record.sequence) < *at),
            ReadFrom::After(after) => there.records.partition_point(|record| number(record.sequence) <= *after),
        };
        if index < there.trimmed {
            return Err(Error::new(Kind::TrimmedData, format!("get an iterator for {shard}"), "scripted: trimmed"));
        }
        Ok(format!("{index} {} full", state.generation))
    }

    async fn get_records(&self, shard: &ShardId, iterator: &str) -> Result<Page> {
        self.0.call(Call::GetRecords, shard).await?;
        let state = self.0.lock();
        state.there()?;
        let error = |kind, why: &str| Error::new(kind, format!("read {shard}"), why);
        let mut parts = iterator.split(' ');
        let mut next = || parts.next().expect("three parts");
        let (index, generation, kind) = (next().parse::<usize>().expect("a number"), next(), next());
        if generation != state.generation.to_string() {
            return Err(error(Kind::ExpiredIterator, "scripted: expired"));
        }
        let there = state.shards.get(shard).ok_or_else(|| error(Kind::NotFound, "scripted: no such shard"))?;
        if index < there.trimmed {
            return Err(error(Kind::TrimmedData, "scripted: trimmed"));
        }
        if state.empty_pages && kind == "full" {
            return Ok(Page { records: Vec::new(), next_iterator: Some(format!("{index} {generation} after-empty")) });
        }
        let end = there.records.len().min(index + state.page);
        // The last page of a closed shard carries its records and no iterator.
        let next_iterator = (!there.shard.closed || end < there.records.len()).then(|| format!("{end} {generation} full"));
        Ok(Page { records: there.records[index..end].iter().map(|record| record.text.clone()).collect(), next_iterator })
    }
}
