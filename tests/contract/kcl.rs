//! Rows shared with KCL 1.13.3's own lease manager and serializer (L1, L3; `tests/java/LeaseRows.java`), on DynamoDB Local.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use pulsar_io_dynamodb::{
    dynamodb::lease_table::LeaseTable,
    ports::{Checkpoint, Claim, Holder, Lease, LeaseTable as _, ShardId, StreamArn},
    source::checkpoint::is_ahead,
};
use serde_json::{Value, json};

use super::{
    item_table::client,
    lease_table::{at, held, mark},
};
use crate::support::java::{self, Dialogue};

const SHARD: &str = "shardId-00000001700000000000-0a1b2c3d";
const PARENT: &str = "shardId-00000001690000000000-0a1b2c3d";

/// One lease table, seen from both sides.
struct Shared {
    client: Client,
    name: String,
    ours: LeaseTable,
    java: Dialogue,
}

impl Shared {
    /// A table of its own, made by us.
    async fn new(test: &str) -> Option<Self> {
        let shared = Self::without_table(test)?;
        shared.ours.ensure().await.expect("created");
        Some(shared)
    }

    fn without_table(test: &str) -> Option<Self> {
        let mut program = java::program(test, "LeaseRows")?;
        let client = client(test)?;
        let name = format!("kcl-{:016x}", fastrand::u64(..));
        program.arg(std::env::var("DYNAMODB_ENDPOINT").expect("client() checked")).arg(&name);
        Some(Self { ours: LeaseTable::new(client.clone(), name.clone()), client, name, java: Dialogue::start(program) })
    }

