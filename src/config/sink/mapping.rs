//! How items are made of messages: keys of the sink.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    config::{
        source::{not_blank, table_name},
        validate::Problems,
    },
    dynamodb::attribute::{self, Item},
    ports::{KeySchema, KeyType},
    sink::shape::{self, DeleteMarker, EXPRESSIONS, Expression, Fields, Route, Shape, Since, Ttl},
};

/// What becomes of messages whose value is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tombstones {
    #[default]
    Delete,
    Ignore,
    Dlq,
}

/// What becomes of null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nulls {
    #[default]
    Null,
    Omit,
    OmitNested,
}

/// Also `true` and `false`, which Flink's `sink.ignore-nulls` has.
impl<'de> Deserialize<'de> for Nulls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        match given.as_str().map(str::to_owned).unwrap_or_else(|| given.to_string()).as_str() {
            "null" | "false" => Ok(Self::Null),
            "omit" | "true" => Ok(Self::Omit),
            "omit-nested" => Ok(Self::OmitNested),
            other => Err(serde::de::Error::custom(format!("unknown variant `{other}`, expected one of `null`, `omit`, `omit-nested`"))),
        }
    }
}

/// What becomes of empty strings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyStrings {
    #[default]
    Keep,
    Omit,
    Null,
}

/// A type of set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SetType {
    SS,
    NS,
    BS,
}

/// From when the seconds to live count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TtlFrom {
    #[default]
    Now,
    PublishTime,
    EventTime,
}

/// Keys of the sink below `configs` that say how items are made of messages.
///
/// Expressions are `value.FIELD` (also of a field: `value.a.b`), `key` and `key.FIELD` (of KEY_VALUE, or of the message's key, which may be a JSON
/// object), `property.NAME`, `properties`, `topic`, `topicName`, `tenant`, `namespace`, `partition`, `messageId`, `publishTime` and `eventTime`
/// (milliseconds since 1970), `orderingKey`, `producerName`, `sequenceId` (not of messages in batches: the Pulsar client does not tell it).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MappingKeys {
    /// Where the table's key attributes come from: `["pk=value.customer.id", "sk=messageId"]`, one entry for each; a name alone is the
    /// attribute of that name. An expression is `value.FIELD` (also `value.a.b`), `key`, `key.FIELD` (of KEY_VALUE, or of a message key that is a
    /// JSON object), `property.NAME`, `topic`, `topicName`, `tenant`, `namespace`, `partition`, `messageId`, `publishTime`, `eventTime`,
    /// `orderingKey`, `producerName` or `sequenceId`. Keys that come from numbers or texts follow the table's types. Default: the attributes that
    /// the table's key names.
    pub primary_key: Vec<String>,
    /// The attribute for the key of a KEY_VALUE message that is no record; a record's fields are attributes by themselves. Default: `key`.
    pub key_attribute: String,
    /// What becomes of messages whose value is null: `delete` (the item that `primaryKey` names, else the key of KEY_VALUE, else the message's
    /// key, where the table's key has one attribute), `ignore`, or `dlq`.
    pub tombstones: Tombstones,
    /// What marks a message as a delete although it has a value: `{field: op, values: [d]}`, or `{property: op, values: [d]}`.
    pub delete_marker: Option<BTreeMap<String, Value>>,
    /// The attributes to write, beside the table's key. Default: all.
    pub include_fields: Vec<String>,
    /// Attributes to leave out; the table's key stays.
    pub exclude_fields: Vec<String>,
    /// New names of attributes: `{customerId: pk}`.
    pub rename_fields: BTreeMap<String, String>,
    /// Makes attributes of what is in maps, at all levels, with this between the names: with `_`, `address: {city: x}` becomes `address_city: x`.
    /// Include, exclude and rename go by the new names. Default: maps stay.
    pub flatten: Option<String>,
    /// Lists that become sets, without duplicates; an empty one is left out: `{tags: SS, numbers: NS}`.
    pub set_attributes: BTreeMap<String, SetType>,
    /// What becomes of null: `null` (NULL, as Flink's and RisingWave's sinks write it), `omit` (attributes that are null are left out, those inside
    /// of maps stay), or `omit-nested` (inside of maps too).
    pub nulls: Nulls,
    /// What becomes of attributes that are empty strings: `keep`, `omit` or `null`.
    pub empty_strings: EmptyStrings,
    /// Attributes that every item gets: `{origin: pulsar, version: 2}`, or with a type, `{tags: {SS: [a, b]}}`.
    pub static_attributes: BTreeMap<String, Value>,
    /// Attributes for what is known about the message: `{from: topic, sentAt: publishTime, headers: properties}`. The expressions are those of
    /// `primaryKey`, and `properties`.
    pub metadata_attributes: BTreeMap<String, String>,
    /// The attribute that the table's time to live goes by. Needs `ttlSeconds` or `ttlField`.
    pub ttl_attribute: Option<String>,
    /// Seconds that an item lives.
    pub ttl_seconds: Option<u64>,
    /// From when they count: `now`, `publishTime` or `eventTime`.
    pub ttl_from: TtlFrom,
    /// A field with seconds since 1970, `expires` or `meta.expires`: the item lives until then, and `ttlSeconds` longer. Milliseconds are refused.
    pub ttl_field: Option<String>,
    /// The tables that a `tableName` with `${…}` may come to; `*` stands for anything. Required with such a name.
    pub allowed_tables: Vec<String>,
    /// Create tables that are not there, billed on demand, with the key in `keySchema`.
    pub auto_create: bool,
    /// The key of tables that are created: `["pk:S"]`, or with a sort key `["pk:S", "sk:N"]`. Types: S, N, B.
    pub key_schema: Vec<String>,
}

