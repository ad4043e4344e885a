//! Metrics as Prometheus text.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::names;
use crate::error::{Error, Kind, Result};

/// From a fast local write to one that is in trouble. Seconds.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Starts to collect; once for the whole process. Whoever holds the handle has to call `run_upkeep` now and then.
pub fn install() -> Result<PrometheusHandle> {
    let failed = |why: &dyn std::fmt::Display| Error::new(Kind::Fatal, "set up the metrics", why);
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| failed(&error))?;
    names::describe();
    Ok(handle)
}
