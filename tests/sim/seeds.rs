//! Random schedules, one for each seed: which are run, on all cores, and how the first one that fails is told.

use std::{
    any::Any,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// `SEED`: the one schedule to repeat.
pub fn repeated() -> Option<u64> {
    number("SEED")
}

/// `SIM_SEEDS` schedules from `SIM_FIRST` on.
pub fn wanted(default: u64) -> Range<u64> {
    let first = number("SIM_FIRST").unwrap_or(0);
    first..first + number("SIM_SEEDS").unwrap_or(default)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// All schedules of a range, and the sum of what they tell. The first failure is told with how to repeat it.
pub fn all<T, S: Default + Send>(seeds: Range<u64>, one: impl Fn(u64) -> Result<T, String> + Sync, add: impl Fn(&mut S, T) + Sync) -> S {
    let (next, failed, sum) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(S::default()));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match one(seed) {
                        Ok(told) => add(&mut sum.lock().expect("not poisoned"), told),
                        Err(why) => {
                            failed.store(true, Ordering::Relaxed);
                            failures.lock().expect("not poisoned").push(format!("SEED={seed} {why}"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{}\nRepeat one with SEED=N.", failures.join("\n\n"));
    sum.into_inner().expect("not poisoned")
}

/// What a panic said.
pub fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_default()
}
