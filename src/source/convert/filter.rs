//! Which records are wanted, by event name and by what the item's attributes say: patterns in the spirit of AWS Lambda's event filtering.
//!
//! A record is wanted if one pattern matches, a pattern matches if all its conditions do, and a condition matches if one of its
//! alternatives does:
//!
//! ```yaml
//! filter:
//!   - eventName: [INSERT, MODIFY]
//!     newImage:
//!       status: [paid, shipped]                  # one of these texts
//!       total: [{numeric: [">=", 100]}]          # a number of at least 100
//!       address: {city: [{prefix: "New "}]}      # an attribute inside a map
//!   - eventName: [REMOVE]
//!     userIdentity: {principalId: [{exists: false}]}   # deleted by somebody, not by TTL
//! ```

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::Record;
use crate::dynamodb::attribute::Number;

/// What is wrong with a filter: where, and what to write instead.
pub type Wrong = (String, String);

/// All records match the default, which has no patterns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(Vec<Pattern>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Pattern {
    event_name: Vec<Test>,
    user_identity: Vec<(String, Node)>,
    keys: Vec<(String, Node)>,
    new_image: Vec<(String, Node)>,
    old_image: Vec<(String, Node)>,
}

/// What is asked of one attribute.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// One of these.
    Any(Vec<Test>),
    /// Of the attributes of a map.
    Inside(Vec<(String, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Text(String),
    Number(Number),
    Bool(bool),
    Null,
    Exists(bool),
    Prefix(String),
    Suffix(String),
    AnythingBut(Vec<Test>),
    Numeric(Vec<(Comparison, Number)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

// === reading the configuration ===

impl Filter {
    /// Reads the patterns. All that is wrong comes back at once, each with its path, such as `[0].newImage.total`.
    pub fn compile(patterns: &[Map<String, Value>]) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let compiled = patterns.iter().enumerate().map(|(at, members)| {
            let mut pattern = Pattern::default();
            for (name, value) in members {
                let path = format!("[{at}].{name}");
                match name.as_str() {
                    "eventName" => pattern.event_name = tests(value, &path, &mut wrong),
                    "userIdentity" => pattern.user_identity = inside(value, &path, &mut wrong),
                    "keys" => pattern.keys = inside(value, &path, &mut wrong),
                    "newImage" => pattern.new_image = inside(value, &path, &mut wrong),
                    "oldImage" => pattern.old_image = inside(value, &path, &mut wrong),
                    _ => wrong.push((path, "a pattern has eventName, userIdentity, keys, newImage and oldImage".into())),
                }
            }
            for (name, _) in &pattern.user_identity {
                if !["principalId", "type"].contains(&name.as_str()) {
                    wrong.push((format!("[{at}].userIdentity.{name}"), "it has principalId and type".into()));
                }
            }
            if pattern == Pattern::default() && members.is_empty() {
                wrong.push((format!("[{at}]"), "an empty pattern matches every record: leave the filter out instead".into()));
            }
            pattern
        });
        let compiled = compiled.collect();
        if wrong.is_empty() { Ok(Self(compiled)) } else { Err(wrong) }
    }
}

fn inside(value: &Value, path: &str, wrong: &mut Vec<Wrong>) -> Vec<(String, Node)> {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().map(|(name, value)| (name.clone(), node(value, &format!("{path}.{name}"), wrong))).collect()
        }
        _ => {
            wrong.push((path.into(), "has to be a mapping of attribute names to conditions".into()));
            Vec::new()
        }
    }
}

fn node(value: &Value, path: &str, wrong: &mut Vec<Wrong>) -> Node {
    match value {
        Value::Object(_) => Node::Inside(inside(value, path, wrong)),
        _ => Node::Any(tests(value, path, wrong)),
    }
}

fn tests(value: &Value, path: &str, wrong: &mut Vec<Wrong>) -> Vec<Test> {
    match value {
        Value::Array(alternatives) if !alternatives.is_empty() => {
            alternatives.iter().filter_map(|alternative| test(alternative, path, wrong)).collect()
        }
        _ => {
            wrong.push((path.into(), "has to be a list of alternatives, such as [paid, shipped] or [{exists: false}]".into()));
            Vec::new()
        }
    }
}

