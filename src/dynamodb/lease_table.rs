//! The lease table: KCL 1.x's rows (L3), every write conditional on owner and counter (L1).
//!
//! Names, types and sentinels are those of KCL 1.13.3 (`KinesisClientLeaseSerializer`); all others are ours, and KCL leaves them
//! alone.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::update_item::UpdateItemError,
    types::{
        AttributeValue, BillingMode, KeySchemaElement, ReturnValue, ReturnValuesOnConditionCheckFailure, TableDescription, TableStatus,
    },
};

use super::{create_table::create_table, failure::classify};
use crate::{
    error::{Error, Kind, Result},
    ports::{self, Checkpoint, Claim, Holder, KeySchema, KeyType, Lease, Mark, SequenceNumber, ShardId, StreamArn},
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
const WANTED_BY: &str = "handoverTo";
const EPOCH: &str = "recordEpoch";
const ORDINAL: &str = "recordOrdinal";
const MARKED: &str = "recordCheckpoint";

/// How often a table that is being created is looked at.
const CREATING_POLL: Duration = Duration::from_millis(200);

type Row = HashMap<String, AttributeValue>;

/// What to do about the capacity of a table that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Billing {
    /// Nothing; a warning where it is small.
    #[default]
    Keep,
    /// It is changed to billing by request.
    Auto,
}

/// The leases of one application.
#[derive(Debug, Clone)]
pub struct LeaseTable {
    client: Client,
    table: String,
    billing: Billing,
}

impl LeaseTable {
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), billing: Billing::Keep }
    }

    pub fn with_billing(self, billing: Billing) -> Self {
        Self { billing, ..self }
    }

    /// The Java connector makes its tables with a capacity of 10 and 10, which a few dozen shards use up.
    async fn check_capacity(&self, table: &TableDescription) -> Result<()> {
        let on_demand = table.billing_mode_summary().and_then(|summary| summary.billing_mode()) == Some(&BillingMode::PayPerRequest);
        let writes = table.provisioned_throughput().and_then(|capacity| capacity.write_capacity_units()).unwrap_or(0);
        if on_demand || writes <= 0 {
            return Ok(());
        }
        // A renewal each 3.3 s and a checkpoint now and then.
        let leases = writes * 3;
        match self.billing {
            Billing::Keep => {
                tracing::warn!(
                    table = self.table,
                    write_capacity = writes,
                    "the lease table has provisioned capacity, enough for about {leases} shards being read: with more, renewals are throttled and \
                     leases get lost; leaseTableBillingMode: auto changes it to billing by request"
                );
                Ok(())
            }
            Billing::Auto => {
                let doing = || format!("change the lease table {} to billing by request (dynamodb:UpdateTable)", self.table);
                let request = self.client.update_table().table_name(&self.table).billing_mode(BillingMode::PayPerRequest);
                match request.send().await {
                    Ok(_) => {
                        tracing::info!(table = self.table, "changed the lease table to billing by request; it goes on working meanwhile");
                        Ok(())
                    }
                    // Another worker is changing it.
                    Err(SdkError::ServiceError(answer)) if answer.err().is_resource_in_use_exception() => Ok(()),
                    // It works as it is, and DynamoDB limits how often this may be done.
                    Err(error) => {
                        tracing::warn!(error = %classify(doing(), error), "the lease table keeps its provisioned capacity");
                        Ok(())
                    }
                }
            }
        }
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
            .update_expression(change.expression())
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
    sets: Vec<String>,
    removes: Vec<&'static str>,
    adds: &'static str,
    condition: String,
    values: HashMap<String, AttributeValue>,
}

impl Change {
    /// One that adds one to the counter.
    fn of(seen: &Lease) -> Self {
        let mut change = Self::on(seen);
        change.condition = format!("attribute_exists({KEY}) AND {COUNTER} = :seen AND {}", change.condition);
        change.values.insert(":seen".into(), number(seen.counter));
        change.set(COUNTER, number(seen.counter + 1))
    }

