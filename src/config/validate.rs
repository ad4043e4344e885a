//! All problems of a configuration at once.

use std::fmt;

use crate::error::{Error, Kind};

/// What is wrong with one key, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Such as `configs.checkpointInterval`.
    pub key: String,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// Collects problems while a configuration is read.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem { key: key.into(), text: text.into() });
    }

    /// Fails when `holds` does not.
    pub fn require(&mut self, holds: bool, key: &str, text: impl Into<String>) {
        if !holds {
            self.add(key, text);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` without problems, else one error that lists them all.
    pub fn into_result(self, what: &str) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let count = self.0.len();
        let list: String = self.0.iter().map(|problem| format!("\n  - {problem}")).collect();
        let why = format!("{count} problem{}:{list}", if count == 1 { "" } else { "s" });
        Err(Error::new(Kind::Configuration, format!("use the configuration {what}"), why))
    }
}

/// `persistent://tenant/namespace/topic`; a short name is one of `public/default`, as everywhere in Pulsar.
pub fn full_topic_name(name: &str, key: &str, problems: &mut Problems) -> String {
    let (scheme, path) = name.split_once("://").unwrap_or(("persistent", name));
    let parts: Vec<&str> = path.split('/').collect();
    let full = match parts[..] {
        [_] if !name.contains("://") => format!("persistent://public/default/{path}"),
        [_, _, _] => format!("{scheme}://{path}"),
        _ => String::new(),
    };
    let legal = matches!(scheme, "persistent" | "non-persistent")
        && !full.is_empty()
        && !parts.contains(&"")
        && !path.chars().any(|character| character.is_whitespace() || character.is_control());
    problems.require(legal, key, format!("{name:?} is no topic: write persistent://tenant/namespace/topic"));
    full
}

/// The name that was probably meant: the closest of `known`, when it is close enough.
pub fn suggestion<'k>(unknown: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let distances = known.into_iter().map(|name| (distance(&unknown.to_lowercase(), &name.to_lowercase()), name));
    let (distance, name) = distances.min()?;
    (distance <= 1 + unknown.chars().count() / 4).then_some(name)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["awsRegion", "awsEndpoint", "applicationName"];
        assert_eq!(suggestion("awsregoin", known), Some("awsRegion"));
        assert_eq!(suggestion("aplicationname", known), Some("applicationName"));
        assert_eq!(suggestion("batchSize", known), None);
    }

    #[test]
    fn topics_have_a_short_and_a_full_name() {
        let full = |name: &str| {
            let mut problems = Problems::default();
            let full = full_topic_name(name, "topicName", &mut problems);
            problems.is_empty().then_some(full)
        };
        assert_eq!(full("orders").as_deref(), Some("persistent://public/default/orders"));
        assert_eq!(full("a/b/c").as_deref(), Some("persistent://a/b/c"));
        assert_eq!(full("non-persistent://a/b/c").as_deref(), Some("non-persistent://a/b/c"));
        for wrong in ["a/b", "http://a/b/c", "persistent://orders", "a b", "a//c"] {
            assert_eq!(full(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn all_problems_are_in_one_message() {
        let mut problems = Problems::default();
        problems.add("a", "first");
        problems.require(false, "b", "second");
        problems.require(true, "c", "fine");
        let error = problems.into_result("x.yaml").expect_err("two problems");
        assert_eq!(error.kind(), Kind::Configuration);
        assert_eq!(error.to_string(), "could not use the configuration x.yaml: 2 problems:\n  - a: first\n  - b: second");
    }
}
