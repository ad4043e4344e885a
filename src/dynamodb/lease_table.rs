//! The lease table: KCL 1.x's rows (L3), every write conditional on owner and counter (L1).
//!
//! Names, types and sentinels are those of KCL 1.13.3 (`KinesisClientLeaseSerializer`); `startAtMillis`, `ownerNonce` and `streamArn` are ours, and
//! KCL leaves them alone.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::update_item::UpdateItemError,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue, ReturnValuesOnConditionCheckFailure,
        ScalarAttributeType, TableStatus,
    },
};

use super::failure::classify;
use crate::{
    error::{Error, Kind, Result},
    ports::{self, Checkpoint, Claim, Lease, SequenceNumber, ShardId, StreamArn},
};

const KEY: &str = "leaseKey";
const COUNTER: &str = "leaseCounter";
const OWNER: &str = "leaseOwner";
const CHECKPOINT: &str = "checkpoint";
const SUB_SEQUENCE: &str = "checkpointSubSequenceNumber";
const SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
const PARENTS: &str = "parentShardId";
const START_AT: &str = "startAtMillis";
const NONCE: &str = "ownerNonce";
const STREAM: &str = "streamArn";

/// How often a table that is being created is looked at.
const CREATING_POLL: Duration = Duration::from_millis(200);

type Row = HashMap<String, AttributeValue>;

/// The leases of one application.
#[derive(Debug, Clone)]
pub struct LeaseTable {
    client: Client,
    table: String,
}

impl LeaseTable {
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn on(&self, doing: &str, lease: &Lease, action: &str) -> String {
        format!("{doing} the lease of shard {} in table {} (dynamodb:{action})", lease.shard, self.table)
    }

    /// One conditional update of a row as it was seen. `is_written` tells from the row whether a write of ours whose answer was lost has landed.
    async fn update(&self, doing: &str, lease: &Lease, change: Change, is_written: impl Fn(&Lease) -> bool) -> Result<Claim> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(KEY, text(lease.shard.as_str()))
            .update_expression(change.update)
            .condition_expression(change.condition)
            .set_expression_attribute_values(Some(change.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let doing = || self.on(doing, lease, "UpdateItem");
        match answer {
            Ok(answer) => match read_row(answer.attributes.as_ref().unwrap_or(&Row::new())) {
                Some(written) => Ok(Claim::Held(written)),
                None => Err(Error::new(Kind::Unavailable, doing(), "the answer is no lease")),
            },
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => {
                let UpdateItemError::ConditionalCheckFailedException(failed) = answer.into_err() else { return Ok(Claim::Lost(None)) };
                Ok(match failed.item.as_ref().and_then(read_row) {
                    Some(row) if is_written(&row) => Claim::Landed(row),
                    row => Claim::Lost(row),
                })
            }
            Err(error) => Err(classify(doing(), error)),
        }
    }
}

/// An update of a row on the condition that it still is as it was seen. The owner's part of the condition is stricter than KCL's, which
/// looks at the counter only, and changes nothing for it.
struct Change {
    update: String,
    condition: String,
    values: HashMap<String, AttributeValue>,
}

impl Change {
    fn of(seen: &Lease, update: &str) -> Self {
        let mut values = HashMap::from([(":seen".to_string(), number(seen.counter)), (":next".to_string(), number(seen.counter + 1))]);
        let owner = match &seen.owner {
            Some(owner) => {
                values.insert(":owner".into(), text(owner));
                format!("{OWNER} = :owner")
            }
            None => format!("attribute_not_exists({OWNER})"),
        };
        let condition = format!("attribute_exists({KEY}) AND {COUNTER} = :seen AND {owner}");
        Self { update: update.to_owned(), condition, values }
    }