    /// The one row of ours that the test is about.
    async fn row(&self) -> Lease {
        let mut rows = self.ours.list().await.expect("rows");
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    /// Asks Java's lease manager, which has to succeed in what it tries.
    fn does(&mut self, command: &str) {
        assert_eq!(self.java.ask(command), json!(true), "{command}");
    }

    fn refuses(&mut self, command: &str) {
        assert_eq!(self.java.ask(command), json!(false), "{command}");
    }

    /// The row as Java's reader sees it.
    fn seen_by_java(&mut self) -> Value {
        self.java.ask(&format!("get {SHARD}"))
    }

    /// Adds attributes that neither side knows.
    async fn add_unknown(&self) {
        let change = self.client.update_item().table_name(&self.name).key("leaseKey", AttributeValue::S(SHARD.into()));
        let change = change.update_expression("SET childShardIds = :x, throughputKBps = :y");
        let change = change.expression_attribute_values(":x", AttributeValue::Ss(vec!["a".into()]));
        change.expression_attribute_values(":y", AttributeValue::N("7.5".into())).send().await.expect("written");
    }

    /// All attributes that the row has.
    async fn attributes(&self) -> BTreeSet<String> {
        let request = self.client.get_item().table_name(&self.name).key("leaseKey", AttributeValue::S(SHARD.into())).consistent_read(true);
        request.send().await.expect("read").item.expect("a row").into_keys().collect()
    }
}

fn new_lease(checkpoint: Checkpoint) -> Lease {
    Lease {
        parents: vec![ShardId::new(PARENT)],
        start_at: Some(1_700_000_000_123),
        stream: Some(StreamArn::new("arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-11-21T08:00:00.000")),
        ..Lease::new(ShardId::new(SHARD), checkpoint)
    }
}

fn shown(lease: &Lease) -> Value {
    let checkpoint = match &lease.checkpoint {
        Checkpoint::TrimHorizon => "TRIM_HORIZON",
        Checkpoint::Latest => "LATEST",
        Checkpoint::AtTimestamp => "AT_TIMESTAMP",
        Checkpoint::ShardEnd => "SHARD_END",
        Checkpoint::At(number) => number.as_str(),
    };
    let parents: Vec<&str> = lease.parents.iter().map(ShardId::as_str).collect();
    json!({"shard": lease.shard.as_str(), "owner": lease.owner, "counter": lease.counter, "checkpoint": checkpoint,
        "ownerSwitches": lease.owner_switches, "parents": parents, "pending": null})
}

const NUMBERS: [&str; 3] = ["000000000000000000855", "100000000000000000001", "1000000000000000000000000000000000000001"];

fn every_checkpoint() -> Vec<Checkpoint> {
    let sentinels = [Checkpoint::TrimHorizon, Checkpoint::Latest, Checkpoint::AtTimestamp, Checkpoint::ShardEnd];
    sentinels.into_iter().chain(NUMBERS.map(at)).collect()
}

/// Spec §1.1, §7 test 2: what we write, Java reads, and would have written the same but for our extra attributes.
#[tokio::test]
async fn l3_java_reads_every_row_that_we_write() {
    let Some(mut shared) = Shared::new("rows of ours").await else { return };
    shared.refuses("create-table");
    let third = Holder { id: "tenant/ns/name-1".into(), nonce: "3".into() };
    for checkpoint in every_checkpoint() {
        let lease = new_lease(checkpoint);
        assert!(shared.ours.create(&lease).await.expect("a call"));
        for step in ["create", "take", "renew", "take from another", "checkpoint", "ask", "hand over", "end", "release"] {
            let row = shared.row().await;
            let next = match step {
                "create" => row,
                "take" => held(shared.ours.take(&row, "tenant/ns/name-0", "nonce").await.expect("a call")),
                "take from another" => held(shared.ours.take(&row, "host:5d4c", "nonce 2").await.expect("a call")),
                "renew" => held(shared.ours.renew(&row).await.expect("a call")),
                "checkpoint" => held(shared.ours.checkpoint(&row, &mark(at(NUMBERS[1]))).await.expect("a call")),
                "ask" => held(shared.ours.ask(&row, &third).await.expect("a call")),
                "hand over" => held(shared.ours.hand_over(&row, &third).await.expect("a call")),
                "end" => held(shared.ours.checkpoint(&row, &mark(Checkpoint::ShardEnd)).await.expect("a call")),
                _ => held(shared.ours.release(&row).await.expect("a call")),
            };
            assert_eq!(shared.seen_by_java(), shown(&next), "{step}");
            let mut attributes = shared.attributes().await;
            assert!(attributes.remove("startAtMillis") && attributes.remove("streamArn"), "{step}: ours are kept");
            assert_eq!(attributes.remove("ownerNonce"), next.nonce.is_some(), "{step}");
            assert_eq!(attributes.remove("handoverTo"), next.wanted_by.is_some(), "{step}");
            for name in ["recordEpoch", "recordOrdinal", "recordCheckpoint"] {
                assert_eq!(attributes.remove(name), next.mark.is_some(), "{name}: {step}");
            }
            let rewritten = shared.java.ask(&format!("rewrite {SHARD}"));
            let rewritten: BTreeSet<String> = rewritten.as_object().expect("a row").keys().cloned().collect();
            assert_eq!(attributes, rewritten, "{step}: Java's attributes and no others");
        }
        shared.does(&format!("delete {SHARD}"));
    }
}

/// The reverse: what Java writes, we read, through a lease's whole life.
#[tokio::test]
async fn l3_we_read_every_row_that_java_writes() {
    let Some(mut shared) = Shared::without_table("rows of Java") else { return };
    shared.does("create-table");
    shared.ours.ensure().await.expect("the table is as we want it");
    for checkpoint in ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"].into_iter().chain(NUMBERS) {
        for (at, command) in [
            format!("create {SHARD} {checkpoint} {PARENT}"),
            format!("take {SHARD} host:1"),
            format!("renew {SHARD}"),
            format!("take {SHARD} host:2"),
            format!("prepare {SHARD} 7"),
            format!("checkpoint {SHARD} {}", NUMBERS[2]),
            format!("checkpoint {SHARD} SHARD_END"),
            format!("evict {SHARD}"),
        ]
        .into_iter()
        .enumerate()
        {
            shared.does(&command);
            let (lease, mut seen) = (shared.row().await, shared.seen_by_java());
            assert_eq!(lease.counter, at as u64, "{command}");
            assert_eq!((lease.start_at, &lease.nonce, &lease.stream), (None, &None, &None));
            let pending = seen["pending"].take();
            assert_eq!(pending == "7", command.starts_with("prepare"), "{command}: {pending}");
            assert_eq!(shown(&lease), seen, "{command}");
        }
        shared.does(&format!("delete {SHARD}"));
        assert_eq!(shared.ours.list().await.expect("rows"), []);
    }
}

