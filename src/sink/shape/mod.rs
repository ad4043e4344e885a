//! What a message asks for + the message around it + the table's keys → the item that is meant.
//!
//! A put goes through these, in this order: the key of KEY_VALUE becomes attributes; maps are flattened, fields chosen and renamed, lists become
//! sets, nulls and empty strings follow their policies (`fields`); then what the message does not say itself is added: fixed attributes, what is
//! known about the message (`expression`), the time to live (`ttl`), and the key, where it is told by expressions.

mod expression;
mod fields;
mod route;
mod ttl;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use self::expression::Context;
pub use self::{
    expression::{EXPRESSIONS, Expression},
    fields::{EmptyStrings, Fields, Nulls, SetType},
    route::Route,
    ttl::{Since, Ttl},
};
use super::{
    decode::{Decoded, Record},
    map::coerce_keys,
    poison::{Poison, Reason},
};
use crate::{
    dynamodb::attribute::{Item, Value},
    ports::{InboundMessage, KeySchema},
};

/// What becomes of a message whose value is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tombstones {
    /// It removes the item that its key names.
    #[default]
    Delete,
    Ignore,
    Poison,
}

/// What marks a message as a delete although it has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteMarker {
    pub found: Expression,
    /// As text: `d`, `true`, `1`.
    pub values: Vec<String>,
}

/// How items are made of messages, as configured.
#[derive(Debug, Clone)]
pub struct Shape {
    /// `None`: one table for all.
    pub route: Option<Route>,
    /// The attribute for the key of a KEY_VALUE message that is no record. A record's fields are attributes by themselves.
    pub key_attribute: String,
    /// The table's key attributes by where they come from. Empty: the attributes of these names.
    pub primary_key: BTreeMap<String, Expression>,
    pub tombstones: Tombstones,
    pub delete_marker: Option<DeleteMarker>,
    pub fields: Fields,
    pub fixed: Item,
    pub metadata: BTreeMap<String, Expression>,
    pub ttl: Option<Ttl>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            route: None,
            key_attribute: "key".into(),
            primary_key: BTreeMap::new(),
            tombstones: Tombstones::Delete,
            delete_marker: None,
            fields: Fields::default(),
            fixed: Item::new(),
            metadata: BTreeMap::new(),
            ttl: None,
        }
    }
}

impl Shape {
    /// The table that a message is for; `None` where it is one for all.
    pub fn table(&self, record: &Record, message: &InboundMessage) -> Option<Result<Arc<str>, Poison>> {
        self.route.as_ref().map(|route| route.table(&context(record, message)))
    }

    /// What is wrong with `primaryKey`, given the table's key: they have to name the same attributes.
    pub fn contradicts(&self, schema: &KeySchema) -> Option<String> {
        let key: Vec<&String> = std::iter::once(&schema.partition).chain(&schema.sort).map(|(name, _)| name).collect();
        let same = self.primary_key.len() == key.len() && key.iter().all(|name| self.primary_key.contains_key(*name));
        let given: Vec<&String> = self.primary_key.keys().collect();
        (!self.primary_key.is_empty() && !same)
            .then(|| format!("primaryKey names {given:?}, the table's key is {key:?}: correct one of them"))
    }

    /// `now` is in epoch milliseconds.
    pub fn shape(&self, record: Record, message: &InboundMessage, schema: &KeySchema, now: u64) -> Result<Decoded, Poison> {
        if record.asks == Decoded::Tombstone {
            return self.tombstone(record, message, schema);
        }
        let (context, is_put) =
            (context(&record, message), matches!(record.asks, Decoded::Put(_) | Decoded::Document(_) | Decoded::Change { .. }));
        let primary_key = self.primary_key(&context)?;
        let deletes = is_put && self.delete_marker.as_ref().is_some_and(|marker| marker.marks(&context));
        let added = if is_put && !deletes { self.added(&context, now)? } else { Item::new() };
        let mut before = None;
        let (mut item, typed) = match record.asks {
            Decoded::Put(item) => (item, true),
            Decoded::Document(item) => (item, false),
            Decoded::Change { old, new } => {
                before = Some(old);
                (new, true)
            }
            Decoded::Delete(key) if primary_key.is_empty() => return Ok(Decoded::Delete(self.fields.renamed(key)?)),
            Decoded::Delete(key) | Decoded::DeleteLike(key) => return Ok(Decoded::DeleteLike(self.identified(key, primary_key)?)),
            Decoded::Tombstone | Decoded::Nothing => return Ok(Decoded::Nothing),
        };
        // The key is what identifies the item: it wins over a value's attribute of the same name.
        item.extend(record.key.map(|key| self.key_item(key)).unwrap_or_default());
        if deletes {
            return Ok(Decoded::DeleteLike(self.identified(item, primary_key)?));
        }
        let mut item = self.fields.apply(item, schema)?;
        item.extend(added);
        // Keys that are told follow the table's types, as those of plain JSON do.
        let typed = typed && primary_key.is_empty();
        item.extend(primary_key);
        match before {
            // The same is made of both, so that what they differ in is what the sink would have written before and would not now.
            Some(old) => {
                let old = self.fields.apply(old, schema).map_err(|poison| poison.at("OldImage"))?;
                if !typed {
                    coerce_keys(&mut item, schema);
                }
                Ok(Decoded::Change { old, new: item })
            }
            None if typed => Ok(Decoded::Put(item)),
            None => Ok(Decoded::Document(item)),
        }
    }

