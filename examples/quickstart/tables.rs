//! The table `orders` with a stream, and its empty copy.

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
        StreamViewType,
    },
};

use crate::Result;

pub const ORIGINAL: &str = "orders";
pub const COPY: &str = "orders-copy";

pub type Item = std::collections::HashMap<String, AttributeValue>;

pub struct Tables {
    pub client: Client,
}

impl Tables {
    pub async fn create(endpoint: &str) -> Result<Self> {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("local", "local", None, None, "quickstart"))
            .build();
        let client = Client::from_conf(config);
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages).build()?;
        for (table, stream) in [(ORIGINAL, Some(stream)), (COPY, None)] {
            client
                .create_table()
                .table_name(table)
                .attribute_definitions(
                    AttributeDefinition::builder().attribute_name("orderId").attribute_type(ScalarAttributeType::S).build()?,
                )
                .key_schema(KeySchemaElement::builder().attribute_name("orderId").key_type(KeyType::Hash).build()?)
                .billing_mode(BillingMode::PayPerRequest)
                .set_stream_specification(stream)
                .send()
                .await
                .map_err(|error| format!("table {table} cannot be created: {}", aws_sdk_dynamodb::error::DisplayErrorContext(error)))?;
        }
        Ok(Self { client })
    }

    pub async fn scan(&self, table: &str) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = self.client.scan().table_name(table).consistent_read(true).set_exclusive_start_key(start).send().await?;
            items.extend(page.items.unwrap_or_default());
            match page.last_evaluated_key {
                Some(last) => start = Some(last),
                None => return Ok(items),
            }
        }
    }
}
