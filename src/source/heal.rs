//! Patience: what time or a person can heal is tried again for as long as it takes, and health tells about it (H1).

use std::{future::Future, time::Duration};

use metrics::counter;

use super::clock::Clock;
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::{health::Health, names},
    ports::Moment,
};

/// First delay after a failure that is not throttling; for throttling the configuration says.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Longest delay where time alone heals.
const TIMED_CEILING: Duration = Duration::from_secs(10);
/// Longest delay where a person has to act.
const MANUAL_CEILING: Duration = Duration::from_secs(30);
/// A failure that lasts longer turns health red, even one that time heals.
pub const LONG: Duration = Duration::from_secs(60);
/// No call of a service may take longer: without an answer, its outcome is unknown.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);

/// A row of failures of one thing. Pure.
#[derive(Debug, Default, Clone)]
pub struct Trouble {
    failures: u32,
    since: Option<Moment>,
}

impl Trouble {
    /// One more failure; returns how long to wait: doubled each time up to a ceiling, and somewhere between half and all of that.
    pub fn failed(&mut self, error: &Error, throttle_delay: Duration, now: Moment, random: f64) -> Duration {
        let first = if error.kind() == Kind::Throttled { throttle_delay.max(FIRST_DELAY) } else { FIRST_DELAY };
        let ceiling = if error.retry() == Retry::Manual { MANUAL_CEILING } else { TIMED_CEILING };
        let doubled = first.saturating_mul(1 << self.failures.min(16)).min(ceiling.max(first));
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        doubled.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// Whether people should be told: at once where one has to act, after a while otherwise.
    pub fn is_serious(&self, error: &Error, now: Moment) -> bool {
        error.retry() != Retry::Timed || self.since.is_some_and(|since| now.saturating_sub(since) >= LONG)
    }

    /// It works again. `true` when it did not before.
    pub fn healed(&mut self) -> bool {
        self.failures = 0;
        self.since.take().is_some()
    }
}

/// Runs an operation until it succeeds; errors only with what neither time nor a person heals ([`Retry::Never`]).
///
/// `stage` names it in health and metrics; each call is limited to [`CALL_LIMIT`]. Whoever gives up waiting takes what it told along: a shard whose lease is
/// lost in an outage would leave health red for good.
pub async fn heal<T, F, Fut>(stage: &str, clock: Clock, health: &Health, throttle_delay: Duration, mut operation: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut trouble = Trouble::default();
    let mut told = Told { stage, health, is_red: false };
    loop {
        let error = match within(CALL_LIMIT, stage, operation()).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        count(stage, &error);
        if error.retry() == Retry::Never {
            // It stays told until the error ends whatever it ends.
            told.is_red = false;
            return Err(error);
        }
        let delay = trouble.failed(&error, throttle_delay, clock.now(), fastrand::f64());
        tracing::warn!(stage, error = %error, retry_in = ?delay, "will be tried again");
        if trouble.is_serious(&error, clock.now()) {
            health.red(stage, &error);
            told.is_red = true;
        }
        tokio::time::sleep(delay).await;
    }
}

/// What one operation has told in health, for as long as somebody waits for it.
struct Told<'a> {
    stage: &'a str,
    health: &'a Health,
    is_red: bool,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if self.is_red {
            self.health.green(self.stage);
        }
    }
}

/// Limits one call; a call that takes longer counts as unavailable.
pub async fn within<T>(limit: Duration, doing: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Kind::Unavailable, doing, format!("no answer within {} s", limit.as_secs_f32()))),
    }
}

/// Counts a failed call. The label is the stage's kind: "shard", not each shard's name.
pub fn count(stage: &str, error: &Error) {
    let kind = stage.split(' ').next().unwrap_or(stage).to_owned();
    counter!(names::ERRORS, "stage" => kind, "kind" => format!("{:?}", error.kind())).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> Error {
        Error::new(kind, "test", "scripted")
    }

    #[test]
    fn delays_grow_to_a_ceiling_and_start_where_the_configuration_says() {
        let mut trouble = Trouble::default();
        let throttled = error(Kind::Throttled);
        let delays: Vec<_> = (0..5).map(|_| trouble.failed(&throttled, Duration::from_secs(3), Duration::ZERO, 1.0).as_secs()).collect();
        assert_eq!(delays, [3, 6, 10, 10, 10]);
        assert!(trouble.healed());
        assert_eq!(trouble.failed(&error(Kind::Unavailable), Duration::from_secs(3), Duration::ZERO, 0.0), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn h1_an_outage_that_nobody_waits_for_any_more_is_not_told_any_more() {
        let health = Health::default();
        let healing = heal("discover", Clock::start(), &health, Duration::ZERO, || async { Err::<(), _>(error(Kind::Unavailable)) });
        assert!(tokio::time::timeout(2 * LONG, healing).await.is_err());
        assert!(health.reasons().is_empty(), "{:?}", health.reasons());
        let mut denied = 0;
        let healing = heal("discover", Clock::start(), &health, Duration::ZERO, || {
            denied += 1;
            let red = health.reasons().contains_key("discover");
            async move { if denied < 3 { Err(error(Kind::AccessDenied)) } else { Ok(red) } }
        });
        assert!(healing.await.expect("healed"), "told while it lasts");
        assert!(health.reasons().is_empty());
    }

    #[test]
    fn h1_people_are_told_at_once_or_after_a_minute() {
        let mut trouble = Trouble::default();
        let (down, denied) = (error(Kind::Unavailable), error(Kind::AccessDenied));
        trouble.failed(&down, Duration::ZERO, Duration::from_secs(10), 0.5);
        assert!(!trouble.is_serious(&down, Duration::from_secs(69)));
        assert!(trouble.is_serious(&down, Duration::from_secs(70)));
        assert!(trouble.is_serious(&denied, Duration::from_secs(10)));
    }
}
