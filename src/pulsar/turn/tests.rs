use proptest::prelude::*;

use super::*;

fn seconds(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

#[test]
fn k1_who_becomes_active_writes_once_the_lock_is_free_and_has_settled() {
    let mut turn = Turn::waiting();
    assert_eq!(turn.told(true), Some(Action::Ask));
    turn.refused(seconds(1));
    assert_eq!(turn.tick(seconds(1)), None);
    let again = turn.wake().expect("it asks again");
    assert_eq!(turn.tick(again), Some(Action::Ask));
    assert_eq!((turn.tick(again), turn.wake()), (None, None), "one question at a time");
    assert_eq!(turn.granted(seconds(2)), None);
    assert_eq!(turn.tick(seconds(2)), None, "what a dead one has sent may still land");
    assert_eq!(turn.tick(seconds(2) + SETTLE), Some(Action::Open));
}

#[test]
fn k1_who_is_not_active_any_more_gives_the_lock_back_once_nothing_is_unanswered() {
    let mut turn = Turn::waiting();
    turn.told(true);
    turn.granted(seconds(0));
    turn.tick(SETTLE);
    assert_eq!(turn.told(true), None, "said again");
    assert_eq!(turn.told(false), Some(Action::Revoke));
    assert!(turn.holds_lock() && !turn.is_active());
    assert_eq!(turn.released(), Some(Action::GiveBack));
    assert!(!turn.holds_lock());
}

#[test]
fn k1_a_turn_that_comes_back_before_it_is_given_up_goes_on_without_a_new_lock() {
    let mut turn = Turn::waiting();
    turn.told(true);
    turn.granted(seconds(0));
    turn.tick(SETTLE);
    assert_eq!((turn.told(false), turn.told(true)), (Some(Action::Revoke), None));
    assert_eq!(turn.released(), Some(Action::Open));
}

#[test]
fn k1_a_lock_that_comes_too_late_is_given_back_at_once() {
    let mut turn = Turn::waiting();
    assert_eq!((turn.told(true), turn.told(false)), (Some(Action::Ask), None));
    assert_eq!(turn.granted(seconds(1)), Some(Action::GiveBack));
    assert_eq!((turn.told(true), turn.told(false), turn.told(true)), (Some(Action::Ask), None, None), "its answer is still due");
    assert_eq!(turn.granted(seconds(1)), None);
}

/// A consumer and its worker, as far as they matter here.
struct Sink {
    turn: Turn,
    /// What the broker says to it, in order and late: whether it is active.
    told: Vec<bool>,
    /// Questions and returns on their way to the broker.
    said: Vec<Action>,
    answers: Vec<bool>,
    /// Handed on to the worker since.
    open: bool,
    /// The worker has writes without an answer.
    unanswered: bool,
}

proptest! {
    /// Any number of switches, everything said late: no two sinks have writes at the same time, and in the end the active one writes.
    #[test]
    fn k1_no_two_consumers_write_at_once(steps in prop::collection::vec((0..3_usize, 0..7_u8), 0..400)) {
        let sink = || Sink { turn: Turn::waiting(), told: vec![], said: vec![], answers: vec![], open: false, unanswered: false };
        let mut sinks = [sink(), sink(), sink()];
        let mut holder: Option<usize> = None;
        let mut now = Moment::ZERO;
        let mut active = 0;
        sinks[0].told.push(true);
        let act = |sink: &mut Sink, action: Option<Action>| match action {
            Some(Action::Open) => sink.open = true,
            Some(Action::Revoke) => sink.open = false,
            Some(other) => sink.said.push(other),
            None => {}
        };
        let mut step = |at: usize, what: u8, sinks: &mut [Sink; 3]| -> Result<(), TestCaseError> {
            now += Duration::from_millis(60);
            let sink = &mut sinks[at];
            match what {
                0 if active != at => {
                    active = at;
                    sinks.iter_mut().enumerate().for_each(|(number, sink)| sink.told.push(number == at));
                }
                1 if !sink.told.is_empty() => {
                    let told = sink.told.remove(0);
                    let action = sink.turn.told(told);
                    act(sink, action);
                }
                2 if !sink.said.is_empty() => match sink.said.remove(0) {
                    Action::Ask if holder.is_none() => {
                        holder = Some(at);
                        sink.answers.push(true);
                    }
                    Action::Ask => sink.answers.push(false),
                    _ => {
                        prop_assert_eq!(holder, Some(at), "only the holder gives it back");
                        holder = None;
                    }
                },
                3 if !sink.answers.is_empty() => {
                    if sink.answers.remove(0) {
                        let action = sink.turn.granted(now);
                        act(sink, action);
                    } else {
                        sink.turn.refused(now);
                    }
                }
                4 => {
                    let action = sink.turn.tick(now);
                    act(sink, action);
                }
                5 if sink.open => sink.unanswered = true,
                6 => {
                    sink.unanswered = false;
                    if !sink.open {
                        let action = sink.turn.released();
                        act(sink, action);
                    }
                }
                _ => {}
            }
            prop_assert!(sinks.iter().filter(|sink| sink.unanswered).count() <= 1, "K1: two sinks write at once");
            Ok(())
        };
        for (at, what) in steps {
            step(at, what, &mut sinks)?;
        }
        for round in 0..300 {
            for at in 0..3 {
                for what in [1, 2, 3, 4, 6] {
                    step(at, what, &mut sinks)?;
                }
            }
            if round > 200 {
                let writes: Vec<bool> = sinks.iter().map(|sink| sink.open).collect();
                prop_assert_eq!(writes.iter().filter(|open| **open).count(), 1, "somebody writes: {:?}", writes);
            }
        }
        prop_assert!(sinks[active].open);
    }
}
