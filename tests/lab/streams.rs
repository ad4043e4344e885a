//! A table's streams, one after the other, and two tables under one `applicationName`, as DynamoDB Local has them.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};

use super::{
    connector::{Connector, source_config},
    lab,
    table::Table,
    topic::Topic,
};

async fn put(table: &Table, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let item = HashMap::from([("pk", AttributeValue::S("item".into())), ("sk", AttributeValue::N(number.to_string()))]);
        table.put(item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()).await;
    }
}

async fn arrive(topic: &mut Topic, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(topic.next().await.json["dynamodb"]["Keys"]["sk"]["N"], number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_d1_a_stream_switched_off_and_on_and_a_table_made_again_are_followed_by_the_same_process() {
    let Some(lab) = lab("streams").await else { return };
    let table = Table::create(&lab, "followed", Some(StreamViewType::NewAndOldImages)).await;
    let topic = format!("persistent://public/default/{}", lab.unique);
    let mut reader = Topic::from_start(&lab, &topic).await;
    put(&table, 0..5).await;
    let more = BTreeMap::from([("checkpointInterval", "100")]);
    let source = Connector::start(&lab, "source", &source_config(&topic, &table.name, &format!("leases-{}", lab.unique), &more));
    arrive(&mut reader, 0..5).await;

    put(&table, 5..10).await;
    table.switch_stream(false).await;
    table.switch_stream(true).await;
    put(&table, 10..15).await;
    arrive(&mut reader, 5..15).await;

    table.delete_table().await;
    let table = Table::create(&lab, "followed", Some(StreamViewType::NewAndOldImages)).await;
    put(&table, 15..20).await;
    arrive(&mut reader, 15..20).await;
    let log = source.log_text();
    assert_eq!(log.matches("the table has another stream").count(), 2, "{log}");
    assert!(source.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_a_second_table_under_the_same_application_name_is_refused_with_64() {
    let Some(lab) = lab("names").await else { return };
    let topic = format!("persistent://public/default/{}", lab.unique);
    let application = format!("leases-{}", lab.unique);
    let mut reader = Topic::from_start(&lab, &topic).await;
    let first_table = Table::create(&lab, "first", Some(StreamViewType::NewAndOldImages)).await;
    let second_table = Table::create(&lab, "second", Some(StreamViewType::NewAndOldImages)).await;
    let start = |name: &str, table: &Table| {
        Connector::start_as(&lab, "source", name, &source_config(&topic, &table.name, &application, &BTreeMap::new()))
    };
    let first = start("first", &first_table);
    put(&first_table, 0..5).await;
    arrive(&mut reader, 0..5).await;
    let mut second = start("second", &second_table);
    assert_eq!(second.exit("the second one is refused").await.code(), Some(64));
    let told = second.log_text();
    assert!(told.contains("applicationName of its own") && told.contains(&first_table.name), "{told}");
    put(&first_table, 5..10).await;
    arrive(&mut reader, 5..10).await;

    // Once nobody renews them, the first one's leases stand in nobody's way, and stay.
    first.kill();
    let second = start("second", &second_table);
    put(&second_table, 10..15).await;
    arrive(&mut reader, 10..15).await;
    let log = second.log_text();
    assert!(log.contains("they are left alone"), "{log}");
    assert!(second.stop().await.success());
}
