use super::*;

/// The topic partition is lost: what waits goes, what is under way is not sent again, and what comes again later is not taken for it.
#[test]
fn k1_what_is_lost_is_not_sent_again_and_covers_nothing_that_comes_again() {
    let mut b = batches(true, 1);
    b.add(0, place(0), mapped(7, 0), at(0));
    let under_way = b.next(at(0), true, usize::MAX).expect("ready");
    b.add(1, place(1), mapped(7, 1), at(0));
    b.add(2, place(2), mapped(8, 3), at(0));
    let mut left = b.leave("persistent://public/default/in");
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2]);
    assert!(b.is_leaving("persistent://public/default/in") && !b.is_leaving("another"));
    assert_eq!(b.next(at(500), true, usize::MAX).map(|batch| batch.id), None);
    // It comes again while its first copy is unanswered.
    b.add(3, place(0), mapped(7, 0), at(500));
    assert_eq!(b.written(under_way.id, &[], at(500), at(500)), [done(0, Outcome::Put)], "the new copy is still to be written");
    assert!(!b.is_leaving("persistent://public/default/in"));
    let again = b.next(at(1000), true, usize::MAX).expect("the new copy");
    assert_eq!(b.written(again.id, &[], at(1000), at(1000)), [done(3, Outcome::Put)]);

    b.add(4, place(4), mapped(9, 4), at(2000));
    let failing = b.next(at(2000), true, usize::MAX).expect("ready");
    b.leave("persistent://public/default/in");
    b.failed(failing.id, at(2000), |_| at(2000), false);
    assert!(b.next(at(9000), true, usize::MAX).is_none() && b.lanes.is_empty() && b.next_due().is_none());
}

#[test]
fn k1_another_partitions_messages_of_the_same_item_are_still_written() {
    let other = |number| (EntryId { topic: "persistent://public/default/other".into(), ..place(number).0 }, 0);
    let mut b = batches(true, 1);
    b.add(0, place(0), mapped(7, 0), at(0));
    b.add(1, other(1), mapped(7, 1), at(0));
    let both = b.next(at(0), true, usize::MAX).expect("ready");
    assert_eq!(b.leave("persistent://public/default/in"), [0]);
    b.failed(both.id, at(0), |_| at(0), false);
    assert!(!b.is_leaving("persistent://public/default/in"));
    let one = b.next(at(0), true, usize::MAX).expect("the other's");
    assert_eq!(b.written(one.id, &[], at(0), at(0)), [done(1, Outcome::Put)]);
}
