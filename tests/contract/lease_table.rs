//! The lease table against DynamoDB Local (or any DynamoDB): `DYNAMODB_ENDPOINT` says where.

use std::collections::HashMap;

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use pulsar_io_dynamodb::{
    dynamodb::lease_table::LeaseTable,
    error::Kind,
    ports::{Checkpoint, Claim, Holder, Lease, LeaseTable as _, Mark, SequenceNumber, ShardId, StreamArn},
};

use super::item_table::{client, create};

/// An empty lease table of its own.
async fn leases(test: &str) -> Option<(Client, String, LeaseTable)> {
    let client = client(test)?;
    let name = format!("leases-{:016x}", fastrand::u64(..));
    let table = LeaseTable::new(client.clone(), name.clone());
    table.ensure().await.expect("created");
    Some((client, name, table))
}

fn new_lease() -> Lease {
    Lease {
        parents: vec![ShardId::new("shardId-00000001690000000000-0a1b2c3d")],
        start_at: Some(1_700_000_000_123),
        ..Lease::new(ShardId::new("shardId-00000001700000000000-0a1b2c3d"), Checkpoint::Latest)
    }
}

pub fn held(claim: Claim) -> Lease {
    match claim {
        Claim::Held(lease) => lease,
        lost => panic!("{lost:?}"),
    }
}

pub fn mark(checkpoint: Checkpoint) -> Mark {
    Mark { epoch: 1_700_000_000_000, ordinal: 7, checkpoint }
}

pub fn at(text: &str) -> Checkpoint {
    Checkpoint::At(SequenceNumber::parse(text).expect("digits"))
}

async fn row(client: &Client, table: &str) -> HashMap<String, AttributeValue> {
    let mut items = client.scan().table_name(table).consistent_read(true).send().await.expect("a scan").items.unwrap_or_default();
    assert_eq!(items.len(), 1);
    items.remove(0)
}

#[tokio::test]
async fn l3_a_lease_lives_in_kcls_attributes_and_leaves_unknown_ones_alone() {
    let Some((client, name, table)) = leases("a lease's life").await else { return };
    table.ensure().await.expect("it is there already");
    assert!(table.create(&new_lease()).await.expect("a call"));
    assert!(!table.create(&Lease { checkpoint: Checkpoint::TrimHorizon, ..new_lease() }).await.expect("a call"), "left as it was");
    assert_eq!(table.list().await.expect("rows"), [new_lease()]);
    let change = client.update_item().table_name(&name).key("leaseKey", AttributeValue::S(new_lease().shard.to_string()));
    let change = change.update_expression("SET childShardIds = :x, pendingCheckpoint = :y");
    let change = change.expression_attribute_values(":x", AttributeValue::Ss(vec!["a".into()]));
    change.expression_attribute_values(":y", AttributeValue::S("7".into())).send().await.expect("written by another worker");

    let mine = held(table.take(&new_lease(), "me", "nonce").await.expect("a call"));
    assert_eq!(mine, Lease { owner: Some("me".into()), nonce: Some("nonce".into()), counter: 1, ..new_lease() });
    let mine = held(table.renew(&mine).await.expect("a call"));
    let theirs = held(table.take(&mine, "other", "n2").await.expect("a call"));
    assert_eq!((theirs.counter, theirs.owner_switches), (3, 1), "taken from another owner");
    let theirs = held(table.checkpoint(&theirs, &mark(at("000000000000000000855"))).await.expect("a call"));
    assert_eq!((theirs.counter, theirs.owner_switches), (4, 0));

    let s = |text: &str| AttributeValue::S(text.into());
    let n = |text: &str| AttributeValue::N(text.into());
    let expected = HashMap::from([
        ("leaseKey".to_string(), s(new_lease().shard.as_str())),
        ("leaseOwner".into(), s("other")),
        ("leaseCounter".into(), n("4")),
        ("checkpoint".into(), s("000000000000000000855")),
        ("checkpointSubSequenceNumber".into(), n("0")),
        ("ownerSwitchesSinceCheckpoint".into(), n("0")),
        ("parentShardId".into(), AttributeValue::Ss(vec![new_lease().parents[0].to_string()])),
        ("childShardIds".into(), AttributeValue::Ss(vec!["a".into()])),
        ("startAtMillis".into(), n("1700000000123")),
        ("ownerNonce".into(), s("n2@other")),
        ("recordEpoch".into(), n("1700000000000")),
        ("recordOrdinal".into(), n("7")),
        ("recordCheckpoint".into(), s("000000000000000000855")),
    ]);
    assert_eq!(row(&client, &name).await, expected);

    let ended = held(table.checkpoint(&theirs, &mark(Checkpoint::ShardEnd)).await.expect("a call"));
    let free = held(table.release(&ended).await.expect("a call"));
    assert_eq!((free.owner, free.nonce, free.counter), (None, None, 6));
    assert!(!row(&client, &name).await.contains_key("leaseOwner"), "absent, never empty");
}