    /// One that leaves the counter alone, and any note that was not seen.
    fn note(seen: &Lease) -> Self {
        let mut change = Self::on(seen);
        let as_seen = match &seen.wanted_by {
            Some(asker) => {
                change.values.insert(":noted".into(), text(asker.to_string()));
                format!("{WANTED_BY} = :noted")
            }
            None => format!("attribute_not_exists({WANTED_BY})"),
        };
        change.condition = format!("attribute_exists({KEY}) AND {as_seen} AND {}", change.condition);
        change
    }

    /// One that takes a note back.
    fn back(by: &Holder) -> Self {
        let values = HashMap::from([(":by".to_string(), text(by.to_string()))]);
        Self { sets: Vec::new(), removes: Vec::new(), adds: "", condition: format!("{WANTED_BY} = :by"), values }
    }

    fn on(seen: &Lease) -> Self {
        let (condition, values) = match &seen.owner {
            Some(owner) => (format!("{OWNER} = :owner"), HashMap::from([(":owner".to_string(), text(owner))])),
            None => (format!("attribute_not_exists({OWNER})"), HashMap::new()),
        };
        Self { sets: Vec::new(), removes: Vec::new(), adds: "", condition, values }
    }

    fn set(mut self, name: &str, value: AttributeValue) -> Self {
        self.sets.push(format!("{name} = :{name}"));
        self.values.insert(format!(":{name}"), value);
        self
    }