impl Default for MappingKeys {
    fn default() -> Self {
        Self {
            primary_key: Vec::new(),
            key_attribute: "key".into(),
            tombstones: Tombstones::Delete,
            delete_marker: None,
            include_fields: Vec::new(),
            exclude_fields: Vec::new(),
            rename_fields: BTreeMap::new(),
            flatten: None,
            set_attributes: BTreeMap::new(),
            nulls: Nulls::Null,
            empty_strings: EmptyStrings::Keep,
            static_attributes: BTreeMap::new(),
            metadata_attributes: BTreeMap::new(),
            ttl_attribute: None,
            ttl_seconds: None,
            ttl_from: TtlFrom::Now,
            ttl_field: None,
            allowed_tables: Vec::new(),
            auto_create: false,
            key_schema: Vec::new(),
        }
    }
}

impl MappingKeys {
    /// `table`: the value of `tableName`.
    pub fn shape(&self, table: &str, problems: &mut Problems) -> Shape {
        problems.require(!self.key_attribute.is_empty(), "configs.keyAttribute", "has to be the name of an attribute");
        Shape {
            route: self.route(table, problems),
            key_attribute: self.key_attribute.clone(),
            primary_key: self.primary_key(problems),
            tombstones: match self.tombstones {
                Tombstones::Delete => shape::Tombstones::Delete,
                Tombstones::Ignore => shape::Tombstones::Ignore,
                Tombstones::Dlq => shape::Tombstones::Poison,
            },
            delete_marker: self.delete_marker.as_ref().and_then(|given| delete_marker(given, problems)),
            fields: self.fields(problems),
            fixed: self.fixed(problems),
            metadata: self.metadata(problems),
            ttl: self.ttl(problems),
        }
    }

    fn route(&self, table: &str, problems: &mut Problems) -> Option<Route> {
        const ALLOWED: &str = "configs.allowedTables";
        if !Route::is_template(table) {
            problems.require(self.allowed_tables.is_empty(), ALLOWED, "has no meaning without a tableName with ${…}: leave it out");
            if !table.is_empty() {
                table_name(table, "configs.tableName", problems);
            }
            return None;
        }
        problems.require(
            !self.allowed_tables.is_empty(),
            ALLOWED,
            "is missing: the tables that tableName may come to, such as [orders-*]; what is in a message must not choose any table",
        );
        Route::parse(table, self.allowed_tables.clone()).map_err(|why| problems.add("configs.tableName", why)).ok()
    }