#[tokio::test]
async fn l1_whoever_saw_an_old_row_writes_nothing() {
    let Some((client, name, table)) = leases("old rows").await else { return };
    table.create(&new_lease()).await.expect("a call");
    let mine = held(table.take(&new_lease(), "me", "nonce").await.expect("a call"));
    let current = held(table.take(&mine, "other", "n2").await.expect("a call"));
    let before = row(&client, &name).await;
    for attempt in [
        table.take(&new_lease(), "me", "nonce").await,
        table.renew(&mine).await,
        table.checkpoint(&mine, &mark(at("5"))).await,
        table.checkpoint(&mine, &mark(Checkpoint::ShardEnd)).await,
        table.release(&mine).await,
        // The same counter, but not the owner that was seen.
        table.renew(&Lease { owner: Some("me".into()), ..current.clone() }).await,
    ] {
        assert_eq!(attempt.expect("an answer"), Claim::Lost(Some(current.clone())));
    }
    assert_eq!(row(&client, &name).await, before);
    let key = AttributeValue::S(current.shard.to_string());
    client.delete_item().table_name(&name).key("leaseKey", key).send().await.expect("deleted");
    assert_eq!(table.renew(&current).await.expect("an answer"), Claim::Lost(None));
    assert_eq!(table.take(&current, "me", "n").await.expect("an answer"), Claim::Lost(None), "a lease that is gone is not made again");
}

#[tokio::test]
async fn l2_a_note_is_no_write_on_the_lease_and_replaces_only_the_note_that_was_seen() {
    let Some((_, _, table)) = leases("notes").await else { return };
    let holder = |id: &str| Holder { id: id.into(), nonce: "n".into() };
    table.create(&new_lease()).await.expect("a call");
    let row = held(table.take(&new_lease(), "me", "nonce").await.expect("a call"));
    let asked = held(table.ask(&row, &holder("b")).await.expect("a call"));
    assert_eq!(asked, Lease { wanted_by: Some(holder("b")), ..row.clone() });
    assert_eq!(table.ask(&row, &holder("c")).await.expect("a call"), Claim::Lost(Some(asked.clone())), "it has not seen the note");
    let again = held(table.ask(&asked, &holder("c")).await.expect("a call"));
    assert_eq!(again.wanted_by, Some(holder("c")));
    let renewed = held(table.renew(&row).await.expect("a call"));
    assert_eq!((renewed.counter, renewed.wanted_by.clone()), (row.counter + 1, Some(holder("c"))), "the owner goes on, and is told");
    assert_eq!(
        table.withdraw(&again, &holder("b")).await.expect("a call"),
        Claim::Lost(Some(renewed.clone())),
        "not its own note any more"
    );
    let withdrawn = held(table.withdraw(&renewed, &holder("c")).await.expect("a call"));
    assert_eq!(
        table.hand_over(&renewed, &holder("c")).await.expect("a call"),
        Claim::Lost(Some(withdrawn)),
        "z1: nobody wants it any more"
    );
}

