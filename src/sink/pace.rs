//! How much is asked of the table at once. Pure.
//!
//! Two limits: a window that follows what the table takes ([`Pace`]), and the write capacity that the operator allows ([`Capacity`]).

use std::time::Duration;

use crate::ports::Moment;

/// How many writes may be unanswered at once.
///
/// As TCP does it: a round of answers with little congestion widens the window by one request, a round with more narrows it, in proportion: by
/// half where all was throttled. Up to [`TOLERATED`] counts as little: what is left unprocessed costs no capacity and is sent again, while a window that
/// narrowed for it would end at a fraction of what the table takes.
#[derive(Debug, Clone)]
pub struct Pace {
    most: f64,
    step: f64,
    window: f64,
    /// Of this round.
    answered: usize,
    congested: usize,
}

/// The part of a round that may be refused without being a reason to ask for less.
const TOLERATED: f64 = 0.15;

impl Pace {
    /// `batch`: writes in a full request; `requests`: as many at once, at most. Starts wide open: a table that has the capacity is not made to wait.
    pub fn new(batch: usize, requests: usize) -> Self {
        let most = batch.saturating_mul(requests) as f64;
        Self { most, step: batch as f64, window: most, answered: 0, congested: 0 }
    }

    /// As `new`, but one request at a time to begin with.
    pub fn narrow(batch: usize, requests: usize) -> Self {
        Self { window: batch as f64, ..Self::new(batch, requests) }
    }

    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// Whether it is as wide as it gets.
    pub fn is_open(&self) -> bool {
        self.window >= self.most
    }

    /// Writes that the next request may carry, while so many are unanswered; `None`: an answer has to come first. A request is full unless the window is
    /// narrower than that, and one is always allowed.
    pub fn room(&self, unanswered: usize) -> Option<usize> {
        let full = (self.step.min(self.window) as usize).max(1);
        let fits = unanswered == 0 || unanswered + full <= self.window();
        fits.then_some(full)
    }

    /// So many writes were answered, and so many of them were not taken because there is too much.
    pub fn answered(&mut self, writes: usize, congested: usize) {
        self.answered += writes;
        self.congested += congested;
        if self.answered < self.window() {
            return;
        }
        let part = self.congested as f64 / self.answered.max(1) as f64;
        let beyond = (part - TOLERATED) / (1.0 - TOLERATED);
        let window = if beyond <= 0.0 { self.window + self.step } else { self.window * (1.0 - beyond / 2.0) };
        self.window = window.clamp(1.0, self.most);
        (self.answered, self.congested) = (0, 0);
    }
}

/// A bucket of write capacity units, filled at the allowed rate. A request may overdraw it, and the next one waits until that is paid.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Units a second.
    rate: f64,
    units: f64,
    at: Moment,
}

/// What may be saved up, in seconds of the rate: a pause is not made up for by a burst.
const SAVED: f64 = 0.1;

impl Capacity {
    pub fn new(rate: f64) -> Self {
        Self { rate, units: 0.0, at: Moment::ZERO }
    }

    /// When the next request may go.
    pub fn ready_at(&self) -> Moment {
        let debt = (-self.units).max(0.0) / self.rate;
        // Rounded up, so that it is ready then.
        self.at + Duration::from_secs_f64(debt) + Duration::from_micros(u64::from(debt > 0.0))
    }

    /// A request goes that will take about so many units.
    pub fn charge(&mut self, units: f64, now: Moment) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.rate;
        self.units = (self.units + gained).min(self.rate * SAVED) - units;
        self.at = now.max(self.at);
    }

    /// It has taken `units` more than was charged.
    pub fn correct(&mut self, units: f64) {
        self.units -= units;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(pace: &mut Pace, count: usize, part: f64) {
        for _ in 0..count {
            let window = pace.window();
            pace.answered(window, (window as f64 * part).ceil() as usize);
        }
    }

    #[test]
    fn a_table_that_throttles_all_halves_the_window_down_to_one_write() {
        let mut pace = Pace::new(25, 50);
        assert_eq!((pace.window(), pace.room(1225), pace.room(1226)), (1250, Some(25), None));
        rounds(&mut pace, 1, 1.0);
        assert_eq!(pace.window(), 625);
        rounds(&mut pace, 20, 1.0);
        assert_eq!((pace.window(), pace.room(0), pace.room(1)), (1, Some(1), None));
        rounds(&mut pace, 50, 0.0);
        assert_eq!(pace.window(), 1250, "back in as many rounds as there are requests");
    }

    /// Flink's window ends at one request here (27: AIMD trace).
    #[test]
    fn a_tenth_unprocessed_leaves_the_window_as_it_is() {
        let mut pace = Pace::new(25, 50);
        rounds(&mut pace, 300, 0.1);
        assert_eq!(pace.window(), 1250);
        rounds(&mut pace, 5, 1.0);
        rounds(&mut pace, 50, 0.1);
        assert_eq!(pace.window(), 1250, "and it comes back as fast");
    }

    #[test]
    fn a_table_that_takes_only_so_much_is_asked_for_little_more() {
        const TAKES: usize = 600;
        let mut pace = Pace::new(25, 50);
        let mut windows = Vec::new();
        for _ in 0..200 {
            let window = pace.window();
            pace.answered(window, window.saturating_sub(TAKES));
            windows.push(pace.window());
        }
        let late = &windows[100..];
        assert!(late.iter().all(|window| (TAKES..TAKES * 4 / 3).contains(window)), "{late:?}");
    }

    #[test]
    fn what_is_answered_within_a_round_counts_once() {
        let mut pace = Pace::new(25, 4);
        for _ in 0..3 {
            pace.answered(25, 25);
            assert_eq!(pace.window(), 100, "the round is not over");
        }
        pace.answered(25, 25);
        assert_eq!(pace.window(), 50);
    }

    /// 49: within 5 % over a minute, whatever the requests weigh and however wrong the estimates are.
    #[test]
    fn s49_the_capacity_limit_holds_within_five_percent() {
        let mut capacity = Capacity::new(100.0);
        let (mut now, mut used) = (Moment::ZERO, 0.0);
        let mut step = 0;
        while now < Duration::from_secs(60) {
            now = now.max(capacity.ready_at());
            let units = f64::from(step % 40 + 1);
            capacity.charge(units * 0.5, now);
            capacity.correct(units * 0.5);
            used += units;
            step += 1;
        }
        assert!((used - 6000.0).abs() < 300.0, "{used}");
        now += Duration::from_secs(3600);
        capacity.charge(0.0, now);
        capacity.charge(11.0, now);
        assert!(capacity.ready_at() > now, "an hour's pause is not made up for");
    }
}
