//! What a stream holds. Records are computed, not kept: a million of them take no room.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::record::{PAGE, Record, sequence};

/// How many shards a page of DescribeStream has at most.
const SHARDS_IN_A_PAGE: usize = 100;

/// Some records that were written one after the other.
#[derive(Clone)]
struct Segment {
    first: u64,
    made: Made,
}

#[derive(Clone, Copy)]
enum Made {
    /// So many, all at this time.
    AtOnce { count: u64, millis: u64 },
    /// One after the other since this time, until there are so many.
    Live { per_second: u64, since: u64, until: Option<u64> },
}

impl Segment {
    fn count(&self, now: u64) -> u64 {
        match self.made {
            Made::AtOnce { count, .. } => count,
            Made::Live { per_second, since, until } => until.unwrap_or(now).saturating_sub(since) * per_second / 1000,
        }
    }

    fn created(&self, number: u64) -> u64 {
        match self.made {
            Made::AtOnce { millis, .. } => millis,
            // When the count above first includes it.
            Made::Live { per_second, since, .. } => since + ((number - self.first + 1) * 1000).div_ceil(per_second),
        }
    }
}

pub struct Shard {
    pub id: String,
    parent: Option<usize>,
    /// Shards that follow each other without a split have the same, and so the same items.
    pub lineage: u64,
    first: u64,
    trimmed_to: u64,
    segments: Vec<Segment>,
    closed: bool,
    listed_from: Instant,
    trimmed_away: bool,
}

impl Shard {
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The number of its first record, or of the one that it would have.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One more than the number of its last record.
    fn end(&self, now: u64) -> u64 {
        self.segments.last().map_or(self.first, |last| last.first + last.count(now))
    }

    fn created(&self, number: u64) -> u64 {
        let at = self.segments.partition_point(|segment| segment.first <= number);
        self.segments[at - 1].created(number)
    }

    fn live_rate(&self) -> Option<u64> {
        match self.segments.last()?.made {
            Made::Live { per_second, until: None, .. } => Some(per_second),
            _ => None,
        }
    }

    fn stop_live(&mut self, now: u64) {
        if let Some(Segment { made: Made::Live { until: until @ None, .. }, .. }) = self.segments.last_mut() {
            *until = Some(now);
        }
    }

    fn add(&mut self, now: u64, made: Made) {
        assert!(!self.closed, "{} is closed", self.id);
        self.stop_live(now);
        self.segments.push(Segment { first: self.end(now), made });
    }
}

/// One stream of the table. Shards are named by their place in it, from 0.
pub struct Stream {
    pub label: String,
    pub shards: Vec<Shard>,
    pub status: &'static str,
    lineages: u64,
}

/// What GetShardIterator may ask for.
pub enum From {
    TrimHorizon,
    Latest,
    At(u64),
    After(u64),
}

impl Stream {
    pub(super) fn new(label: String, shards: usize) -> Self {
        let mut stream = Self { label, shards: Vec::new(), status: "ENABLED", lineages: 0 };
        for _ in 0..shards {
            stream.lineages += 1;
            stream.open(None, stream.lineages - 1, 0, Duration::ZERO);
        }
        stream
    }

    fn open(&mut self, parent: Option<usize>, lineage: u64, first: u64, hidden: Duration) -> usize {
        let place = self.shards.len();
        let id = format!("shardId-{:020}-{place:08x}", epoch_millis());
        let listed_from = Instant::now() + hidden;
        let (segments, trimmed_to) = (Vec::new(), first);
        self.shards.push(Shard { id, parent, lineage, first, trimmed_to, segments, closed: false, listed_from, trimmed_away: false });
        place
    }

    /// Writes records now.
    pub fn write(&mut self, shard: usize, count: u64) {
        let millis = epoch_millis();
        self.shards[shard].add(millis, Made::AtOnce { count, millis });
    }

    /// Writes records from now on, so many a second; 0 ends it.
    pub fn write_live(&mut self, shard: usize, per_second: u64) {
        let now = epoch_millis();
        self.shards[shard].stop_live(now);
        if per_second > 0 {
            self.shards[shard].add(now, Made::Live { per_second, since: now, until: None });
        }
    }

    /// Closes a shard without a child.
    pub fn close(&mut self, shard: usize) {
        let now = epoch_millis();
        self.shards[shard].stop_live(now);
        self.shards[shard].closed = true;
    }

