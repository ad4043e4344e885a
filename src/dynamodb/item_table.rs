//! The tables that the sink writes to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_dynamodb::{
    Client,
    primitives::Blob,
    types::{AttributeValue, ConsumedCapacity, ReturnConsumedCapacity, ScalarAttributeType, TableDescription, TableStatus},
};

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde::Serialize;

use super::{conditional, create_table::create_table, failure::classify};
use crate::{
    dynamodb::attribute::{Item, ItemKey, Value, plain_wire_size},
    error::{Error, Kind, Result},
    ports::{self, Action, Fate, KeySchema, KeyType, Vehicle, Write, Written},
};

/// What is around an item in a request, and more: for a buffer's size.
const ENVELOPE: usize = 64;

/// The tables of one account and region.
///
/// Expects a client that makes one attempt for each call: the sink retries by itself, since it has to see throttling and must send a
/// newer write of an item instead of an older one. Its attempt time-out should be long (10 s or more): a request that was given up
/// can still land later, over what was written meanwhile.
#[derive(Debug)]
pub struct ItemTables {
    client: Client,
    /// Learnt by `describe`; names the items that come back unprocessed.
    schemas: Mutex<HashMap<String, Arc<KeySchema>>>,
}

impl ItemTables {
    pub fn new(client: Client) -> Self {
        Self { client, schemas: Mutex::default() }
    }

    async fn schema(&self, table: &str) -> Result<Arc<KeySchema>> {
        let known = self.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned();
        match known {
            Some(known) => Ok(known),
            None => ports::ItemTables::describe(self, table).await.map(Arc::new),
        }
    }

    async fn batch_write(&self, writes: &[Arc<Write>]) -> Result<Written> {
        let doing = || format!("write {} items to table {} (dynamodb:BatchWriteItem)", writes.len(), tables(writes).join(", "));
        let body = body(writes).map_err(|why| Error::new(Kind::Invalid, doing(), why))?;
        // The SDK sees which tables they are, which may decide on the endpoint.
        let named = tables(writes).into_iter().map(|table| (table.to_owned(), Vec::new())).collect();
        let call = self.client.batch_write_item().set_request_items(Some(named)).customize().mutate_request(move |request| {
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = SdkBody::from(body.clone());
        });
        let answer = call.send().await.map_err(|error| classify(doing(), error))?;
        let consumed = units(answer.consumed_capacity.unwrap_or_default());
        let unprocessed = answer.unprocessed_items.unwrap_or_default();
        let mut fates = vec![Fate::Stored; writes.len()];
        if unprocessed.is_empty() {
            return Ok(Written { fates, consumed });
        }
        // Taken for lost where it cannot be told what came back: everything is sent again, which changes nothing for what was written.
        let lost = |why: String| Error::new(Kind::Unavailable, doing(), why);
        let mut places = Places::default();
        for (at, write) in writes.iter().enumerate() {
            places.add(at, write, self.schema(&write.table).await?).map_err(lost)?;
        }
        for (table, request) in unprocessed.into_iter().flat_map(|(table, back)| back.into_iter().map(move |one| (table.clone(), one))) {
            let item = request.put_request.map(|put| put.item).or(request.delete_request.map(|delete| delete.key)).unwrap_or_default();
            fates[places.of(&table, item).map_err(lost)?] = Fate::Unprocessed;
        }
        Ok(Written { fates, consumed })
    }
}

/// Where in a request each item is: the service promises no order of what comes back.
#[derive(Default)]
struct Places {
    schemas: HashMap<String, Arc<KeySchema>>,
    keys: HashMap<(String, ItemKey), usize>,
}

impl Places {
    fn add(&mut self, at: usize, write: &Write, schema: Arc<KeySchema>) -> Result<(), String> {
        let key = ItemKey::of(write.item(), &schema).map_err(|why| why.to_string())?;
        self.schemas.entry(write.table.to_string()).or_insert(schema);
        self.keys.insert((write.table.to_string(), key), at);
        Ok(())
    }

    fn of(&self, table: &str, item: HashMap<String, AttributeValue>) -> Result<usize, String> {
        // A table that was named by its name may come back by its ARN.
        let name = table.rsplit('/').next().unwrap_or(table);
        let schema = self.schemas.get(name).ok_or_else(|| format!("table {table} was not written to"))?;
        let key = ItemKey::of(&inward(item), schema).map_err(|why| why.to_string())?;
        let place = self.keys.get(&(name.to_owned(), key));
        place.copied().ok_or_else(|| format!("an item of table {table} came back that was not sent"))
    }
}

