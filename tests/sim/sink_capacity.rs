//! The write-capacity limit of several sinks together (49).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pulsar_io_dynamodb::{
    error::Result,
    ports::{ItemTables, KeySchema, Vehicle, Write, Written},
    sink::run,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::support::sink::{World, put, table::Table};

const SINKS: usize = 4;
/// Units a second of each sink.
const LIMIT: u64 = 25;
const SPAN: Duration = Duration::from_secs(60);
/// What a write of a small item takes of a table with an index: the sink's own estimate is the half.
const UNITS: f64 = 2.0;

/// A table that tells what it has used up, and remembers it.
struct Metered {
    table: Table,
    used: Arc<Mutex<Vec<(Instant, f64)>>>,
}

impl ItemTables for Metered {
    async fn create(&self, table: &str, key: &KeySchema) -> Result<()> {
        self.table.create(table, key).await
    }

    async fn describe(&self, table: &str) -> Result<KeySchema> {
        self.table.describe(table).await
    }

    async fn write(&self, vehicle: Vehicle, writes: &[Arc<Write>]) -> Result<Written> {
        let written = self.table.write(vehicle, writes).await?;
        let units = writes.len() as f64 * UNITS;
        self.used.lock().expect("no panic").push((Instant::now(), units));
        Ok(Written { consumed: Some(units), ..written })
    }
}

/// Four sinks, each with a partition of its own: each keeps the limit, and together they take four times as much.
#[tokio::test(start_paused = true)]
async fn s49_each_of_four_sinks_keeps_the_limit_and_together_they_use_four_times_as_much() {
    let (stop, mut sinks, begun) = (CancellationToken::new(), JoinSet::new(), Instant::now());
    let mut meters = Vec::new();
    for _ in 0..SINKS {
        let mut world = World::new();
        world.settings.max_write_capacity = Some(LIMIT);
        // More than they can write: whoever ran dry would be below the limit.
        for entry in 0..40 {
            world.broker.publish((0..50).map(|number| put(entry * 50 + number, entry * 50 + number + 1)));
        }
        let used = Arc::<Mutex<Vec<(Instant, f64)>>>::default();
        meters.push(used.clone());
        let tables = Metered { table: world.table.clone(), used };
        let World { settings, broker, registry, dead_topic, health, .. } = world;
        sinks.spawn(run(settings, broker.connect(), Arc::new(registry), Arc::new(tables), Some(dead_topic), health, stop.clone()));
    }
    tokio::time::sleep(SPAN).await;
    stop.cancel();
    while let Some(ended) = sinks.join_next().await {
        ended.expect("no panic").expect("a clean stop");
    }
    let within = |used: &Mutex<Vec<(Instant, f64)>>| -> f64 {
        used.lock().expect("no panic").iter().filter(|(at, _)| *at - begun <= SPAN).map(|(_, units)| units).sum()
    };
    let each: Vec<f64> = meters.iter().map(|used| within(used)).collect();
    let (wanted, together) = (LIMIT as f64 * SPAN.as_secs_f64(), each.iter().sum::<f64>());
    assert!(each.iter().all(|used| (used / wanted - 1.0).abs() < 0.05), "{wanted} units, and they used {each:?}");
    assert!((together / (wanted * SINKS as f64) - 1.0).abs() < 0.05, "{together} of {wanted} units for each");
}
