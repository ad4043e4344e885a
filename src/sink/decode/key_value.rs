//! KEY_VALUE: two parts with a schema each. Source: `KeyValueSchemaInfo` and `KeyValue` in Pulsar 4.0.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    ports::{InboundMessage, Schema, SchemaKind},
    sink::poison::{Poison, Reason},
};

/// What a KEY_VALUE schema is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValueSchema {
    pub key: Schema,
    pub value: Schema,
    /// The key is the message's key, and the payload is the value alone.
    pub separated: bool,
}

/// The parts of a message; `None` is null.
pub type Parts<'a> = (Option<Cow<'a, [u8]>>, Option<&'a [u8]>);

impl KeyValueSchema {
    /// Errors say what is wrong with the schema.
    pub fn parse(schema: &Schema) -> Result<Self, String> {
        let property = |name: &str| schema.properties.get(name).map(String::as_str);
        let (key, rest) = prefixed(&schema.definition).ok_or("its key's schema is cut short")?;
        let (value, _) = prefixed(rest).ok_or("its value's schema is cut short")?;
        let part = |name: &str, definition: Option<&[u8]>| {
            let kind = property(name).and_then(SchemaKind::by_name).ok_or_else(|| format!("its property {name} names no schema type"))?;
            if kind == SchemaKind::KeyValue {
                return Err(format!("its property {name} is KEY_VALUE again"));
            }
            Ok(Schema { kind, definition: definition.unwrap_or_default().to_vec(), properties: Default::default() })
        };
        Ok(Self {
            key: part("key.schema.type", key)?,
            value: part("value.schema.type", value)?,
            // Absent, as in schemas of old clients: inline.
            separated: property("kv.encoding.type") == Some("SEPARATED"),
        })
    }
}

/// Takes a message apart. `separated`: the key is the message's key.
pub fn parts(message: &InboundMessage, separated: bool) -> Result<Parts<'_>, Poison> {
    let not_parseable = |why: String| Poison::new(Reason::NotParseable, why);
    if separated {
        let key = match &message.key {
            None => None,
            Some(text) if message.key_is_base64 => {
                Some(BASE64.decode(text).map_err(|why| not_parseable(format!("the message's key is not base64: {why}")))?.into())
            }
            Some(text) => Some(text.as_bytes().into()),
        };
        return Ok((key, Some(&message.payload)));
    }
    match prefixed(&message.payload).and_then(|(key, rest)| Some((key, prefixed(rest)?))) {
        Some((key, (value, []))) => Ok((key.map(Into::into), value)),
        _ => Err(not_parseable("the payload is no inline key and value: their lengths do not fit".into())),
    }
}

/// Bytes behind their length, a big-endian int32, and what is left; -1 is null.
fn prefixed(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    match i32::from_be_bytes(*length) {
        -1 => Some((None, rest)),
        length => rest.split_at_checked(usize::try_from(length).ok()?).map(|(part, rest)| (Some(part), rest)),
    }
}
