//! The import rules of `docs/architecture.md`: who may name a client library, and which stages are pure.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Decisions without IO: no runtime, no clock. Time comes in as an argument.
const PURE: &[&str] = &[
    "leases/view.rs",
    "source/audit.rs",
    "source/discover.rs",
    "source/garbage.rs",
    "source/lease/plan.rs",
    "source/lease/sightings.rs",
    "source/lease/mark.rs",
    "source/once.rs",
    "source/poison.rs",
    "source/shard.rs",
    "source/share.rs",
    "source/succession.rs",
    "source/convert/mod.rs",
    "source/convert/filter.rs",
    "source/convert/java_hash.rs",
    "source/convert/java_map.rs",
    "source/convert/key.rs",
    "source/convert/plain.rs",
    "source/convert/read.rs",
    "source/convert/shape.rs",
    "source/convert/write.rs",
    "source/checkpoint.rs",
    "sink/decode/avro/read.rs",
    "sink/decode/avro/schema.rs",
    "sink/decode/known.rs",
    "sink/decode/key_value.rs",
    "sink/decode/number.rs",
    "sink/decode/protobuf.rs",
    "sink/decode/temporal.rs",
    "sink/shape/mod.rs",
    "sink/shape/expression.rs",
    "sink/shape/fields.rs",
    "sink/shape/route.rs",
    "sink/shape/ttl.rs",
    "sink/map.rs",
    "sink/mode.rs",
    "sink/order.rs",
    "sink/pace.rs",
    "sink/coalesce.rs",
    "sink/batch.rs",
    "sink/ack.rs",
    "sink/batch/leave.rs",
    "pulsar/chunks.rs",
    "pulsar/permits.rs",
    "pulsar/turn.rs",
];

fn sources() -> Vec<(String, String)> {
    rust_files("src")
}

/// Each file of a folder of the project, by its path below that folder, and its text.
pub fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    walk(&root, &mut files);
    let name = |path: &PathBuf| path.strip_prefix(&root).expect("below it").to_string_lossy().replace('\\', "/");
    files.iter().map(|path| (name(path), fs::read_to_string(path).expect("source is text"))).collect()
}

/// The lines of a file that are code, without its unit tests (they stand last, behind an unindented `#[cfg(test)]`) and without imports of its own
/// modules, which may be named as a crate is.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut own_import = false;
    let lines = text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]");
    lines.filter_map(move |(at, line)| {
        let line = line.split("//").next().unwrap_or_default();
        own_import |= ["use crate::", "use super::", "use pulsar_io_dynamodb::"].iter().any(|own| line.trim_start().starts_with(own));
        let skipped = own_import;
        own_import &= !line.contains(';');
        (!skipped).then_some((at + 1, line))
    })
}

/// Whether `line` names the crate or module `name` as the start of a path.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        // `::name` is the crate as well, `module::name` is not.
        let path = line[..at].strip_suffix("::").map(|path| path.chars().next_back());
        let inside = match path {
            Some(segment) => segment.is_some_and(|c| c.is_alphanumeric() || c == '_'),
            None => before.is_some_and(|c| c.is_alphanumeric() || c == '_'),
        };
        !inside && (name.ends_with('_') || after.starts_with("::"))
    })
}

/// Whether `line` has `word` in it, not as a part of a longer one.
fn mentions(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(in_word) && !line[at + word.len()..].chars().next().is_some_and(in_word))
}

fn names_aws(line: &str) -> bool {
    ["aws_config", "aws_credential_types", "aws_runtime", "aws_sdk_", "aws_smithy_", "aws_types"].iter().any(|name| names(line, name))
}

fn violations(breaks: impl Fn(&str) -> bool, checked: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| checked(file)) {
        found.extend(code(&text).filter(|(_, line)| breaks(line)).map(|(at, line)| format!("src/{file}:{at}: {}", line.trim())));
    }
    found
}

#[test]
fn only_dynamodb_and_cloudwatch_name_the_aws_sdk() {
    let found = violations(names_aws, |file| !file.starts_with("dynamodb/") && file != "metrics/cloudwatch.rs");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_pulsar_folder_names_the_pulsar_client() {
    let found = violations(|line| names(line, "pulsar"), |file| !file.starts_with("pulsar/"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn decisions_are_pure() {
    let files: Vec<String> = sources().into_iter().map(|(file, _)| file).collect();
    for pure in PURE {
        assert!(files.iter().any(|file| file == pure), "src/{pure} is gone: keep this list true");
    }
    for forbidden in ["tokio", "Instant", "SystemTime", "chrono"] {
        let found = violations(|line| mentions(line, forbidden), |file| PURE.contains(&file));
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// An order of branches that a runtime's dice choose cannot be repeated from a seed (`tests/sim/source/random.rs`), and the order matters
/// wherever a lease may be lost.
#[test]
fn every_choice_of_the_source_is_biased() {
    for (file, text) in sources().into_iter().filter(|(file, _)| file.starts_with("source/")) {
        let lines: Vec<_> = code(&text).collect();
        for pair in lines.windows(2).filter(|pair| pair[0].1.contains("select! {")) {
            assert_eq!(pair[1].1.trim(), "biased;", "src/{file}:{}: a select! without it", pair[0].0);
        }
    }
}

#[test]
fn the_rules_bite() {
    assert!(names("use pulsar::Producer;", "pulsar"));
    assert!(names("let x = tokio::spawn(y);", "tokio"));
    assert!(names_aws("client: aws_sdk_dynamodb::Client,"));
    assert!(!names_aws("aws_region: Option<String>,"));
    assert!(names("use ::pulsar::{", "pulsar"));
    assert!(names("-> Result<pulsar::Error> {", "pulsar"));
    assert!(!names("config::pulsar::settings(given)", "pulsar"));
    assert_eq!(code("use crate::{\n    pulsar::client,\n};\npulsar::x();\n#[cfg(test)]\npulsar::y();").count(), 1);
    assert!(!names("let pulsar = 1;", "pulsar"));
    assert!(mentions("use std::time::{Duration, Instant};", "Instant"));
    assert!(!mentions("fn instantiate(InstantX: u8)", "Instant"));
}
