//! Makes tables.

use aws_sdk_dynamodb::{
    Client,
    error::BuildError,
    types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType as Role, ScalarAttributeType},
};

use super::failure::classify;
use crate::{
    error::{Error, Kind, Result},
    ports::{KeySchema, KeyType},
};

/// CreateTable, billed on demand. `false`: it is there already, or on its way. Does not wait until it is active. `what`: "table" or more, for errors.
pub async fn create_table(client: &Client, what: &str, name: &str, key: &KeySchema) -> Result<bool> {
    let doing = || format!("create {what} {name} (dynamodb:CreateTable)");
    let mut call = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    let sort = key.sort.iter().map(|(name, kind)| (name, kind, Role::Range));
    for (name, kind, role) in std::iter::once((&key.partition.0, &key.partition.1, Role::Hash)).chain(sort) {
        let (attribute, element) = parts(name, *kind, role).map_err(|why| Error::new(Kind::Configuration, doing(), why))?;
        call = call.attribute_definitions(attribute).key_schema(element);
    }
    match call.send().await {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => Ok(false),
        Err(error) => Err(classify(doing(), error)),
    }
}

fn parts(name: &str, kind: KeyType, role: Role) -> Result<(AttributeDefinition, KeySchemaElement), BuildError> {
    let kind = match kind {
        KeyType::S => ScalarAttributeType::S,
        KeyType::N => ScalarAttributeType::N,
        KeyType::B => ScalarAttributeType::B,
    };
    let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()?;
    Ok((attribute, KeySchemaElement::builder().attribute_name(name).key_type(role).build()?))
}