    fn with(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }
}

impl ports::LeaseTable for LeaseTable {
    async fn ensure(&self) -> Result<()> {
        loop {
            let doing = || format!("find the lease table {} (dynamodb:DescribeTable)", self.table);
            let described = self.client.describe_table().table_name(&self.table).send().await.map_err(|error| classify(doing(), error));
            match described {
                Ok(answer) => {
                    let table = answer.table.ok_or_else(|| Error::new(Kind::Unavailable, doing(), "the answer describes no table"))?;
                    let keys: Vec<&str> = table.key_schema().iter().map(KeySchemaElement::attribute_name).collect();
                    if keys != [KEY] {
                        let why =
                            format!("its key is {keys:?}, not [\"{KEY}\"]: it is another application's; choose another applicationName");
                        return Err(Error::new(Kind::Configuration, doing(), why));
                    }
                    if table.table_status() != Some(&TableStatus::Creating) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == Kind::NotFound => self.create_table().await?,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(CREATING_POLL).await;
        }
    }

    async fn list(&self) -> Result<Vec<Lease>> {
        let doing = || format!("read the lease table {} (dynamodb:Scan)", self.table);
        let mut leases = Vec::new();
        let mut start = None;
        loop {
            // Eventually consistent, as KCL's: a row that is stale fails the condition of whatever is done with it.
            let page = self.client.scan().table_name(&self.table).set_exclusive_start_key(start).send().await;
            let page = page.map_err(|error| classify(doing(), error))?;
            for row in page.items.unwrap_or_default() {
                match read_row(&row) {
                    Some(lease) => leases.push(lease),
                    // Left out, it would look like a parent that is gone, and its children would start too early (S1).
                    None if is_shards_row(&row) => {
                        let why = format!("the row {row:?} is no lease: mend its checkpoint and counter, or delete it");
                        return Err(Error::new(Kind::Fatal, doing(), why));
                    }
                    None => {}
                }
            }
            match page.last_evaluated_key {
                Some(last) => start = Some(last),
                None => return Ok(leases),
            }
        }
    }

    async fn create(&self, lease: &Lease) -> Result<bool> {
        let request = self.client.put_item().table_name(&self.table).set_item(Some(write_row(lease)));
        match request.condition_expression(format!("attribute_not_exists({KEY})")).send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => Ok(false),
            Err(error) => Err(classify(self.on("create", lease, "PutItem"), error)),
        }
    }

    async fn take(&self, seen: &Lease, owner: &str, nonce: &str) -> Result<Claim> {
        let switched = seen.owner.as_ref().is_some_and(|previous| previous != owner);
        let update = format!(
            "SET {COUNTER} = :next, {OWNER} = :me, {NONCE} = :nonce{}{}",
            if seen.stream.is_some() { format!(", {STREAM} = :stream") } else { String::new() },
            if switched { format!(" ADD {SWITCHES} :one") } else { String::new() }
        );
        let mut change = Change::of(seen, &update).with(":me", text(owner)).with(":nonce", text(nonce));
        if switched {
            change = change.with(":one", number(1));
        }
        if let Some(stream) = &seen.stream {
            change = change.with(":stream", text(stream.as_str()));
        }
        let mine =
            |row: &Lease| row.owner.as_deref() == Some(owner) && row.nonce.as_deref() == Some(nonce) && row.counter == seen.counter + 1;
        self.update("take", seen, change, mine).await
    }

    async fn renew(&self, held: &Lease) -> Result<Claim> {
        let change = Change::of(held, &format!("SET {COUNTER} = :next"));
        self.update("renew", held, change, |row| is_next(row, held)).await
    }

    async fn checkpoint(&self, held: &Lease, checkpoint: &Checkpoint) -> Result<Claim> {
        // The pending pair belongs to KCL's two-phase checkpoints and is void after any other.
        let update = format!(
            "SET {COUNTER} = :next, {CHECKPOINT} = :checkpoint, {SUB_SEQUENCE} = :zero, {SWITCHES} = :zero \
             REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber"
        );
        let change = Change::of(held, &update).with(":checkpoint", text(checkpoint_text(checkpoint))).with(":zero", number(0));
        self.update("checkpoint", held, change, |row| is_next(row, held) && row.checkpoint == *checkpoint).await
    }

    async fn release(&self, held: &Lease) -> Result<Claim> {
        let change = Change::of(held, &format!("SET {COUNTER} = :next REMOVE {OWNER}, {NONCE}"));
        self.update("release", held, change, |row| row.owner.is_none() && row.counter == held.counter + 1).await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool> {
        let request = self.client.delete_item().table_name(&self.table).key(KEY, text(seen.shard.as_str()));
        // A row that is gone already, also by a call whose answer was lost, is as it should be.
        let request =
            request.condition_expression(format!("attribute_not_exists({KEY}) OR ({COUNTER} = :seen AND {CHECKPOINT} = :checkpoint)"));
        let request = request.expression_attribute_values(":seen", number(seen.counter));
        match request.expression_attribute_values(":checkpoint", text(checkpoint_text(&seen.checkpoint))).send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(answer)) if answer.err().is_conditional_check_failed_exception() => Ok(false),
            Err(error) => Err(classify(self.on("delete", seen, "DeleteItem"), error)),
        }
    }
}

impl LeaseTable {
    /// Sets where reading goes on, and gives the lease up: for the operator, not for workers (C2). What was counted for the old position
    /// is void. Condition and outcome as for every write.
    pub async fn reset(&self, seen: &Lease, checkpoint: &Checkpoint, start_at: Option<i64>) -> Result<Claim> {
        let (set, remove) = if start_at.is_some() { (format!(", {START_AT} = :start"), "") } else { (String::new(), START_AT) };
        let update = format!(
            "SET {COUNTER} = :next, {CHECKPOINT} = :checkpoint, {SUB_SEQUENCE} = :zero, {SWITCHES} = :zero{set} \
             REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber, {OWNER}, {NONCE}{}{remove}",
            if remove.is_empty() { "" } else { ", " }
        );
        let mut change = Change::of(seen, &update).with(":checkpoint", text(checkpoint_text(checkpoint))).with(":zero", number(0));
        if let Some(start_at) = start_at {
            change = change.with(":start", AttributeValue::N(start_at.to_string()));
        }
        let is_written = |row: &Lease| {
            row.owner.is_none() && row.counter == seen.counter + 1 && row.checkpoint == *checkpoint && row.start_at == start_at
        };
        self.update("reset", seen, change, is_written).await
    }

