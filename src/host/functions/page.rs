//! The text that Pulsar's worker fetches from `metricsPort` and puts into its own `/metrics` as it is: so each series says whose it is, and
//! there are no comments, which several instances would repeat.

use std::{collections::HashMap, fmt::Write as _};

use super::{
    instance::Instance,
    tally::{Class, Counts, Tally},
};
use crate::metrics::prometheus::{escaped, series};

/// Whose series they are, in the labels that Pulsar's own instances have.
#[derive(Debug, Clone)]
pub struct Labels {
    /// `pulsar_function_`, `pulsar_source_` or `pulsar_sink_`.
    prefix: &'static str,
    text: String,
}

impl Labels {
    pub fn of(instance: &Instance) -> Self {
        let prefix = match instance.details.component_type.as_str() {
            "SOURCE" => "pulsar_source_",
            "SINK" => "pulsar_sink_",
            _ => "pulsar_function_",
        };
        let namespace = format!("{}/{}", instance.tenant, instance.namespace);
        let (id, fqfn) = (instance.id.to_string(), instance.full_name());
        let labels = [
            ("tenant", &instance.tenant),
            ("namespace", &namespace),
            ("name", &instance.name),
            ("instance_id", &id),
            ("cluster", &instance.cluster),
            ("fqfn", &fqfn),
        ];
        let text: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        Self { prefix, text: text.join(",") }
    }

    /// The worker's own series with these labels, and the ones that Pulsar's instances have.
    pub fn page(&self, own: &str, tally: &Tally) -> String {
        let mut page = String::with_capacity(own.len() * 2);
        for (name, labels, value) in series(own) {
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = writeln!(page, "{name}{{{}{comma}{labels}}} {value}", self.text);
        }
        let mut add = |name: &str, value: f64| {
            let _ = writeln!(page, "{}{name}{{{}}} {value}", self.prefix, self.text);
        };
        for (counts, suffix) in [(tally.counts(), "total"), (tally.of_minute(), "1min")] {
            let is_function = self.prefix == "pulsar_function_";
            add(&format!("received_{suffix}"), counts.received as f64);
            add(&format!("{}_{suffix}", if is_function { "processed_successfully" } else { "written" }), counts.processed as f64);
            for (name, count) in exceptions(self.prefix, &counts) {
                add(&format!("{name}_exceptions_{suffix}"), count as f64);
            }
        }
        add("last_invocation", tally.last_invocation() as f64);
        if self.prefix == "pulsar_function_" {
            add("process_latency_ms", tally.counts().average_latency());
        }
        page
    }
}

/// A source or sink has no user's code: what a function calls its user's exceptions are the system's there, as Pulsar's worker adds them up too.
fn exceptions(prefix: &str, counts: &Counts) -> Vec<(&'static str, u64)> {
    let [user, system, source, sink] = [Class::User, Class::System, Class::Source, Class::Sink].map(|class| counts.exceptions(class));
    match prefix {
        "pulsar_source_" => vec![("source", source), ("system", system + user + sink)],
        "pulsar_sink_" => vec![("sink", sink), ("system", system + user + source)],
        _ => vec![("user", user), ("system", system), ("source", source), ("sink", sink)],
    }
}

/// What `functions stats` shows as `userMetrics`: every series but the buckets of histograms.
pub fn user_metrics(own: &str) -> HashMap<String, f64> {
    let shown = series(own).filter(|(name, ..)| !name.ends_with("_bucket"));
    shown
        .filter_map(|(name, labels, value)| {
            let key = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") };
            Some((key, value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::metrics::{fork::Fork, names};

    const OWN: &str = "# HELP a x\n# TYPE a counter\na 1\n\nb{op=\"put\",x=\"}\"} 2.5\nc_bucket{le=\"1\"} 3\nc_sum 4\n";

    fn labels(component: &str) -> Labels {
        let details = serde_json::json!({"tenant": "t", "namespace": "n", "name": "f", "componentType": component}).to_string();
        let conf = serde_json::json!({"port": 1, "instanceID": 3, "clusterName": "c", "functionDetails": details}).to_string();
        Labels::of(&Instance::parse(&["-instance-conf".into(), conf], &BTreeMap::new()).expect("an instance"))
    }

    #[test]
    fn every_series_says_whose_it_is_and_nothing_else_is_there() {
        let tally = Tally::default();
        let fork = Fork::new(PrometheusBuilder::new().build_recorder(), vec![Arc::new(tally.clone())]);
        metrics::with_local_recorder(&fork, || {
            metrics::counter!(names::SINK_RECEIVED).increment(7);
            metrics::counter!(names::SINK_DEAD_LETTERED).increment(1);
            metrics::counter!(names::ERRORS, "stage" => "sink/write").increment(2);
        });
        let whose = r#"tenant="t",namespace="t/n",name="f",instance_id="3",cluster="c",fqfn="t/n/f""#;
        let page = labels("FUNCTION").page(OWN, &tally);
        for line in page.lines() {
            assert!(line.contains(whose), "{line}");
        }
        for line in [
            format!("a{{{whose}}} 1\n"),
            format!("b{{{whose},op=\"put\",x=\"}}\"}} 2.5\n"),
            format!("pulsar_function_received_total{{{whose}}} 7\n"),
            format!("pulsar_function_received_1min{{{whose}}} 7\n"),
            format!("pulsar_function_user_exceptions_total{{{whose}}} 1\n"),
            format!("pulsar_function_sink_exceptions_total{{{whose}}} 2\n"),
        ] {
            assert!(page.contains(&line), "{line} is not in {page}");
        }
        let page = labels("SINK").page("", &tally);
        for line in ["pulsar_sink_sink_exceptions_total", "pulsar_sink_written_total", "pulsar_sink_system_exceptions_1min"] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
        assert!(page.contains(&format!("pulsar_sink_system_exceptions_total{{{whose}}} 1\n")) && !page.contains("pulsar_sink_user"));
    }

    #[test]
    fn user_metrics_are_all_series_but_buckets() {
        let expected = HashMap::from([("a".to_owned(), 1.0), ("b{op=\"put\",x=\"\"}".to_owned(), 2.5), ("c_sum".to_owned(), 4.0)]);
        let found = user_metrics(&OWN.replace("x=\"}\"", "x=\"\""));
        assert_eq!(found, expected);
    }
}
