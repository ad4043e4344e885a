//! The sink with messages that choose their tables.

use pulsar_io_dynamodb::{
    error::Kind,
    ports::{KeySchema, KeyType},
    sink::shape::{Expression, Route},
};

use crate::support::sink::{World, dead_topic::property, put, refused};

fn world(template: &str) -> World {
    let mut world = World::new();
    let allowed = vec!["copies-1".into(), "copies-2".into(), "missing-*".into()];
    world.settings.shape.route = Some(Route::parse(template, allowed).expect("a template"));
    world.settings.table_name = template.into();
    world
}

/// Versions that are multiples of four: plain JSON, where the key is as it is written.
fn tables(world: &World) -> Vec<(u64, String)> {
    world.table.tables().into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn messages_choose_among_the_tables_that_are_allowed() {
    let world = world("copies-${value.pk}");
    world.broker.publish([put(1, 4), put(2, 8), put(1, 12)]);
    let running = world.start();
    world.all_acked().await;
    assert_eq!(tables(&world), [(1, "copies-1".to_owned()), (2, "copies-2".to_owned())]);
    world.assert_last_message_wins();
    running.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_not_allowed_or_not_there_is_poison_for_its_messages_alone() {
    for (template, why) in [("copies-${value.pk}", "none of allowedTables"), ("missing-${property.EVENT_NAME}", "is not there")] {
        let world = world(template);
        world.broker.publish([refused(7, 4)]);
        let running = world.start();
        world.all_acked().await;
        let copies = world.dead_topic.stored();
        assert_eq!(property(&copies[0], "dlq.reason"), Some("TABLE"), "{template}");
        assert!(property(&copies[0], "dlq.errorMessage").is_some_and(|message| message.contains(why)), "{template}: {copies:?}");
        assert!(world.table.calls().is_empty());
        running.stop().await.expect("a clean stop");
    }
}

#[tokio::test(start_paused = true)]
async fn tables_that_are_not_there_are_made() {
    for (template, made) in [("missing-${property.EVENT_NAME}", "missing-TEST"), ("missing", "missing")] {
        let mut world = world(template);
        if !Route::is_template(template) {
            world.settings.shape.route = None;
        }
        world.settings.created_key = Some(KeySchema { partition: ("pk".into(), KeyType::N), sort: None });
        world.broker.publish([put(1, 4), put(2, 8)]);
        let running = world.start();
        world.all_acked().await;
        assert_eq!(world.table.created(), [made]);
        assert_eq!(tables(&world), [(1, made.to_owned()), (2, made.to_owned())]);
        running.stop().await.expect("a clean stop");
    }
}

/// `primaryKey` has to name the table's key, as RisingWave's sink has it: found before anything is written.
#[tokio::test(start_paused = true)]
async fn a_primary_key_that_is_not_the_tables_ends_the_worker() {
    for template in ["copies-${value.pk}", "copies"] {
        let mut world = world(template);
        if !Route::is_template(template) {
            world.settings.shape.route = None;
        }
        world.settings.shape.primary_key = [("id".to_owned(), Expression::parse("value.pk").expect("an expression"))].into();
        world.broker.publish([put(1, 4)]);
        let error = world.start().ended().await.expect_err("a contradiction");
        assert_eq!(error.kind(), Kind::Configuration);
        assert!(error.to_string().contains("primaryKey names [\"id\"], the table's key is [\"pk\"]"), "{error}");
        assert_eq!(world.broker.unacked(), [0]);
    }
}
