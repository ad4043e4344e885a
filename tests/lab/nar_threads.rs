//! The archive where a functions worker has its instances as threads of its own virtual machine (`ThreadRuntimeFactory`).

use aws_sdk_dynamodb::types::StreamViewType;
use serde_json::json;

use super::{
    eventually,
    functions::{Functions, PATIENCE, sum},
    lab,
    nar::{archive, gone, instances, put, same, signal},
    own_pulsar::OwnPulsar,
    table::Table,
};

#[tokio::test(flavor = "multi_thread")]
async fn d1_z1_h1_in_the_workers_own_threads_source_and_sink_run_come_again_and_leave_no_process_behind() {
    let Some(lab) = lab("nar-threads").await else { return };
    let pulsar = OwnPulsar::start(&lab, &["--threads"]).await;
    let functions = Functions::of(&lab, &pulsar.http_url, &pulsar.folder).await;
    let archive = &*archive(&functions).await;
    let orders = Table::create(&lab, "orders", Some(StreamViewType::NewAndOldImages)).await;
    let copy = Table::create(&lab, "copy", None).await;
    let (source, sink, topic) = ("thread-source", "thread-sink", "thread-changes");
    // Its virtual machine has the folder in its command line, and nothing of the connectors.
    let of_the_worker = || instances(pulsar.folder.to_str().expect("text"));
    let natives = async |count: usize| {
        let natives = || of_the_worker().iter().map(|instance| instance.native).collect::<Vec<_>>();
        eventually(&format!("{count} native processes"), PATIENCE, async || Some(natives()).filter(|found| found.len() == count)).await
    };
    put(&orders, 0..10).await;

    let config = functions.source_config(&orders, json!({"awsSecretKey": "local"}));
    let create = ["sources", "create", "--archive", archive, "--name", source, "--destination-topic-name", topic];
    functions.admin(&[&create[..], &["--source-config", &config]].concat()).await;
    let publishes = natives(1).await[0];
    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}));
    let create = ["sinks", "create", "--archive", archive, "--name", sink, "--inputs", topic, "--subs-position", "Earliest"];
    functions.admin(&[&create[..], &["--retain-ordering", "--sink-config", &config]].concat()).await;
    same(&orders, &copy, 10).await;
    assert_eq!(natives(2).await.len(), 2);
    let machine = of_the_worker()[0].machine;
    assert!(of_the_worker().iter().all(|instance| instance.machine == machine), "threads of one virtual machine");
    for (kind, name, count) in [("sources", source, "numWritten"), ("sinks", sink, "numWrittenToSink")] {
        let status = functions.status_of(kind, name, |status| sum(status, count) == 10).await;
        assert_eq!((&status["numRunning"], &status["instances"][0]["status"]["error"]), (&1.into(), &"".into()), "{status}");
    }

    // A thread's end is its process's, and the other way round. Pulsar starts it again.
    signal("-KILL", publishes).await;
    put(&orders, 10..15).await;
    same(&orders, &copy, 15).await;
    functions.status_of("sources", source, |status| status["numRunning"] == 1 && sum(status, "numRestarts") >= 1).await;

    let publishes = of_the_worker().iter().map(|instance| instance.native).max().expect("the newest one");
    functions.admin(&["sinks", "delete", "--name", sink]).await;
    assert_eq!(natives(1).await, [publishes], "the deleted one's has ended, and the other one's has not");
    // That one goes with the whole worker.
    signal("-KILL", machine).await;
    gone("the source's process", publishes).await;
    pulsar.stop().await;
}
