//! When credentials are asked for.
//!
//! They are asked for again well before they end, and while that fails the old ones are used for as long as they hold: an outage of STS
//! does not become one of ours. When they are gone, each call says why, and the first one that gets new ones heals all.

use std::{
    fmt,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials as Keys,
    provider::{self, ProvideCredentials, error::CredentialsError, future},
};
use aws_types::SdkConfig;

use super::credentials::Credentials;

/// New ones are asked for so long before the old ones end, or after two thirds of their time where that is later.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// Not used any more so long before the end, or a tenth of its time where that is less: a request takes time, and clocks differ.
const MARGIN: Duration = Duration::from_secs(10);
/// What says no end may have been changed by somebody.
const WITHOUT_END: Duration = Duration::from_secs(5 * 60);
/// After a failed attempt that was ahead of time; less towards the end.
const NEXT_ATTEMPT: Duration = Duration::from_secs(30);
/// A call is held up no longer by an attempt that can wait.
const EARLY_LIMIT: Duration = Duration::from_secs(2);
/// A call is held up no longer by an attempt that it needs. Within the limit for a whole call, so that the reason is told.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Many calls that fail at once ask once.
const SAME_FAILURE: Duration = Duration::from_millis(500);
/// Credentials that a service refuses are asked for again, but not more often.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// Credentials that outlive a call. Shared by all clients of a worker.
pub(super) struct Kept {
    source: Credentials,
    config: SdkConfig,
    state: Mutex<State>,
    /// Who asks. The others wait, or use what there is.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// When asking failed last, and why.
    failed: Option<(SystemTime, String)>,
}

struct Held {
    keys: Keys,
    since: SystemTime,
    /// When to ask again.
    due: SystemTime,
    /// Not to be used from then on.
    gone: Option<SystemTime>,
}

enum Look {
    Good(Keys),
    /// Still good, and time to ask for others.
    Due(Keys),
    Gone,
    /// Gone, and asked for in vain a moment ago.
    Failed(String),
}

impl State {
    fn look(&self, now: SystemTime) -> Look {
        match &self.held {
            Some(held) if held.gone.is_none_or(|gone| now < gone) => {
                if now < held.due {
                    Look::Good(held.keys.clone())
                } else {
                    Look::Due(held.keys.clone())
                }
            }
            _ => match &self.failed {
                // A clock that was set back does not stop us from asking.
                Some((at, why)) if now.duration_since(*at).is_ok_and(|since| since < SAME_FAILURE) => Look::Failed(why.clone()),
                _ => Look::Gone,
            },
        }
    }

    fn got(&mut self, keys: Keys, now: SystemTime) {
        // From the end back.
        let before = |share: u32, most: Duration| {
            let ends = keys.expiry()?;
            Some(ends - ends.duration_since(now).map_or(Duration::ZERO, |lasts| (lasts / share).min(most)))
        };
        let due = before(3, AHEAD).unwrap_or(now + WITHOUT_END);
        let gone = before(10, MARGIN);
        self.failed = None;
        self.held = Some(Held { keys, since: now, due, gone });
    }

    /// Asking ahead of time failed.
    fn postpone(&mut self, now: SystemTime) {
        if let Some(held) = &mut self.held {
            let left = held.gone.and_then(|gone| gone.duration_since(now).ok());
            held.due = now + left.map_or(NEXT_ATTEMPT, |left| (left / 2).min(NEXT_ATTEMPT));
        }
    }

    /// A service refuses what is held. `true` when that is news.
    fn refused(&mut self, now: SystemTime) -> bool {
        let old = |held: &Held| now.duration_since(held.since).is_ok_and(|age| age >= REFUSED_AGAIN);
        self.held.take_if(|held| old(held)).is_some()
    }
}

