//! Other systems' names of keys: who comes from Flink's or RisingWave's sink keeps what is written.
//!
//! Their names have dots, ours have none. A dotted name may be written flat (`aws.region: x`) or as mappings (`aws: {region: x}`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::validate::{Problems, suggestion};

/// The names that a worker takes beside its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aliases {
    /// Another system's name, and the key it means. `a.b` is the key `b` in the mapping `a`.
    pub names: &'static [(&'static str, &'static str)],
    /// What a whole family of names means.
    pub families: &'static [Family],
    /// A name that means nothing here, and what to write instead.
    pub instead: &'static [(&'static str, &'static str)],
}

/// Names that begin with `prefix` mean what they mean with `stands_for` in its place, as keys of the mapping `inside` (or on the same level).
#[derive(Debug, Clone, Copy)]
pub struct Family {
    pub prefix: &'static str,
    pub stands_for: &'static str,
    pub inside: Option<&'static str>,
}

/// Keys under their own names, and under which name each was given where that is another.
#[derive(Debug, Default)]
pub struct Named {
    pub keys: Map<String, Value>,
    given: BTreeMap<String, String>,
}

impl From<Map<String, Value>> for Named {
    fn from(keys: Map<String, Value>) -> Self {
        Self { keys, given: BTreeMap::new() }
    }
}

impl Named {
    /// For messages: the name that was given, with ours.
    pub fn shown(&self, key: &str) -> String {
        match self.given.get(key) {
            Some(given) if given != key => format!("{given} ({key})"),
            _ => key.to_owned(),
        }
    }

    /// Puts `over` over this: its keys win, within mappings key by key.
    pub fn overlay(&mut self, over: Named) {
        merge(&mut self.keys, over.keys);
        self.given.extend(over.given);
    }
}

fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Object(under)), Value::Object(over)) => merge(under, over),
            (_, value) => drop(under.insert(name, value)),
        }
    }
}

enum Meaning {
    /// A key's name, or the names down to a key in mappings.
    Key(Vec<&'static str>),
    Instead(&'static str),
    Nothing,
}

impl Aliases {
    fn meaning(&self, name: &str) -> Meaning {
        if let Some((_, key)) = self.names.iter().find(|(alias, _)| *alias == name) {
            return Meaning::Key(key.split('.').collect());
        }
        if let Some((_, text)) = self.instead.iter().find(|(alias, _)| *alias == name) {
            return Meaning::Instead(text);
        }
        let family = self.families.iter().find_map(|family| Some((family, name.strip_prefix(family.prefix)?)));
        let Some((family, rest)) = family else { return Meaning::Nothing };
        match self.meaning(&format!("{}{rest}", family.stands_for)) {
            Meaning::Key(path) => Meaning::Key(family.inside.into_iter().chain(path).collect()),
            other => other,
        }
    }

    /// Whether names that go on from this one may mean something.
    fn begins_family(&self, name: &str) -> bool {
        self.families.iter().any(|family| match name.strip_prefix(family.prefix) {
            Some(rest) => self.begins_family(&format!("{}{rest}", family.stands_for)),
            None => family.prefix.strip_suffix('.') == Some(name),
        })
    }

    fn takes(&self, name: &str) -> bool {
        !matches!(self.meaning(name), Meaning::Nothing)
    }

    /// Brings keys under the names that are `known`. `prefix` is where they are, for messages: `configs.`.
    ///
    /// `as_mappings` says whether a dotted name may be written as mappings.
    pub fn own_names(
        &self,
        given: Map<String, Value>,
        known: &BTreeMap<String, Value>,
        as_mappings: bool,
        prefix: &str,
        problems: &mut Problems,
    ) -> Named {
        let mut flat = Vec::new();
        for (name, value) in given {
            if known.contains_key(&name) || !as_mappings {
                flat.push((name, value));
            } else {
                self.flatten(name, value, &mut flat);
            }
        }
        // Our own first: a mapping of ours takes what another system's name puts into it.
        flat.sort_by_key(|(name, _)| !known.contains_key(name));
        let mut named = Named::default();
        for (name, value) in flat.into_iter().filter(|(_, value)| !value.is_null()) {
            let path = match self.meaning(&name) {
                _ if known.contains_key(&name) => vec![name.as_str()],
                Meaning::Key(path) => path,
                Meaning::Instead(text) => {
                    problems.add(format!("{prefix}{name}"), text);
                    continue;
                }
                Meaning::Nothing => {
                    problems.add(
                        format!("{prefix}{name}"),
                        unknown(&name, known.keys().map(String::as_str).chain(self.names.iter().map(|(name, _)| *name))),
                    );
                    continue;
                }
            };
            let key = path.join(".");
            if !put(&mut named.keys, &path, value) {
                let other = named.given.get(&key).unwrap_or(&key);
                problems.add(format!("{prefix}{name}"), format!("means the same as {other}, which is given too; keep one of them"));
                continue;
            }
            named.given.insert(key, name.clone());
        }
        named
    }

    fn flatten(&self, name: String, value: Value, flat: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) if !map.is_empty() && (!self.takes(&name) || self.begins_family(&name)) => {
                for (part, value) in map {
                    self.flatten(format!("{name}.{part}"), value, flat);
                }
            }
            value => flat.push((name, value)),
        }
    }
}

