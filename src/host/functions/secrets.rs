//! Secrets as Pulsar's hosts give them: a variable of the secret's name, put there by the host's provider, else the registered text itself.
//! Configuration refers to one as `${NAME}`, as it may to any variable whose name is written in capitals.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::config::validate::Problems;

/// Where `${NAME}` is looked up.
pub struct Secrets<'e> {
    named: BTreeMap<String, SecretString>,
    environment: &'e BTreeMap<String, String>,
    /// Names that something referred to.
    used: BTreeSet<String>,
}

impl<'e> Secrets<'e> {
    /// `registered`: each secret's name with what was registered for it, a text or what a provider finds it by.
    pub fn new(registered: Map<String, Value>, environment: &'e BTreeMap<String, String>, problems: &mut Problems) -> Self {
        let mut named = BTreeMap::new();
        for (name, known_by) in registered {
            match environment.get(&name).map(String::as_str).or(known_by.as_str()) {
                Some(secret) => drop(named.insert(name, SecretString::from(secret))),
                None => problems.add(
                    format!("secrets.{name}"),
                    format!("is not there: the host's secrets provider was to put it into the variable {name}"),
                ),
            }
        }
        Self { named, environment, used: BTreeSet::new() }
    }

    /// The secret of this name, which is also the name of a key.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let secret = self.named.get(name)?;
        self.used.insert(name.to_owned());
        Some(secret.expose_secret().to_owned())
    }

    /// Puts secrets and variables in place of `${NAME}`, at any depth. `place` is where `value` is, for messages.
    pub fn fill_in(&mut self, value: &mut Value, place: &str, problems: &mut Problems) {
        match value {
            Value::String(text) => {
                if let Some(filled) = self.filled(text, place, problems) {
                    *text = filled;
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| self.fill_in(value, place, problems)),
            Value::Object(map) => map.iter_mut().for_each(|(key, value)| self.fill_in(value, &format!("{place}.{key}"), problems)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn filled(&mut self, text: &str, place: &str, problems: &mut Problems) -> Option<String> {
        let (mut done, mut rest) = (String::new(), text);
        while let Some((before, from)) = rest.split_once("${") {
            let (name, after) = from.split_once('}')?;
            done += before;
            if let Some(secret) = self.take(name) {
                done += &secret;
            } else if is_variable(name) {
                match self.environment.get(name) {
                    Some(value) => done += value,
                    None => problems.add(place, format!("there is neither a secret nor a variable {name}")),
                }
            } else {
                // A template of our own, such as ${table}.
                done += &format!("${{{name}}}");
            }
            rest = after;
        }
        Some(done + rest)
    }

    /// A secret that reaches nothing is a mistake: tells those that are no variable and that nothing referred to.
    pub fn report_unused(&self, problems: &mut Problems) {
        let unused = self.named.keys().filter(|name| !self.used.contains(*name) && !self.environment.contains_key(*name));
        for name in unused {
            problems.add(format!("secrets.{name}"), format!("is no key, and no key has ${{{name}}} for its value"));
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.chars().all(|character| character.is_ascii_uppercase() || character.is_ascii_digit() || character == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(registered: Value, environment: &[(&str, &str)], mut value: Value) -> (Value, String) {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut problems = Problems::default();
        let Value::Object(registered) = registered else { unreachable!("an object") };
        let mut secrets = Secrets::new(registered, &environment, &mut problems);
        secrets.fill_in(&mut value, "configs", &mut problems);
        secrets.report_unused(&mut problems);
        (value, problems.into_result("x").err().map(|error| error.to_string()).unwrap_or_default())
    }

    #[test]
    fn the_variable_of_a_secrets_name_comes_before_the_registered_text() {
        let registered = json!({"A": {"path": "p", "key": "k"}, "B": "text", "lower": "case"});
        let value = json!({"a": "${A}", "deep": [{"b": "x${B}y${lower}"}], "topic": "x-${table}", "open": "${A"});
        let (filled, problems) = fill(registered.clone(), &[("A", "1"), ("B", "2")], value);
        assert_eq!(filled, json!({"a": "1", "deep": [{"b": "x2ycase"}], "topic": "x-${table}", "open": "${A"}));
        assert_eq!(problems, "");
        let (filled, _) = fill(registered, &[("A", "1")], json!("${B}"));
        assert_eq!(filled, "text");
    }

    #[test]
    fn a_secret_is_not_filled_in_once_more() {
        assert_eq!(fill(json!({"A": "${B}", "B": "b"}), &[], json!("${A}${B}")).0, "${B}b");
    }

    #[test]
    fn a_secret_that_is_not_there_or_reaches_nothing_is_told_and_not_shown() {
        let (_, problems) = fill(json!({"A": {"path": "p"}, "B": "hush"}), &[], json!({"k": "${NO_SUCH}"}));
        for expected in ["secrets.A: is not there", "secrets.B: is no key", "configs.k: there is neither a secret nor a variable NO_SUCH"] {
            assert!(problems.contains(expected), "{expected} is not in {problems}");
        }
        assert!(!problems.contains("hush"));
        // The AWS SDK finds what is in the environment by itself.
        assert_eq!(fill(json!({"AWS_SECRET_ACCESS_KEY": {}}), &[("AWS_SECRET_ACCESS_KEY", "x")], json!({})).1, "");
    }
}
