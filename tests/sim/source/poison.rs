//! Records that never can be published: each policy, and what holds under all of them.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use pulsar_io_dynamodb::{
    ports::{Checkpoint, OutboundMessage, ShardId},
    source::{Settings, poison::Policy},
};

use super::{SECOND, finish};
use crate::support::source::{DEAD_LETTERS, Refused, World, number, settings};

fn with(poison: Policy) -> Settings {
    Settings { poison, ..settings() }
}

fn recorder() -> (PrometheusHandle, metrics::LocalRecorderGuard<'static>) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    (recorder.handle(), metrics::set_default_local_recorder(recorder))
}

/// Ten good records, one that is refused, and so on: at once, with its receipt, and one that cannot be read. Returns those three.
fn poisoned(world: &World, shard: &ShardId) -> [u64; 3] {
    world.write(shard, 1, 11);
    let at_once = world.last(shard);
    world.write(shard, 1, 11);
    let late = world.last(shard);
    world.write(shard, 1, 10);
    let unreadable = world.write_poison(shard);
    world.write(shard, 1, 10);
    let mut state = world.lock();
    state.refusals.insert(at_once, Refused::AtOnce);
    state.refusals.insert(late, Refused::WithTheReceipt);
    [at_once, late, unreadable]
}

fn property<'a>(letter: &'a OutboundMessage, name: &str) -> &'a str {
    letter.properties.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

