//! D2: each record is stored once, by a broker that deduplicates, whatever happens to workers. Random schedules have the rest (`random.rs`).

use std::collections::BTreeSet;

use pulsar_io_dynamodb::{
    ports::{Checkpoint, ShardId},
    source::Settings,
};

use super::{SECOND, finish};
use crate::support::source::{Call, Fault, Run, State, World, once};

fn worker(number: u32) -> Settings {
    Settings { worker_id: format!("public/default/orders-{number}"), ..once(20) }
}

/// A world whose broker deduplicates, with one shard and 100 records of it, and the worker running.
async fn running(seed: u64) -> (World, ShardId, Run) {
    let mut world = World::new(seed);
    world.deduplicate();
    let shard = world.shard(None);
    world.write(&shard, 1, 100);
    let run = world.start(once(20));
    let checkpointed = |state: &State| state.rows.values().any(|row| row.mark.as_ref().is_some_and(|mark| mark.ordinal == 100));
    world.until("running", |state| state.all_stored() && checkpointed(state)).await;
    (world, shard, run)
}

/// Of the numbers of a shard's records.
fn epoch(world: &World, shard: &ShardId) -> u64 {
    world.lock().row(shard).mark.as_ref().expect("numbers").epoch
}

#[tokio::test(start_paused = true)]
async fn d2_after_a_kill_at_any_record_the_next_start_goes_on_under_the_same_name() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.deduplicate();
        world.lock().receipt_delay = SECOND / 100;
        let shard = world.shard(None);
        world.write(&shard, 1, 200);
        let run = world.start(once(20));
        let at = 1 + 3 * seed as usize;
        world.until("some are stored", |state| state.stored.len() >= at).await;
        let before = epoch(&world, &shard);
        world.kill(run).await;
        let run = world.start(once(20));
        world.until("the rest is stored", |state| state.all_stored()).await;
        assert_eq!(epoch(&world, &shard), before);
        finish(&world, run).await;
        assert_eq!(world.lock().stored.len(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn d2_no_more_is_published_beyond_the_checkpoint_than_the_next_owner_takes_for_doubtful() {
    let (world, shard, run) = running(130).await;
    world.fail(Call::Checkpoint, Fault::Down, usize::MAX);
    let published = world.lock().published.len();
    world.write(&shard, 1, 100);
    tokio::time::sleep(5 * SECOND).await;
    let more = world.lock().published.len() - published;
    assert!((1..=20).contains(&more), "{more} beyond the checkpoint");
    world.lock().faults.clear();
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn d2_a_clean_stop_and_a_handover_end_the_epoch_and_nothing_waits_for_anybody() {
    let (mut world, shard, run) = running(131).await;
    let first = epoch(&world, &shard);
    run.stopped().await.expect("a clean stop");
    world.write(&shard, 1, 50);
    let run = world.start(once(20));
    world.until("read on", |state| state.all_stored()).await;
    let second = epoch(&world, &shard);
    assert!(second > first);
    // Two shards more: the second worker gets one, by asking.
    let shards = [shard.clone(), world.shard(None), world.shard(None)];
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 50));
    world.until("stored", |state| state.all_stored()).await;
    let other = world.start(worker(1));
    let owned = |state: &State| state.rows.values().filter(|row| row.owner == Some(worker(1).worker_id)).count();
    world.until("they share", |state| owned(state) == 1).await;
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 50));
    world.until("stored", |state| state.all_stored()).await;
    assert!(world.lock().refused.is_empty(), "nobody met the other's producer");
    other.stopped().await.expect("a clean stop");
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn d2_who_loses_a_lease_ends_so_that_the_next_owner_can_publish() {
    for taken in [false, true] {
        let (mut world, shard, run) = running(132).await;
        if taken {
            let mut state = world.lock();
            let row = state.rows.get_mut(&shard).expect("a row");
            (row.owner, row.counter) = (Some("host:java".into()), row.counter + 1);
        } else {
            [Call::Renew, Call::Checkpoint].into_iter().for_each(|call| world.fail(call, Fault::Down, usize::MAX));
        }
        let error = run.ended().await.expect_err("it ends").to_string();
        assert!(error.contains("EFFECTIVELY_ONCE") && error.contains(shard.as_str()), "{error}");
        world.change(|state| {
            state.faults.clear();
            state.lose(1);
        });
        world.write(&shard, 1, 50);
        let run = world.start(worker(1));
        finish(&world, run).await;
    }
}

/// It has no producer for it.
#[tokio::test(start_paused = true)]
async fn a_lease_under_which_nothing_was_published_is_lost_without_an_end() {
    let mut world = World::new(133);
    world.deduplicate();
    let shard = world.shard(None);
    let run = world.start(once(20));
    world.until("it is held", |state| state.held_leases() == 1).await;
    {
        let mut state = world.lock();
        let row = state.rows.get_mut(&shard).expect("a row");
        (row.owner, row.counter) = (Some("host:java".into()), row.counter + 1);
    }
    tokio::time::sleep(5 * SECOND).await;
    world.write(&shard, 1, 50);
    finish(&world, run).await;
}

