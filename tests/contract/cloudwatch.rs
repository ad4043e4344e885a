//! Metrics under the Java connector's names (R18), against a stand-in that takes them, fails, or hangs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusBuilder;
use pulsar_io_dynamodb::{
    metrics::{
        cloudwatch::Exporter,
        fork::Fork,
        health::Health,
        kcl::{Accumulator, Level, MAX_DATA, Settings},
        names,
    },
    ports::Checkpoint,
};
use serde_json::{Value, json};
use tracing_subscriber::{Layer, layer::SubscriberExt};

use crate::support::{
    cloudwatch::{Answer, StandIn, sdk_config},
    source::{Call, Fault, World, settings},
};

fn cloudwatch(endpoint: &str, level: Level, shard_id: bool) -> Settings {
    Settings { namespace: "orders-app".into(), level, shard_id, endpoint: Some(endpoint.into()) }
}

/// Records through the facade, as the process does.
fn recorder(accumulator: &Accumulator) -> impl metrics::Recorder + use<> {
    Fork::new(PrometheusBuilder::new().build_recorder(), vec![Arc::new(accumulator.clone())])
}

/// Dimensions, name and unit of each series.
type Names = BTreeSet<(Vec<(String, String)>, String, String)>;

fn names_of<'a>(data: impl IntoIterator<Item = &'a Value>) -> Names {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let series = |datum: &Value| {
        let dimensions = datum["Dimensions"].as_array().expect("dimensions").iter();
        let mut dimensions: Vec<_> = dimensions.map(|dimension| (text(&dimension["Name"]), text(&dimension["Value"]))).collect();
        dimensions.sort();
        if let Some((_, shard)) = dimensions.iter_mut().find(|(name, _)| name == "ShardId") {
            *shard = "<shard>".into();
        }
        (dimensions, text(&datum["MetricName"]), text(&datum["Unit"]))
    };
    data.into_iter().map(series).collect()
}

/// What the Java connector was seen to put.
fn golden() -> Names {
    let golden: Vec<Value> = serde_json::from_str(include_str!("../golden/data/cloudwatch_metrics.json")).expect("JSON");
    let as_datum = |metric: &Value| {
        let pairs = metric["dimensions"].as_array().expect("dimensions").iter();
        let dimensions: Vec<_> = pairs.map(|pair| json!({"Name": pair[0], "Value": pair[1]})).collect();
        json!({"MetricName": metric["metric"], "Unit": metric["unit"], "Dimensions": dimensions})
    };
    names_of(&golden.iter().map(as_datum).collect::<Vec<_>>())
}

/// A worker's life with everything in it that makes metrics, put to the stand-in.
async fn life(level: Level, shard_id: bool) -> (StandIn, Vec<Value>) {
    let stand_in = StandIn::start().await;
    let settings_ = cloudwatch(&stand_in.endpoint, level, shard_id);
    let accumulator = Accumulator::new(settings_.clone());
    let config = sdk_config().await;
    {
        let recorder = recorder(&accumulator);
        let _recording = metrics::set_default_local_recorder(&recorder);
        tokio::time::pause();
        let mut world = World::new(70);
        let parent = world.shard(None);
        world.write(&parent, 1, 50);
        let run = world.start(settings());
        world.until("running", |state| state.all_stored()).await;
        world.fail(Call::GetRecords, Fault::Down, 2);
        world.expire_iterators();
        let [child] = world.split(&parent);
        world.write(&child, 1, 20);
        world.until("the child is read", |state| state.all_stored()).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        tokio::time::resume();
        let mut exporter = Exporter::new(&config, &settings_, accumulator, world.health.clone());
        exporter.flush().await;
        assert_eq!(exporter.waiting(), 0);
        run.stopped().await.expect("a clean stop");
    }
    let data = stand_in.data();
    (stand_in, data)
}