#[tokio::test(start_paused = true)]
async fn c1_w9_the_checkpoint_passes_a_refused_record_once_its_dead_letter_is_stored() {
    let (metrics, _recording) = recorder();
    let mut world = World::new(90);
    let shard = world.shard(None);
    let [at_once, late, unreadable] = poisoned(&world, &shard);
    world.lock().hold_letters = true;
    let run = world.start(with(Policy::DeadLetter(DEAD_LETTERS.into())));
    world.until("the good ones are stored", |state| state.stored.len() == 40).await;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.lock().row(&shard).checkpoint, Checkpoint::At(number(at_once - 1)), "C1: its dead letter is on the way");
    assert!(world.lock().dead_letters.is_empty());

    world.change(|state| state.hold_letters = false);
    let last = world.last(&shard);
    world.until("the checkpoint passes", |state| state.row(&shard).checkpoint == Checkpoint::At(number(last))).await;
    {
        let state = world.lock();
        let letters: Vec<_> = state
            .dead_letters
            .iter()
            .map(|letter| ["dlq.sequenceNumber", "dlq.reason", "dlq.content", "dlq.shardId"].map(|name| property(letter, name).to_owned()))
            .collect();
        let expected = [(at_once, "TOO_LARGE", "KEYS"), (late, "REFUSED", "MESSAGE"), (unreadable, "UNREADABLE", "RECORD")];
        let expected: Vec<_> = expected
            .map(|(sequence, reason, content)| [number(sequence).to_string(), reason.to_owned(), content.to_owned(), shard.to_string()])
            .into();
        assert_eq!(letters, expected, "O1: in the shard's order");
        let first = &state.dead_letters[0];
        assert_eq!((property(first, "dlq.eventId"), property(first, "dlq.table")), (format!("{at_once:032x}").as_str(), "orders"));
    }
    for reason in ["TOO_LARGE", "REFUSED", "UNREADABLE"] {
        let counted = format!(r#"dynamodb_source_poison_total{{policy="deadLetter",reason="{reason}"}} 1"#);
        assert!(metrics.render().contains(&counted), "{}", metrics.render());
    }
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn c1_what_is_skipped_on_purpose_is_passed_and_counted() {
    let (metrics, _recording) = recorder();
    let mut world = World::new(91);
    let shard = world.shard(None);
    let poison = poisoned(&world, &shard);
    world.lock().excused.extend(poison);
    let run = world.start(with(Policy::Skip));
    let last = world.last(&shard);
    world.until("all is read", |state| state.rows.get(&shard).is_some_and(|row| row.checkpoint == Checkpoint::At(number(last)))).await;
    assert_eq!(world.lock().stored.len(), 40);
    assert!(world.lock().dead_letters.is_empty());
    assert!(metrics.render().contains(r#"dynamodb_source_poison_total{policy="skip",reason="REFUSED"} 1"#), "{}", metrics.render());
    finish(&world, run).await;
}

/// A shard that a record stops, and one beside it. Returns them, and the record.
async fn stopped(world: &mut World, refused: Option<Refused>) -> (super::Run, [ShardId; 2], u64) {
    let (bad, good) = (world.shard(None), world.shard(None));
    world.write(&bad, 1, 10);
    world.write(&good, 2, 10);
    let poison = match refused {
        Some(refused) => {
            world.write(&bad, 1, 1);
            let poison = world.last(&bad);
            world.lock().refusals.insert(poison, refused);
            poison
        }
        None => world.write_poison(&bad),
    };
    world.write(&bad, 1, 10);
    world.close(&bad);
    let run = world.start(settings());
    let health = run.health.clone();
    world.until("health is red", |_| !health.reasons().is_empty()).await;
    (run, [bad, good], poison)
}

#[tokio::test(start_paused = true)]
async fn w8_c1_h1_a_record_stops_its_shard_by_name_and_no_other() {
    for refused in [Some(Refused::AtOnce), Some(Refused::WithTheReceipt), None] {
        let (metrics, _recording) = recorder();
        let mut world = World::new(92);
        let (run, [bad, good], poison) = stopped(&mut world, refused).await;
        let reason = run.health.reasons().into_values().collect::<String>();
        for part in [bad.as_str(), number(poison).as_str(), "deadLetterTopic", "onPoison: skip"] {
            assert!(reason.contains(part), "{part} of {refused:?}: {reason}");
        }
        // Longer than a lease lasts: it is kept, and the neighbour is read on.
        tokio::time::sleep(60 * SECOND).await;
        world.write(&good, 2, 10);
        let last = world.last(&good);
        world.until("the neighbour goes on", |state| state.row(&good).checkpoint == Checkpoint::At(number(last))).await;
        {
            let state = world.lock();
            assert_eq!(state.row(&bad).checkpoint, Checkpoint::At(number(poison - 11)), "C1: what stands before it");
            assert_eq!(state.holder(&bad), Some(run.id), "another worker could not publish it either");
            let later = state.published.iter().filter(|published| (poison + 1..=poison + 10).contains(&published.sequence)).count();
            assert!(later == 0 || refused == Some(Refused::WithTheReceipt), "{later} published after it ({refused:?})");
        }
        assert!(metrics.render().contains(r#"dynamodb_source_poison_total{policy="stopShard""#), "{}", metrics.render());
        run.stopped().await.expect("Z1: a clean stop");
        assert!(world.lock().rows.values().all(|row| row.owner.is_none()), "Z1: a clean stop leaves no lease owned");

        // The operator decides.
        world.lock().excused.insert(poison);
        let run = world.start(with(Policy::Skip));
        world.until("the shard's end", |state| state.row(&bad).checkpoint == Checkpoint::ShardEnd).await;
        finish(&world, run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s1_the_children_of_a_stopped_shard_wait() {
    let mut world = World::new(93);
    let shard = world.shard(None);
    world.write(&shard, 1, 5);
    world.write_poison(&shard);
    let [child] = world.split(&shard);
    world.write(&child, 1, 5);
    let run = world.start(settings());
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(world.lock().stored.len(), 5);
    assert!(world.lock().violations.is_empty(), "{:?}", world.lock().violations);
    run.stopped().await.expect("Z1: a clean stop");
}

/// As `leases release --force` does, after what refused the record was mended: the topic's schema, say.
#[tokio::test(start_paused = true)]
async fn w9_h1_a_stopped_shard_goes_on_without_a_restart_once_its_lease_is_released() {
    for refused in [Refused::AtOnce, Refused::WithTheReceipt] {
        let mut world = World::new(94);
        let (run, [bad, _], _) = stopped(&mut world, Some(refused)).await;
        tokio::time::sleep(60 * SECOND).await;
        {
            let mut state = world.lock();
            state.refusals.clear();
            let row = state.rows.get_mut(&bad).expect("a row");
            (row.counter, row.owner, row.nonce) = (row.counter + 1, None, None);
        }
        world.until("the shard's end", |state| state.row(&bad).checkpoint == Checkpoint::ShardEnd).await;
        assert!(world.health.reasons().is_empty(), "{:?}", world.health.reasons());
        finish(&world, run).await;
    }
}