#[tokio::test(start_paused = true)]
async fn d2_a_lease_is_not_handed_over_while_receipts_are_missing_and_the_worker_ends() {
    let (mut world, shard, run) = running(134).await;
    let shards = [shard, world.shard(None), world.shard(None)];
    world.until("all are read", |state| state.held_leases() == 3).await;
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 5));
    world.until("stored", |state| state.all_stored()).await;
    world.hold_receipts(true);
    (1..).zip(&shards).for_each(|(item, shard)| world.write(shard, item, 5));
    world.until("they are on their way", |state| state.seen.len() == 130).await;
    let other = world.start(worker(1));
    let error = run.ended().await.expect_err("it ends").to_string();
    assert!(error.contains("EFFECTIVELY_ONCE"), "{error}");
    world.change(|state| state.lose(1));
    world.hold_receipts(false);
    finish(&world, other).await;
}

/// The numbers would mean other records: those that are new would be taken for duplicates.
#[tokio::test(start_paused = true)]
async fn d2_g1_after_a_gap_nothing_new_is_taken_for_a_duplicate() {
    let (mut world, shard, run) = running(135).await;
    world.fail(Call::Checkpoint, Fault::Down, usize::MAX);
    world.write(&shard, 1, 20);
    world.until("published beyond the checkpoint", |state| state.all_stored()).await;
    let before = epoch(&world, &shard);
    world.kill(run).await;
    // A checkpoint may be on its way yet.
    tokio::time::sleep(SECOND).await;
    world.write(&shard, 1, 100);
    world.change(|state| {
        state.faults.clear();
        state.gaps = true;
        // The last record before the checkpoint, and ten after it.
        state.shards.get_mut(&shard).expect("a shard").trimmed = 110;
    });
    let run = world.start(once(20));
    finish(&world, run).await;
    assert!(epoch(&world, &shard) > before);
}

/// Where the oldest records are gone that an owner before has begun with, nobody notices it.
#[tokio::test(start_paused = true)]
async fn d2_a_shard_whose_first_records_go_before_its_first_checkpoint_is_begun_again() {
    for before in [1, 5] {
        let mut world = World::new(136);
        world.deduplicate();
        let shard = world.shard(None);
        world.write(&shard, 1, 30);
        world.fail(Call::Checkpoint, Fault::Down, usize::MAX);
        let run = world.start(once(20));
        world.until("the first one is stored", |state| !state.stored.is_empty()).await;
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(world.lock().stored.len(), 1, "the others wait for its checkpoint");
        world.kill(run).await;
        world.change(|state| {
            state.faults.clear();
            state.shards.get_mut(&shard).expect("a shard").trimmed = before;
        });
        let run = world.start(once(20));
        finish(&world, run).await;
        assert_eq!(world.lock().stored.len(), 31 - before, "each that was there, and the first one");
    }
}

/// `leases reset` leaves no numbers in the row; a Java worker writes a checkpoint of its own.
#[tokio::test(start_paused = true)]
async fn d2_after_a_reset_and_after_a_java_worker_records_are_published_again() {
    for java in [false, true] {
        let (mut world, shard, run) = running(137).await;
        run.stopped().await.expect("a clean stop");
        let again: BTreeSet<u64> = world.change_row(&shard, |row, first| {
            row.counter += 1;
            if java {
                row.checkpoint = Checkpoint::At(first);
            } else {
                (row.checkpoint, row.mark) = (Checkpoint::TrimHorizon, None);
            }
        });
        world.change(|state| {
            state.gaps = true;
            state.stored.clear();
            state.stored.extend(again.first().filter(|_| java));
        });
        let run = world.start(once(20));
        world.until("stored again", |state| state.all_stored()).await;
        finish(&world, run).await;
    }
}

/// Who takes a lease and publishes nothing has not seen what the owner before had published, or publishes still: its epoch goes on.
#[tokio::test(start_paused = true)]
async fn d2_an_epoch_does_not_end_with_an_owner_that_has_not_passed_what_may_be_published() {
    let (mut world, shard, run) = running(138).await;
    world.fail(Call::Checkpoint, Fault::Down, usize::MAX);
    world.write(&shard, 1, 10);
    world.until("published beyond the checkpoint", |state| state.all_stored()).await;
    let before = epoch(&world, &shard);
    world.kill(run).await;
    tokio::time::sleep(SECOND).await;
    // It reads nothing before it is stopped.
    world.change(|state| state.faults.clear());
    world.fail(Call::GetRecords, Fault::Down, usize::MAX);
    let run = world.start(once(20));
    world.until("it is held", |state| state.holder(&shard) == Some(run.id)).await;
    run.stopped().await.expect("a clean stop");
    world.change(|state| state.faults.clear());
    let run = world.start(once(20));
    world.write(&shard, 1, 100);
    finish(&world, run).await;
    assert_eq!(epoch(&world, &shard), before, "closed, and not begun anew");
}
