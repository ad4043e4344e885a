//! Metrics in CloudWatch, read back from an independent stand-in (moto), which checks what it is put.

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::{Value, json};

use super::{
    connector::{Connector, source_config},
    eventually, lab,
    shop::Shop,
    table::Table,
};
use crate::support::cloudwatch::{StandIn, json_call};

#[tokio::test(flavor = "multi_thread")]
async fn r18_what_was_recorded_is_in_cloudwatch_when_the_drain_ends() {
    let Some(lab) = lab("cloudwatch").await else { return };
    let Ok(moto) = env::var("AWS_STANDIN_URL") else {
        assert!(env::var("LAB").as_deref() != Ok("required"), "AWS_STANDIN_URL is not set; run ./test");
        return eprintln!("SKIPPED: lab::cloudwatch needs the stand-in for AWS; ./test starts it");
    };
    // The SDK speaks CBOR, which moto does not know.
    let between = StandIn::forwarding(Some(moto.clone())).await;
    let table = Table::create(&lab, "orders", Some(StreamViewType::NewImage)).await;
    let (application, topic) = (format!("app-{}", table.name), format!("persistent://public/default/{}", table.name));
    let more = BTreeMap::from([("cloudwatchMetrics", "detailed"), ("cloudwatchEndpoint", between.endpoint.as_str())]);
    let started = Instant::now();
    let mut source = Connector::start(&lab, "source", &source_config(&topic, &table.name, &application, &more));
    let mut shop = Shop::new(1, 25);
    shop.change(&table, 25).await;
    let published = async || (source.metric("dynamodb_source_published_total").await == 25).then_some(());
    eventually("everything is published", Duration::from_secs(60), published).await;
    let flushed_before = started.elapsed() > Duration::from_secs(10);
    assert!(flushed_before || between.calls() == 0, "a flush comes each 10 s");
    assert!(source.stop().await.success());
    assert!(between.calls() > 0, "the drain ends with a flush");

    let statistics = async |name: &str, operation: &str| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let question = json!({
            "Namespace": application, "MetricName": name, "Dimensions": [{"Name": "Operation", "Value": operation}],
            "StartTime": now - 3_600, "EndTime": now + 60, "Period": 86_400, "Statistics": ["Sum", "SampleCount", "Minimum", "Maximum"],
        });
        let answer = json_call(&moto, "GetMetricStatistics", &question).await;
        let points = answer["Datapoints"].as_array().cloned().unwrap_or_default();
        assert!(!points.is_empty(), "{name}: {answer}");
        let sum = |what: &str| points.iter().filter_map(|point| point[what].as_f64()).sum::<f64>();
        (sum("Sum"), sum("SampleCount"), points[0]["Unit"].clone())
    };
    let (records, pages, unit) = statistics("RecordsProcessed", "ProcessTask").await;
    assert_eq!((records, unit), (25.0, Value::from("Count")));
    let (successes, ..) = statistics("Success", "ProcessTask").await;
    assert_eq!(successes, pages);
    let (_, samples, unit) = statistics("MillisBehindLatest", "ApplicationTracker").await;
    assert!(samples >= 1.0);
    assert_eq!(unit, "Milliseconds");
}
