//! What has happened, in order: to be read when a seed fails, and to be compared when it is repeated.

use std::{fmt, time::Duration};

use pulsar_io_dynamodb::ports::ShardId;

use super::Call;

/// Who did it; 0 is the world itself.
pub type Actor = u32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub actor: Actor,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The request arrives.
    Called(Call, ShardId),
    /// What came of it.
    Answered(Call, ShardId, &'static str),
    Published(ShardId, u64),
    Stored(ShardId, u64),
    Note(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, actor) = (self.at.as_secs_f64(), self.actor);
        write!(f, "{at:9.3} s  ")?;
        match actor {
            0 => write!(f, "       -  ")?,
            _ => write!(f, "worker {actor:>2} ")?,
        }
        match &self.what {
            What::Called(call, shard) => write!(f, "{call:?} {} …", short(shard)),
            What::Answered(call, shard, outcome) => write!(f, "{call:?} {}: {outcome}", short(shard)),
            What::Published(shard, sequence) => write!(f, "publishes {sequence} of {}", short(shard)),
            What::Stored(shard, sequence) => write!(f, "has its {sequence} of {} stored", short(shard)),
            What::Note(text) => f.write_str(text),
        }
    }
}

/// A shard by the last digits of its time: they count up from 1.
pub fn short(shard: &ShardId) -> &str {
    let text = shard.as_str();
    text.get(22..28).map_or(text, |digits| digits.trim_start_matches('0'))
}
