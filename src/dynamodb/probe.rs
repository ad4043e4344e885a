//! Calls each service once, to tell before a start what is missing. Nothing that is there is changed: writes are such that they have no effect.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, Delete, DeleteRequest, Put, TransactWriteItem, WriteRequest},
};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::{
    Blob,
    error::{metadata::ProvideErrorMetadata, operation::BuildError},
};
use aws_types::SdkConfig;

use super::{client::Settings, failure::classify, item_table::ItemTables};
use crate::{
    error::{Error, Kind, Result},
    ports::{ItemTables as _, KeyType},
};

/// What one call said.
#[derive(Debug)]
pub struct Finding {
    /// The IAM action that the call needs.
    pub action: &'static str,
    /// What it was made on.
    pub on: String,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    /// It works, and this is what it showed.
    Works(String),
    /// It was not made, for this reason.
    NotTried(String),
    Fails(Error),
}

impl Finding {
    fn of(action: &'static str, on: &str, outcome: Result<String>) -> Self {
        let outcome = outcome.map_or_else(Outcome::Fails, Outcome::Works);
        Self { action, on: on.to_owned(), outcome }
    }

    fn not_tried(action: &'static str, on: &str, why: impl Into<String>) -> Self {
        Self { action, on: on.to_owned(), outcome: Outcome::NotTried(why.into()) }
    }

    fn works(&self) -> bool {
        matches!(self.outcome, Outcome::Works(_))
    }
}

/// No item has this key.
const NOBODY: &str = "pulsar-io-dynamodb check --connect";
/// As a number. Even if there was such an item: it is one in 10^38.
const NO_NUMBER: &str = "-73519846205518749023650187342956071823";

/// Who we are. `other_endpoints` says that the services are not AWS's own: then STS is only asked where it is configured.
pub async fn identity(config: &SdkConfig, settings: &Settings, other_endpoints: bool) -> Finding {
    const ACTION: &str = "sts:GetCallerIdentity";
    let place = settings.credentials.sts().cloned().unwrap_or_default();
    if other_endpoints && place.endpoint.is_none() {
        return Finding::not_tried(ACTION, "the credentials", "an endpoint is configured, but no awsStsEndpoint: that is no AWS account");
    }
    let answer = place.client(config, config.credentials_provider()).get_caller_identity().send().await;
    let answer = answer.map_err(|error| classify(format!("ask who we are ({ACTION})"), error));
    Finding::of(ACTION, "the credentials", answer.map(|answer| answer.arn.unwrap_or_default()))
}

/// CloudWatch has no call that would tell without leaving something behind.
pub fn metrics(namespace: &str) -> Finding {
    let why = "a metric that is put stays there; should it be refused, the log tells, and nothing else is held up";
    Finding::not_tried("cloudwatch:PutMetricData", namespace, why)
}

/// What a source calls. `stream` is a stream's ARN, a table's ARN or `table:NAME`.
pub async fn source(client: &Client, streams: &aws_sdk_dynamodbstreams::Client, stream: &str, lease_table: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let arn = if stream.contains("/stream/") {
        Some(stream.to_owned())
    } else {
        let (finding, arn) = latest_stream(client, stream.strip_prefix("table:").unwrap_or(stream)).await;
        findings.push(finding);
        arn
    };
    match arn {
        Some(arn) => findings.extend(read(streams, &arn).await),
        None => {
            for action in ["dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords"] {
                findings.push(Finding::not_tried(action, stream, "which stream is not known"));
            }
        }
    }
    findings.extend(leases(client, lease_table).await);
    findings
}

async fn latest_stream(client: &Client, table: &str) -> (Finding, Option<String>) {
    const ACTION: &str = "dynamodb:DescribeTable";
    let doing = || format!("find the stream of table {table} ({ACTION})");
    let answer = client.describe_table().table_name(table).send().await.map_err(|error| classify(doing(), error));
    let arn = answer.and_then(|answer| {
        let arn = answer.table.and_then(|table| table.latest_stream_arn);
        arn.ok_or_else(|| Error::new(Kind::Configuration, doing(), "the table has no stream; switch one on, with new and old images"))
    });
    let known = arn.as_ref().ok().cloned();
    (Finding::of(ACTION, table, arn), known)
}