fn test(value: &Value, path: &str, wrong: &mut Vec<Wrong>) -> Option<Test> {
    const OPERATORS: &str = "an alternative is a text, a number, true, false, null, or one of {exists: true}, {prefix: TEXT}, \
                             {suffix: TEXT}, {anything-but: [VALUES]}, {numeric: [\">=\", NUMBER, …]}";
    let mut refuse = || {
        wrong.push((path.into(), OPERATORS.into()));
        None
    };
    let literal = |value: &Value| match value {
        Value::Null => Some(Test::Null),
        Value::Bool(flag) => Some(Test::Bool(*flag)),
        Value::String(text) => Some(Test::Text(text.clone())),
        Value::Number(number) => Number::parse(&number.to_string()).map(Test::Number),
        Value::Array(_) | Value::Object(_) => None,
    };
    let Value::Object(operator) = value else { return literal(value).or_else(refuse) };
    let mut members = operator.iter();
    let (Some((name, operand)), None) = (members.next(), members.next()) else { return refuse() };
    let test = match (name.as_str(), operand) {
        ("exists", Value::Bool(flag)) => Some(Test::Exists(*flag)),
        ("prefix", Value::String(text)) => Some(Test::Prefix(text.clone())),
        ("suffix", Value::String(text)) => Some(Test::Suffix(text.clone())),
        ("anything-but", Value::Array(values)) if !values.is_empty() => {
            values.iter().map(literal).collect::<Option<Vec<_>>>().map(Test::AnythingBut)
        }
        ("anything-but", value) => literal(value).map(|test| Test::AnythingBut(vec![test])),
        ("numeric", Value::Array(parts)) => numeric(parts).map(Test::Numeric),
        _ => None,
    };
    test.or_else(refuse)
}

/// `[">=", 0, "<", 100]`. A number with more digits than YAML keeps may be given as text.
fn numeric(parts: &[Value]) -> Option<Vec<(Comparison, Number)>> {
    let pairs = parts.chunks(2).map(|pair| {
        let [Value::String(comparison), number] = pair else { return None };
        let comparison = match comparison.as_str() {
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            "=" => Comparison::Equal,
            ">=" => Comparison::GreaterOrEqual,
            ">" => Comparison::Greater,
            _ => return None,
        };
        let number = match number {
            Value::Number(number) => Number::parse(&number.to_string())?,
            Value::String(text) => Number::parse(text)?,
            _ => return None,
        };
        Some((comparison, number))
    });
    (!parts.is_empty()).then(|| pairs.collect()).flatten()
}

// === matching ===

impl Filter {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, record: &Record) -> bool {
        if self.is_empty() {
            return true;
        }
        let change = &record.members.dynamodb;
        // What `read` has written is JSON; what is not there has no attributes.
        let image = |json: Option<&[u8]>| json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        let (keys, new_image, old_image): (Map<_, _>, Map<_, _>, Map<_, _>) =
            (image(change.keys()), image(change.new_image()), image(change.old_image()));
        let text = |text: String| Value::Object(Map::from_iter([("S".to_owned(), Value::String(text))]));
        let identity = record.members.user_identity.as_ref();
        let members = [
            ("principalId", identity.and_then(|identity| identity.principal_id.as_ref())),
            ("type", identity.and_then(|identity| identity.kind.as_ref())),
        ];
        let identity = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value?.plain())))).collect();
        let name = text(record.event_name.clone());
        self.0.iter().any(|pattern| {
            (pattern.event_name.is_empty() || any(&pattern.event_name, Some(&name)))
                && all(&pattern.user_identity, &identity)
                && all(&pattern.keys, &keys)
                && all(&pattern.new_image, &new_image)
                && all(&pattern.old_image, &old_image)
        })
    }
}

fn all(conditions: &[(String, Node)], attributes: &Map<String, Value>) -> bool {
    conditions.iter().all(|(name, node)| match (node, attributes.get(name)) {
        (Node::Any(tests), value) => any(tests, value),
        (Node::Inside(conditions), value) => match value.and_then(|value| value.get("M")) {
            Some(Value::Object(inner)) => all(conditions, inner),
            _ => all(conditions, &Map::new()),
        },
    })
}

/// Whether one of the tests holds for an attribute value, or for the lack of it.
fn any(tests: &[Test], value: Option<&Value>) -> bool {
    tests.iter().any(|test| match (test, value) {
        (Test::Exists(wanted), value) => value.is_some() == *wanted,
        (_, None) => false,
        (Test::AnythingBut(tests), Some(value)) => !members(value).any(|member| tests.iter().any(|test| holds(test, &member))),
        (test, Some(value)) => members(value).any(|member| holds(test, &member)),
    })
}