#[tokio::test]
async fn r18_the_payload_has_the_java_connectors_names_dimensions_and_units() {
    let (stand_in, data) = life(Level::Detailed, true).await;
    let (ours, theirs) = (names_of(&data), golden());
    // Nothing here does what these measure.
    let unmeasured = |(dimensions, name, _): &&(Vec<(String, String)>, String, String)| {
        dimensions[0].1 == "BlockOnParentShardTask" || name == "RecordProcessor.initialize.Time"
    };
    let without: BTreeSet<_> = theirs.iter().filter(unmeasured).collect();
    let missing: Vec<_> = theirs.difference(&ours).filter(|series| !without.contains(series)).collect();
    assert!(missing.is_empty(), "the Java connector puts these: {missing:#?}");
    assert_eq!(without.len(), 3);
    // What the Java connector never puts, or was not seen to.
    let more: BTreeSet<_> =
        ours.difference(&theirs).map(|(dimensions, name, unit)| (dimensions[0].1.as_str(), name.as_str(), unit.as_str())).collect();
    let expected = BTreeSet::from([
        ("ApplicationTracker", "MillisBehindLatest", "Milliseconds"),
        ("ProcessTask", "MillisBehindLatest", "Milliseconds"),
        ("ProcessTask", "ExpiredIterator", "Count"),
        ("TakeLeases", "ExpiredLeases", "Count"),
        ("TakeLeases", "NumWorkers", "Count"),
        ("TakeLeases", "TakenLeases", "Count"),
        ("TakeLeases", "TotalLeases", "Count"),
    ]);
    assert_eq!(more, expected);
    assert!(stand_in.puts().iter().all(|put| put["Namespace"] == "orders-app"));
    assert!(stand_in.signers().iter().all(|key| key == "WORKERSKEY"), "signed with the worker's credentials: {:?}", stand_in.signers());
}

#[tokio::test]
async fn r18_values_are_merged_to_statistic_sets() {
    let (_, data) = life(Level::Detailed, false).await;
    let only = |operation: &str, name: &str| {
        let found = data.iter().filter(|datum| datum["MetricName"] == name && datum["Dimensions"][0]["Value"] == operation);
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "{operation} {name}: one set for all shards: {found:#?}");
        assert!(found[0]["Timestamp"].as_f64().is_some_and(|at| at > 1.7e9));
        found[0]["StatisticValues"].clone()
    };
    let records = only("ProcessTask", "RecordsProcessed");
    assert_eq!((&records["Sum"], &records["Minimum"]), (&json!(70.0), &json!(0.0)), "{records}");
    let pages = records["SampleCount"].as_f64().expect("a number");
    let success = only("ProcessTask", "Success");
    assert_eq!(success["Sum"], json!(pages), "each page is a success: {success}");
    assert_eq!(success["SampleCount"], json!(pages + 3.0), "and two outages and an expired iterator are failures: {success}");
    assert_eq!(only("ProcessTask", "ExpiredIterator")["Sum"], 1.0);
    assert_eq!(only("RenewAllLeases", "CurrentLeases")["Maximum"], 1.0);
    assert_eq!(only("RenewAllLeases", "LostLeases")["Sum"], 0.0, "told although nothing was lost");
    assert_eq!(only("TakeLeases", "TakenLeases")["Sum"], 2.0);
    assert_eq!(only("ApplicationTracker", "MillisBehindLatest")["Maximum"], 0.0, "idle");
    let time = only("ProcessTask", "Time");
    assert!(time["Maximum"].as_f64().is_some_and(|millis| (1.0..20_000.0).contains(&millis)), "milliseconds: {time}");
    assert!(data.iter().all(|datum| datum["Dimensions"].as_array().is_some_and(|all| all.len() == 1)), "ShardId is an option");
}

#[tokio::test]
async fn w24_summary_is_what_alarms_are_made_of() {
    let (_, data) = life(Level::Summary, false).await;
    let names = names_of(&data);
    assert!(names.len() <= 20, "each costs money: {names:#?}");
    assert!(!names.iter().any(|(_, name, _)| name.contains('.')), "{names:#?}");
    for wanted in
        ["RecordsProcessed", "DataBytesProcessed", "MillisBehindLatest", "Time", "Success", "LostLeases", "CurrentLeases", "TakenLeases"]
    {
        assert!(names.iter().any(|(_, name, _)| name == wanted), "{wanted}: {names:#?}");
    }
}

/// An exporter with something to send: `series` data of different shards.
async fn loaded(endpoint: &str, series: usize) -> (Exporter, Health) {
    let settings = cloudwatch(endpoint, Level::Summary, true);
    let accumulator = Accumulator::new(settings.clone());
    metrics::with_local_recorder(&recorder(&accumulator), || {
        for shard in 0..series {
            metrics::counter!(names::SOURCE_RECORDS, names::SHARD => format!("shard-{shard}")).increment(1);
        }
    });
    let health = Health::default();
    (Exporter::new(&sdk_config().await, &settings, accumulator, health.clone()), health)
}

/// Data that are put beside those of `loaded`.
const ALWAYS: usize = 3;

#[tokio::test]
async fn data_go_in_calls_that_cloudwatch_takes() {
    let stand_in = StandIn::start().await;
    let (mut exporter, _) = loaded(&stand_in.endpoint, 1_200).await;
    exporter.flush().await;
    let sizes: Vec<_> = stand_in.puts().iter().map(|put| put["MetricData"].as_array().expect("data").len()).collect();
    assert_eq!(sizes, [500, 500, 200 + ALWAYS]);
    assert_eq!(names_of(&stand_in.data()).len(), 1 + ALWAYS, "all shards look the same here");
}

