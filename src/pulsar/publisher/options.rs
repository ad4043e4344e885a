//! How messages travel: in which batches, and compressed by what.

use std::time::Duration;

use crate::pulsar::partitions::LOOK_EVERY;

/// How to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `None`: each message is an entry of its own, with its key in the entry's metadata, and waits for the one before it.
    pub batching: Option<Batching>,
    pub compression: Compression,
    /// A message that is larger than the broker takes is cut into chunks, each an entry of its own (PIP-37); else it is refused.
    pub chunking: bool,
    /// Messages accepted and not answered, for each topic partition.
    pub max_pending: usize,
    /// How often each topic is asked for partitions that were added.
    pub look_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batching: Some(Batching::default()),
            compression: Compression::default(),
            chunking: false,
            max_pending: 3_000,
            look_every: LOOK_EVERY,
        }
    }
}

/// How large a batch may be. Batches are as large as what waits while the one before is under way, up to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    pub max_messages: usize,
    /// Before compression. The broker's limit counts too.
    pub max_bytes: usize,
    /// How long a batch that is not full waits for more.
    pub max_delay: Duration,
}

/// 1 MB is twice as fast as Pulsar's own default of 128 KiB, and a busy topic partition needs no delay: batches fill while one is under way.
impl Default for Batching {
    fn default() -> Self {
        Self { max_messages: 1_000, max_bytes: 1024 * 1024, max_delay: Duration::ZERO }
    }
}

/// What compresses an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    None,
    Lz4,
    Zlib,
    Zstd,
}