    /// Closes a shard and opens its children: one that goes on with its items, and more with items of their own. Records that are written
    /// live go on in the first. Listings show the children after `hidden`. Returns where they are.
    pub fn split(&mut self, shard: usize, children: usize, hidden: Duration) -> Vec<usize> {
        let live = self.shards[shard].live_rate();
        self.close(shard);
        let (lineage, end) = (self.shards[shard].lineage, self.shards[shard].end(epoch_millis()));
        let opened: Vec<usize> = (0..children)
            .map(|child| {
                let lineage = if child == 0 {
                    lineage
                } else {
                    self.lineages += 1;
                    self.lineages - 1
                };
                self.open(Some(shard), lineage, end, hidden)
            })
            .collect();
        if let (Some(per_second), Some(&first)) = (live, opened.first()) {
            self.write_live(first, per_second);
        }
        opened
    }

    /// Closes every open shard and opens one child for each: what the service does every four hours or so. Returns the children.
    pub fn roll(&mut self) -> Vec<usize> {
        let open: Vec<usize> = (0..self.shards.len()).filter(|&shard| !self.shards[shard].closed).collect();
        open.into_iter().flat_map(|shard| self.split(shard, 1, Duration::ZERO)).collect()
    }

    /// The records before this number are gone.
    pub fn trim(&mut self, shard: usize, to: u64) {
        let shard = &mut self.shards[shard];
        shard.trimmed_to = shard.trimmed_to.max(to);
    }

    /// The shard is older than 24 hours: not listed and not readable any more.
    pub fn trim_away(&mut self, shard: usize) {
        self.shards[shard].trimmed_away = true;
    }

    /// The stream is switched off: all its shards are closed, what they hold can still be read.
    pub fn disable(&mut self) {
        (0..self.shards.len()).for_each(|shard| self.close(shard));
        self.status = "DISABLED";
    }

    /// How many records each lineage has had so far.
    pub fn written(&self) -> Vec<u64> {
        let now = epoch_millis();
        let mut written = vec![0; self.lineages as usize];
        for shard in &self.shards {
            let of = &mut written[shard.lineage as usize];
            *of = (*of).max(shard.end(now));
        }
        written
    }

    // === what the service answers ===

    pub(super) fn describe(&self, after: Option<&str>, children_of: Option<&str>) -> serde_json::Value {
        let now = (epoch_millis(), Instant::now());
        let listed = self.shards.iter().filter(|shard| shard.listed_from <= now.1 && !shard.trimmed_away);
        let mut wanted = listed
            .filter(|shard| children_of.is_none_or(|parent| shard.parent.is_some_and(|at| self.shards[at].id == parent)))
            .skip_while(|shard| after.is_some_and(|after| shard.id.as_str() != after))
            .skip(usize::from(after.is_some()))
            .peekable();
        let mut shards = Vec::new();
        while let Some(shard) = wanted.next_if(|_| shards.len() < SHARDS_IN_A_PAGE) {
            let mut range = serde_json::json!({"StartingSequenceNumber": sequence(shard.first)});
            if shard.closed {
                range["EndingSequenceNumber"] = sequence(shard.end(now.0).saturating_sub(1).max(shard.first)).into();
            }
            let mut described = serde_json::json!({"ShardId": shard.id, "SequenceNumberRange": range});
            if let Some(parent) = shard.parent {
                described["ParentShardId"] = self.shards[parent].id.as_str().into();
            }
            shards.push(described);
        }
        let mut answer =
            serde_json::json!({"StreamStatus": self.status, "StreamLabel": self.label, "StreamViewType": "NEW_AND_OLD_IMAGES"});
        if wanted.peek().is_some() {
            answer["LastEvaluatedShardId"] = shards.last().map_or(serde_json::Value::Null, |last| last["ShardId"].clone());
        }
        answer["Shards"] = shards.into();
        answer
    }

    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.shards.iter().position(|shard| shard.id == id && !shard.trimmed_away)
    }

    /// The number of the record that an iterator starts at; `None` where that is trimmed.
    pub(super) fn start(&self, shard: usize, from: From) -> Option<u64> {
        let shard = &self.shards[shard];
        match from {
            From::TrimHorizon => Some(shard.trimmed_to),
            From::Latest => Some(shard.end(epoch_millis())),
            From::At(number) => (number >= shard.trimmed_to).then_some(number),
            From::After(number) => (number + 1 >= shard.trimmed_to).then_some(number + 1),
        }
    }

    /// A page's records and where the next begins; `None` where the records are trimmed. The shard's last page says so.
    pub(super) fn page(&self, shard: usize, from: u64, limit: usize) -> Option<(Vec<Record>, u64, bool)> {
        let shard = &self.shards[shard];
        if from < shard.trimmed_to || shard.trimmed_away {
            return None;
        }
        let end = shard.end(epoch_millis());
        let next = end.min(from + limit.min(PAGE) as u64).max(from);
        let records = (from..next).map(|number| Record { lineage: shard.lineage, number, created: shard.created(number) }).collect();
        Some((records, next, shard.closed && next >= end))
    }
}

pub(super) fn epoch_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as u64
}
