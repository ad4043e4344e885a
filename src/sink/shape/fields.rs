//! Which attributes an item has, under which names, and what becomes of nulls, empty strings and lists that should be sets.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{
    dynamodb::attribute::{Item, Number, Value},
    ports::KeySchema,
    sink::poison::{Poison, Reason},
};

/// What becomes of null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nulls {
    /// NULL, as Flink's and RisingWave's sinks write it.
    #[default]
    Keep,
    /// An attribute that is null is left out; nulls inside of maps and lists stay, as with Flink's `sink.ignore-nulls`.
    Omit,
    /// Those inside of maps are left out too. A list keeps its nulls: the others would move.
    OmitNested,
}

/// What becomes of an attribute that is an empty string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmptyStrings {
    #[default]
    Keep,
    Omit,
    Null,
}

/// A set that a list becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetType {
    Strings,
    Numbers,
    Binaries,
}

/// What is done to the attributes of an item, in the order of the fields here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Maps become attributes of their own, `outer` + this + `inner`.
    pub flatten: Option<String>,
    /// Only these, and the table's key. Empty: all.
    pub include: BTreeSet<String>,
    /// Not these.
    pub exclude: BTreeSet<String>,
    /// New names by old ones.
    pub rename: BTreeMap<String, String>,
    pub sets: BTreeMap<String, SetType>,
    pub nulls: Nulls,
    pub empty_strings: EmptyStrings,
}

impl Fields {
    pub fn apply(&self, mut item: Item, schema: &KeySchema) -> Result<Item, Poison> {
        if *self == Self::default() {
            return Ok(item);
        }
        if let Some(delimiter) = &self.flatten {
            item = flatten(item, delimiter)?;
        }
        let is_key = |name: &String| schema.has(self.new_name(name));
        item.retain(|name, _| is_key(name) || ((self.include.is_empty() || self.include.contains(name)) && !self.exclude.contains(name)));
        item = self.renamed(item)?;
        for (name, set) in &self.sets {
            let Some(value) = item.remove(name) else { continue };
            if let Some(set) = to_set(value, *set).map_err(|poison| poison.at(name))? {
                item.insert(name.clone(), set);
            }
        }
        item.retain(|name, value| schema.has(name) || !self.leaves_out(value));
        for (name, value) in &mut item {
            if self.nulls == Nulls::OmitNested {
                omit_nested(value);
            }
            if self.empty_strings == EmptyStrings::Null && !schema.has(name) && is_empty(value) {
                *value = Value::Null;
            }
        }
        Ok(item)
    }

    /// Only the new names: for the key of a delete.
    pub fn renamed(&self, item: Item) -> Result<Item, Poison> {
        if self.rename.is_empty() {
            return Ok(item);
        }
        let mut renamed = Item::new();
        for (name, value) in item {
            let new = self.new_name(&name).to_owned();
            if renamed.insert(new, value).is_some() {
                let why = format!("{name:?} is to be named {:?}, which is there already", self.new_name(&name));
                return Err(Poison::new(Reason::NameInvalid, why));
            }
        }
        Ok(renamed)
    }

    fn new_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.rename.get(name).map_or(name, String::as_str)
    }

    fn leaves_out(&self, value: &Value) -> bool {
        (self.nulls != Nulls::Keep && *value == Value::Null) || (self.empty_strings == EmptyStrings::Omit && is_empty(value))
    }
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::S(text) if text.is_empty())
}

/// Takes maps apart, at all levels; an empty one stays.
fn flatten(item: Item, delimiter: &str) -> Result<Item, Poison> {
    fn add(name: String, value: Value, delimiter: &str, flat: &mut Item) -> Result<(), Poison> {
        match value {
            Value::M(inner) if !inner.is_empty() => {
                inner.into_iter().try_for_each(|(below, value)| add(format!("{name}{delimiter}{below}"), value, delimiter, flat))
            }
            _ if flat.contains_key(&name) => Err(Poison::new(Reason::NameInvalid, format!("flattened, {name:?} comes twice"))),
            value => {
                flat.insert(name, value);
                Ok(())
            }
        }
    }
    let mut flat = Item::new();
    item.into_iter().try_for_each(|(name, value)| add(name, value, delimiter, &mut flat))?;
    Ok(flat)
}

fn omit_nested(value: &mut Value) {
    match value {
        Value::M(map) => {
            map.retain(|_, value| *value != Value::Null);
            map.values_mut().for_each(omit_nested);
        }
        Value::L(list) => list.iter_mut().for_each(omit_nested),
        _ => {}
    }
}

/// A list, or one value, as a set. `None`: it would be empty, which DynamoDB does not have.
fn to_set(value: Value, set: SetType) -> Result<Option<Value>, Poison> {
    let members = match value {
        Value::Null => Vec::new(),
        Value::L(members) => members,
        set @ (Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) => return Ok(Some(set)),
        one => vec![one],
    };
    if members.is_empty() {
        return Ok(None);
    }
    let wrong = |member: &Value| {
        let wants = match set {
            SetType::Strings => "SS",
            SetType::Numbers => "NS",
            SetType::Binaries => "BS",
        };
        Poison::new(Reason::SetInvalid, format!("a member of type {} is none of {wants}", member.type_tag()))
    };
    Ok(Some(match set {
        SetType::Strings => Value::Ss(distinct(members, |member| match member {
            Value::S(text) => Ok((text.clone(), text)),
            // An enumeration of numbers, say: its literal text.
            Value::N(text) => Ok((text.clone(), text)),
            other => Err(wrong(&other)),
        })?),
        SetType::Numbers => Value::Ns(distinct(members, |member| match member {
            Value::N(text) | Value::S(text) => match Number::parse(&text) {
                Some(number) => Ok((number, text)),
                None => Err(Poison::new(Reason::SetInvalid, format!("{text:?} is no number"))),
            },
            other => Err(wrong(&other)),
        })?),
        SetType::Binaries => Value::Bs(distinct(members, |member| match member {
            Value::B(bytes) => Ok((bytes.clone(), bytes)),
            other => Err(wrong(&other)),
        })?),
    }))
}

/// The members in their order, each once. `read` gives what tells members apart, and the member.
fn distinct<K: std::hash::Hash + Eq, T>(members: Vec<Value>, read: impl Fn(Value) -> Result<(K, T), Poison>) -> Result<Vec<T>, Poison> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for member in members {
        let (identity, member) = read(member)?;
        if seen.insert(identity) {
            kept.push(member);
        }
    }
    Ok(kept)
}
