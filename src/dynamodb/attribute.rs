//! DynamoDB's attribute values as plain data: what the sink's stages pass on.

use std::collections::BTreeMap;

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

/// An item, or a map inside one.
pub type Item = BTreeMap<String, Value>;
