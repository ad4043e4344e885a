//! kill -9 in the middle of 20,000 changes, ten times: nothing lost, order for each item kept, the copy equal (D1, O1, C1, A1).

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::types::StreamViewType;

use super::{
    Lab, Random,
    connector::{Connector, sink_config, source_config},
    eventually, lab, seed,
    shop::{Seen, Shop},
    table::{Table, assert_equal},
    topic::Topic,
};

const CHANGES: usize = 20_000;
const ITEMS: usize = 2_000;
const KILLS: u64 = 10;

/// `written` tells others how far it is.
async fn write_all(shop: &mut Shop, table: &Table, written: &Cell<usize>) {
    while shop.written < CHANGES {
        shop.change(table, CHANGES - shop.written).await;
        written.set(shop.written);
    }
}

/// Ten moments in the middle of the changes, in order.
fn moments(seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut moments: Vec<usize> = (0..KILLS).map(|_| 200 + random.below(CHANGES as u64 - 400) as usize).collect();
    moments.sort_unstable();
    moments
}

struct Tables {
    original: Table,
    copy: Table,
    topic: String,
    source_config: String,
    sink_config: String,
}

async fn tables(lab: &Lab) -> Tables {
    let original = Table::create(lab, "original", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(lab, "copy", None).await;
    let topic = format!("persistent://public/default/{}", lab.unique);
    let interval = BTreeMap::from([("checkpointInterval", "500")]);
    Tables {
        source_config: source_config(&topic, &original.name, &format!("leases-{}", lab.unique), &interval),
        sink_config: sink_config(&topic, &copy.name, ""),
        original,
        copy,
        topic,
    }
}

async fn copy_becomes_equal(tables: &Tables) {
    let wanted = tables.original.items().await;
    let mut copied = BTreeMap::new();
    for _ in 0..120 {
        copied = tables.copy.items().await;
        if copied == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_equal(&wanted, &copied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_killed_ten_times() {
    let Some(lab) = lab("kill-source").await else { return };
    let seed = seed("kill-source");
    let tables = tables(&lab).await;
    let mut topic = Topic::from_start(&lab, &tables.topic).await;
    let sink = Connector::start(&lab, "sink", &tables.sink_config);
    let mut shop = Shop::new(seed, ITEMS);
    let written = Cell::new(0);
    let read = async {
        let mut seen = Seen::default();
        let mut source = Connector::start(&lab, "source", &tables.source_config);
        for kill_at in moments(seed) {
            while seen.distinct() < kill_at {
                seen.add(&topic.next().await);
            }
            source.kill();
            source = Connector::start(&lab, "source", &tables.source_config);
        }
        while seen.distinct() < CHANGES {
            seen.add(&topic.next().await);
        }
        (source, seen)
    };
    let (_, (source, seen)) = tokio::join!(write_all(&mut shop, &tables.original, &written), read);

    println!("kill-source: {} changes, {} events, {} repeated after {KILLS} kills", CHANGES, seen.events, seen.duplicates);
    copy_becomes_equal(&tables).await;
    assert!(source.stop().await.success() && sink.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_is_killed_ten_times() {
    let Some(lab) = lab("kill-sink").await else { return };
    let seed = seed("kill-sink");
    let tables = tables(&lab).await;
    let mut shop = Shop::new(seed, ITEMS);
    let written = Cell::new(0);
    let source = Connector::start(&lab, "source", &tables.source_config);
    let kill = async {
        let mut sink = Connector::start(&lab, "sink", &tables.sink_config);
        for kill_at in moments(seed) {
            let reached = async || (written.get() >= kill_at).then_some(());
            eventually("the changes are written", Duration::from_secs(300), reached).await;
            // A sink that has not begun would be killed for nothing.
            let works = async || (sink.metric("dynamodb_sink_messages_received_total").await > 0).then_some(());
            eventually("the sink receives", Duration::from_secs(60), works).await;
            sink.kill();
            sink = Connector::start(&lab, "sink", &tables.sink_config);
        }
        sink
    };
    let (_, sink) = tokio::join!(write_all(&mut shop, &tables.original, &written), kill);
    copy_becomes_equal(&tables).await;
    assert!(source.stop().await.success() && sink.stop().await.success());
}