    /// What the message's value does not say.
    fn added(&self, context: &Context, now: u64) -> Result<Item, Poison> {
        let mut added = self.fixed.clone();
        added.extend(self.metadata.iter().filter_map(|(name, expression)| Some((name.clone(), expression.find(context)?))));
        if let Some(ttl) = &self.ttl {
            ttl.add(&mut added, context, now)?;
        }
        Ok(added)
    }

    /// Removes the item that the key names: by expressions, else by the key of KEY_VALUE, else by the message's.
    fn tombstone(&self, record: Record, message: &InboundMessage, schema: &KeySchema) -> Result<Decoded, Poison> {
        match self.tombstones {
            Tombstones::Ignore => return Ok(Decoded::Nothing),
            Tombstones::Poison => return Err(Poison::new(Reason::Tombstone, "the message has no value (tombstones: dlq)")),
            Tombstones::Delete => {}
        }
        let by_expressions = !self.primary_key.is_empty() && !self.primary_key.values().any(Expression::needs_value);
        if by_expressions {
            return Ok(Decoded::DeleteLike(self.primary_key(&context(&record, message))?));
        }
        Ok(Decoded::DeleteLike(match record.key {
            Some(key) => self.fields.renamed(self.key_item(key))?,
            None => message_key(message, schema)?,
        }))
    }

    /// The attributes that `primaryKey` tells.
    fn primary_key(&self, context: &Context) -> Result<Item, Poison> {
        let tell = |(name, expression): (&String, &Expression)| match expression.find(context) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(Poison::new(Reason::NoKey, format!("the message has no {expression} for the key attribute {name:?}"))),
        };
        self.primary_key.iter().map(tell).collect()
    }

    fn identified(&self, item: Item, primary_key: Item) -> Result<Item, Poison> {
        let mut item = self.fields.renamed(item)?;
        item.extend(primary_key);
        Ok(item)
    }

    fn key_item(&self, key: Value) -> Item {
        match key {
            Value::M(fields) => fields,
            scalar => Item::from([(self.key_attribute.clone(), scalar)]),
        }
    }
}

impl DeleteMarker {
    fn marks(&self, context: &Context) -> bool {
        let text = match self.found.find(context) {
            Some(Value::S(text) | Value::N(text)) => text,
            Some(Value::Bool(truth)) => truth.to_string(),
            _ => return false,
        };
        self.values.contains(&text)
    }
}

fn context<'a>(record: &'a Record, message: &'a InboundMessage) -> Context<'a> {
    Context { message, value: record.asks.value(), key: record.key.as_ref() }
}

/// The message's key, taken as the table's key.
fn message_key(message: &InboundMessage, schema: &KeySchema) -> Result<Item, Poison> {
    let no_key = |why: &str| Poison::new(Reason::NoKey, format!("a message without a value names its item by its key, {why}"));
    let key = message.key.as_ref().ok_or_else(|| no_key("and has none"))?;
    match &schema.sort {
        None => Ok(Item::from([(schema.partition.0.clone(), Value::S(key.clone()))])),
        Some((sort, _)) => {
            let why = format!("and the table's key has two attributes, {} and {sort}: tell them by primaryKey", schema.partition.0);
            Err(no_key(&why))
        }
    }
}
