//! How messages are read: keys of the sink.

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{source::not_blank, validate::Problems},
    sink::decode::{self, OnMissingImage, ProtobufSchema, Rules},
};

/// How payloads are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InputFormat {
    #[default]
    Auto,
    Schema,
    ChangeEvent,
    DynamodbJson,
    Json,
}

/// How dates and times are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TemporalFormat {
    #[default]
    Iso,
    Flink,
    Risingwave,
    EpochSeconds,
    EpochMillis,
}

/// What becomes of numbers that are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NonFinite {
    #[default]
    Dlq,
    Null,
    String,
}

/// What nested JSON becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JsonMode {
    #[default]
    Document,
    String,
}

/// What becomes of a change event that asks for an image that it does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MissingImage {
    #[default]
    Dlq,
    Ignore,
}

/// Keys of the sink below `configs` that say how messages are read.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InputKeys {
    /// How payloads are read: `auto` (by the message's schema; JSON, text and bytes by their own form, which is one of the following),
    /// `schema` (by the message's schema alone: STRING is text, BYTES and no schema are binary), `change-event` (the source's messages: INSERT
    /// and MODIFY put the new image, REMOVE deletes), `dynamodb-json` (`{"pk":{"S":"a"}}`, also below `Item`), or `json` (a plain object with
    /// the table's key attributes). The last three read every payload as such text, whatever its schema.
    pub input_format: InputFormat,
    /// How dates and times of a schema are written: `iso` (`2020-01-31T10:15:00Z`), `flink` or `risingwave` (as those systems' sinks write
    /// them, so that a table of theirs goes on unchanged), `epoch-seconds` or `epoch-millis` (numbers).
    pub temporal_format: TemporalFormat,
    /// What becomes of NaN and infinite numbers, which DynamoDB does not have: `dlq` (the message goes to the dead-letter topic), `null`, or
    /// `string` (`NaN`, `Infinity`).
    pub non_finite: NonFinite,
    /// What objects and arrays inside a JSON object become: `document` (maps and lists) or `string` (their text, as RisingWave writes `jsonb`).
    pub json_mode: JsonMode,
    /// The attribute for a value that is no record: a STRING, an INT32, an Avro array. Default: `value`.
    pub value_attribute: String,
    /// A `FileDescriptorSet` (`protoc --include_imports --descriptor_set_out=FILE`), for topics with schema type PROTOBUF, which does not tell
    /// the message's form. PROTOBUF_NATIVE needs none. Together with `protobufMessage`.
    pub protobuf_descriptor_file: Option<String>,
    /// The full name of the message in `protobufDescriptorFile`, such as `shop.Order`.
    pub protobuf_message: Option<String>,
    /// Take every empty payload for null, also where its schema has empty values (STRING, BYTES, Protobuf): the Pulsar client does not tell
    /// for messages of a batch. Without it, an empty payload is null where it can be nothing else, and in a batch of Protobuf messages.
    pub empty_payload_is_tombstone: bool,
    /// What becomes of a change event without the new image that a put needs (of a KEYS_ONLY or OLD_IMAGE stream): `dlq` or `ignore`.
    pub on_missing_image: MissingImage,
    /// Whether the removals of DynamoDB's time to live are deletes here too. `false`: they are left out, for a copy that keeps what expires.
    pub replay_ttl_deletes: bool,
}

impl Default for InputKeys {
    fn default() -> Self {
        Self {
            input_format: InputFormat::Auto,
            temporal_format: TemporalFormat::Iso,
            non_finite: NonFinite::Dlq,
            json_mode: JsonMode::Document,
            value_attribute: "value".into(),
            protobuf_descriptor_file: None,
            protobuf_message: None,
            empty_payload_is_tombstone: false,
            on_missing_image: MissingImage::Dlq,
            replay_ttl_deletes: true,
        }
    }
}

impl InputKeys {
    pub fn rules(&self, problems: &mut Problems) -> Rules {
        problems.require(!self.value_attribute.is_empty(), "configs.valueAttribute", "has to be the name of an attribute");
        Rules {
            format: match self.input_format {
                InputFormat::Auto => decode::InputFormat::Auto,
                InputFormat::Schema => decode::InputFormat::Schema,
                InputFormat::ChangeEvent => decode::InputFormat::ChangeEvent,
                InputFormat::DynamodbJson => decode::InputFormat::DynamodbJson,
                InputFormat::Json => decode::InputFormat::Json,
            },
            temporal: match self.temporal_format {
                TemporalFormat::Iso => decode::TemporalFormat::Iso,
                TemporalFormat::Flink => decode::TemporalFormat::Flink,
                TemporalFormat::Risingwave => decode::TemporalFormat::Risingwave,
                TemporalFormat::EpochSeconds => decode::TemporalFormat::EpochSeconds,
                TemporalFormat::EpochMillis => decode::TemporalFormat::EpochMillis,
            },
            non_finite: match self.non_finite {
                NonFinite::Dlq => decode::NonFinite::Poison,
                NonFinite::Null => decode::NonFinite::Null,
                NonFinite::String => decode::NonFinite::String,
            },
            json: match self.json_mode {
                JsonMode::Document => decode::JsonMode::Document,
                JsonMode::String => decode::JsonMode::String,
            },
            value_attribute: self.value_attribute.clone(),
            protobuf: self.protobuf(problems),
            empty_is_tombstone: self.empty_payload_is_tombstone,
            missing_image: match self.on_missing_image {
                MissingImage::Dlq => OnMissingImage::Poison,
                MissingImage::Ignore => OnMissingImage::Ignore,
            },
            replay_ttl_deletes: self.replay_ttl_deletes,
            // By the write mode.
            old_images: false,
        }
    }

    fn protobuf(&self, problems: &mut Problems) -> Option<ProtobufSchema> {
        let (file, message) = (not_blank(self.protobuf_descriptor_file.clone()), not_blank(self.protobuf_message.clone()));
        let (file, message) = match (file, message) {
            (Some(file), Some(message)) => (file, message),
            (None, None) => return None,
            (Some(_), None) => {
                problems.add("configs.protobufMessage", "is missing: the full name of the message in protobufDescriptorFile");
                return None;
            }
            (None, Some(_)) => {
                let why = "is missing: write the descriptors with protoc --include_imports --descriptor_set_out=FILE";
                problems.add("configs.protobufDescriptorFile", why);
                return None;
            }
        };
        let read = fs::read(&file).map_err(|error| error.to_string()).and_then(|set| ProtobufSchema::of_descriptors(&set, &message));
        read.map_err(|why| problems.add("configs.protobufDescriptorFile", format!("{file} cannot be used: {why}"))).ok()
    }
}
