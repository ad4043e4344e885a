//! The metrics' names against what uses them.

use std::{fs, path::Path};

use pulsar_io_dynamodb::metrics::names;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file)
}

/// All of the library's text but that of the names themselves.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("metrics/names.rs") {
            text.push_str(&fs::read_to_string(path).expect("source is text"));
        }
    }
}

#[test]
fn every_metric_is_recorded_somewhere() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let mut found = 0;
    for line in read("src/metrics/names.rs").lines().filter(|line| line.trim_start().starts_with("describe_") && line.contains(" = \"")) {
        let constant = line.split_whitespace().nth(1).expect("a name");
        assert!(text.contains(&format!("names::{constant}")), "{constant} is a metric that nothing records");
        found += 1;
    }
    assert_eq!(found, names::ALL.len());
}

#[test]
fn names_say_what_they_count() {
    for metric in names::ALL {
        assert_eq!(metric.name.ends_with("_total"), metric.kind() == "counter", "{}", metric.name);
        assert!(metric.kind() != "histogram" || metric.name.ends_with("_seconds"), "{} has no buckets", metric.name);
        assert!(metric.meaning.ends_with('.'), "{}", metric.name);
    }
}

/// The names of metrics in an expression of PromQL, without the suffixes that make a histogram's series.
fn queried(expression: &str) -> Vec<String> {
    let words = expression.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let metrics = words.filter(|word| word.starts_with("dynamodb_") || word.starts_with("process_"));
    let histograms: Vec<_> = names::ALL.iter().filter(|metric| metric.kind() == "histogram").map(|metric| metric.name).collect();
    let base = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        parts.filter(|base| histograms.contains(base)).unwrap_or(word).to_owned()
    };
    metrics.map(base).collect()
}

fn exists(name: &str, place: &str) {
    assert!(names::ALL.iter().any(|metric| metric.name == name), "{place}: {name} is no metric of ours");
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist_and_for_what_operators_ask_first() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/dashboards/pulsar-io-dynamodb.json")).expect("JSON");
    let mut asked = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: another panel has its id");
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let expression = target["expr"].as_str().expect("an expression");
            let names = queried(expression);
            assert!(!names.is_empty(), "{title}: {expression}");
            names.iter().for_each(|name| exists(name, title));
            asked.extend(names);
        }
    }
    for wanted in [
        names::SOURCE_LAG,
        names::SOURCE_TIME_TO_TRIM,
        names::SOURCE_PUBLISHED,
        names::SOURCE_LEASES_HELD,
        names::ERRORS,
        names::SINK_WRITTEN,
        names::SINK_LAG,
        names::SINK_END_TO_END_SECONDS,
        names::SINK_THROTTLED,
        names::SINK_CONSUMED,
    ] {
        assert!(asked.contains(wanted), "no panel for {wanted}");
    }
}

#[test]
fn the_alerts_ask_for_metrics_that_exist() {
    let rules = read("docs/dashboards/alerts.yaml");
    let expressions: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 10);
    for expression in expressions {
        let names = queried(expression);
        assert!(!names.is_empty(), "{expression}");
        names.iter().for_each(|name| exists(name, expression));
    }
}