async fn read(streams: &aws_sdk_dynamodbstreams::Client, arn: &str) -> Vec<Finding> {
    const DESCRIBE: &str = "dynamodb:DescribeStream";
    const ITERATOR: &str = "dynamodb:GetShardIterator";
    const RECORDS: &str = "dynamodb:GetRecords";
    let doing = |what: &str, action: &str| format!("{what} {arn} ({action})");
    let described = streams.describe_stream().stream_arn(arn).send().await;
    let described = described.map_err(|error| classify(doing("list the shards of", DESCRIBE), error));
    let stream = match described {
        Ok(answer) => answer.stream_description,
        Err(error) => {
            let unknown = |action| Finding::not_tried(action, arn, "no shard is known");
            return vec![Finding::of(DESCRIBE, arn, Err(error)), unknown(ITERATOR), unknown(RECORDS)];
        }
    };
    let status = stream.as_ref().and_then(|stream| stream.stream_status()).map_or("of no status", |status| status.as_str());
    let shards: Vec<&str> = stream.iter().flat_map(|stream| stream.shards()).filter_map(|shard| shard.shard_id()).collect();
    let mut findings = vec![Finding::of(DESCRIBE, arn, Ok(format!("{status}, {} shards on its first page", shards.len())))];
    // The last one is open, most likely.
    let Some(shard) = shards.last() else {
        findings.extend([ITERATOR, RECORDS].map(|action| Finding::not_tried(action, arn, "the stream has no shard")));
        return findings;
    };
    let request = streams.get_shard_iterator().stream_arn(arn).shard_id(*shard).shard_iterator_type(ShardIteratorType::TrimHorizon);
    let answer = request.send().await.map_err(|error| classify(doing("get an iterator for a shard of", ITERATOR), error));
    let iterator = answer.as_ref().ok().and_then(|answer| answer.shard_iterator.clone());
    findings.push(Finding::of(ITERATOR, arn, answer.map(|_| (*shard).to_owned())));
    findings.push(match iterator {
        Some(iterator) => {
            let answer = streams.get_records().shard_iterator(iterator).limit(1).send().await;
            let answer = answer.map_err(|error| classify(doing("read a shard of", RECORDS), error));
            Finding::of(RECORDS, arn, answer.map(|_| (*shard).to_owned()))
        }
        None => Finding::not_tried(RECORDS, arn, "there is no iterator"),
    });
    findings
}

/// Conditions that no item fulfils: what is answered is whether the call is allowed.
async fn leases(client: &Client, table: &str) -> Vec<Finding> {
    const DESCRIBE: &str = "dynamodb:DescribeTable";
    const KEY: &str = "leaseKey";
    const NEVER: &str = "attribute_exists(leaseKey) AND attribute_not_exists(leaseKey)";
    let doing = |action: &str| format!("use the lease table {table} ({action})");
    match client.describe_table().table_name(table).send().await.map_err(|error| classify(doing(DESCRIBE), error)) {
        Ok(_) => {}
        Err(error) if error.kind() == Kind::NotFound => {
            let absent = "the lease table does not exist yet; the source creates it when it starts";
            return vec![
                Finding::of(DESCRIBE, table, Ok("no such table yet".into())),
                Finding::not_tried("dynamodb:CreateTable", table, absent),
            ];
        }
        Err(error) => return vec![Finding::of(DESCRIBE, table, Err(error))],
    }
    let key = || AttributeValue::S(NOBODY.into());
    let scan = client.scan().table_name(table).limit(1).send().await.map_err(|error| classify(doing("dynamodb:Scan"), error));
    let put = client.put_item().table_name(table).item(KEY, key()).condition_expression(NEVER).send().await;
    let update = client.update_item().table_name(table).key(KEY, key()).update_expression("SET leaseCounter = leaseCounter");
    let update = update.condition_expression(NEVER).send().await;
    let delete = client.delete_item().table_name(table).key(KEY, key()).condition_expression(NEVER).send().await;
    let finding = |action: &'static str, outcome: Result<()>| Finding::of(action, table, outcome.map(|()| "allowed".into()));
    vec![
        Finding::of(DESCRIBE, table, Ok("there".into())),
        finding("dynamodb:Scan", scan.map(drop)),
        finding("dynamodb:PutItem", allowed(doing("dynamodb:PutItem"), put)),
        finding("dynamodb:UpdateItem", allowed(doing("dynamodb:UpdateItem"), update)),
        finding("dynamodb:DeleteItem", allowed(doing("dynamodb:DeleteItem"), delete)),
    ]
}

/// A condition that fails means that the call was allowed.
fn allowed<T, E>(doing: String, answer: Result<T, SdkError<E, HttpResponse>>) -> Result<()>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code(), Some("ConditionalCheckFailedException" | "TransactionCanceledException")) => Ok(()),
        Err(error) => Err(classify(doing, error)),
    }
}