/// One value to compare: a list or a set is as good as each of its members.
enum Member<'v> {
    Text(&'v str),
    Number(Number),
    Bool(bool),
    Null,
    Other,
}

fn members(value: &Value) -> Box<dyn Iterator<Item = Member<'_>> + '_> {
    let Some((tag, value)) = value.as_object().and_then(|members| members.iter().next()) else { return Box::new(std::iter::empty()) };
    let one = |value: &'_ Value, number: bool| match value {
        Value::String(text) if number => Number::parse(text).map_or(Member::Other, Member::Number),
        _ => Member::Other,
    };
    match (tag.as_str(), value) {
        ("S" | "B", Value::String(text)) => Box::new(std::iter::once(Member::Text(text))),
        ("N", value) => Box::new(std::iter::once(one(value, true))),
        ("BOOL", Value::Bool(flag)) => Box::new(std::iter::once(Member::Bool(*flag))),
        ("NULL", _) => Box::new(std::iter::once(Member::Null)),
        ("SS" | "BS", Value::Array(list)) => Box::new(list.iter().filter_map(Value::as_str).map(Member::Text)),
        ("NS", Value::Array(list)) => Box::new(list.iter().map(move |value| one(value, true))),
        ("L", Value::Array(list)) => Box::new(list.iter().flat_map(members)),
        _ => Box::new(std::iter::once(Member::Other)),
    }
}

