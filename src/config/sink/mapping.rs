//! How items are made of messages: keys of the sink.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{config::validate::Problems, sink::shape::Shape};

/// Keys of the sink below `configs` that say how items are made of messages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingKeys {
    /// The attribute for the key of a KEY_VALUE message that is no record; a record's fields are attributes by themselves. Default: `key`.
    pub key_attribute: String,
}

impl Default for MappingKeys {
    fn default() -> Self {
        Self { key_attribute: "key".into() }
    }
}

impl MappingKeys {
    pub fn shape(&self, problems: &mut Problems) -> Shape {
        problems.require(!self.key_attribute.is_empty(), "configs.keyAttribute", "has to be the name of an attribute");
        Shape { key_attribute: self.key_attribute.clone() }
    }
}
