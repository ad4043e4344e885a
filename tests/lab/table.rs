//! Tables in DynamoDB Local.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::{
        AttributeDefinition, AttributeValue, BillingMode, DeleteRequest, KeySchemaElement, KeyType, PutRequest, ScalarAttributeType,
        StreamSpecification, StreamViewType, WriteRequest,
    },
};

use super::Lab;

pub type Item = HashMap<String, AttributeValue>;

pub struct Table {
    pub client: Client,
    pub name: String,
}

/// A client for DynamoDB Local.
pub fn client(lab: &Lab) -> Client {
    let http_client = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client)
        .endpoint_url(&lab.dynamodb_endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(&lab.access_key, "local", None, None, "lab"))
        .build();
    Client::from_conf(config)
}

impl Table {
    /// A table with the string partition key `pk` and the number sort key `sk`, and with a stream where a view type is given.
    pub async fn create(lab: &Lab, name: &str, stream: Option<StreamViewType>) -> Self {
        let table = Self { client: client(lab), name: format!("{name}-{}", lab.unique) };
        let attribute =
            |name: &str, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().expect("complete");
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("complete");
        let stream =
            stream.map(|view| StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().expect("complete"));
        table
            .client
            .create_table()
            .table_name(&table.name)
            .attribute_definitions(attribute("pk", ScalarAttributeType::S))
            .attribute_definitions(attribute("sk", ScalarAttributeType::N))
            .key_schema(key("pk", KeyType::Hash))
            .key_schema(key("sk", KeyType::Range))
            .billing_mode(BillingMode::PayPerRequest)
            .set_stream_specification(stream)
            .send()
            .await
            .expect("the table is created");
        table
    }

    /// Switches its stream off, or another one on.
    pub async fn switch_stream(&self, on: bool) {
        let view = on.then_some(StreamViewType::NewAndOldImages);
        let stream = StreamSpecification::builder().stream_enabled(on).set_stream_view_type(view).build().expect("complete");
        self.client.update_table().table_name(&self.name).stream_specification(stream).send().await.expect("the stream is switched");
    }

    pub async fn delete_table(&self) {
        self.client.delete_table().table_name(&self.name).send().await.expect("the table is deleted");
    }

    pub async fn put(&self, item: Item) {
        self.client.put_item().table_name(&self.name).set_item(Some(item)).send().await.expect("put");
    }

    pub async fn delete(&self, item: &Item) {
        let key = ["pk", "sk"].map(|name| (name.to_string(), item[name].clone()));
        self.client.delete_item().table_name(&self.name).set_key(Some(key.into())).send().await.expect("delete");
    }

    /// Up to 25 changes of different items: `Err` is a delete.
    pub async fn write(&self, changes: Vec<Result<Item, Item>>) {
        let mut requests: Vec<WriteRequest> = changes
            .into_iter()
            .map(|change| match change {
                Ok(item) => WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().expect("complete")),
                Err(key) => WriteRequest::builder().delete_request(DeleteRequest::builder().set_key(Some(key)).build().expect("complete")),
            })
            .map(|request| request.build())
            .collect();
        while !requests.is_empty() {
            let answer = self.client.batch_write_item().request_items(&self.name, requests).send().await.expect("batch write");
            requests = answer.unprocessed_items.and_then(|mut left| left.remove(&self.name)).unwrap_or_default();
        }
    }

    /// All items by their key, with what sets have no order for put in order, so that they can be compared.
    pub async fn items(&self) -> BTreeMap<String, String> {
        let mut items = BTreeMap::new();
        let mut start = None;
        loop {
            let page = self.client.scan().table_name(&self.name).consistent_read(true).set_exclusive_start_key(start).send().await;
            let page = page.expect("scan");
            items.extend(page.items.unwrap_or_default().iter().map(|item| (key(item), canonical_item(item))));
            match page.last_evaluated_key {
                Some(last) => start = Some(last),
                None => return items,
            }
        }
    }
}

fn key(item: &Item) -> String {
    format!("{:?} {:?}", item["pk"], item["sk"])
}

pub fn canonical_item(item: &Item) -> String {
    let sorted: BTreeMap<&String, String> = item.iter().map(|(name, value)| (name, canonical(value))).collect();
    format!("{sorted:?}")
}

fn canonical(value: &AttributeValue) -> String {
    let sorted = |tag: &str, members: &mut Vec<String>| {
        members.sort();
        format!("{tag} {members:?}")
    };
    match value {
        AttributeValue::Ss(members) => sorted("SS", &mut members.clone()),
        AttributeValue::Ns(members) => sorted("NS", &mut members.clone()),
        AttributeValue::Bs(members) => sorted("BS", &mut members.iter().map(|bytes| format!("{bytes:?}")).collect()),
        AttributeValue::L(members) => format!("L {:?}", members.iter().map(canonical).collect::<Vec<_>>()),
        AttributeValue::M(members) => format!("M {}", canonical_item(members)),
        other => format!("{other:?}"),
    }
}

/// Fails with the first few differences, not with two whole tables.
pub fn assert_equal(original: &BTreeMap<String, String>, copy: &BTreeMap<String, String>) {
    let keys: std::collections::BTreeSet<&String> = original.keys().chain(copy.keys()).collect();
    let different: Vec<_> = keys.into_iter().filter(|key| original.get(*key) != copy.get(*key)).collect();
    let shown: Vec<String> = different
        .iter()
        .take(5)
        .map(|key| format!("{key}\n  original: {:?}\n  copy:     {:?}", original.get(*key), copy.get(*key)))
        .collect();
    assert!(different.is_empty(), "{} of {} items differ:\n{}", different.len(), original.len(), shown.join("\n"));
}