/// Requests that a sink makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Batch,
    Put,
    Update,
    Delete,
    Transaction,
}

impl Request {
    fn action(self) -> &'static str {
        match self {
            Request::Batch => "dynamodb:BatchWriteItem",
            Request::Put => "dynamodb:PutItem",
            Request::Update => "dynamodb:UpdateItem",
            Request::Delete => "dynamodb:DeleteItem",
            // It has no action of its own: those of what is in it.
            Request::Transaction => "dynamodb:PutItem, dynamodb:DeleteItem (TransactWriteItems)",
        }
    }
}

/// What a sink calls. No item is changed: the batch deletes one that is not there, everything else has a condition that never holds.
pub async fn sink(client: &Client, table: &str, requests: &[Request]) -> Vec<Finding> {
    const DESCRIBE: &str = "dynamodb:DescribeTable";
    let keys = match ItemTables::new(client.clone()).describe(table).await {
        Ok(keys) => keys,
        Err(error) => {
            let untried = requests.iter().map(|request| Finding::not_tried(request.action(), table, "its key is not known"));
            return std::iter::once(Finding::of(DESCRIBE, table, Err(error))).chain(untried).collect();
        }
    };
    let parts: Vec<_> = std::iter::once(&keys.partition).chain(keys.sort.as_ref()).collect();
    let names = parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let nobody: HashMap<String, AttributeValue> = parts.into_iter().map(|(name, kind)| (name.clone(), nobody(*kind))).collect();
    let mut findings = vec![Finding::of(DESCRIBE, table, Ok(format!("there, with the key {names}")))];
    for request in requests {
        let written = try_out(client, table, *request, &nobody, &keys.partition.0).await;
        findings.push(Finding::of(request.action(), table, written.map(|()| "allowed".to_owned())));
    }
    findings
}

fn nobody(kind: KeyType) -> AttributeValue {
    match kind {
        KeyType::S => AttributeValue::S(NOBODY.into()),
        KeyType::N => AttributeValue::N(NO_NUMBER.into()),
        KeyType::B => AttributeValue::B(Blob::new(NOBODY)),
    }
}

async fn try_out(client: &Client, table: &str, request: Request, key: &HashMap<String, AttributeValue>, partition: &str) -> Result<()> {
    const NEVER: &str = "attribute_exists(#key) AND attribute_not_exists(#key)";
    let doing = format!("write to table {table} ({})", request.action());
    let key = Some(key.clone());
    let broken = |error: BuildError| Error::new(Kind::Fatal, format!("write to table {table}"), error);
    match request {
        Request::Batch => {
            let delete = DeleteRequest::builder().set_key(key).build().map_err(broken)?;
            let write = WriteRequest::builder().delete_request(delete).build();
            allowed(doing, client.batch_write_item().request_items(table, vec![write]).send().await)
        }
        Request::Put => {
            let call = client.put_item().table_name(table).set_item(key).condition_expression(NEVER);
            allowed(doing, call.expression_attribute_names("#key", partition).send().await)
        }
        Request::Update => {
            let call = client.update_item().table_name(table).set_key(key).condition_expression(NEVER);
            allowed(doing, call.expression_attribute_names("#key", partition).send().await)
        }
        Request::Delete => {
            let call = client.delete_item().table_name(table).set_key(key).condition_expression(NEVER);
            allowed(doing, call.expression_attribute_names("#key", partition).send().await)
        }
        Request::Transaction => {
            // Two writes of one item are refused, so the put is of its own request.
            let put = Put::builder().table_name(table).set_item(key.clone()).condition_expression(NEVER);
            let put = put.expression_attribute_names("#key", partition).build().map_err(broken)?;
            let delete = Delete::builder().table_name(table).set_key(key).condition_expression(NEVER);
            let delete = delete.expression_attribute_names("#key", partition).build().map_err(broken)?;
            for item in [TransactWriteItem::builder().put(put).build(), TransactWriteItem::builder().delete(delete).build()] {
                allowed(doing.clone(), client.transact_write_items().transact_items(item).send().await)?;
            }
            Ok(())
        }
    }
}

/// What is not known before there are messages: they choose their tables.
pub fn chosen(template: &str) -> Finding {
    Finding::not_tried("dynamodb:BatchWriteItem", template, "each message chooses its table")
}

/// Whether nothing failed.
pub fn all_work(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.works() || matches!(finding.outcome, Outcome::NotTried(_)))
}