    async fn create_table(&self) -> Result<()> {
        let doing = || format!("create the lease table {} (dynamodb:CreateTable)", self.table);
        let broken = |error: aws_sdk_dynamodb::error::BuildError| Error::new(Kind::Fatal, doing(), error);
        let attribute =
            AttributeDefinition::builder().attribute_name(KEY).attribute_type(ScalarAttributeType::S).build().map_err(broken)?;
        let key = KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash).build().map_err(broken)?;
        let request = self.client.create_table().table_name(&self.table).attribute_definitions(attribute).key_schema(key);
        match request.billing_mode(BillingMode::PayPerRequest).send().await {
            Ok(_) => {
                tracing::info!(table = self.table, "created the lease table");
                Ok(())
            }
            // Another worker was faster.
            Err(SdkError::ServiceError(answer)) if answer.err().is_resource_in_use_exception() => Ok(()),
            Err(error) => Err(classify(doing(), error)),
        }
    }
}

/// Whether a row is what one write of the holder makes of it. The nonce tells a twin of the same name apart.
fn is_next(row: &Lease, held: &Lease) -> bool {
    row.owner == held.owner && row.nonce == held.nonce && row.counter == held.counter + 1
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn checkpoint_text(checkpoint: &Checkpoint) -> &str {
    match checkpoint {
        Checkpoint::TrimHorizon => "TRIM_HORIZON",
        Checkpoint::Latest => "LATEST",
        Checkpoint::AtTimestamp => "AT_TIMESTAMP",
        Checkpoint::ShardEnd => "SHARD_END",
        Checkpoint::At(number) => number.as_str(),
    }
}

fn read_checkpoint(text: &str) -> Option<Checkpoint> {
    Some(match text {
        "TRIM_HORIZON" => Checkpoint::TrimHorizon,
        "LATEST" => Checkpoint::Latest,
        "AT_TIMESTAMP" => Checkpoint::AtTimestamp,
        "SHARD_END" => Checkpoint::ShardEnd,
        number => Checkpoint::At(SequenceNumber::parse(number).ok()?),
    })
}

/// A new row, with all that KCL's reader insists on.
fn write_row(lease: &Lease) -> Row {
    let mut row = Row::from([
        (KEY.to_string(), text(lease.shard.as_str())),
        (COUNTER.to_string(), number(lease.counter)),
        (SWITCHES.to_string(), number(lease.owner_switches)),
        (CHECKPOINT.to_string(), text(checkpoint_text(&lease.checkpoint))),
        (SUB_SEQUENCE.to_string(), number(0)),
    ]);
    if !lease.parents.is_empty() {
        row.insert(PARENTS.into(), AttributeValue::Ss(lease.parents.iter().map(ToString::to_string).collect()));
    }
    if let Some(owner) = &lease.owner {
        row.insert(OWNER.into(), text(owner));
    }
    if let Some(nonce) = &lease.nonce {
        row.insert(NONCE.into(), text(nonce));
    }
    if let Some(stream) = &lease.stream {
        row.insert(STREAM.into(), text(stream.as_str()));
    }
    if let Some(start_at) = lease.start_at {
        row.insert(START_AT.into(), AttributeValue::N(start_at.to_string()));
    }
    row
}

/// Whether the row is about a shard, by the form of a stream's shard ids.
fn is_shards_row(row: &Row) -> bool {
    row.get(KEY).and_then(|key| key.as_s().ok()).is_some_and(|key| key.starts_with("shardId-"))
}

/// `None` for what is no lease: KCL 3 may keep other things in the table.
fn read_row(row: &Row) -> Option<Lease> {
    let string = |name: &str| row.get(name).and_then(|value| value.as_s().ok()).cloned();
    let integer = |name: &str| row.get(name).and_then(|value| value.as_n().ok()).and_then(|text| text.parse::<i64>().ok());
    let parents = row.get(PARENTS).and_then(|value| value.as_ss().ok());
    Some(Lease {
        shard: ShardId::new(string(KEY)?),
        owner: string(OWNER),
        counter: u64::try_from(integer(COUNTER)?).ok()?,
        checkpoint: read_checkpoint(&string(CHECKPOINT)?)?,
        owner_switches: integer(SWITCHES).and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
        parents: parents.map(|parents| parents.iter().map(ShardId::new).collect()).unwrap_or_default(),
        start_at: integer(START_AT),
        nonce: string(NONCE),
        stream: string(STREAM).map(StreamArn::new),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A row as Scan's JSON shows it.
    fn from_json(json: &Value) -> Row {
        let value = |value: &Value| match value.as_object().and_then(|object| object.iter().next()) {
            Some((tag, Value::String(text))) if tag == "S" => AttributeValue::S(text.clone()),
            Some((tag, Value::String(text))) if tag == "N" => AttributeValue::N(text.clone()),
            Some((tag, Value::Array(members))) if tag == "SS" => {
                AttributeValue::Ss(members.iter().map(|member| member.as_str().expect("text").into()).collect())
            }
            other => panic!("{other:?}"),
        };
        json.as_object().expect("a row").iter().map(|(name, json)| (name.clone(), value(json))).collect()
    }

    /// Every state of the lease table that the Java connector was seen to leave.
    fn golden() -> Vec<Row> {
        let files =
            [include_str!("../../tests/golden/data/lease_rows_nao.jsonl"), include_str!("../../tests/golden/data/lease_rows_split.jsonl")];
        let states = files.iter().flat_map(|file| file.lines()).map(|line| serde_json::from_str::<Value>(line).expect(line));
        let rows: Vec<Row> =
            states.flat_map(|state| state["items"].as_array().into_iter().flatten().map(from_json).collect::<Vec<_>>()).collect();
        assert!(rows.len() >= 56, "only {} rows", rows.len());
        rows
    }

    #[test]
    fn every_row_of_the_java_connector_is_read_and_written_the_same_l3() {
        for row in golden() {
            let lease = read_row(&row).unwrap_or_else(|| panic!("not read: {row:?}"));
            assert_eq!(write_row(&lease), row);
        }
    }

    #[test]
    fn our_attributes_are_extra_ones_l3() {
        let mut row = golden().remove(0);
        row.insert(START_AT.into(), AttributeValue::N("1700000000000".into()));
        row.insert(NONCE.into(), text("n"));
        row.insert(STREAM.into(), text("arn:aws:dynamodb:eu-west-1:1:table/t/stream/l"));
        row.insert(OWNER.into(), text("me"));
        let lease = read_row(&row).expect("a lease");
        assert_eq!((lease.start_at, lease.nonce.as_deref()), (Some(1_700_000_000_000), Some("n")));
        assert_eq!(
            lease.stream.as_ref().map(|stream| (stream.table(), stream.label())),
            Some(("arn:aws:dynamodb:eu-west-1:1:table/t", "l"))
        );
        assert_eq!(write_row(&lease), row);
    }

    #[test]
    fn what_is_no_lease_is_left_out() {
        for (name, value) in
            [(CHECKPOINT, text("soon")), (CHECKPOINT, number(1)), (COUNTER, text("1")), (COUNTER, AttributeValue::N("-1".into()))]
        {
            let mut row = golden().remove(0);
            row.insert(name.into(), value);
            assert_eq!(read_row(&row), None, "{name}");
        }
        assert!(is_shards_row(&golden().remove(0)), "a shard's row that cannot be read must not be left out (S1)");
        assert!(!is_shards_row(&Row::from([(KEY.to_string(), text("Leader"))])));
        assert_eq!(read_row(&Row::from([(KEY.to_string(), text("Leader")), ("entityType".to_string(), text("LEADER"))])), None);
    }
}