/// What a request has consumed, where the service says so.
pub(super) fn units(consumed: impl IntoIterator<Item = ConsumedCapacity>) -> Option<f64> {
    let units = consumed.into_iter().filter_map(|consumed| consumed.capacity_units);
    units.fold(None, |sum, units| Some(sum.unwrap_or(0.0) + units))
}

/// The tables of a request, each once.
fn tables(writes: &[Arc<Write>]) -> Vec<&str> {
    let mut tables: Vec<&str> = writes.iter().map(|write| &*write.table).collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

impl ports::ItemTables for ItemTables {
    async fn create(&self, name: &str, key: &KeySchema) -> Result<()> {
        create_table(&self.client, "table", name, key).await.map(drop)
    }

    async fn describe(&self, name: &str) -> Result<KeySchema> {
        let doing = || format!("describe table {name} (dynamodb:DescribeTable)");
        let answer = self.client.describe_table().table_name(name).send().await;
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
                let known = Arc::new(schema.clone());
                self.schemas.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), known);
                Ok(schema)
            }
        }
    }

    async fn write(&self, vehicle: Vehicle, writes: &[Arc<Write>]) -> Result<Written> {
        match (vehicle, writes) {
            (Vehicle::Batch, _) => self.batch_write(writes).await,
            (Vehicle::Single, [write]) => conditional::single(&self.client, write).await,
            (Vehicle::Single, _) => {
                Err(Error::new(Kind::Fatal, "write a single item", format!("{} writes were given: a defect", writes.len())))
            }
            (Vehicle::Transaction, _) => conditional::transaction(&self.client, writes).await,
        }
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

/// The body of BatchWriteItem, from our own values: the SDK would have each copied into its own types, a fifth of the sink's work. Source of the
/// form: "BatchWriteItem", Amazon DynamoDB API Reference.
fn body(writes: &[Arc<Write>]) -> Result<Bytes, String> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body<'w> {
        request_items: BTreeMap<&'w str, Vec<Request<'w>>>,
        return_consumed_capacity: &'static str,
    }
    #[derive(Serialize)]
    enum Request<'w> {
        #[serde(rename_all = "PascalCase")]
        PutRequest { item: &'w Item },
        #[serde(rename_all = "PascalCase")]
        DeleteRequest { key: &'w Item },
    }
    let mut request_items: BTreeMap<&str, Vec<Request<'_>>> = BTreeMap::new();
    let mut size = 0;
    for write in writes {
        let request = match &write.action {
            Action::Put(item) => Request::PutRequest { item },
            Action::Delete(key) => Request::DeleteRequest { key },
            Action::Update { .. } => return Err("a batch carries no updates: a defect".into()),
        };
        size += plain_wire_size(write.item()) + ENVELOPE;
        request_items.entry(&write.table).or_default().push(request);
    }
    let mut body = Vec::with_capacity(size);
    let whole = Body { request_items, return_consumed_capacity: ReturnConsumedCapacity::Total.as_str() };
    serde_json::to_writer(&mut body, &whole).map_err(|why| why.to_string())?;
    Ok(body.into())
}

pub(super) fn outward(item: &Item) -> HashMap<String, AttributeValue> {
    item.iter().map(|(name, value)| (name.clone(), attribute_value(value))).collect()
}

pub(super) fn attribute_value(value: &Value) -> AttributeValue {
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

/// An item that came back. A value of a type that is unknown here is left out.
pub(super) fn inward(item: HashMap<String, AttributeValue>) -> Item {
    item.into_iter().filter_map(|(name, value)| Some((name, own_value(value)?))).collect()
}

fn own_value(value: AttributeValue) -> Option<Value> {
    Some(match value {
        AttributeValue::S(text) => Value::S(text),
        AttributeValue::N(text) => Value::N(text),
        AttributeValue::B(bytes) => Value::B(bytes.into_inner()),
        AttributeValue::Bool(truth) => Value::Bool(truth),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::Ss(texts) => Value::Ss(texts),
        AttributeValue::Ns(texts) => Value::Ns(texts),
        AttributeValue::Bs(blobs) => Value::Bs(blobs.into_iter().map(Blob::into_inner).collect()),
        AttributeValue::L(values) => Value::L(values.into_iter().map(own_value).collect::<Option<_>>()?),
        AttributeValue::M(map) => Value::M(inward(map)),
        _ => return None,
    })
}
