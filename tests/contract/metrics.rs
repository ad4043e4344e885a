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
