//! The sink with messages that are read by their schema version.

use crate::support::sink::{Effect, Message, World, avro, avro_schema, dead_topic::property, eventually, put};

/// 35: a version is asked for once; until it is known nothing overtakes, and what is under way goes on.
#[tokio::test(start_paused = true)]
async fn t35_schemas_change_in_mid_topic_and_order_stays() {
    let world = World::new();
    (0..3).for_each(|version| world.registry.register(version, avro_schema(version)));
    world.broker.publish([put(1, 1), avro(1, 2, 0), avro(2, 3, 1)]);
    world.broker.publish([avro(2, 4, 0), put(2, 5), avro(3, 6, 2), avro(1, 7, 1)]);
    let running = world.start();
    eventually("the first message is stored while a schema is asked for", || world.table.versions().get(&1) == Some(&1)).await;
    assert!(world.registry.asked().is_empty());
    world.all_acked().await;
    world.assert_last_message_wins();
    assert_eq!(world.table.versions().into_iter().collect::<Vec<_>>(), [(1, 7), (2, 5), (3, 6)]);
    assert_eq!(world.registry.asked(), [[0], [1], [2]]);
    running.stop().await.expect("a clean stop");
}

/// A message is held, not received: a stop leaves it to the next worker, with its whole entry.
#[tokio::test(start_paused = true)]
async fn a1_a_stop_while_a_schema_is_asked_for_loses_nothing() {
    let world = World::new();
    world.registry.register(0, avro_schema(0));
    world.broker.publish([put(1, 1), avro(2, 2, 0), put(3, 3)]);
    let running = world.start();
    eventually("the first is stored", || world.table.versions().len() == 1).await;
    running.stop().await.expect("a clean stop");
    assert_eq!(world.broker.unacked(), [0]);
    let running = world.start();
    world.all_acked().await;
    world.assert_last_message_wins();
    running.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_is_gone_is_poison_for_its_messages_alone() {
    let world = World::new();
    let lost = |key, version| Message { effect: Effect::Poison, ..avro(key, version, 9) };
    world.broker.publish([put(1, 1), lost(2, 2), put(3, 3)]);
    let running = world.start();
    world.all_acked().await;
    assert_eq!(world.table.versions().len(), 2);
    let reasons: Vec<_> = world.dead_topic.stored().iter().map(|copy| property(copy, "dlq.reason").map(str::to_owned)).collect();
    assert_eq!(reasons, [Some("SCHEMA".to_owned())]);
    running.stop().await.expect("a clean stop");
}
