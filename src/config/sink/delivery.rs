//! How hard the table is driven, and what a failure ends.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::validate::Problems;

/// The keys of this file, on the same level as all others.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryKeys {
    /// Write capacity units a second that one instance may use. Instances do not know of each other: of what all of them together may use, give each its part, that is, divide by their number (`parallelism`).
    /// At least 1. Default: no limit but what the table takes. It is charged by an estimate and corrected by what DynamoDB says.
    pub max_write_capacity: Option<u64>,
    /// Stop at the first message that cannot be written and at the first request that fails for another reason than throttling, unacknowledged.
    /// `false`: what time or a person can heal is tried again until it is, and what cannot be written goes to the `deadLetterTopic`, or stops the sink where there is none.
    pub fail_on_error: bool,
}

impl DeliveryKeys {
    pub fn check(&self, has_dead_letters: bool, problems: &mut Problems) {
        problems.require(self.max_write_capacity != Some(0), "configs.maxWriteCapacity", "has to be at least 1 (units a second)");
        problems.require(
            !(self.fail_on_error && has_dead_letters),
            "configs.failOnError",
            "is given together with deadLetterTopic: a message that cannot be written either stops the sink or goes there; leave one of the two out",
        );
    }
}
