use super::*;

/// Version `v` of an item of the partition `p`.
fn of_partition(p: u64, s: u64, v: u64) -> Shaped {
    let schema = KeySchema { partition: ("p".into(), KeyType::N), sort: Some(("s".into(), KeyType::N)) };
    let number = |n: u64| Value::N(n.to_string());
    let item = Item::from([("p".into(), number(p)), ("s".into(), number(s)), ("v".into(), number(v))]);
    let key = Target { table: "copies".into(), key: ItemKey::of(&item, &schema).expect("a key") };
    Shaped { write: Write { table: "copies".into(), action: Action::Put(item), condition: None }, key, version: None }
}

fn partition_of(write: &Write) -> u64 {
    let Value::N(text) = &write.item()["p"] else { unreachable!("a number") };
    text.parse().expect("a number")
}

/// 23: a partition key takes 5 writes each 10 ms, the others whatever comes. Throttled as DynamoDB does it: a request with a write that is taken says nothing
/// about those that are not, one without says why.
#[test]
fn s23_a_busy_partition_key_slows_its_own_items_and_no_others() {
    const HOT: u64 = 7;
    const EACH: u64 = 5;
    let mut b = batches(true, 25);
    let (mut number, mut written) = (0, HashMap::<u64, u64>::new());
    let (mut asked, mut mixed_up) = (0, 0);
    for turn in 0..400_u64 {
        let now = at(turn * 10);
        let mut left = EACH;
        // Half of all writes are of the hot key: ten times what it takes.
        for _ in 0..100 {
            let (p, s) = if number % 2 == 0 { (HOT, number) } else { (100 + number % 50, number) };
            b.add(number, place(number), of_partition(p, s, number), now);
            number += 1;
        }
        for _ in 0..50 {
            let Some(batch) = b.next(now, true, usize::MAX) else { break };
            let of_hot = batch.writes.iter().filter(|write| partition_of(write) == HOT).count();
            asked += of_hot;
            if turn >= 20 && of_hot > 0 && of_hot < batch.writes.len() {
                mixed_up += 1;
            }
            let taken: Vec<bool> = batch
                .writes
                .iter()
                .map(|write| {
                    let takes = partition_of(write) != HOT || left > 0;
                    left -= u64::from(takes && partition_of(write) == HOT);
                    takes
                })
                .collect();
            for (write, _) in batch.writes.iter().zip(&taken).filter(|(_, taken)| **taken) {
                *written.entry(partition_of(write)).or_default() += 1;
            }
            if taken.contains(&true) {
                let settled = taken.iter().map(|taken| if *taken { Settled::Stored } else { Settled::Again });
                b.answered(batch.id, settled.collect(), now, |_| now + at(20));
            } else {
                b.failed(batch.id, now, |_| now + at(20), true);
            }
        }
    }
    let others: u64 = written.iter().filter(|(p, _)| **p != HOT).map(|(_, count)| count).sum();
    assert_eq!(others, number / 2, "the others are all written, in the turn in which they came");
    let hot = written[&HOT];
    assert!(hot * 2 > EACH * 400, "the hot key is written at more than half of what it takes: {hot}");
    assert!(asked as u64 <= hot * 4, "{asked} of its writes were asked for, {hot} taken");
    assert_eq!(mixed_up, 0, "once it is known, it is in no request with others");
}

#[test]
fn s23_a_partition_key_that_has_cooled_down_is_like_any_other() {
    let mut b = batches(true, 25);
    for number in 0..25 {
        b.add(number, place(number), of_partition(7, number, 0), at(0));
    }
    let first = b.next(at(0), true, usize::MAX).expect("ready");
    b.failed(first.id, at(0), |_| at(50), true);
    assert!(b.next(at(49), true, usize::MAX).is_none() && b.next_due() == Some(at(50)));
    let mut number = 100;
    let mut hot = 0;
    for turn in 5..200 {
        b.add(number, place(number), of_partition(7, number, 0), at(turn * 10));
        for _ in 0..49 {
            number += 1;
            b.add(number, place(number), of_partition(7, number, 0), at(turn * 10));
        }
        number += 1;
        while let Some(batch) = b.next(at(turn * 10), true, usize::MAX) {
            hot += u64::from(batch.hot);
            b.written(batch.id, &[], at(turn * 10), at(turn * 10));
        }
    }
    assert!(hot > 40, "it took a while: {hot}");
    b.add(1, place(number), of_partition(7, number, 0), at(3000));
    assert!(!b.next(at(3000), true, usize::MAX).expect("ready").hot);
}