/// `false` when something is there already.
fn put(keys: &mut Map<String, Value>, path: &[&str], value: Value) -> bool {
    match path {
        [] => false,
        [name] if keys.contains_key(*name) => false,
        [name] => {
            keys.insert((*name).to_owned(), value);
            true
        }
        [name, rest @ ..] => match keys.entry(*name).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => put(inner, rest, value),
            _ => false,
        },
    }
}

/// For a name that is no key.
pub fn unknown<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> String {
    match suggestion(name, known) {
        Some(meant) => format!("there is no such key; did you mean {meant}?"),
        None => "there is no such key; the reference lists all".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALIASES: Aliases = Aliases {
        names: &[
            ("aws.region", "region"),
            ("zone", "region"),
            ("aws.key.id", "key"),
            ("aws.key.role.from", "source.from"),
            ("size", "size"),
        ],
        families: &[Family { prefix: "aws.key.role.from.", stands_for: "aws.key.", inside: Some("source") }],
        instead: &[("aws.class", "write a command")],
    };

    fn named(given: Value, as_mappings: bool) -> (Value, Vec<String>) {
        let Value::Object(given) = given else { unreachable!("an object") };
        let known = ["region", "key", "source"].map(|name| (name.to_owned(), Value::Null)).into();
        let mut problems = Problems::default();
        let named = ALIASES.own_names(given, &known, as_mappings, "configs.", &mut problems);
        let problems = problems.into_result("test").err().map(|error| error.why().lines().skip(1).map(str::to_owned).collect());
        (Value::Object(named.keys), problems.unwrap_or_default())
    }

    #[test]
    fn another_systems_names_are_taken_flat_and_as_mappings() {
        for given in [
            json!({"aws.region": "r", "aws.key.id": "k", "aws.key.role.from": "f", "aws.key.role.from.id": "i"}),
            json!({"aws": {"region": "r", "key": {"id": "k", "role": {"from": "f", "from.id": "i"}}}}),
            json!({"region": "r", "key": "k", "source": {"from": "f"}, "aws.key.role": {"from": {"id": "i"}}}),
        ] {
            let (keys, problems) = named(given.clone(), true);
            assert_eq!(keys, json!({"region": "r", "key": "k", "source": {"from": "f", "key": "i"}}), "{given}: {problems:?}");
        }
        let deep = named(json!({"aws.key.role.from.role.from.id": "i"}), true);
        assert_eq!(deep, (json!({"source": {"source": {"key": "i"}}}), vec![]));
    }

    #[test]
    fn problems_have_the_name_that_was_given() {
        for (given, expected) in [
            (
                json!({"aws.region": 1, "region": 2}),
                "  - configs.aws.region: means the same as region, which is given too; keep one of them",
            ),
            (
                json!({"aws": {"region": 1}, "zone": 2}),
                "  - configs.zone: means the same as aws.region, which is given too; keep one of them",
            ),
            (json!({"aws.regoin": 1}), "  - configs.aws.regoin: there is no such key; did you mean aws.region?"),
            (json!({"aws": {"regoin": 1}}), "  - configs.aws.regoin: there is no such key; did you mean aws.region?"),
            (json!({"aws.class": "x.Y"}), "  - configs.aws.class: write a command"),
            (json!({"source": 1, "aws.key.role.from": "f"}), "which is given too"),
        ] {
            let (_, problems) = named(given.clone(), true);
            assert!(problems.len() == 1 && problems[0].contains(expected), "{given}: {problems:?}");
        }
    }

    #[test]
    fn where_mappings_are_not_names_they_are_not_taken_apart() {
        let (keys, problems) = named(json!({"aws": {"region": 1}}), false);
        assert!(keys == json!({}) && problems[0].contains("configs.aws: there is no such key"), "{keys}: {problems:?}");
    }

    #[test]
    fn what_is_laid_over_wins_key_by_key() {
        let mut named = Named::from(json!({"a": 1, "m": {"x": 1, "y": 1}}).as_object().expect("an object").clone());
        named.overlay(Named::from(json!({"a": 2, "m": {"y": 2}}).as_object().expect("an object").clone()));
        assert_eq!(Value::Object(named.keys), json!({"a": 2, "m": {"x": 1, "y": 2}}));
    }
}
