//! A stand-in for the Streams API, scripted by name.

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{Page, ReadFrom, Shard, ShardId, ShardPage, StreamArn, StreamReader},
};
use tokio::time::Instant;

use super::{Call, State, World, log::Actor, number};

pub struct FakeStream {
    pub world: World,
    pub run: Actor,
    pub arn: StreamArn,
}

impl State {
    fn visible(&self) -> Vec<Shard> {
        let visible = self.shards.values().filter(|shard| shard.hidden_until <= Instant::now());
        visible.map(|shard| shard.shard.clone()).collect()
    }

    fn there(&self) -> Result<()> {
        if self.stream_gone { Err(Error::new(Kind::NotFound, "describe the stream", "scripted: the stream is gone")) } else { Ok(()) }
    }

    fn page_of_shards(&mut self, after: Option<&ShardId>) -> ShardPage {
        let all = self.visible();
        let mut shards: Vec<Shard> =
            all.iter().filter(|shard| after.is_none_or(|after| shard.id > *after)).take(self.shards_in_a_page).cloned().collect();
        let next = shards.last().map(|shard| shard.id.clone()).filter(|last| all.last().is_some_and(|end| end.id != *last));
        if self.messy_listings && !shards.is_empty() {
            self.random.shuffle(&mut shards);
            match self.random.u32(0..6) {
                0 => shards.push(shards[0].clone()),
                1 => drop(shards.pop()),
                _ => {}
            }
        }
        ShardPage { status: self.status, shards, next }
    }

    fn iterator(&mut self, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        let missing = || Error::new(Kind::NotFound, format!("get an iterator for {shard}"), "scripted: no such shard");
        let there = self.shards.get(shard).ok_or_else(missing)?;
        let index = match from {
            ReadFrom::TrimHorizon => there.trimmed,
            ReadFrom::At(at) => there.records.partition_point(|record| number(record.sequence) < *at),
            ReadFrom::After(after) => there.records.partition_point(|record| number(record.sequence) <= *after),
        };
        let trimmed = there.trimmed;
        if index < trimmed {
            return Err(Error::new(Kind::TrimmedData, format!("get an iterator for {shard}"), "scripted: trimmed"));
        }
        let overlap = if self.overlaps { self.random.usize(0..3) } else { 0 };
        let index = index.saturating_sub(overlap).max(trimmed);
        Ok(format!("{index} {} full", self.generation))
    }

    fn page_of_records(&self, shard: &ShardId, iterator: &str) -> Result<Page> {
        let error = |kind, why: &str| Error::new(kind, format!("read {shard}"), why);
        let mut parts = iterator.split(' ');
        let mut next = || parts.next().expect("three parts");
        let (index, generation, kind) = (next().parse::<usize>().expect("a number"), next(), next());
        if generation != self.generation.to_string() {
            return Err(error(Kind::ExpiredIterator, "scripted: expired"));
        }
        let there = self.shards.get(shard).ok_or_else(|| error(Kind::NotFound, "scripted: no such shard"))?;
        if index < there.trimmed {
            return Err(error(Kind::TrimmedData, "scripted: trimmed"));
        }
        if self.empty_pages && kind == "full" {
            return Ok(Page { records: Vec::new(), next_iterator: Some(format!("{index} {generation} after-empty")) });
        }
        let end = there.records.len().min(index + self.page);
        // The last page of a closed shard carries its records and no iterator.
        let next_iterator = (!there.shard.closed || end < there.records.len()).then(|| format!("{end} {generation} full"));
        Ok(Page { records: there.records[index..end].iter().map(|record| record.text.clone()).collect(), next_iterator })
    }
}

impl StreamReader for FakeStream {
    fn arn(&self) -> &StreamArn {
        &self.arn
    }

    async fn list_shards(&self, after: Option<&ShardId>) -> Result<ShardPage> {
        let after = after.cloned();
        let on = after.clone().unwrap_or_else(|| ShardId::new(""));
        let serve = move |state: &mut State| state.there().map(|()| state.page_of_shards(after.as_ref()));
        self.world.call(self.run, Call::ListShards, &on, serve).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Option<ShardPage>> {
        let of = parent.clone();
        let serve = move |state: &mut State| {
            state.there()?;
            let children = || state.visible().into_iter().filter(|shard| shard.parent.as_ref() == Some(&of)).collect();
            Ok(state.knows_children.then(|| ShardPage { status: state.status, shards: children(), next: None }))
        };
        self.world.call(self.run, Call::Children, parent, serve).await
    }

    async fn shard_iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        let (of, from) = (shard.clone(), from.clone());
        let serve = move |state: &mut State| state.there().and_then(|()| state.iterator(&of, &from));
        self.world.call(self.run, Call::ShardIterator, shard, serve).await
    }

    async fn get_records(&self, shard: &ShardId, iterator: &str) -> Result<Page> {
        let (of, iterator, run) = (shard.clone(), iterator.to_owned(), self.run);
        let serve = move |state: &mut State| {
            state.there()?;
            state.check_read(run, &of);
            state.page_of_records(&of, &iterator)
        };
        self.world.call(self.run, Call::GetRecords, shard, serve).await
    }
}