    fn primary_key(&self, problems: &mut Problems) -> BTreeMap<String, Expression> {
        const KEY: &str = "configs.primaryKey";
        let mut key = BTreeMap::new();
        for entry in &self.primary_key {
            let (name, text) = entry.split_once('=').map_or((entry.trim(), None), |(name, text)| (name.trim(), Some(text.trim())));
            let expression = match text {
                None => Some(Expression::Value(vec![name.to_owned()])),
                Some(text) => expression(text, KEY, problems),
            };
            problems.require(!name.is_empty(), KEY, format!("{entry:?} names no attribute: write pk=value.id"));
            if let Some(expression) = expression
                && key.insert(name.to_owned(), expression).is_some()
            {
                problems.add(KEY, format!("has {name} twice"));
            }
        }
        problems.require(self.primary_key.len() <= 2, KEY, "has more than two attributes: a partition key, and a sort key");
        key
    }

    fn fields(&self, problems: &mut Problems) -> Fields {
        problems.require(self.flatten.as_deref() != Some(""), "configs.flatten", "has to be at least one character, such as _");
        let mut names = BTreeSet::new();
        for (old, new) in &self.rename_fields {
            problems.require(!new.is_empty(), "configs.renameFields", format!("gives {old} no name"));
            problems.require(names.insert(new), "configs.renameFields", format!("gives two attributes the name {new}"));
        }
        Fields {
            flatten: self.flatten.clone().filter(|delimiter| !delimiter.is_empty()),
            include: self.include_fields.iter().cloned().collect(),
            exclude: self.exclude_fields.iter().cloned().collect(),
            rename: self.rename_fields.clone(),
            sets: self.set_attributes.iter().map(|(name, set)| (name.clone(), set_type(*set))).collect(),
            nulls: match self.nulls {
                Nulls::Null => shape::Nulls::Keep,
                Nulls::Omit => shape::Nulls::Omit,
                Nulls::OmitNested => shape::Nulls::OmitNested,
            },
            empty_strings: match self.empty_strings {
                EmptyStrings::Keep => shape::EmptyStrings::Keep,
                EmptyStrings::Omit => shape::EmptyStrings::Omit,
                EmptyStrings::Null => shape::EmptyStrings::Null,
            },
        }
    }

    fn fixed(&self, problems: &mut Problems) -> Item {
        let mut fixed = Item::new();
        for (name, given) in &self.static_attributes {
            match fixed_value(given) {
                Ok(value) => drop(fixed.insert(name.clone(), value)),
                Err(why) => problems.add("configs.staticAttributes", format!("{name}: {why}")),
            }
        }
        fixed
    }

    fn metadata(&self, problems: &mut Problems) -> BTreeMap<String, Expression> {
        let parse =
            |(name, text): (&String, &String)| Some((name.clone(), expression(text, "configs.metadataAttributes", &mut *problems)?));
        self.metadata_attributes.iter().filter_map(parse).collect()
    }

    fn ttl(&self, problems: &mut Problems) -> Option<Ttl> {
        let field = not_blank(self.ttl_field.clone());
        let Some(attribute) = not_blank(self.ttl_attribute.clone()) else {
            let alone = self.ttl_seconds.is_some() || field.is_some();
            problems.require(!alone, "configs.ttlAttribute", "is missing: the attribute that the table's time to live goes by");
            return None;
        };
        problems.require(
            self.ttl_seconds.is_some() || field.is_some(),
            "configs.ttlAttribute",
            "needs ttlSeconds (how long an item lives) or ttlField (a field that says until when)",
        );
        problems.require(
            field.is_none() || self.ttl_from == TtlFrom::Now,
            "configs.ttlFrom",
            "is given together with ttlField, which says from when: leave one of them out",
        );
        let since = match (field, self.ttl_from) {
            (Some(field), _) => Since::Field(expression(&format!("value.{field}"), "configs.ttlField", problems)?),
            (None, TtlFrom::Now) => Since::Now,
            (None, TtlFrom::PublishTime) => Since::PublishTime,
            (None, TtlFrom::EventTime) => Since::EventTime,
        };
        Some(Ttl { attribute, since, seconds: self.ttl_seconds.unwrap_or(0) })
    }

