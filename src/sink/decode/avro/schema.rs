//! An Avro schema's JSON → what the reader goes by. Source: "Specification", Apache Avro 1.11.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

/// Names a type in its schema. Types that contain themselves need no more than that.
pub type TypeId = usize;

/// A parsed schema.
#[derive(Debug, Clone, PartialEq)]
pub struct AvroSchema {
    pub types: Vec<Type>,
    pub root: TypeId,
}

/// A type with its logical type. A logical type that is not known here, or does not fit its type, is left aside, as Avro wants it.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record(Vec<(String, TypeId)>),
    /// As bytes of any length, or of a fixed one.
    Decimal {
        scale: i64,
        size: Option<usize>,
    },
    /// Each value brings its scale.
    BigDecimal,
    UuidBytes,
    Date,
    /// Nanoseconds in one step.
    Time {
        step: i64,
    },
    /// Nanoseconds in one step.
    Timestamp {
        step: i64,
        local: bool,
    },
    /// Months, days and milliseconds.
    Duration,
}

/// Nested deeper than any schema that people write; the parser calls itself.
const MAX_DEPTH: usize = 64;

impl AvroSchema {
    /// Errors say what is wrong with the schema.
    pub fn parse(definition: &[u8]) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(definition).map_err(|why| format!("it is no JSON: {why}"))?;
        let mut parser = Parser { types: Vec::new(), names: HashMap::new() };
        let root = parser.parse(&json, "", MAX_DEPTH)?;
        Ok(Self { types: parser.types, root })
    }
}

struct Parser {
    types: Vec<Type>,
    /// Types by their full name.
    names: HashMap<String, TypeId>,
}

impl Parser {
    fn add(&mut self, found: Type) -> TypeId {
        self.types.push(found);
        self.types.len() - 1
    }

    fn parse(&mut self, json: &Json, namespace: &str, depth: usize) -> Result<TypeId, String> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deep")?;
        match json {
            Json::String(name) => self.named(name, namespace),
            Json::Array(branches) => {
                let branches: Result<Vec<TypeId>, String> = branches.iter().map(|branch| self.parse(branch, namespace, depth)).collect();
                Ok(self.add(Type::Union(branches?)))
            }
            Json::Object(object) => self.object(object, namespace, depth),
            other => Err(format!("{other} is no type")),
        }
    }

    /// A primitive type, or one that was defined before.
    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some(primitive) = primitive(name) {
            return Ok(self.add(primitive));
        }
        let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        known.copied().ok_or_else(|| format!("type {name:?} is not defined"))
    }

    fn object(&mut self, object: &Map<String, Json>, namespace: &str, depth: usize) -> Result<TypeId, String> {
        let text = |name: &str| object.get(name).and_then(Json::as_str);
        let member = |name: &str| object.get(name).ok_or_else(|| format!("a type has no {name:?}"));
        let kind = match member("type")? {
            Json::String(kind) => kind.as_str(),
            // `{"type": {…}}` and `{"type": […]}` are allowed too.
            nested => return self.parse(nested, namespace, depth),
        };
        let logical = text("logicalType").unwrap_or_default();
        match kind {
            "record" | "error" | "enum" | "fixed" => {
                let own = text("name").ok_or("a record, enum or fixed has no name")?;
                let namespace = text("namespace").unwrap_or(namespace);
                let full = full_name(own, namespace);
                let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
                // Known before its fields are: it may contain itself.
                let id = self.add(Type::Null);
                self.names.insert(full, id);
                self.types[id] = match kind {
                    "enum" => Type::Enum(symbols(member("symbols")?)?),
                    "fixed" => fixed(object, logical)?,
                    _ => self.record(member("fields")?, &inner, depth)?,
                };
                Ok(id)
            }
            "array" => {
                let items = self.parse(member("items")?, namespace, depth)?;
                Ok(self.add(Type::Array(items)))
            }
            "map" => {
                let values = self.parse(member("values")?, namespace, depth)?;
                Ok(self.add(Type::Map(values)))
            }
            name => match logical_type(name, logical, object) {
                Some(logical) => Ok(self.add(logical)),
                None => self.named(name, namespace),
            },
        }
    }

    fn record(&mut self, fields: &Json, namespace: &str, depth: usize) -> Result<Type, String> {
        let fields = fields.as_array().ok_or("the fields of a record are no list")?;
        let mut parsed = Vec::with_capacity(fields.len());
        for field in fields {
            let name = field["name"].as_str().ok_or("a field has no name")?;
            let found = self.parse(&field["type"], namespace, depth).map_err(|why| format!("field {name:?}: {why}"))?;
            parsed.push((name.to_owned(), found));
        }
        Ok(Type::Record(parsed))
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int,
        "long" => Type::Long,
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "string" => Type::String,
        _ => return None,
    })
}

