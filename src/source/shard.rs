//! One shard's reading as a state machine: what to call next, when, and what each answer means. Pure.
//!
//! ```text
//!            ┌── expired, trimmed, failed ──┐
//!            ▼                              │
//!   GetIterator(position) ──iterator──► GetRecords ──no next iterator──► End
//!                                         ▲    │
//!                                         └────┘ page: full → at once, partial → paced, empty → backoff
//! ```

use std::time::Duration;

use super::heal::Trouble;
use crate::{
    error::{Error, Kind, Retry},
    ports::{Checkpoint, Moment, ReadFrom, SequenceNumber},
};

/// Between two GetRecords of one shard, from start to start, where the first page was not full: the tip is reached (`docs/decisions/014`).
pub const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// The longest pause after empty pages, and between full ones after throttling.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// What is left of the pause between full pages, where it does not count any more.
const NO_INTERVAL: Duration = Duration::from_millis(10);
/// GetRecords gives at most 1,000 records or 1 MB. A page cut by size ends before a record that did not fit, of up to two items of 400 KB.
const FULL_RECORDS: usize = 1_000;
const FULL_BYTES: usize = 256 * 1024;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Wait(Moment),
    GetIterator(ReadFrom),
    GetRecords(String),
    /// Every record of the shard was handed on.
    End,
}

/// What a failure means.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The state machine goes on by itself. `tell`: people should know.
    Again { tell: bool },
    /// Records are gone (G1); it goes on with the oldest that are left. `after` is the last record that was read.
    Gap { after: Option<SequenceNumber> },
    /// The shard or the whole stream is gone: only the stream's description tells which.
    AskStream,
    /// Neither time nor a person heals it.
    Fatal,
}

/// How full a page was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fullness {
    Full,
    Partial,
    Empty,
}

impl Fullness {
    pub fn of(records: usize, bytes: usize) -> Self {
        match records {
            0 => Self::Empty,
            _ if records >= FULL_RECORDS || bytes >= FULL_BYTES => Self::Full,
            _ => Self::Partial,
        }
    }
}

#[derive(Debug)]
pub struct Reading {
    /// Where a new iterator starts: after the last record that was handed on.
    position: ReadFrom,
    iterator: Option<String>,
    ended: bool,
    not_before: Moment,
    empties: u32,
    /// Between two GetRecords, from start to start, even where the first page was full. Zero until the service throttles.
    interval: Duration,
    trouble: Trouble,
    throttle_delay: Duration,
    /// A gap began after this record, and nothing was read since.
    gap: Option<Option<SequenceNumber>>,
}

impl Reading {
    /// `throttle_delay`: first delay after throttling.
    pub fn resume(checkpoint: &Checkpoint, throttle_delay: Duration) -> Self {
        let position = match checkpoint {
            Checkpoint::At(sequence) => ReadFrom::After(sequence.clone()),
            // LATEST and AT_TIMESTAMP are a filter on the whole shard, so that a restart cannot skip records (spec R13).
            Checkpoint::TrimHorizon | Checkpoint::Latest | Checkpoint::AtTimestamp | Checkpoint::ShardEnd => ReadFrom::TrimHorizon,
        };
        Self {
            position,
            iterator: None,
            ended: *checkpoint == Checkpoint::ShardEnd,
            not_before: Moment::ZERO,
            empties: 0,
            interval: Duration::ZERO,
            trouble: Trouble::default(),
            throttle_delay,
            gap: None,
        }
    }

    pub fn next(&self, now: Moment) -> Step {
        if self.ended {
            return Step::End;
        }
        if now < self.not_before {
            return Step::Wait(self.not_before);
        }
        match &self.iterator {
            Some(iterator) => Step::GetRecords(iterator.clone()),
            None => Step::GetIterator(self.position.clone()),
        }
    }

    pub fn got_iterator(&mut self, iterator: String) {
        self.iterator = Some(iterator);
    }

    /// Whether a record was handed on before: answers may overlap.
    pub fn has_read(&self, sequence: &SequenceNumber) -> bool {
        matches!(&self.position, ReadFrom::After(last) if sequence <= last)
    }

    /// A record was handed on. Returns the start of the gap that ends with it, where there is one.
    pub fn read(&mut self, sequence: SequenceNumber) -> Option<Option<SequenceNumber>> {
        self.position = ReadFrom::After(sequence);
        self.gap.take()
    }

    /// The start of a gap of which no end was read yet.
    pub fn gap(&self) -> Option<Option<SequenceNumber>> {
        self.gap.clone()
    }

