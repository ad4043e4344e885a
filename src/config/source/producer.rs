//! The source's keys about how messages travel: Pulsar's own `producerConfig`, and what it has no key for.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    config::{load, validate::Problems},
    pulsar::publisher::{Batching, Compression, Options},
};

/// What compresses messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CompressionType {
    None,
    Lz4,
    Zlib,
    Zstd,
    Snappy,
}

/// Which messages go in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchBuilder {
    #[serde(rename = "DEFAULT")]
    Default,
    #[serde(rename = "KEY_BASED")]
    KeyBased,
}

/// Pulsar's `ProducerConfig`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct ProducerConfig {
    compression_type: Option<CompressionType>,
    batch_builder: Option<BatchBuilder>,
    max_pending_messages: u64,
    /// No effect.
    max_pending_messages_across_partitions: u64,
    /// No effect.
    use_thread_local_producers: bool,
    crypto_config: Option<Map<String, Value>>,
}

/// Keys about batches and compression.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerKeys {
    /// What compresses messages, a batch at a time: `NONE` (the default), `LZ4`, `ZLIB` or `ZSTD`. `producerConfig.compressionType` is the same. `SNAPPY` is
    /// refused: this version does not write it.
    pub compression_type: Option<CompressionType>,
    /// Whether messages go in batches. Without, each is an entry of its own, as Key_Shared subscriptions of consumers need it, and waits for the one before
    /// it: a partition takes some hundred messages a second.
    pub batching_enabled: bool,
    /// Messages in one batch at most. 1 to 100,000.
    pub batching_max_messages: u64,
    /// Bytes of one batch at most, before compression; the broker's `maxMessageSize` counts too. At least 1,000. One message may have more.
    pub batching_max_bytes: u64,
    /// How long a batch that is not full waits for more messages. Milliseconds, 60,000 at most. A batch fills while the one before it is under way, so
    /// that a busy topic needs no delay; with one, few messages make fewer entries.
    pub batching_max_publish_delay_ms: u64,
}

impl Default for ProducerKeys {
    fn default() -> Self {
        let Batching { max_messages, max_bytes, max_delay } = Batching::default();
        Self {
            compression_type: None,
            batching_enabled: true,
            batching_max_messages: max_messages as u64,
            batching_max_bytes: max_bytes as u64,
            batching_max_publish_delay_ms: max_delay.as_millis() as u64,
        }
    }
}

impl ProducerKeys {
    /// Checks the keys, with Pulsar's `producerConfig` and `batchBuilder`. The broker's limit is known when there is a broker.
    pub fn options(&self, producer_config: Map<String, Value>, batch_builder: Option<BatchBuilder>, problems: &mut Problems) -> Options {
        let pulsars: ProducerConfig = load::mapping(producer_config, "producerConfig.", problems);
        for (given, key) in [(batch_builder, "batchBuilder"), (pulsars.batch_builder, "producerConfig.batchBuilder")] {
            const TEXT: &str =
                "KEY_BASED is not supported by this version: for a Key_Shared subscription write configs.batchingEnabled: false";
            problems.require(given != Some(BatchBuilder::KeyBased), key, TEXT);
        }
        const CRYPTO: &str = "encryption is not supported by this version, and nothing is published that was to be encrypted: leave it out";
        problems.require(pulsars.crypto_config.is_none(), "producerConfig.cryptoConfig", CRYPTO);
        problems.require((1..=100_000).contains(&self.batching_max_messages), "configs.batchingMaxMessages", "has to be from 1 to 100000");
        problems.require(self.batching_max_bytes >= 1_000, "configs.batchingMaxBytes", "has to be at least 1000");
        problems.require(
            self.batching_max_publish_delay_ms <= 60_000,
            "configs.batchingMaxPublishDelayMs",
            "has to be at most 60000 (milliseconds)",
        );
        let given = [(self.compression_type, "configs.compressionType"), (pulsars.compression_type, "producerConfig.compressionType")];
        for (given, key) in given {
            const TEXT: &str = "SNAPPY is not supported by this version: write LZ4 or ZSTD";
            problems.require(given != Some(CompressionType::Snappy), key, TEXT);
        }
        if let (Some(own), Some(pulsars)) = (self.compression_type, pulsars.compression_type) {
            problems.require(
                own == pulsars,
                "configs.compressionType",
                "contradicts producerConfig.compressionType: leave one of them out",
            );
        }
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let batching = Batching {
            max_messages: size(self.batching_max_messages).min(100_000),
            max_bytes: size(self.batching_max_bytes),
            max_delay: Duration::from_millis(self.batching_max_publish_delay_ms),
        };
        Options {
            batching: self.batching_enabled.then_some(batching),
            compression: match self.compression_type.or(pulsars.compression_type) {
                None | Some(CompressionType::None | CompressionType::Snappy) => Compression::None,
                Some(CompressionType::Lz4) => Compression::Lz4,
                Some(CompressionType::Zlib) => Compression::Zlib,
                Some(CompressionType::Zstd) => Compression::Zstd,
            },
            max_pending: match size(pulsars.max_pending_messages).min(1_000_000) {
                // As in Pulsar: no bound of its own.
                0 => batching.max_messages * 3,
                bound => bound,
            },
            ..Options::default()
        }
    }
}