fn logical_type(kind: &str, logical: &str, object: &Map<String, Json>) -> Option<Type> {
    Some(match (kind, logical) {
        ("bytes", "decimal") => Type::Decimal { scale: scale(object)?, size: None },
        ("bytes", "big-decimal") => Type::BigDecimal,
        ("int", "date") => Type::Date,
        ("int", "time-millis") => Type::Time { step: 1_000_000 },
        ("long", "time-micros") => Type::Time { step: 1000 },
        ("long", "timestamp-millis") => Type::Timestamp { step: 1_000_000, local: false },
        ("long", "timestamp-micros") => Type::Timestamp { step: 1000, local: false },
        ("long", "timestamp-nanos") => Type::Timestamp { step: 1, local: false },
        ("long", "local-timestamp-millis") => Type::Timestamp { step: 1_000_000, local: true },
        ("long", "local-timestamp-micros") => Type::Timestamp { step: 1000, local: true },
        ("long", "local-timestamp-nanos") => Type::Timestamp { step: 1, local: true },
        _ => return None,
    })
}

fn fixed(object: &Map<String, Json>, logical: &str) -> Result<Type, String> {
    let size = object.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok()).ok_or("a fixed has no size")?;
    Ok(match (logical, size) {
        ("decimal", _) => scale(object).map_or(Type::Fixed(size), |scale| Type::Decimal { scale, size: Some(size) }),
        ("uuid", 16) => Type::UuidBytes,
        ("duration", 12) => Type::Duration,
        _ => Type::Fixed(size),
    })
}

/// 0 where it is absent; `None` where it is none.
fn scale(object: &Map<String, Json>) -> Option<i64> {
    object.get("scale").map_or(Some(0), Json::as_i64).filter(|scale| *scale >= 0)
}

fn symbols(json: &Json) -> Result<Vec<String>, String> {
    let symbols = json.as_array().map(|symbols| symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect());
    symbols.flatten().ok_or_else(|| "the symbols of an enum are no list of texts".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_their_namespace() {
        let text = br#"{"type":"record","name":"Order","namespace":"shop","fields":[
            {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW"]}},
            {"name":"next","type":["null","Order"]},
            {"name":"line","type":{"type":"array","items":{"type":"record","name":"other.Line","fields":[{"name":"s","type":"shop.State"}]}}},
            {"name":"lines","type":{"type":"map","values":"other.Line"}}]}"#;
        let schema = AvroSchema::parse(text).expect("a schema");
        let Type::Record(fields) = &schema.types[schema.root] else { panic!("no record") };
        let Type::Union(branches) = &schema.types[fields[1].1] else { panic!("no union") };
        assert_eq!(branches[1], schema.root, "it contains itself");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("{", "no JSON"),
            (r#""strin""#, "\"strin\" is not defined"),
            (r#"{"type":"record","name":"R","fields":[{"name":"a","type":"B"}]}"#, "field \"a\": type \"B\" is not defined"),
            (r#"{"type":"record","fields":[]}"#, "has no name"),
            (r#"{"type":"fixed","name":"F"}"#, "has no size"),
            ("1", "1 is no type"),
        ] {
            let error = AvroSchema::parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(AvroSchema::parse("[".repeat(100).as_bytes()).is_err());
        let deep = format!("{}\"int\"{}", "[".repeat(100), "]".repeat(100));
        assert!(AvroSchema::parse(deep.as_bytes()).expect_err("deep").contains("too deep"));
    }

    #[test]
    fn a_logical_type_that_does_not_fit_is_left_aside() {
        let of = |text: &str| AvroSchema::parse(text.as_bytes()).map(|schema| schema.types[schema.root].clone());
        assert_eq!(of(r#"{"type":"string","logicalType":"date"}"#), Ok(Type::String));
        assert_eq!(of(r#"{"type":"bytes","logicalType":"decimal","scale":-1}"#), Ok(Type::Bytes));
        assert_eq!(of(r#"{"type":"fixed","name":"F","size":3,"logicalType":"duration"}"#), Ok(Type::Fixed(3)));
    }
}
