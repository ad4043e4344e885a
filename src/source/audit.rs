//! When the stream is listed as a whole, and by whom. Pure.
//!
//! The ends of shards show their children at once, so listing is for the first start, for what an end did not show, and, slowly, for what
//! nobody has thought of. All consumers of a stream share its DescribeStream calls: of a fleet one worker does the slow audit.

use std::time::Duration;

use crate::ports::Moment;

/// Short after a start and after a shard that ended without a child in sight, doubled up to the ceiling.
const PAUSE: Duration = Duration::from_secs(10);
/// While no shard is left to read.
const SHORT_PAUSE: Duration = Duration::from_secs(5);
const PAUSE_CEILING: Duration = Duration::from_secs(300);
/// How often a worker asks itself whether the slow audit is its own.
const RECHECK: Duration = Duration::from_secs(30);
/// Every so many audits see the whole stream.
const WHOLE_EVERY: u32 = 6;

/// How far an audit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Whole,
    /// From where anything can be new on.
    Recent,
}

/// What an audit has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// How many leases it has created.
    pub created: usize,
    /// How many shards have to wait for another listing.
    pub postponed: usize,
    /// The stream is disabled, and all shards of it that are wanted had their rows before.
    pub complete: bool,
}

/// When the next audit is due.
#[derive(Debug)]
pub struct Audits {
    /// `None` while one is under way.
    next: Option<Moment>,
    pause: Duration,
    /// There is something to find, whoever does the slow audit.
    needed: bool,
    whole_in: u32,
}

impl Audits {
    pub fn new() -> Self {
        Self { next: Some(Moment::ZERO), pause: PAUSE, needed: false, whole_in: WHOLE_EVERY }
    }

    pub fn wake(&self) -> Option<Moment> {
        self.next
    }

    /// The audit to begin now, if there is one. `responsible`: the slow audit is this worker's.
    pub fn begin(&mut self, now: Moment, responsible: bool) -> Option<Scope> {
        self.next.filter(|due| *due <= now)?;
        if !self.needed && !responsible {
            self.next = Some(now + RECHECK);
            return None;
        }
        (self.next, self.needed) = (None, false);
        self.whole_in = self.whole_in.saturating_sub(1);
        if self.whole_in > 0 {
            return Some(Scope::Recent);
        }
        self.whole_in = WHOLE_EVERY;
        Some(Scope::Whole)
    }

    pub fn done(&mut self, found: &Audit, now: Moment) {
        if found.postponed > 0 {
            self.pause = PAUSE;
            (self.needed, self.whole_in) = (true, 1);
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_CEILING);
    }

    /// No shard is left to read: either the stream is over, which only a look at the whole of it tells, or something was not found yet.
    pub fn all_finished(&mut self, now: Moment) {
        (self.needed, self.whole_in) = (true, 1);
        self.next = self.next.map(|due| due.min(now + SHORT_PAUSE));
    }

    /// A shard has ended, and the stream did not show what follows.
    pub fn childless(&mut self, now: Moment) {
        (self.pause, self.needed) = (PAUSE, true);
        self.next = self.next.map(|due| due.min(now + PAUSE));
    }
}

impl Default for Audits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When audits begin within an hour, and how far they go.
    fn hour(audits: &mut Audits, responsible: bool, found: &Audit) -> Vec<(u64, Scope)> {
        let mut begun = Vec::new();
        for second in 0..3600 {
            let now = second as u32 * SECOND;
            if let Some(scope) = audits.begin(now, responsible) {
                begun.push((second, scope));
                audits.done(found, now);
            }
        }
        begun
    }

    #[test]
    fn the_slow_audit_is_every_five_minutes_and_sees_the_whole_stream_at_times() {
        let begun = hour(&mut Audits::new(), true, &Audit::default());
        let times: Vec<_> = begun.iter().map(|(at, _)| *at).collect();
        assert_eq!(times[..8], [0, 10, 30, 70, 150, 310, 610, 910]);
        assert_eq!(begun.iter().filter(|(_, scope)| *scope == Scope::Whole).count(), begun.len() / WHOLE_EVERY as usize);
        assert_eq!(begun[5].1, Scope::Whole);
    }

    #[test]
    fn whoever_is_not_responsible_audits_only_at_need() {
        let mut audits = Audits::new();
        assert_eq!(hour(&mut audits, false, &Audit::default()), []);
        audits.childless(3600 * SECOND);
        assert_eq!(audits.begin(3610 * SECOND, false), Some(Scope::Recent));
        assert_eq!(audits.wake(), None);
        audits.done(&Audit::default(), 3611 * SECOND);
        assert_eq!(audits.begin(3700 * SECOND, false), None, "once is enough");
    }

    #[test]
    fn what_was_postponed_is_looked_for_in_the_whole_stream_soon() {
        let mut audits = Audits::new();
        assert!(audits.begin(SECOND, true).is_some());
        audits.done(&Audit { postponed: 1, ..Audit::default() }, SECOND);
        assert_eq!(audits.begin(11 * SECOND, false), Some(Scope::Whole), "also when another worker is responsible by now");
    }

    #[test]
    fn a_shard_that_ends_during_an_audit_is_looked_for_after_it() {
        let mut audits = Audits::new();
        assert!(audits.begin(SECOND, true).is_some());
        audits.childless(2 * SECOND);
        audits.done(&Audit::default(), 3 * SECOND);
        assert_eq!(audits.begin(13 * SECOND, false), Some(Scope::Recent));
    }
}