/// Counts the warnings of this thread.
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN && event.metadata().target().starts_with("pulsar_io_dynamodb") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn warnings() -> (Arc<AtomicUsize>, tracing::subscriber::DefaultGuard) {
    let count = Arc::new(AtomicUsize::new(0));
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Warnings(count.clone())));
    (count, guard)
}

#[tokio::test]
async fn what_cloudwatch_does_not_take_waits_and_is_told_once() {
    for failure in
        [Answer::Error(403, "AccessDenied"), Answer::Error(500, "InternalServiceFault"), Answer::Error(400, "ThrottlingException")]
    {
        let (warned, _guard) = warnings();
        let stand_in = StandIn::start().await;
        let (mut exporter, health) = loaded(&stand_in.endpoint, 600).await;
        stand_in.answer([failure; 3]);
        for _ in 0..3 {
            exporter.flush().await;
        }
        assert_eq!((stand_in.calls(), stand_in.data().len()), (3, 0), "one try a flush");
        assert_eq!(exporter.waiting(), 600 + 3 * ALWAYS);
        assert_eq!(warned.load(Ordering::Relaxed), 1, "{failure:?}");
        assert!(health.reasons().is_empty(), "metrics are no reason");
        exporter.flush().await;
        assert_eq!((exporter.waiting(), stand_in.data().len()), (0, 600 + 4 * ALWAYS), "nothing is lost");
        assert_eq!(stand_in.data()[0]["StatisticValues"]["Sum"], 0.0);
    }
}

#[tokio::test]
async fn what_cloudwatch_never_takes_is_dropped() {
    let stand_in = StandIn::start().await;
    let (mut exporter, _) = loaded(&stand_in.endpoint, 600).await;
    stand_in.answer([Answer::Error(400, "InvalidParameterValue")]);
    exporter.flush().await;
    assert_eq!(exporter.waiting(), 100 + ALWAYS);
    exporter.flush().await;
    assert_eq!(exporter.waiting(), 0);
}

#[tokio::test]
async fn an_endpoint_that_refuses_or_hangs_is_given_up_for_this_time() {
    let stand_in = StandIn::start().await;
    stand_in.answer([Answer::Hang]);
    let (mut exporter, _) = loaded(&stand_in.endpoint, 1).await;
    let started = Instant::now();
    exporter.flush().await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(exporter.waiting(), 1 + ALWAYS);
    exporter.flush().await;
    assert_eq!(exporter.waiting(), 0);

    let (mut exporter, _) = loaded("http://127.0.0.1:1", 1).await;
    exporter.flush().await;
    assert_eq!(exporter.waiting(), 1 + ALWAYS);

    stand_in.answer([Answer::Hang]);
    let (exporter, _) = loaded(&stand_in.endpoint, 1).await;
    let started = Instant::now();
    exporter.finish().await;
    assert!(started.elapsed() < Duration::from_secs(4), "a stop does not wait for metrics: {:?}", started.elapsed());
}

#[tokio::test]
async fn m1_what_waits_for_cloudwatch_is_bounded_and_its_overflow_told_once() {
    let (warned, _guard) = warnings();
    let (mut exporter, _) = loaded("http://127.0.0.1:1", MAX_DATA + 50).await;
    for _ in 0..3 {
        exporter.flush().await;
        assert_eq!(exporter.waiting(), MAX_DATA);
    }
    assert_eq!(warned.load(Ordering::Relaxed), 2, "one of the overflow, one of the failure");
}

#[tokio::test(start_paused = true)]
async fn the_data_path_does_not_notice_a_cloudwatch_that_never_answers() {
    // Connections come up, and nobody ever reads from them.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", deaf.local_addr().expect("an address"));
    let settings_ = cloudwatch(&endpoint, Level::Detailed, true);
    let accumulator = Accumulator::new(settings_.clone());
    let recorder = recorder(&accumulator);
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(71);
    let shard = world.shard(None);
    let run = world.start(settings());
    let mut exporter = Exporter::new(&sdk_config().await, &settings_, accumulator, world.health.clone());
    let working = async {
        for round in 0..60 {
            world.write(&shard, 1, 100);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(world.lock().all_stored(), "round {round}");
        }
    };
    tokio::select! {
        () = working => {}
        never = exporter.run() => match never {},
    }
    assert!(exporter.waiting() > 60 * 10, "metrics were recorded all the time, and none went: {}", exporter.waiting());
    assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
    run.stopped().await.expect("a clean stop");
    world.check();
    assert!(matches!(world.lock().row(&shard).checkpoint, Checkpoint::At(_)));
}