    fn remove(mut self, names: &[&'static str]) -> Self {
        self.removes.extend(names);
        self
    }

    fn set_stream(self, stream: Option<&StreamArn>) -> Self {
        stream.map(|stream| text(stream.as_str())).into_iter().fold(self, |change, arn| change.set(STREAM, arn))
    }

    fn set_mark(self, mark: Option<&Mark>) -> Self {
        mark.map(mark_attributes).into_iter().flatten().fold(self, |change, (name, value)| change.set(name, value))
    }

    fn count_switch(mut self, switched: bool) -> Self {
        if switched {
            self.adds = "ADD ownerSwitchesSinceCheckpoint :one";
            self.values.insert(":one".into(), number(1));
        }
        self
    }

    fn expression(&self) -> String {
        let sets = if self.sets.is_empty() { String::new() } else { format!("SET {}", self.sets.join(", ")) };
        let removes = if self.removes.is_empty() { String::new() } else { format!("REMOVE {}", self.removes.join(", ")) };
        format!("{sets} {removes} {}", self.adds)
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
                        return self.check_capacity(&table).await;
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
        let me = Holder { id: owner.into(), nonce: nonce.into() };
        let change = Change::of(seen).set(OWNER, text(owner)).set(NONCE, text(me.to_string())).remove(&[WANTED_BY]);
        let change = change.set_stream(seen.stream.as_ref()).set_mark(seen.mark.as_ref());
        let change = change.count_switch(seen.owner.as_deref().is_some_and(|previous| previous != owner));
        self.update("take", seen, change, |row| me.owns(row) && row.counter == seen.counter + 1).await
    }

    async fn ask(&self, seen: &Lease, by: &Holder) -> Result<Claim> {
        let change = Change::note(seen).set(WANTED_BY, text(by.to_string()));
        self.update("ask for", seen, change, |row| row.owner == seen.owner && row.wanted_by.as_ref() == Some(by)).await
    }

    async fn withdraw(&self, seen: &Lease, by: &Holder) -> Result<Claim> {
        let change = Change::back(by).remove(&[WANTED_BY]);
        self.update("withdraw the wish for", seen, change, |_| false).await
    }

    async fn renew(&self, held: &Lease) -> Result<Claim> {
        self.update("renew", held, Change::of(held), |row| is_next(row, held)).await
    }

    async fn checkpoint(&self, held: &Lease, mark: &Mark) -> Result<Claim> {
        let change = Change::of(held).set(CHECKPOINT, text(checkpoint_text(&mark.checkpoint))).set_mark(Some(mark));
        let change = change.set(SUB_SEQUENCE, number(0)).set(SWITCHES, number(0));
        // The pending pair belongs to KCL's two-phase checkpoints and is void after any other.
        let change = change.remove(&["pendingCheckpoint", "pendingCheckpointSubSequenceNumber"]);
        self.update("checkpoint", held, change, |row| is_next(row, held) && row.checkpoint == mark.checkpoint).await
    }

    async fn release(&self, held: &Lease) -> Result<Claim> {
        let change = Change::of(held).remove(&[OWNER, NONCE, WANTED_BY]).set_mark(held.mark.as_ref());
        self.update("release", held, change, |row| row.owner.is_none() && row.counter == held.counter + 1).await
    }

    async fn hand_over(&self, held: &Lease, to: &Holder) -> Result<Claim> {
        let mut change = Change::of(held).set(OWNER, text(&to.id)).set(NONCE, text(to.to_string())).remove(&[WANTED_BY]).count_switch(true);
        change.condition = format!("{} AND {WANTED_BY} = :{NONCE}", change.condition);
        let change = change.set_mark(held.mark.as_ref());
        self.update("hand over", held, change, |row| to.owns(row) && row.counter == held.counter + 1).await
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
        let change = Change::of(seen).set(CHECKPOINT, text(checkpoint_text(checkpoint)));
        let change = change.set(SUB_SEQUENCE, number(0)).set(SWITCHES, number(0));
        let change = change.remove(&["pendingCheckpoint", "pendingCheckpointSubSequenceNumber", OWNER, NONCE, WANTED_BY]);
        let change = change.remove(&[EPOCH, ORDINAL, MARKED]);
        let change = match start_at {
            Some(start_at) => change.set(START_AT, AttributeValue::N(start_at.to_string())),
            None => change.remove(&[START_AT]),
        };
        let is_written = |row: &Lease| {
            row.owner.is_none() && row.counter == seen.counter + 1 && row.checkpoint == *checkpoint && row.start_at == start_at
        };
        self.update("reset", seen, change, is_written).await
    }

    async fn create_table(&self) -> Result<()> {
        let key = KeySchema { partition: (KEY.to_owned(), KeyType::S), sort: None };
        // `false`: another worker was faster.
        if create_table(&self.client, "the lease table", &self.table, &key).await? {
            tracing::info!(table = self.table, "created the lease table");
        }
        Ok(())
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

fn mark_attributes(mark: &Mark) -> [(&'static str, AttributeValue); 3] {
    [(EPOCH, number(mark.epoch)), (ORDINAL, number(mark.ordinal)), (MARKED, text(checkpoint_text(&mark.checkpoint)))]
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
    if let Some((id, nonce)) = lease.owner.clone().zip(lease.nonce.clone()) {
        row.insert(NONCE.into(), text(Holder { id, nonce }.to_string()));
    }
    if let Some(holder) = &lease.wanted_by {
        row.insert(WANTED_BY.into(), text(holder.to_string()));
    }
    if let Some(mark) = &lease.mark {
        row.extend(mark_attributes(mark).map(|(name, value)| (name.to_string(), value)));
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
    let owner = string(OWNER);
    // A Java worker that takes the row leaves the nonce of the owner before: it names whom it belongs to.
    let holder = string(NONCE).and_then(|text| Holder::parse(&text)).filter(|holder| Some(&holder.id) == owner.as_ref());
    let mark = || {
        let checkpoint = read_checkpoint(&string(MARKED)?)?;
        Some(Mark { epoch: u64::try_from(integer(EPOCH)?).ok()?, ordinal: u64::try_from(integer(ORDINAL)?).ok()?, checkpoint })
    };
    Some(Lease {
        shard: ShardId::new(string(KEY)?),
        owner,
        counter: u64::try_from(integer(COUNTER)?).ok()?,
        checkpoint: read_checkpoint(&string(CHECKPOINT)?)?,
        owner_switches: integer(SWITCHES).and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
        parents: parents.map(|parents| parents.iter().map(ShardId::new).collect()).unwrap_or_default(),
        start_at: integer(START_AT),
        nonce: holder.map(|holder| holder.nonce),
        wanted_by: string(WANTED_BY).and_then(|text| Holder::parse(&text)),
        mark: mark(),
        stream: string(STREAM).map(StreamArn::new),
    })
}

#[cfg(test)]
mod tests;
