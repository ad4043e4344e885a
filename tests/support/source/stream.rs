//! A stand-in for the Streams API, scripted by name.

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::{Page, ReadFrom, Shard, ShardId, ShardPage, StreamArn, StreamReader, StreamStatus, Streams},
};
use tokio::time::Instant;

use super::{Call, Latest, State, World, log::Actor, number};

/// The streams of a table, one after the other, or the first one alone.
pub struct FakeStreams {
    pub world: World,
    pub run: Actor,
    /// The stream that the worker was given, unless it was given the table.
    pub named: Option<StreamArn>,
}

impl Streams for FakeStreams {
    type Reader = FakeStream;

    fn follows(&self) -> bool {
        self.named.is_none()
    }

    async fn latest(&self) -> Result<StreamArn> {
        if let Some(stream) = &self.named {
            return Ok(stream.clone());
        }
        let serve = |state: &mut State| {
            let error = |kind, why| Err(Error::new(kind, "find the stream of table orders", why));
            match &state.latest {
                Latest::Stream(stream) => Ok(stream.clone()),
                Latest::NoStream => error(Kind::Configuration, "scripted: the table has no stream"),
                Latest::NoTable => error(Kind::NotFound, "scripted: no such table"),
            }
        };
        self.world.call(self.run, Call::DescribeTable, &ShardId::new(""), serve).await
    }

    fn open(&self, stream: &StreamArn) -> FakeStream {
        FakeStream { world: self.world.clone(), run: self.run, arn: stream.clone() }
    }
}

pub struct FakeStream {
    pub world: World,
    pub run: Actor,
    pub arn: StreamArn,
}

impl State {
    fn visible(&self, stream: &StreamArn) -> Vec<Shard> {
        let visible = self.shards.values().filter(|shard| shard.stream == *stream && shard.hidden_until <= Instant::now());
        visible.map(|shard| shard.shard.clone()).collect()
    }

    fn there(&self, stream: &StreamArn) -> Result<StreamStatus> {
        let gone = || Error::new(Kind::NotFound, "describe the stream", "scripted: the stream is gone");
        self.streams.get(stream).copied().ok_or_else(gone)
    }

    fn page_of_shards(&mut self, stream: &StreamArn, status: StreamStatus, after: Option<&ShardId>) -> ShardPage {
        let all = self.visible(stream);
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
        ShardPage { status, shards, next }
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
        let (after, stream) = (after.cloned(), self.arn.clone());
        let on = after.clone().unwrap_or_else(|| ShardId::new(""));
        let serve = move |state: &mut State| state.there(&stream).map(|status| state.page_of_shards(&stream, status, after.as_ref()));
        self.world.call(self.run, Call::ListShards, &on, serve).await
    }

    async fn children(&self, parent: &ShardId) -> Result<Option<ShardPage>> {
        let (of, stream) = (parent.clone(), self.arn.clone());
        let serve = move |state: &mut State| {
            let status = state.there(&stream)?;
            let children = || state.visible(&stream).into_iter().filter(|shard| shard.parent.as_ref() == Some(&of)).collect();
            Ok(state.knows_children.then(|| ShardPage { status, shards: children(), next: None }))
        };
        self.world.call(self.run, Call::Children, parent, serve).await
    }

    async fn shard_iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        let (of, from, stream) = (shard.clone(), from.clone(), self.arn.clone());
        let serve = move |state: &mut State| state.there(&stream).and_then(|_| state.iterator(&of, &from));
        self.world.call(self.run, Call::ShardIterator, shard, serve).await
    }

    async fn get_records(&self, shard: &ShardId, iterator: &str) -> Result<Page> {
        let (of, iterator, run, stream) = (shard.clone(), iterator.to_owned(), self.run, self.arn.clone());
        let serve = move |state: &mut State| {
            state.there(&stream)?;
            state.check_read(run, &of);
            state.page_of_records(&of, &iterator)
        };
        self.world.call(self.run, Call::GetRecords, shard, serve).await
    }
}
