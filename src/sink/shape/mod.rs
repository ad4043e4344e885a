//! What a message asks for + the message around it → the item that is meant.

use super::{
    decode::{Decoded, Record},
    poison::{Poison, Reason},
};
use crate::{
    dynamodb::attribute::{Item, Value},
    ports::{InboundMessage, KeySchema},
};

/// How items are made of messages, as configured.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The attribute for the key of a KEY_VALUE message that is no record. A record's fields are attributes by themselves.
    pub key_attribute: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self { key_attribute: "key".into() }
    }
}

impl Shape {
    pub fn shape(&self, record: Record, message: &InboundMessage, schema: &KeySchema) -> Result<Decoded, Poison> {
        let key = record.key.map(|key| self.key_item(key));
        Ok(match (record.asks, key) {
            // The key is what identifies the item: it wins over a value's attribute of the same name.
            (Decoded::Put(mut item), Some(key)) => {
                item.extend(key);
                Decoded::Put(item)
            }
            (Decoded::Document(mut item), Some(key)) => {
                item.extend(key);
                Decoded::Document(item)
            }
            (Decoded::Tombstone, Some(key)) => Decoded::DeleteLike(key),
            (Decoded::Tombstone, None) => Decoded::DeleteLike(message_key(message, schema)?),
            (asks, _) => asks,
        })
    }

    fn key_item(&self, key: Value) -> Item {
        match key {
            Value::M(fields) => fields,
            scalar => Item::from([(self.key_attribute.clone(), scalar)]),
        }
    }
}

/// The message's key, taken as the table's key.
fn message_key(message: &InboundMessage, schema: &KeySchema) -> Result<Item, Poison> {
    let no_key = |why: &str| Poison::new(Reason::NoKey, format!("a message without a value names its item by its key, {why}"));
    let key = message.key.as_ref().ok_or_else(|| no_key("and has none"))?;
    match &schema.sort {
        None => Ok(Item::from([(schema.partition.0.clone(), Value::S(key.clone()))])),
        Some((sort, _)) => Err(no_key(&format!("and the table's key has two attributes, {} and {sort}", schema.partition.0))),
    }
}
