//! The source's keys about leases: how workers share the shards, and how they take over from the Java connector.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::Problems;
use crate::{dynamodb::lease_table::Billing, source::lease::plan::AssumeDead};

/// KCL's `failoverTimeMillis` in the Java connector: the same while both share a table.
const FAILOVER_MILLIS: u64 = 10_000;
/// A worker needs time for some tries of a renewal, and its margin.
const FAILOVER_BOUNDS: std::ops::RangeInclusive<u64> = 2_000..=300_000;
/// A stream keeps 24 hours.
const REWIND_MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// What to do about the capacity of the lease table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BillingMode {
    #[default]
    Keep,
    Auto,
}

/// Keys of the source below `configs`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseKeys {
    /// A worker that has not renewed a lease for so long counts as dead, and others take its shards. Milliseconds, 2,000 to 300,000. Leave it at
    /// 10,000 as long as Java workers use the same lease table: theirs is fixed. All workers need the same.
    pub failover_time: u64,
    /// How many shards one worker reads at most, at least 1. Without it there is no limit. Shards that no worker may read turn health red.
    #[schemars(range(min = 1))]
    pub max_leases_for_worker: Option<u64>,
    /// For the first start after the Java connector was stopped: whose shards to take at once, instead of after `failoverTime`. Owners as the lease
    /// table names them, separated by commas, or `all` for every owner that is no worker of this program. Only what they hold at the start is
    /// taken. Owners that live after all lose their shards, and records are published twice.
    pub assume_owner_dead: Option<String>,
    /// For the first start after the Java connector was stopped: how far before its checkpoints to begin. Milliseconds, 86,400,000 at most. The Java
    /// connector checkpoints records before Pulsar has them, so the last ones may be missing; 300000 (five minutes) publishes those again, and
    /// others twice. Shards that it has finished are not read again. 0: begin at the checkpoints.
    pub rewind_on_adopt: u64,
    /// A new lease table is billed by request. `keep`: an existing one stays as it is, with a warning where its capacity is small, as the Java
    /// connector makes it; `auto`: an existing one is changed to billing by request (needs dynamodb:UpdateTable).
    pub lease_table_billing_mode: BillingMode,
}

impl Default for LeaseKeys {
    fn default() -> Self {
        Self {
            failover_time: FAILOVER_MILLIS,
            max_leases_for_worker: None,
            assume_owner_dead: None,
            rewind_on_adopt: 0,
            lease_table_billing_mode: BillingMode::Keep,
        }
    }
}

/// The same, checked.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    pub failover: Duration,
    pub max_leases: usize,
    pub assume_dead: AssumeDead,
    pub rewind_on_adopt: Duration,
    pub billing: Billing,
}

impl LeaseKeys {
    pub fn settings(&self, problems: &mut Problems) -> LeaseSettings {
        problems.require(
            FAILOVER_BOUNDS.contains(&self.failover_time),
            "configs.failoverTime",
            "has to be from 2000 to 300000 (milliseconds)",
        );
        problems.require(self.max_leases_for_worker != Some(0), "configs.maxLeasesForWorker", "has to be at least 1");
        problems.require(
            self.rewind_on_adopt <= REWIND_MAX_MILLIS,
            "configs.rewindOnAdopt",
            "has to be 86400000 at most (milliseconds): a stream keeps 24 hours",
        );
        LeaseSettings {
            failover: Duration::from_millis(self.failover_time),
            max_leases: self.max_leases_for_worker.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX),
            assume_dead: assume_dead(self.assume_owner_dead.as_deref().unwrap_or_default(), problems),
            rewind_on_adopt: Duration::from_millis(self.rewind_on_adopt),
            billing: match self.lease_table_billing_mode {
                BillingMode::Keep => Billing::Keep,
                BillingMode::Auto => Billing::Auto,
            },
        }
    }
}

fn assume_dead(text: &str, problems: &mut Problems) -> AssumeDead {
    let owners: Vec<&str> = text.split(',').map(str::trim).filter(|owner| !owner.is_empty()).collect();
    match owners[..] {
        [] => AssumeDead::Nobody,
        ["all"] => AssumeDead::All,
        _ => {
            problems.require(!owners.contains(&"all"), "configs.assumeOwnerDead", "has to be all, or owners, not both");
            AssumeDead::Owners(owners.into_iter().map(str::to_owned).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> (LeaseSettings, Vec<String>) {
        let keys: LeaseKeys = serde_json::from_str(json).expect(json);
        let mut problems = Problems::default();
        let settings = keys.settings(&mut problems);
        let problems = problems.into_result("test").err().map(|error| error.why().lines().map(str::to_owned).collect());
        (settings, problems.unwrap_or_default())
    }

    #[test]
    fn defaults_go_with_java_workers() {
        let (settings, problems) = settings("{}");
        assert_eq!(settings.failover, Duration::from_secs(10));
        assert_eq!((settings.max_leases, settings.assume_dead), (usize::MAX, AssumeDead::Nobody));
        assert_eq!((settings.rewind_on_adopt, settings.billing), (Duration::ZERO, Billing::Keep));
        assert!(problems.is_empty());
    }

    #[test]
    fn each_key_is_taken() {
        let (settings, problems) = settings(
            r#"{"failoverTime":3000,"maxLeasesForWorker":7,"assumeOwnerDead":" a:1, b ,","rewindOnAdopt":300000,"leaseTableBillingMode":"auto"}"#,
        );
        assert_eq!((settings.failover, settings.max_leases), (Duration::from_secs(3), 7));
        assert_eq!(settings.assume_dead, AssumeDead::Owners(["a:1".to_string(), "b".to_string()].into()));
        assert_eq!((settings.rewind_on_adopt, settings.billing), (Duration::from_secs(300), Billing::Auto));
        assert!(problems.is_empty());
        assert_eq!(self::settings(r#"{"assumeOwnerDead":"all"}"#).0.assume_dead, AssumeDead::All);
    }

    #[test]
    fn wrong_values_are_told() {
        for (json, expected) in [
            (r#"{"failoverTime":1999}"#, "configs.failoverTime: has to be from 2000"),
            (r#"{"failoverTime":300001}"#, "configs.failoverTime: has to be from 2000"),
            (r#"{"maxLeasesForWorker":0}"#, "configs.maxLeasesForWorker: has to be at least 1"),
            (r#"{"rewindOnAdopt":86400001}"#, "configs.rewindOnAdopt: has to be 86400000"),
            (r#"{"assumeOwnerDead":"all,me"}"#, "configs.assumeOwnerDead: has to be all, or owners"),
        ] {
            let problems = settings(json).1;
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{json}: {problems:?}");
        }
    }
}
