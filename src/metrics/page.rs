//! The page of all metrics, for people.

use std::fmt::Write as _;

use super::{kcl, names};

/// `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Generated from the code by `pulsar-io-dynamodb config-schema --metrics`; do not edit.\n\n\
         `--http-address HOST:PORT` serves\n\n\
         - `/metrics` and `/`: what is listed here, as Prometheus text;\n\
         - `/healthz`: 200, or 503 with a line for each reason why the worker makes no progress;\n\
         - `/status`: the same reasons and, for a source, each shard with its lag and what waits, as JSON.\n\n\
         [As a function of Pulsar](functions.md) it serves them on the port that its host gives it, and `/metrics` has the host's labels and Pulsar's own series too.\n",
    );
    for (title, prefix) in [("Source", "dynamodb_source_"), ("Sink", "dynamodb_sink_"), ("Both", "")] {
        let of_other = |name: &str| prefix.is_empty() && (name.starts_with("dynamodb_source_") || name.starts_with("dynamodb_sink_"));
        let _ = write!(page, "\n## {title}\n\n| name | type | meaning |\n|---|---|---|\n");
        for metric in names::ALL.iter().filter(|metric| metric.name.starts_with(prefix) && !of_other(metric.name)) {
            let _ = writeln!(page, "| `{}` | {} | {} |", metric.name, metric.kind(), metric.meaning);
        }
    }
    page += "\n## Dashboard and alerts\n\n\
             [A dashboard for Grafana](dashboards/pulsar-io-dynamodb.json) and [rules for Prometheus](dashboards/alerts.yaml) to start from.\n";
    page += &kcl::markdown();
    page
}