    /// A page was handed on; its call was made at `called`. `true`: the shard was in trouble and is not any more.
    pub fn got_page(&mut self, fullness: Fullness, next_iterator: Option<String>, called: Moment, now: Moment) -> bool {
        self.ended = next_iterator.is_none();
        self.iterator = next_iterator;
        self.empties = if fullness == Fullness::Empty { self.empties.saturating_add(1) } else { 0 };
        self.not_before = match fullness {
            Fullness::Full => called + self.interval,
            Fullness::Partial => called + MIN_INTERVAL.max(self.interval),
            Fullness::Empty => now + (MIN_INTERVAL * (1 << self.empties.min(4))).min(MAX_INTERVAL),
        };
        self.interval = if self.interval > NO_INTERVAL { self.interval - self.interval / 8 } else { Duration::ZERO };
        self.trouble.healed()
    }

    /// The stream does not list the shard any more. Whatever was not read is lost (G1).
    pub fn vanished(&mut self) -> Verdict {
        self.ended = true;
        Verdict::Gap { after: self.last_read() }
    }

    pub fn failed(&mut self, error: &Error, now: Moment, random: f64) -> Verdict {
        let had_iterator = self.iterator.is_some();
        // Throttling and outages say nothing about the iterator; it can be used again until it expires.
        if error.retry() == Retry::Never || error.kind() == Kind::NotFound {
            self.iterator = None;
        }
        let delay = self.trouble.failed(error, self.throttle_delay, now, random);
        self.not_before = now + delay;
        if error.kind() == Kind::Throttled {
            self.interval = (self.interval * 2).clamp(MIN_INTERVAL, MAX_INTERVAL);
        }
        match error.kind() {
            Kind::ExpiredIterator => Verdict::Again { tell: false },
            Kind::TrimmedData => {
                let after = self.last_read();
                self.position = ReadFrom::TrimHorizon;
                // Trimming goes on while the oldest record is asked for: that is still the same gap.
                if self.gap.is_some() {
                    return Verdict::Again { tell: false };
                }
                self.gap = Some(after.clone());
                Verdict::Gap { after }
            }
            Kind::NotFound => Verdict::AskStream,
            // A wrong iterator is replaced; a wrong position is nothing that can be replaced.
            Kind::Invalid if had_iterator => Verdict::Again { tell: true },
            _ if error.retry() == Retry::Never => Verdict::Fatal,
            _ => Verdict::Again { tell: self.trouble.is_serious(error, now) },
        }
    }