fn holds(test: &Test, member: &Member) -> bool {
    match (test, member) {
        (Test::Text(wanted), Member::Text(text)) => wanted == text,
        (Test::Prefix(prefix), Member::Text(text)) => text.starts_with(prefix.as_str()),
        (Test::Suffix(suffix), Member::Text(text)) => text.ends_with(suffix.as_str()),
        (Test::Number(wanted), Member::Number(number)) => wanted == number,
        (Test::Bool(wanted), Member::Bool(flag)) => wanted == flag,
        (Test::Null, Member::Null) => true,
        (Test::Numeric(comparisons), Member::Number(number)) => comparisons.iter().all(|(comparison, bound)| {
            let order = number.cmp(bound);
            match comparison {
                Comparison::Less => order == Ordering::Less,
                Comparison::LessOrEqual => order != Ordering::Greater,
                Comparison::Equal => order == Ordering::Equal,
                Comparison::GreaterOrEqual => order != Ordering::Less,
                Comparison::Greater => order == Ordering::Greater,
            }
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Order, *};

    fn compile(json: &str) -> Result<Filter, Vec<Wrong>> {
        Filter::compile(&serde_json::from_str::<Vec<Map<String, Value>>>(json).expect("a list of mappings"))
    }

    /// Whether it takes such a record.
    fn matches(filter: &Filter, name: &str, more: &str, change: &str) -> bool {
        let text = format!(r#"{{"eventID":"1","eventName":"{name}",{more}"dynamodb":{{"SequenceNumber":"1",{change}}}}}"#);
        filter.matches(&Record::read(text.as_bytes(), Order::Compat).expect("a record"))
    }

    /// Whether `{"newImage":{"a":CONDITION}}` takes an item whose attribute `a` is this.
    fn takes(condition: &str, value: &str) -> bool {
        let filter = compile(&format!(r#"[{{"newImage":{{"a":{condition}}}}}]"#)).expect(condition);
        matches(&filter, "INSERT", "", &format!(r#""NewImage":{{"x":{{"S":"y"}},"a":{value}}}"#))
    }

    #[test]
    fn w22_each_operator_takes_and_leaves() {
        for (condition, good, bad) in [
            (r#"["paid","shipped"]"#, r#"{"S":"shipped"}"#, r#"{"S":"open"}"#),
            (r#"[5]"#, r#"{"N":"5.0"}"#, r#"{"S":"5"}"#),
            (r#"["5"]"#, r#"{"S":"5"}"#, r#"{"N":"5"}"#),
            (r#"[true]"#, r#"{"BOOL":true}"#, r#"{"BOOL":false}"#),
            (r#"[null]"#, r#"{"NULL":true}"#, r#"{"S":""}"#),
            (r#"[{"exists":true}]"#, r#"{"M":{}}"#, r#"{"S":"x"},"a":null"#),
            (r#"[{"prefix":"New "}]"#, r#"{"S":"New York"}"#, r#"{"S":"York"}"#),
            (r#"[{"suffix":".pdf"}]"#, r#"{"S":"a.pdf"}"#, r#"{"S":"a.txt"}"#),
            (r#"[{"anything-but":["a","b"]}]"#, r#"{"S":"c"}"#, r#"{"S":"b"}"#),
            (r#"[{"anything-but":7}]"#, r#"{"N":"8"}"#, r#"{"N":"7.0"}"#),
            (r#"[{"numeric":[">=",100,"<",200]}]"#, r#"{"N":"1E+2"}"#, r#"{"N":"200"}"#),
            (r#"[{"numeric":["=","12345678901234567890.5"]}]"#, r#"{"N":"12345678901234567890.5"}"#, r#"{"N":"12345678901234567890.6"}"#),
            (r#"[{"numeric":["<",-0.5]}]"#, r#"{"N":"-1"}"#, r#"{"N":"-0.25"}"#),
            (r#"["x"]"#, r#"{"SS":["w","x"]}"#, r#"{"SS":["w"]}"#),
            (r#"[2]"#, r#"{"L":[{"S":"2"},{"N":"2"}]}"#, r#"{"NS":["1"]}"#),
            (r#"{"b":{"c":["x"]}}"#, r#"{"M":{"b":{"M":{"c":{"S":"x"}}}}}"#, r#"{"M":{"b":{"S":"x"}}}"#),
            (r#"{"b":[{"exists":false}]}"#, r#"{"S":"no map"}"#, r#"{"M":{"b":{"S":""}}}"#),
        ] {
            assert!(takes(condition, good), "{condition} leaves {good}");
            if !bad.contains("null") {
                assert!(!takes(condition, bad), "{condition} takes {bad}");
            }
        }
        assert!(!takes(r#"[{"exists":false}]"#, r#"{"S":"x"}"#));
        let absent = compile(r#"[{"oldImage":{"a":[{"exists":true},"x",{"anything-but":"x"}]}}]"#).expect("good");
        assert!(!matches(&absent, "INSERT", "", r#""NewImage":{"a":{"S":"x"}}"#), "an image that is not there has no attributes");
    }

    #[test]
    fn w22_one_pattern_is_enough_and_all_its_conditions_are_needed() {
        let filter = compile(
            r#"[{"eventName":["INSERT"],"newImage":{"status":["paid"]},"keys":{"pk":[{"prefix":"order#"}]}},
                {"eventName":["REMOVE"],"userIdentity":{"principalId":[{"exists":false}]}}]"#,
        )
        .expect("good");
        let paid = r#""Keys":{"pk":{"S":"order#1"}},"NewImage":{"status":{"S":"paid"}}"#;
        let ttl = r#""userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"},"#;
        assert!(matches(&filter, "INSERT", "", paid));
        assert!(!matches(&filter, "MODIFY", "", paid));
        assert!(!matches(&filter, "INSERT", "", &paid.replace("order", "user")));
        assert!(!matches(&filter, "INSERT", "", &paid.replace("paid", "open")));
        assert!(matches(&filter, "REMOVE", "", paid));
        assert!(!matches(&filter, "REMOVE", ttl, paid), "a TTL delete");
        assert!(matches(&Filter::default(), "MODIFY", ttl, paid), "no filter takes all");
    }

    #[test]
    fn everything_wrong_is_told_at_its_place() {
        let wrong = compile(
            r#"[{"eventname":["INSERT"]},{},{"eventName":"INSERT","newImage":{"a":["x",{"prefix":1}],"b":[{"numeric":[">",1,"<"]}],"c":[]}},
                {"userIdentity":{"name":["x"]},"keys":["x"],"oldImage":{"m":{}}}]"#,
        )
        .expect_err("wrong");
        let places: Vec<&str> = wrong.iter().map(|(path, _)| path.as_str()).collect();
        let expected = [
            "[0].eventname",
            "[1]",
            "[2].eventName",
            "[2].newImage.a",
            "[2].newImage.b",
            "[2].newImage.c",
            "[3].keys",
            "[3].oldImage.m",
            "[3].userIdentity.name",
        ];
        assert_eq!(places, expected);
    }
}
