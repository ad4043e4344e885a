//! Which records become messages, and what becomes of those that cannot.

use metrics_exporter_prometheus::PrometheusBuilder;
use pulsar_io_dynamodb::{
    ports::Checkpoint,
    source::{Settings, clock::epoch_millis, convert::filter::Filter},
};

use super::{SECOND, finish};
use crate::support::source::{World, number, settings};

fn filtered(pattern: &str) -> Settings {
    let mut settings = settings();
    settings.shape.filter = Filter::compile(&serde_json::from_str::<Vec<_>>(pattern).expect("JSON")).expect("a good filter");
    settings
}

#[tokio::test(start_paused = true)]
async fn w22_records_that_the_filter_leaves_out_are_done_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(60);
    let shard = world.shard(None);
    world.write(&shard, 1, 10);
    world.write_before_start(&shard, 2, 30, epoch_millis());
    let run = world.start(filtered(r#"[{"keys":{"pk":[1]}}]"#));
    world.until("the wanted ones are stored", |state| state.all_stored()).await;
    tokio::time::sleep(5 * SECOND).await;
    let last = world.last(&shard);
    assert_eq!(world.lock().row(&shard).checkpoint, Checkpoint::At(number(last)), "they are not read again after a restart");
    assert_eq!(world.lock().published.len(), 10);
    assert!(metrics.render().contains(r#"dynamodb_source_skipped_total{reason="filter"} 30"#), "{}", metrics.render());
    finish(&world, run).await;
}
