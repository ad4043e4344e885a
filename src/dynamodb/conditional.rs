//! Writes that are not for BatchWriteItem: with a condition, of some attributes only, or several that belong together.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError, transact_write_items::TransactWriteItemsError, update_item::UpdateItemError,
    },
    types::{
        AttributeValue, CancellationReason, ConsumedCapacity, Delete, Put, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
        TransactWriteItem, Update,
    },
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{
    failure::classify,
    item_table::{attribute_value, inward, outward, units},
};
use crate::{
    dynamodb::attribute::Item,
    error::{Error, Kind, Result},
    ports::{Action, Fate, Write, Written},
};

/// An item as the SDK has it.
type Attributes = HashMap<String, AttributeValue>;

/// PutItem, DeleteItem or UpdateItem.
pub async fn single(client: &Client, write: &Write) -> Result<Written> {
    let (action, table) = (&write.action, &*write.table);
    let terms = Terms::of(write);
    // What is there tells a write of somebody else from this very one, whose answer was lost.
    let all_old = write.condition.as_ref().map(|_| ReturnValuesOnConditionCheckFailure::AllOld);
    match action {
        Action::Put(item) => {
            let request = client.put_item().table_name(table).set_item(Some(outward(item)));
            let request = request.set_condition_expression(terms.condition).set_return_values_on_condition_check_failure(all_old);
            let request = request.set_expression_attribute_names(terms.names).set_expression_attribute_values(terms.values);
            let answer = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            written(answer.map(|answer| answer.consumed_capacity), doing(write), |error| match error {
                PutItemError::ConditionalCheckFailedException(failed) => Some(failed.item.clone()),
                _ => None,
            })
        }
        Action::Delete(key) => {
            let request = client.delete_item().table_name(table).set_key(Some(outward(key)));
            let request = request.set_condition_expression(terms.condition).set_return_values_on_condition_check_failure(all_old);
            let request = request.set_expression_attribute_names(terms.names).set_expression_attribute_values(terms.values);
            let answer = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            written(answer.map(|answer| answer.consumed_capacity), doing(write), |error| match error {
                DeleteItemError::ConditionalCheckFailedException(failed) => Some(failed.item.clone()),
                _ => None,
            })
        }
        Action::Update { key, .. } => {
            let request = client.update_item().table_name(table).set_key(Some(outward(key)));
            let request = request.set_update_expression(terms.update).set_condition_expression(terms.condition);
            let request = request.set_return_values_on_condition_check_failure(all_old);
            let request = request.set_expression_attribute_names(terms.names).set_expression_attribute_values(terms.values);
            let answer = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            written(answer.map(|answer| answer.consumed_capacity), doing(write), |error| match error {
                UpdateItemError::ConditionalCheckFailedException(failed) => Some(failed.item.clone()),
                _ => None,
            })
        }
    }
}

fn doing(write: &Write) -> String {
    let action = match write.action {
        Action::Put(_) => "PutItem",
        Action::Delete(_) => "DeleteItem",
        Action::Update { .. } => "UpdateItem",
    };
    format!("write an item of table {} (dynamodb:{action})", write.table)
}

/// `failed`: whether the error is that of a condition that is not met; and the item that is there.
fn written<E>(
    answer: std::result::Result<Option<ConsumedCapacity>, SdkError<E, HttpResponse>>,
    doing: String,
    failed: impl FnOnce(&E) -> Option<Option<Attributes>>,
) -> Result<Written>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(consumed) => Ok(Written { fates: vec![Fate::Stored], consumed: units(consumed) }),
        Err(error) => match error.as_service_error().and_then(failed) {
            Some(there) => Ok(Written { fates: vec![Fate::ConditionFailed { there: there.map(inward) }], consumed: None }),
            None => Err(classify(doing, error)),
        },
    }
}

/// TransactWriteItems: all of them, or none. After a cancellation each write has the fate of its own reason.
pub async fn transaction(client: &Client, writes: &[Arc<Write>]) -> Result<Written> {
    let doing = || format!("write {} items in one transaction (dynamodb:TransactWriteItems)", writes.len());
    let items = writes.iter().map(|write| transact_item(write)).collect::<Result<Vec<_>, _>>();
    let items = items.map_err(|why| Error::new(Kind::Invalid, doing(), why))?;
    let request = client.transact_write_items().set_transact_items(Some(items));
    let answer = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
    match answer {
        Ok(answer) => {
            Ok(Written { fates: vec![Fate::Stored; writes.len()], consumed: units(answer.consumed_capacity.unwrap_or_default()) })
        }
        Err(SdkError::ServiceError(answer)) if matches!(answer.err(), TransactWriteItemsError::TransactionCanceledException(_)) => {
            let error = answer.into_err();
            let reasons = match &error {
                TransactWriteItemsError::TransactionCanceledException(cancelled) => cancelled.cancellation_reasons(),
                _ => &[],
            };
            if reasons.len() != writes.len() {
                let why = format!("it was cancelled with {} reasons: {}", reasons.len(), error.message().unwrap_or_default());
                return Err(Error::new(Kind::Unavailable, doing(), why));
            }
            let fates = reasons.iter().map(|reason| cancelled_fate(reason, doing)).collect();
            Ok(Written { fates, consumed: None })
        }
        Err(error) => Err(classify(doing(), error)),
    }
}

