//! DynamoDB's attribute values as plain data: what the sink's stages pass on.
//!
//! `json` reads and writes DynamoDB JSON, `number` knows which numbers are valid and which are equal, `check` finds what DynamoDB
//! would refuse before it is sent, `size` weighs, `equal` compares, `key` names an item by its primary key.

mod check;
mod equal;
mod json;
mod key;
mod number;
mod size;

use std::collections::BTreeMap;

pub use check::{Invalid, MAX_ITEM_BYTES, MAX_NESTING, MAX_PARTITION_KEY_BYTES, MAX_SORT_KEY_BYTES, check_item, check_key};
pub use equal::{same_item, same_value};
pub(crate) use json::Attributes;
pub use json::{is_type_tag, item_from_json, to_json};
pub use key::{BadKey, ItemKey};
pub use number::Number;
pub use size::{item_size, plain_wire_size, wire_size};

/// An attribute value. Numbers keep their literal text: 38 digits fit no machine type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    S(String),
    N(String),
    B(Vec<u8>),
    Bool(bool),
    Null,
    Ss(Vec<String>),
    Ns(Vec<String>),
    Bs(Vec<Vec<u8>>),
    L(Vec<Value>),
    M(Item),
}

impl Value {
    /// Its type as DynamoDB JSON writes it.
    pub fn type_tag(&self) -> &'static str {
        match self {
            Value::S(_) => "S",
            Value::N(_) => "N",
            Value::B(_) => "B",
            Value::Bool(_) => "BOOL",
            Value::Null => "NULL",
            Value::Ss(_) => "SS",
            Value::Ns(_) => "NS",
            Value::Bs(_) => "BS",
            Value::L(_) => "L",
            Value::M(_) => "M",
        }
    }
}

/// An item, or a map inside one.
pub type Item = BTreeMap<String, Value>;