/// Java creates a lease only where there is none, and so do we.
#[tokio::test]
async fn l1_a_lease_is_created_once_whoever_comes_first() {
    let Some(mut shared) = Shared::new("creation").await else { return };
    assert!(shared.ours.create(&new_lease(Checkpoint::Latest)).await.expect("a call"));
    shared.refuses(&format!("create {SHARD} TRIM_HORIZON"));
    assert_eq!(shared.row().await, new_lease(Checkpoint::Latest));
    shared.does(&format!("delete {SHARD}"));
    shared.does(&format!("create {SHARD} TRIM_HORIZON"));
    assert!(!shared.ours.create(&new_lease(Checkpoint::Latest)).await.expect("a call"));
    assert_eq!(shared.row().await.checkpoint, Checkpoint::TrimHorizon);
}

#[tokio::test]
async fn l3_unknown_attributes_and_ours_survive_every_update_of_java() {
    let Some(mut shared) = Shared::new("unknown attributes").await else { return };
    assert!(shared.ours.create(&new_lease(Checkpoint::Latest)).await.expect("a call"));
    let marked = Lease { mark: Some(mark(Checkpoint::Latest)), ..new_lease(Checkpoint::Latest) };
    held(shared.ours.take(&marked, "me", "nonce").await.expect("a call"));
    shared.add_unknown().await;
    shared.seen_by_java();
    for command in ["take KEY java", "renew KEY", "prepare KEY 7", "checkpoint KEY 8", "checkpoint KEY SHARD_END", "evict KEY"] {
        shared.does(&command.replace("KEY", SHARD));
        let attributes = shared.attributes().await;
        for name in [
            "startAtMillis",
            "streamArn",
            "ownerNonce",
            "recordEpoch",
            "recordOrdinal",
            "recordCheckpoint",
            "childShardIds",
            "throughputKBps",
        ] {
            assert!(attributes.contains(name), "{name} after {command}: {attributes:?}");
        }
    }
    // A nonce without its owner is nobody's.
    assert_eq!(shared.row().await.owner, None);
}

/// Spec §1.3, ours: each write fails when Java has written anything since the row was read, and changes nothing.
#[tokio::test]
async fn l1_ours_fails_when_java_has_written() {
    let Some(mut shared) = Shared::new("Java was faster").await else { return };
    assert!(shared.ours.create(&new_lease(Checkpoint::TrimHorizon)).await.expect("a call"));
    let mine = held(shared.ours.take(&new_lease(Checkpoint::TrimHorizon), "me", "nonce").await.expect("a call"));
    shared.seen_by_java();
    for command in ["take KEY java", "renew KEY", "checkpoint KEY 8", "checkpoint KEY SHARD_END", "evict KEY"] {
        let before = shared.row().await;
        shared.does(&command.replace("KEY", SHARD));
        let current = shared.row().await;
        for attempt in [
            shared.ours.take(&before, "me", "nonce 2").await,
            shared.ours.take(&mine, "me", "nonce 2").await,
            shared.ours.renew(&mine).await,
            shared.ours.checkpoint(&mine, &mark(at("9"))).await,
            shared.ours.checkpoint(&mine, &mark(Checkpoint::ShardEnd)).await,
            shared.ours.release(&mine).await,
        ] {
            assert_eq!(attempt.expect("an answer"), Claim::Lost(Some(current.clone())), "after {command}");
        }
        assert!(!shared.ours.delete(&before).await.expect("an answer"), "after {command}");
        assert_eq!(shared.row().await, current);
    }
    // Spec §1.7 rule 5: Java deletes without a condition; what is gone is lost and stays gone.
    let last = shared.row().await;
    shared.does(&format!("delete {SHARD}"));
    assert_eq!(shared.ours.take(&last, "me", "n").await.expect("an answer"), Claim::Lost(None));
    assert_eq!(shared.ours.renew(&last).await.expect("an answer"), Claim::Lost(None));
    assert_eq!(shared.ours.checkpoint(&last, &mark(at("9"))).await.expect("an answer"), Claim::Lost(None));
    assert_eq!(shared.ours.list().await.expect("rows"), []);
}

