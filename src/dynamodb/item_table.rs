//! The table that the sink writes to.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use aws_sdk_dynamodb::{
    Client,
    primitives::Blob,
    types::{AttributeValue, DeleteRequest, PutRequest, ScalarAttributeType, TableDescription, TableStatus, WriteRequest},
};

use crate::{
    dynamodb::{
        attribute::{Item, ItemKey, Value},
        failure::classify,
    },
    error::{Error, Kind, Result},
    ports::{self, KeySchema, KeyType, Write},
};

/// One table, by BatchWriteItem.
///
/// Expects a client that makes one attempt for each call: the sink retries by itself, since it has to see throttling and must send a
/// newer write of an item instead of an older one. Its attempt time-out should be long (10 s or more): a request that was given up
/// can still land later, over what was written meanwhile.
#[derive(Debug)]
pub struct ItemTable {
    client: Client,
    table: String,
    /// Learnt by `describe`; names the items that come back unprocessed.
    schema: OnceLock<KeySchema>,
}

impl ItemTable {
    pub fn new(client: Client, table_name: impl Into<String>) -> Self {
        Self { client, table: table_name.into(), schema: OnceLock::new() }
    }

    async fn schema(&self) -> Result<&KeySchema> {
        if let Some(known) = self.schema.get() {
            return Ok(known);
        }
        let described = ports::ItemTable::describe(self).await?;
        Ok(self.schema.get_or_init(|| described))
    }

    /// The positions of what came back, by key: the service promises no order.
    fn positions(&self, writes: &[Arc<Write>], back: Vec<WriteRequest>, schema: &KeySchema) -> Result<Vec<usize>> {
        let doing = || format!("read which items of table {} were not processed", self.table);
        // Taken for lost: everything is sent again, which changes nothing for what was written.
        let lost = |why: String| Error::new(Kind::Unavailable, doing(), why);
        let keys = writes.iter().enumerate().map(|(at, write)| ItemKey::of(write.item(), schema).map(|key| (key, at)));
        let keys: HashMap<ItemKey, usize> = keys.collect::<Result<_, _>>().map_err(|why| Error::new(Kind::Invalid, doing(), why))?;
        let position = |request: WriteRequest| {
            let item = request.put_request.map(|put| put.item).or(request.delete_request.map(|delete| delete.key)).unwrap_or_default();
            let key = ItemKey::of(&key_of(item, schema), schema).map_err(|why| lost(why.to_string()))?;
            keys.get(&key).copied().ok_or_else(|| lost(format!("{key:?} was not sent")))
        };
        back.into_iter().map(position).collect()
    }
}

impl ports::ItemTable for ItemTable {
    async fn describe(&self) -> Result<KeySchema> {
        let doing = || format!("describe table {} (dynamodb:DescribeTable)", self.table);
        let answer = self.client.describe_table().table_name(&self.table).send().await;
        let answer = answer.map_err(|error| classify(doing(), error))?;
        let table = answer.table.ok_or_else(|| Error::new(Kind::Unavailable, doing(), "the answer describes no table"))?;
        match table.table_status() {
            Some(TableStatus::Creating) => Err(Error::new(Kind::Unavailable, doing(), "the table is being created")),
            Some(TableStatus::Deleting) => Err(Error::new(Kind::NotFound, doing(), "the table is being deleted")),
            Some(TableStatus::InaccessibleEncryptionCredentials) => {
                Err(Error::new(Kind::AccessDenied, doing(), "the table's encryption key cannot be used"))
            }
            _ => {
                let schema = key_schema(&table).map_err(|why| Error::new(Kind::Fatal, doing(), why))?;
                Ok(self.schema.get_or_init(|| schema).clone())
            }
        }
    }

    async fn batch_write(&self, writes: &[Arc<Write>]) -> Result<Vec<usize>> {
        let schema = self.schema().await?;
        let doing = || format!("write {} items to table {} (dynamodb:BatchWriteItem)", writes.len(), self.table);
        let requests: Vec<WriteRequest> =
            writes.iter().map(|write| request(write)).collect::<Result<_, _>>().map_err(|why| Error::new(Kind::Invalid, doing(), why))?;
        let answer = self.client.batch_write_item().request_items(&self.table, requests).send().await;
        let unprocessed = answer.map_err(|error| classify(doing(), error))?.unprocessed_items.unwrap_or_default();
        // One table only was asked for; the answer may call it by its name or its ARN.
        self.positions(writes, unprocessed.into_values().flatten().collect(), schema)
    }
}

fn key_schema(table: &TableDescription) -> Result<KeySchema, String> {
    let mut keys = Vec::new();
    for wanted in ["HASH", "RANGE"] {
        let Some(element) = table.key_schema().iter().find(|element| element.key_type.as_str() == wanted) else { continue };
        let name = element.attribute_name();
        let definition = table.attribute_definitions().iter().find(|definition| definition.attribute_name() == name);
        let key_type = match definition.map(|definition| definition.attribute_type()) {
            Some(ScalarAttributeType::S) => KeyType::S,
            Some(ScalarAttributeType::N) => KeyType::N,
            Some(ScalarAttributeType::B) => KeyType::B,
            other => return Err(format!("the key attribute {name:?} has the unknown type {other:?}")),
        };
        keys.push((name.to_owned(), key_type));
    }
    let mut keys = keys.into_iter();
    let partition = keys.next().ok_or("the table has no key schema")?;
    Ok(KeySchema { partition, sort: keys.next() })
}

fn request(write: &Write) -> Result<WriteRequest, String> {
    let builder = WriteRequest::builder();
    let built = match write {
        Write::Put(item) => PutRequest::builder().set_item(Some(outward(item))).build().map(|put| builder.put_request(put)),
        Write::Delete(key) => DeleteRequest::builder().set_key(Some(outward(key))).build().map(|delete| builder.delete_request(delete)),
    };
    built.map(|builder| builder.build()).map_err(|why| why.to_string())
}

fn outward(item: &Item) -> HashMap<String, AttributeValue> {
    item.iter().map(|(name, value)| (name.clone(), attribute_value(value))).collect()
}

fn attribute_value(value: &Value) -> AttributeValue {
    match value {
        Value::S(text) => AttributeValue::S(text.clone()),
        Value::N(text) => AttributeValue::N(text.clone()),
        Value::B(bytes) => AttributeValue::B(Blob::new(bytes.as_slice())),
        Value::Bool(truth) => AttributeValue::Bool(*truth),
        Value::Null => AttributeValue::Null(true),
        Value::Ss(texts) => AttributeValue::Ss(texts.clone()),
        Value::Ns(texts) => AttributeValue::Ns(texts.clone()),
        Value::Bs(blobs) => AttributeValue::Bs(blobs.iter().map(|bytes| Blob::new(bytes.as_slice())).collect()),
        Value::L(values) => AttributeValue::L(values.iter().map(attribute_value).collect()),
        Value::M(map) => AttributeValue::M(outward(map)),
    }
}

/// The key attributes of an item that came back. Keys are S, N or B.
fn key_of(mut item: HashMap<String, AttributeValue>, schema: &KeySchema) -> Item {
    let names = std::iter::once(&schema.partition).chain(&schema.sort).map(|(name, _)| name);
    let key = names.filter_map(|name| {
        let value = match item.remove(name)? {
            AttributeValue::S(text) => Value::S(text),
            AttributeValue::N(text) => Value::N(text),
            AttributeValue::B(bytes) => Value::B(bytes.into_inner()),
            _ => return None,
        };
        Some((name.clone(), value))
    });
    key.collect()
}