/// The reply to the first of each pair got lost: the second finds it written.
#[tokio::test]
async fn l1_a_write_that_had_landed_is_found_and_no_other_is() {
    let Some((_, _, table)) = leases("lost replies").await else { return };
    table.create(&new_lease()).await.expect("a call");
    let first = held(table.take(&new_lease(), "me", "nonce").await.expect("a call"));
    assert_eq!(table.take(&new_lease(), "me", "nonce").await.expect("a call"), Claim::Landed(first.clone()));
    assert_eq!(table.take(&new_lease(), "me", "twin").await.expect("a call"), Claim::Lost(Some(first.clone())), "a twin of the same name");
    let renewed = held(table.renew(&first).await.expect("a call"));
    assert_eq!(table.renew(&first).await.expect("a call"), Claim::Landed(renewed.clone()));
    let written = held(table.checkpoint(&renewed, &mark(at("5"))).await.expect("a call"));
    assert_eq!(table.checkpoint(&renewed, &mark(at("5"))).await.expect("a call"), Claim::Landed(written.clone()));
    assert_eq!(table.checkpoint(&renewed, &mark(at("6"))).await.expect("a call"), Claim::Lost(Some(written.clone())));
    let free = held(table.release(&written).await.expect("a call"));
    assert_eq!(table.release(&written).await.expect("a call"), Claim::Landed(free));
}

#[tokio::test]
async fn rows_that_are_no_leases_are_left_out_and_listings_have_pages() {
    let Some((client, name, table)) = leases("listing").await else { return };
    let leader = client.put_item().table_name(&name).item("leaseKey", AttributeValue::S("Leader".into()));
    leader.item("entityType", AttributeValue::S("LEADER".into())).send().await.expect("written");
    // Over 1 MB: more than a page of Scan.
    for number in 0..30 {
        let lease = Lease { shard: ShardId::new(format!("shardId-{number:020}-x")), ..new_lease() };
        table.create(&lease).await.expect("a call");
        let change = client.update_item().table_name(&name).key("leaseKey", AttributeValue::S(lease.shard.to_string()));
        let big = AttributeValue::S("x".repeat(60_000));
        change.update_expression("SET big = :big").expression_attribute_values(":big", big).send().await.expect("written");
    }
    assert_eq!(table.list().await.expect("rows").len(), 30);
}

#[tokio::test]
async fn another_applications_table_is_refused_by_name() {
    let Some(client) = client("another table") else { return };
    let name = create(&client).await;
    let error = LeaseTable::new(client, name.clone()).ensure().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Configuration);
    assert!(error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn a_row_is_deleted_as_it_was_seen_or_not_at_all() {
    let Some((client, name, table)) = leases("deletion").await else { return };
    let stream = StreamArn::new("arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-11-21T08:00:00.000");
    table.create(&new_lease()).await.expect("a call");
    let taken = held(table.take(&Lease { stream: Some(stream.clone()), ..new_lease() }, "me", "nonce").await.expect("a call"));
    assert_eq!(taken.stream, Some(stream), "a row without stream learns it");
    let ended = held(table.checkpoint(&taken, &mark(Checkpoint::ShardEnd)).await.expect("a call"));
    for seen in [taken, Lease { checkpoint: at("5"), ..ended.clone() }] {
        assert!(!table.delete(&seen).await.expect("an answer"), "{seen:?}");
    }
    assert_eq!(table.list().await.expect("rows"), std::slice::from_ref(&ended));
    assert!(table.delete(&ended).await.expect("an answer"));
    assert!(table.delete(&ended).await.expect("an answer"), "also when the answer to the first one got lost");
    assert!(client.scan().table_name(name).send().await.expect("a scan").items.unwrap_or_default().is_empty());
}
