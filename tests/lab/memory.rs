//! Messages as large as a broker takes, many times more of them than a process may hold (47).

use std::time::Duration;

use pulsar_io_dynamodb::ports::{OutboundMessage, Publisher};

use super::{
    connector::{Connector, sink_config},
    eventually, lab,
    table::Table,
    topic::publisher,
};

const MESSAGES: usize = 120;
const BYTES: usize = 4_900_000;
/// A quarter of what passes: the worker's room (32 MiB by default), the receive queue (16 MiB), the program, a few copies of the message that is being read.
const PEAK: u64 = 150_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn s47_m1_memory_is_bounded_with_messages_of_five_megabytes() {
    let Some(lab) = lab("memory").await else { return };
    let table = Table::create(&lab, "small", None).await;
    let topic = format!("persistent://public/default/{}", table.name);
    let (publisher, lanes) = publisher(&lab, &topic).await;
    for number in 0..MESSAGES {
        let payload = format!(r#"{{"pk":"item-{number}","sk":{number},"blob":"{}"}}"#, "x".repeat(BYTES)).into_bytes();
        publisher
            .publish(OutboundMessage { payload, ..OutboundMessage::default() })
            .await
            .expect("accepted")
            .stored()
            .await
            .expect("stored");
    }
    drop(publisher);
    lanes.finished().await;

    let config = sink_config(&topic, &table.name, "") + "  excludeFields: [blob]\n";
    let mut sink = Connector::start(&lab, "sink", &config);
    let written = async || (sink.metric("dynamodb_sink_items_written_total").await >= MESSAGES as u64).then_some(());
    eventually("all are written", Duration::from_secs(120), written).await;
    let peak = sink.peak_memory();
    assert!(sink.stop().await.success());
    println!("memory: {} MB of messages, at most {:?} bytes of memory", MESSAGES * BYTES / 1_000_000, peak);
    assert_eq!(table.items().await.len(), MESSAGES);
    if let Some(peak) = peak {
        assert!(peak < PEAK, "M1: {peak} bytes");
    }
}