    fn last_read(&self) -> Option<SequenceNumber> {
        match &self.position {
            ReadFrom::After(sequence) | ReadFrom::At(sequence) => Some(sequence.clone()),
            ReadFrom::TrimHorizon => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(n: u64) -> SequenceNumber {
        SequenceNumber::parse(&n.to_string()).expect("digits")
    }

    fn error(kind: Kind) -> Error {
        Error::new(kind, "test", "scripted")
    }

    fn reading() -> Reading {
        let mut reading = Reading::resume(&Checkpoint::At(at(7)), Duration::from_secs(3));
        assert_eq!(reading.next(Moment::ZERO), Step::GetIterator(ReadFrom::After(at(7))));
        reading.got_iterator("a".into());
        assert_eq!(reading.next(Moment::ZERO), Step::GetRecords("a".into()));
        reading
    }

    /// The pause that the machine takes after a page that was called for at 1 s and handed on at 1.01 s.
    fn pause(reading: &mut Reading, fullness: Fullness) -> Duration {
        reading.got_page(fullness, Some("next".into()), 1000 * MS, 1010 * MS);
        match reading.next(1010 * MS) {
            Step::Wait(until) => until - 1000 * MS,
            _ => Duration::ZERO,
        }
    }

    #[test]
    fn at_once_in_a_backlog_five_calls_a_second_at_the_tip_and_slower_when_idle() {
        let mut reading = reading();
        assert_eq!(pause(&mut reading, Fullness::Full), Duration::ZERO);
        assert_eq!(pause(&mut reading, Fullness::Partial), MIN_INTERVAL);
        let idle: Vec<_> = (0..4).map(|_| pause(&mut reading, Fullness::Empty).as_millis()).collect();
        assert_eq!(idle, [410, 810, 1010, 1010]);
        assert_eq!(pause(&mut reading, Fullness::Partial), MIN_INTERVAL, "a record ends the backoff");
    }

    #[test]
    fn after_throttling_full_pages_are_paced_and_less_so_with_each_that_comes() {
        let mut reading = reading();
        let throttled = error(Kind::Throttled);
        reading.failed(&throttled, Moment::ZERO, 0.0);
        assert_eq!(pause(&mut reading, Fullness::Full), MIN_INTERVAL);
        assert_eq!(pause(&mut reading, Fullness::Full), MIN_INTERVAL * 7 / 8);
        for _ in 0..9 {
            reading.failed(&throttled, Moment::ZERO, 0.0);
        }
        assert_eq!(pause(&mut reading, Fullness::Partial), MAX_INTERVAL, "one that is not full is paced as well");
        let pauses: Vec<_> = (0..50).map(|_| pause(&mut reading, Fullness::Full)).collect();
        assert!(pauses.is_sorted_by(|a, b| a >= b), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&Duration::ZERO));
    }

    #[test]
    fn a_page_that_took_long_is_followed_at_once() {
        let mut reading = reading();
        reading.got_page(Fullness::Partial, Some("b".into()), 1000 * MS, 1500 * MS);
        assert_eq!(reading.next(1500 * MS), Step::GetRecords("b".into()));
    }

    #[test]
    fn a_page_cut_by_size_is_full() {
        assert_eq!(Fullness::of(3, 700_000), Fullness::Full);
        assert_eq!(Fullness::of(1_000, 10), Fullness::Full);
        assert_eq!(Fullness::of(999, 10), Fullness::Partial);
        assert_eq!(Fullness::of(0, 0), Fullness::Empty);
    }

    #[test]
    fn d1_an_expired_iterator_is_replaced_after_the_last_record_read() {
        let mut reading = reading();
        reading.read(at(9));
        assert_eq!(reading.failed(&error(Kind::ExpiredIterator), Moment::ZERO, 0.5), Verdict::Again { tell: false });
        assert_eq!(reading.next(10_000 * MS), Step::GetIterator(ReadFrom::After(at(9))));
    }

    #[test]
    fn an_outage_keeps_the_iterator() {
        let mut reading = reading();
        assert_eq!(reading.failed(&error(Kind::Unavailable), Moment::ZERO, 1.0), Verdict::Again { tell: false });
        assert_eq!(reading.next(Moment::ZERO), Step::Wait(200 * MS));
        assert_eq!(reading.next(200 * MS), Step::GetRecords("a".into()));
    }

    #[test]
    fn throttling_waits_as_configured() {
        let mut reading = reading();
        reading.failed(&error(Kind::Throttled), Moment::ZERO, 1.0);
        assert_eq!(reading.next(Moment::ZERO), Step::Wait(3000 * MS));
    }

    #[test]
    fn g1_a_gap_has_both_its_bounds() {
        let mut reading = reading();
        assert_eq!(reading.failed(&error(Kind::TrimmedData), Moment::ZERO, 0.0), Verdict::Gap { after: Some(at(7)) });
        assert_eq!(reading.next(1000 * MS), Step::GetIterator(ReadFrom::TrimHorizon));
        assert_eq!(reading.read(at(20)), Some(Some(at(7))));
        assert_eq!(reading.read(at(21)), None);
    }

    #[test]
    fn a_missing_shard_is_never_an_end_by_itself() {
        let mut reading = reading();
        assert_eq!(reading.failed(&error(Kind::NotFound), Moment::ZERO, 0.0), Verdict::AskStream);
        assert_ne!(reading.next(60_000 * MS), Step::End);
        assert_eq!(reading.vanished(), Verdict::Gap { after: Some(at(7)) });
        assert_eq!(reading.next(60_000 * MS), Step::End);
    }

    #[test]
    fn h1_what_a_person_must_mend_is_told_at_once() {
        let mut reading = reading();
        assert_eq!(reading.failed(&error(Kind::AccessDenied), Moment::ZERO, 0.0), Verdict::Again { tell: true });
        assert_eq!(reading.failed(&error(Kind::Fatal), Moment::ZERO, 0.0), Verdict::Fatal);
    }

    #[test]
    fn a_wrong_iterator_is_replaced_and_a_wrong_position_is_fatal() {
        let mut reading = reading();
        assert_eq!(reading.failed(&error(Kind::Invalid), Moment::ZERO, 0.0), Verdict::Again { tell: true });
        assert_eq!(reading.failed(&error(Kind::Invalid), Moment::ZERO, 0.0), Verdict::Fatal);
    }

    #[test]
    fn the_last_page_may_carry_records() {
        let mut reading = reading();
        assert!(!reading.has_read(&at(8)));
        reading.read(at(8));
        assert!(reading.has_read(&at(8)) && reading.has_read(&at(7)));
        reading.got_page(Fullness::Partial, None, Moment::ZERO, Moment::ZERO);
        assert_eq!(reading.next(Moment::ZERO), Step::End);
    }
}