impl Kept {
    pub(super) fn new(source: Credentials, config: SdkConfig) -> Self {
        Self { source, config, state: Mutex::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// A service refuses the credentials: the next call asks for others.
    pub(super) fn refused(&self) {
        if self.state().refused(SystemTime::now()) {
            tracing::warn!("AWS refuses the credentials: asking for others");
        }
    }

    async fn current(&self) -> provider::Result {
        match self.look() {
            Look::Good(keys) => Ok(keys),
            Look::Failed(why) => Err(CredentialsError::provider_error(why)),
            Look::Due(keys) => {
                // Others go on with what there is.
                let Ok(_turn) = self.turn.try_lock() else { return Ok(keys) };
                match within(EARLY_LIMIT, self.source.fetch(&self.config)).await {
                    Ok(new) => Ok(self.got(new)),
                    Err(error) => {
                        tracing::warn!(error = %told(&error), "could not get new credentials ahead of time");
                        self.state().postpone(SystemTime::now());
                        match self.look() {
                            Look::Good(keys) | Look::Due(keys) => Ok(keys),
                            // They have ended meanwhile.
                            _ => Err(error),
                        }
                    }
                }
            }
            Look::Gone => {
                let _turn = self.turn.lock().await;
                // Whoever had the turn before may have got them.
                match self.look() {
                    Look::Good(keys) | Look::Due(keys) => return Ok(keys),
                    Look::Failed(why) => return Err(CredentialsError::provider_error(why)),
                    Look::Gone => {}
                }
                match within(LIMIT, self.source.fetch(&self.config)).await {
                    Ok(new) => Ok(self.got(new)),
                    Err(error) => {
                        self.state().failed = Some((SystemTime::now(), told(&error)));
                        Err(error)
                    }
                }
            }
        }
    }

    fn got(&self, keys: Keys) -> Keys {
        tracing::debug!(ends = ?keys.expiry(), "credentials");
        self.state().got(keys.clone(), SystemTime::now());
        keys
    }

    fn look(&self) -> Look {
        self.state().look(SystemTime::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within(limit: Duration, asking: impl Future<Output = provider::Result>) -> provider::Result {
    let late = || CredentialsError::provider_error(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(late()))
}

/// The reason with all its causes.
fn told(error: &CredentialsError) -> String {
    super::failure::chain(error)
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn keys(id: &str, ends: Option<u64>) -> Keys {
        Keys::new(id, "hush", None, ends.map(at), "test")
    }

    fn seen(state: &State, now: u64) -> String {
        match state.look(at(now)) {
            Look::Good(keys) => format!("good {}", keys.access_key_id()),
            Look::Due(keys) => format!("due {}", keys.access_key_id()),
            Look::Gone => "gone".into(),
            Look::Failed(why) => format!("failed {why}"),
        }
    }

    #[test]
    fn new_credentials_are_asked_for_well_before_the_end_and_old_ones_hold_to_it() {
        let mut state = State::default();
        assert_eq!(seen(&state, 0), "gone");
        state.got(keys("a", Some(3_600)), at(0));
        assert_eq!((seen(&state, 3_299), seen(&state, 3_300)), ("good a".into(), "due a".into()));
        // In vain: again after 30 s, towards the end more often.
        state.postpone(at(3_300));
        assert_eq!((seen(&state, 3_329), seen(&state, 3_330)), ("good a".into(), "due a".into()));
        state.postpone(at(3_580));
        assert_eq!((seen(&state, 3_584), seen(&state, 3_585)), ("good a".into(), "due a".into()));
        assert_eq!((seen(&state, 3_589), seen(&state, 3_590)), ("due a".into(), "gone".into()));
        state.got(keys("b", Some(7_200)), at(3_601));
        assert_eq!(seen(&state, 3_602), "good b");
    }

    #[test]
    fn short_sessions_are_renewed_after_two_thirds() {
        let mut state = State::default();
        state.got(keys("a", Some(900)), at(0));
        assert_eq!((seen(&state, 599), seen(&state, 600)), ("good a".into(), "due a".into()));
        // One that ended already is not used.
        state.got(keys("b", Some(900)), at(901));
        assert_eq!(seen(&state, 901), "gone");
    }

    #[test]
    fn what_says_no_end_is_looked_at_again_and_never_gone() {
        let mut state = State::default();
        state.got(keys("a", None), at(0));
        assert_eq!((seen(&state, 299), seen(&state, 300)), ("good a".into(), "due a".into()));
        state.postpone(at(300));
        assert_eq!((seen(&state, 301), seen(&state, 331)), ("good a".into(), "due a".into()));
    }

    #[test]
    fn refused_credentials_are_given_up_but_not_at_every_call() {
        let mut state = State::default();
        state.got(keys("a", None), at(0));
        assert!(!state.refused(at(4)), "they are new: others would be the same");
        assert_eq!(seen(&state, 4), "good a");
        assert!(state.refused(at(5)));
        assert!(!state.refused(at(6)));
        assert_eq!(seen(&state, 6), "gone");
    }

    #[test]
    fn many_calls_share_one_failure_for_a_moment() {
        let state = State { held: None, failed: Some((at(10), "no STS".into())) };
        assert_eq!(seen(&state, 10), "failed no STS");
        assert_eq!(seen(&state, 11), "gone");
        assert_eq!(seen(&state, 9), "gone", "the clock was set back");
    }
}
