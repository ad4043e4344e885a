//! What the shim hands on as user metrics: a few numbers from the page of all metrics.

use std::collections::BTreeMap;

use crate::metrics::{names, prometheus::series};

/// User metrics and the metrics that they are. Of a counter each report has the increase, so the sum of what Pulsar collects is its total; of a gauge, the
/// value.
const SHOWN: &[(&str, &str)] = &[
    ("lag_seconds", names::SOURCE_LAG),
    ("leases_held", names::SOURCE_LEASES_HELD),
    ("records", names::SOURCE_RECORDS),
    ("published", names::SOURCE_PUBLISHED),
    ("gaps", names::SOURCE_GAPS),
    ("poison", names::SOURCE_POISON),
    ("sink_lag_seconds", names::SINK_LAG),
    ("items_written", names::SINK_WRITTEN),
    ("given_back", names::SINK_GIVEN_BACK),
    ("errors", names::ERRORS),
    ("health_reasons", names::HEALTH_REASONS),
];

/// Remembers counters from report to report.
#[derive(Debug, Default)]
pub struct Report {
    told: BTreeMap<&'static str, f64>,
}

impl Report {
    /// `page`: all metrics as Prometheus text.
    pub fn of(&mut self, page: &str) -> Vec<(&'static str, f64)> {
        let mut values = BTreeMap::<&str, f64>::new();
        for (name, _, value) in series(page) {
            // Of a counter with labels, the sum of all.
            *values.entry(name).or_default() += value.parse::<f64>().unwrap_or(0.0);
        }
        let mut report = Vec::new();
        for (shown, name) in SHOWN {
            let Some(&value) = values.get(name) else { continue };
            if name.ends_with("_total") {
                let increase = value - self.told.insert(name, value).unwrap_or(0.0);
                if increase > 0.0 {
                    report.push((*shown, increase));
                }
            } else {
                report.push((*shown, value));
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_as_increases_over_all_labels_and_gauges_as_they_are() {
        let mut report = Report::default();
        let page = "# HELP x\ndynamodb_source_records_total 5\ndynamodb_errors_total{stage=\"a b\",kind=\"Fatal\"} 1\n\
                    dynamodb_errors_total{stage=\"c\"} 2\ndynamodb_source_lag_seconds 1.5\n";
        assert_eq!(report.of(page), [("lag_seconds", 1.5), ("records", 5.0), ("errors", 3.0)]);
        let later = page.replace("total 5", "total 9");
        assert_eq!(report.of(&later), [("lag_seconds", 1.5), ("records", 4.0)]);
    }
}