    /// The key of tables that are created; `None` where none are.
    pub fn created_key(&self, problems: &mut Problems) -> Option<KeySchema> {
        const KEY: &str = "configs.keySchema";
        if !self.auto_create {
            problems.require(self.key_schema.is_empty(), KEY, "has no meaning without autoCreate: true");
            return None;
        }
        let mut key = Vec::new();
        for entry in &self.key_schema {
            let (name, kind) = entry.rsplit_once(':').unwrap_or((entry, ""));
            let kind = match kind.trim() {
                "S" => KeyType::S,
                "N" => KeyType::N,
                "B" => KeyType::B,
                _ => {
                    problems.add(KEY, format!("{entry:?} has no type: write it as pk:S, with S, N or B"));
                    return None;
                }
            };
            key.push((name.trim().to_owned(), kind));
        }
        let mut key = key.into_iter();
        match (key.next(), key.next(), key.next()) {
            (Some(partition), sort, None) => Some(KeySchema { partition, sort }),
            _ => {
                problems.add(KEY, "has to be one or two attributes where tables are created: [\"pk:S\"] or [\"pk:S\", \"sk:N\"]");
                None
            }
        }
    }
}

fn expression(text: &str, key: &str, problems: &mut Problems) -> Option<Expression> {
    let parsed = Expression::parse(text);
    problems.require(parsed.is_some(), key, format!("{text:?} is none of {EXPRESSIONS}"));
    parsed
}

fn set_type(set: SetType) -> shape::SetType {
    match set {
        SetType::SS => shape::SetType::Strings,
        SetType::NS => shape::SetType::Numbers,
        SetType::BS => shape::SetType::Binaries,
    }
}

fn delete_marker(given: &BTreeMap<String, Value>, problems: &mut Problems) -> Option<DeleteMarker> {
    const KEY: &str = "configs.deleteMarker";
    const FORM: &str = "has to be {field: NAME, values: [VALUE]} or {property: NAME, values: [VALUE]}";
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let known = given.keys().all(|name| ["field", "property", "values"].contains(&name.as_str()));
    let values: Vec<String> =
        given.get("values").and_then(Value::as_array).map(|values| values.iter().map(text).collect()).unwrap_or_default();
    let found = match (given.get("field"), given.get("property")) {
        (Some(field), None) => Expression::parse(&format!("value.{}", text(field))),
        (None, Some(property)) => Expression::parse(&format!("property.{}", text(property))),
        _ => None,
    };
    match found {
        Some(found) if known && !values.is_empty() => Some(DeleteMarker { found, values }),
        _ => {
            problems.add(KEY, FORM);
            None
        }
    }
}

/// A value as plain YAML or JSON has it, or as DynamoDB JSON has it.
fn fixed_value(given: &Value) -> Result<attribute::Value, String> {
    Ok(match given {
        Value::Null => attribute::Value::Null,
        Value::Bool(truth) => attribute::Value::Bool(*truth),
        Value::Number(number) => attribute::Value::N(number.to_string()),
        Value::String(text) => attribute::Value::S(text.clone()),
        Value::Array(values) => attribute::Value::L(values.iter().map(fixed_value).collect::<Result<_, _>>()?),
        Value::Object(map) if map.len() == 1 && map.keys().all(|name| attribute::is_type_tag(name)) => {
            serde_json::from_value(given.clone()).map_err(|why| why.to_string())?
        }
        Value::Object(map) => {
            attribute::Value::M(map.iter().map(|(name, value)| Ok((name.clone(), fixed_value(value)?))).collect::<Result<_, String>>()?)
        }
    })
}