/// Spec §1.3, Java's: each conditional write fails when we have written anything since it read the row.
#[tokio::test]
async fn l1_java_fails_when_ours_has_written() {
    let Some(mut shared) = Shared::new("we were faster").await else { return };
    assert!(shared.ours.create(&new_lease(Checkpoint::TrimHorizon)).await.expect("a call"));
    shared.seen_by_java();
    for step in ["take", "renew", "checkpoint", "end", "release"] {
        shared.seen_by_java();
        shared.does(&format!("take {SHARD} java"));
        let row = shared.row().await;
        let taken = held(shared.ours.take(&row, "me", "nonce").await.expect("a call"));
        let written = match step {
            "take" => taken,
            "renew" => held(shared.ours.renew(&taken).await.expect("a call")),
            "checkpoint" => held(shared.ours.checkpoint(&taken, &mark(at("9"))).await.expect("a call")),
            "end" => held(shared.ours.checkpoint(&taken, &mark(Checkpoint::ShardEnd)).await.expect("a call")),
            _ => held(shared.ours.release(&taken).await.expect("a call")),
        };
        for command in ["renew KEY", "take KEY java", "checkpoint KEY 10", "checkpoint KEY SHARD_END", "evict KEY"] {
            shared.refuses(&command.replace("KEY", SHARD));
        }
        assert_eq!(shared.row().await, written, "{step}");
    }
}

/// Java's evict looks at the owner only and may set the counter back (spec §1.3). For us the lease is lost then, and no write of ours before it
/// can land after it.
#[tokio::test]
async fn l1_an_eviction_by_java_with_an_old_counter_is_a_lost_lease() {
    let Some(mut shared) = Shared::new("evicted").await else { return };
    assert!(shared.ours.create(&new_lease(Checkpoint::TrimHorizon)).await.expect("a call"));
    let mut mine = held(shared.ours.take(&new_lease(Checkpoint::TrimHorizon), "me", "nonce").await.expect("a call"));
    shared.seen_by_java();
    for _ in 0..3 {
        mine = held(shared.ours.renew(&mine).await.expect("a call"));
    }
    shared.does(&format!("evict {SHARD}"));
    let free = shared.row().await;
    assert_eq!((free.counter, &free.owner), (2, &None), "the counter went back from 4");
    assert_eq!(shared.ours.renew(&mine).await.expect("an answer"), Claim::Lost(Some(free.clone())));
    assert_eq!(shared.ours.checkpoint(&mine, &mark(at("9"))).await.expect("an answer"), Claim::Lost(Some(free.clone())));
    assert_eq!(held(shared.ours.take(&free, "me", "nonce").await.expect("a call")).counter, 3);
    // Not evicted when the owner is another than Java saw.
    shared.seen_by_java();
    let row = shared.row().await;
    held(shared.ours.take(&row, "other", "n").await.expect("a call"));
    shared.refuses(&format!("evict {SHARD}"));
}

/// What is ahead of what (C2) is the same for both.
#[tokio::test]
async fn c2_checkpoints_are_ordered_as_in_kcl() {
    let Some(mut shared) = Shared::without_table("order of checkpoints") else { return };
    let text = |checkpoint: &Checkpoint| shown(&new_lease(checkpoint.clone()))["checkpoint"].as_str().expect("text").to_owned();
    for a in every_checkpoint() {
        for b in every_checkpoint() {
            let java = shared.java.ask(&format!("compare {} {}", text(&a), text(&b)));
            // A lease that has not begun is at its start for us, whichever that is; nobody turns one start into another.
            let start = |checkpoint: &Checkpoint| !matches!(checkpoint, Checkpoint::At(_) | Checkpoint::ShardEnd);
            assert_eq!(is_ahead(&a, &b), java == 1 && !(start(&a) && start(&b)), "{a:?} and {b:?}: {java}");
        }
    }
}