/// The codes of a cancellation's reasons: "TransactWriteItems", Amazon DynamoDB API Reference. `None` is a literal text there.
fn cancelled_fate(reason: &CancellationReason, doing: impl Fn() -> String) -> Fate {
    let code = reason.code().unwrap_or("None");
    let why = || format!("{code}: {}", reason.message().unwrap_or_default());
    match code {
        "None" => Fate::RolledBack,
        "ConditionalCheckFailed" => Fate::ConditionFailed { there: reason.item.clone().map(inward) },
        "ValidationError" => Fate::Refused(Error::new(Kind::Invalid, doing(), why())),
        "ItemCollectionSizeLimitExceeded" => Fate::Refused(Error::new(Kind::ItemCollectionFull, doing(), why())),
        // Throttling and conflicts.
        _ => Fate::Unprocessed,
    }
}

fn transact_item(write: &Write) -> Result<TransactWriteItem, String> {
    let terms = Terms::of(write);
    let builder = TransactWriteItem::builder();
    let table = &*write.table;
    let all_old = write.condition.as_ref().map(|_| ReturnValuesOnConditionCheckFailure::AllOld);
    let built = match &write.action {
        Action::Put(item) => Put::builder()
            .table_name(table)
            .set_item(Some(outward(item)))
            .set_condition_expression(terms.condition)
            .set_return_values_on_condition_check_failure(all_old)
            .set_expression_attribute_names(terms.names)
            .set_expression_attribute_values(terms.values)
            .build()
            .map(|put| builder.put(put)),
        Action::Delete(key) => Delete::builder()
            .table_name(table)
            .set_key(Some(outward(key)))
            .set_condition_expression(terms.condition)
            .set_return_values_on_condition_check_failure(all_old)
            .set_expression_attribute_names(terms.names)
            .set_expression_attribute_values(terms.values)
            .build()
            .map(|delete| builder.delete(delete)),
        Action::Update { key, .. } => Update::builder()
            .table_name(table)
            .set_key(Some(outward(key)))
            .set_update_expression(terms.update)
            .set_condition_expression(terms.condition)
            .set_return_values_on_condition_check_failure(all_old)
            .set_expression_attribute_names(terms.names)
            .set_expression_attribute_values(terms.values)
            .build()
            .map(|update| builder.update(update)),
    };
    built.map(|builder| builder.build()).map_err(|why| why.to_string())
}

/// The expressions of a write. DynamoDB refuses empty maps and names that are not used.
#[derive(Debug, Default, PartialEq)]
struct Terms {
    update: Option<String>,
    condition: Option<String>,
    names: Option<HashMap<String, String>>,
    values: Option<HashMap<String, AttributeValue>>,
}

impl Terms {
    fn of(write: &Write) -> Self {
        let (mut names, mut values) = (HashMap::new(), HashMap::new());
        if let Some(condition) = write.condition.as_deref() {
            names.extend(condition.names.clone());
            values.extend(outward(&condition.values));
        }
        let update = match &write.action {
            Action::Update { set, remove, .. } => update_expression(set, remove.iter(), &mut names, &mut values),
            Action::Put(_) | Action::Delete(_) => None,
        };
        Self {
            update,
            condition: write.condition.as_deref().map(|condition| condition.expression.clone()),
            names: (!names.is_empty()).then_some(names),
            values: (!values.is_empty()).then_some(values),
        }
    }
}

/// `SET #io_set0 = :io_set0, … REMOVE #io_remove0, …`: names stand for themselves nowhere, since any of them may be a reserved word. A
/// condition's own placeholders begin otherwise: the configuration sees to it.
fn update_expression<'a>(
    set: &Item,
    remove: impl Iterator<Item = &'a String>,
    names: &mut HashMap<String, String>,
    values: &mut HashMap<String, AttributeValue>,
) -> Option<String> {
    let mut sets = Vec::new();
    for (at, (name, value)) in set.iter().enumerate() {
        names.insert(format!("#io_set{at}"), name.clone());
        values.insert(format!(":io_set{at}"), attribute_value(value));
        sets.push(format!("#io_set{at} = :io_set{at}"));
    }
    let mut removes = Vec::new();
    for (at, name) in remove.enumerate() {
        names.insert(format!("#io_remove{at}"), name.clone());
        removes.push(format!("#io_remove{at}"));
    }
    let part = |word: &str, terms: Vec<String>| (!terms.is_empty()).then(|| format!("{word} {}", terms.join(", ")));
    let parts: Vec<String> = part("SET", sets).into_iter().chain(part("REMOVE", removes)).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}
