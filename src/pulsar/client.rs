//! Access to Pulsar: how to reach it, and how long to try.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::pulsar::message::proto::ServerError;
use tokio::time::Instant;

use super::{
    auth::{Authentication, ClientCertificate},
    connection::{Address, Connection, DEFAULT_MAX_MESSAGE_SIZE},
    tls,
};
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::health::Health,
};

/// What opens connections; cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    settings: Settings,
    max_message_size: AtomicUsize,
}

impl Client {
    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What brokers take as one message, in bytes: their `maxMessageSize`, as the one that was connected to last has told it.
    pub fn max_message_size(&self) -> usize {
        self.0.max_message_size.load(Ordering::Relaxed)
    }

    /// A connection to this broker. Boxed, as the other one: it is large, and rare.
    pub(super) async fn open(&self, address: &Address) -> Result<Connection> {
        Box::pin(Connection::open(self.settings(), address)).await.inspect(|connection| self.heard(connection))
    }

    /// A connection to any broker.
    pub(super) async fn open_any(&self) -> Result<Connection> {
        Box::pin(Connection::open_any(self.settings())).await.inspect(|connection| self.heard(connection))
    }

    fn heard(&self, connection: &Connection) {
        self.0.max_message_size.store(connection.max_message_size, Ordering::Relaxed);
    }
}

/// How to reach Pulsar. Comes from flags, the environment, `client.conf` or the functions worker, never from a connector's configuration file.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `pulsar://host:6650` or `pulsar+ssl://host:6651`; several hosts are separated by commas.
    pub url: String,
    /// `None`: the broker is not told who we are.
    pub authentication: Option<Authentication>,
    /// PEM file of the certificates that are trusted beside the built-in roots. A certificate and its host name are always verified.
    pub trust_certs: Option<PathBuf>,
    /// What is shown where TLS asks for a certificate, whatever the authentication is.
    pub client_certificate: Option<ClientCertificate>,
}

impl Settings {
    /// Without authentication, and with the built-in roots alone.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), authentication: None, trust_certs: None, client_certificate: None }
    }

    pub(super) fn with_tls(&self) -> bool {
        self.url.starts_with("pulsar+ssl://")
    }

    /// The certificate that TLS connections show.
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        self.authentication.as_ref().and_then(Authentication::certificate).or(self.client_certificate.as_ref())
    }

    /// The URL of each of the hosts.
    pub(super) fn hosts(&self) -> impl Iterator<Item = String> {
        let (scheme, hosts) = self.url.split_once("://").unwrap_or_default();
        hosts.trim_end_matches('/').split(',').map(str::trim).filter(|host| !host.is_empty()).map(move |host| format!("{scheme}://{host}"))
    }
}

/// First delay after a failure of the connection; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A broker restart takes a few seconds: only what lasts longer is worth a red light.
const PATIENCE: Duration = Duration::from_secs(10);
/// What works for a shorter time than that is no cure.
const CURED: Duration = Duration::from_secs(30);
/// For one try to connect.
const LIMIT: Duration = Duration::from_secs(30);

/// Connects; waits as long as it takes until a broker answers. Errors only on what waiting cannot heal.
pub async fn connect(settings: &Settings, health: &Health) -> Result<Client> {
    let doing = || format!("connect to Pulsar at {}", settings.url);
    let configuration = |why: String| Error::new(Kind::Configuration, doing(), why);
    if !["pulsar://", "pulsar+ssl://"].iter().any(|scheme| settings.url.starts_with(scheme)) {
        return Err(configuration("the URL has to start with pulsar:// or pulsar+ssl://".into()));
    }
    settings.authentication.as_ref().map(Authentication::check).transpose().map_err(configuration)?;
    if settings.with_tls() {
        tls::connector(settings)?;
    }
    let client = Client(Arc::new(Shared { settings: settings.clone(), max_message_size: AtomicUsize::new(DEFAULT_MAX_MESSAGE_SIZE) }));
    let mut attempts = Attempts::new("pulsar", health.clone());
    loop {
        let late = |_| Err(Error::new(Kind::Unavailable, doing(), format!("no answer within {} s", LIMIT.as_secs())));
        let opened = async { tokio::time::timeout(LIMIT, client.open_any()).await.unwrap_or_else(late) };
        match attempts.watch(opened).await {
            Ok(_) => {
                attempts.succeeded();
                return Ok(client);
            }
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// Retries with backoff; turns health red when it takes long, or at once when a person has to act (H1).
pub struct Attempts {
    stage: String,
    health: Health,
    backoff: Duration,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Fine,
    /// Nothing works since then.
    Failing(Instant),
    /// It failed from the first moment on, and works since the second.
    Recovering(Instant, Instant),
}

impl Attempts {
    pub fn new(stage: impl Into<String>, health: Health) -> Self {
        Self { stage: stage.into(), health, backoff: MIN_BACKOFF, state: State::Fine }
    }

    pub fn succeeded(&mut self) {
        if let State::Failing(since) = self.state {
            tracing::info!(stage = self.stage, "works again");
            self.health.green(&self.stage);
            self.state = State::Recovering(since, Instant::now());
        }
    }

    /// Turns health red until something works.
    pub fn tell(&mut self, error: &Error) {
        self.health.red(self.stage.clone(), error);
        if !matches!(self.state, State::Failing(_)) {
            self.state = State::Failing(Instant::now());
        }
    }

    /// Waits before the next try, or gives the error back where trying again cannot help.
    pub async fn failed(&mut self, error: Error) -> Result<()> {
        metrics::counter!(crate::metrics::names::ERRORS, "stage" => "pulsar", "kind" => format!("{:?}", error.kind())).increment(1);
        if error.retry() == Retry::Never {
            return Err(error);
        }
        let since = match self.state {
            State::Failing(since) => since,
            // It did not last: the same trouble goes on, with its long delays.
            State::Recovering(since, works) if works.elapsed() < CURED => since,
            State::Fine | State::Recovering(..) => {
                self.backoff = MIN_BACKOFF;
                Instant::now()
            }
        };
        self.state = State::Failing(since);
        tracing::warn!(stage = self.stage, %error, "trying again");
        if error.retry() == Retry::Manual {
            self.health.red(self.stage.clone(), &error);
        }
        let again = Instant::now() + self.backoff;
        if since + PATIENCE <= again {
            tokio::time::sleep_until(since + PATIENCE).await;
            self.health.red(self.stage.clone(), &error);
        }
        tokio::time::sleep_until(again).await;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Ok(())
    }

    /// Waits for a try, however long it takes, and turns health red meanwhile: the client tries again by itself for half a minute before
    /// it says that anything is wrong.
    pub async fn watch<T>(&mut self, attempt: impl Future<Output = T>) -> T {
        let since = if let State::Failing(since) = self.state { since } else { Instant::now() };
        if since.elapsed() >= PATIENCE {
            return attempt.await;
        }
        tokio::pin!(attempt);
        tokio::select! {
            biased;
            done = &mut attempt => return done,
            () = tokio::time::sleep_until(since + PATIENCE) => {}
        }
        self.state = State::Failing(since);
        let reason = format!("no answer from Pulsar for {} s", PATIENCE.as_secs());
        tracing::warn!(stage = self.stage, reason, "still trying");
        self.health.red(self.stage.clone(), reason);
        attempt.await
    }
}

/// What an error of the broker's means.
pub(super) fn server_kind(server: ServerError) -> Kind {
    use ServerError as S;
    match server {
        S::AuthenticationError => Kind::Credentials,
        S::AuthorizationError => Kind::AccessDenied,
        S::TopicNotFound | S::SubscriptionNotFound => Kind::NotFound,
        S::TooManyRequests => Kind::Throttled,
        S::TopicTerminatedError => Kind::Closed,
        S::IncompatibleSchema => Kind::Poison,
        S::InvalidTopicName | S::NotAllowedError | S::UnsupportedVersionError => Kind::Invalid,
        S::ProducerFenced => Kind::Fatal,
        _ => Kind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulsar::auth::Token;

    #[tokio::test]
    async fn what_is_no_pulsar_url_is_a_configuration_error() {
        let error = connect(&Settings::at("http://localhost:8080"), &Health::default()).await.err().expect("refused");
        assert_eq!(error.kind(), Kind::Configuration);
        assert!(error.to_string().contains("pulsar+ssl://"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named_before_anything_is_tried() {
        let plain = || Settings::at("pulsar://127.0.0.1:1");
        let tls = || Settings::at("pulsar+ssl://127.0.0.1:1");
        let pair = || ClientCertificate { certificate: "no/such/file".into(), key: "no/key".into() };
        for settings in [
            Settings { authentication: Some(Authentication::Token(Token::File("no/such/file".into()))), ..plain() },
            Settings { authentication: Some(Authentication::Certificate(pair())), ..tls() },
            Settings { client_certificate: Some(pair()), ..tls() },
            Settings { trust_certs: Some("no/such/file".into()), ..tls() },
        ] {
            let error = connect(&settings, &Health::default()).await.err().expect("refused");
            assert_eq!(error.kind(), Kind::Configuration);
            assert!(error.to_string().contains("no/such/file"), "{error}");
        }
    }

    #[test]
    fn each_host_of_a_url_has_one_of_its_own() {
        let hosts = |url: &str| Settings::at(url).hosts().collect::<Vec<_>>();
        assert_eq!(hosts("pulsar+ssl://a:1,b/"), ["pulsar+ssl://a:1", "pulsar+ssl://b"]);
        assert_eq!(hosts("pulsar://[::1]:6650"), ["pulsar://[::1]:6650"]);
        assert!(hosts("pulsar://").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn health_turns_red_when_it_takes_long_and_green_when_it_works_h1() {
        let health = Health::default();
        let mut attempts = Attempts::new("pulsar", health.clone());
        let down = || Error::new(Kind::Unavailable, "connect", "refused");
        attempts.failed(down()).await.expect("tried again");
        assert!(health.reasons().is_empty(), "one failure is no alarm");
        while health.reasons().is_empty() {
            attempts.failed(down()).await.expect("tried again");
        }
        attempts.succeeded();
        assert!(health.reasons().is_empty());
        attempts.failed(down()).await.expect("tried again");
        assert!(!health.reasons().is_empty(), "what does not last is still the same trouble");
        attempts.succeeded();
        tokio::time::advance(CURED).await;
        attempts.failed(down()).await.expect("tried again");
        assert!(health.reasons().is_empty(), "a new trouble gets new patience");
        attempts.failed(Error::new(Kind::AccessDenied, "publish", "no")).await.expect("tried again");
        assert!(health.reasons()["pulsar"].contains("permission"));
        assert!(attempts.failed(Error::new(Kind::Fatal, "publish", "fenced")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn health_turns_red_while_an_answer_does_not_come_h1() {
        let health = Health::default();
        let mut attempts = Attempts::new("pulsar", health.clone());
        attempts.watch(tokio::time::sleep(PATIENCE - Duration::from_secs(1))).await;
        assert!(health.reasons().is_empty());
        let (slow, seen) = (tokio::time::sleep(PATIENCE + Duration::from_secs(1)), health.clone());
        let reasons = attempts
            .watch(async move {
                slow.await;
                seen.reasons()
            })
            .await;
        assert!(reasons["pulsar"].contains("no answer"), "{reasons:?}");
        attempts.succeeded();
        assert!(health.reasons().is_empty());
    }

    /// The time counts from the first failure, not from the beginning of the try that hangs.
    #[tokio::test(start_paused = true)]
    async fn health_turns_red_while_a_try_after_a_failure_hangs_h1() {
        let health = Health::default();
        let mut attempts = Attempts::new("pulsar", health.clone());
        attempts.failed(Error::new(Kind::Unavailable, "connect", "refused")).await.expect("tried again");
        let seen = health.clone();
        let reasons = attempts
            .watch(async move {
                // A little less than the patience: some of it is gone.
                tokio::time::sleep(PATIENCE - MIN_BACKOFF / 2).await;
                seen.reasons()
            })
            .await;
        assert!(reasons["pulsar"].contains("no answer"), "{reasons:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn health_turns_red_while_the_next_try_is_waited_for_h1() {
        let health = Health::default();
        let mut attempts = Attempts::new("pulsar", health.clone());
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            attempts.failed(Error::new(Kind::Unavailable, "connect", "refused")).await.expect("tried again");
        }
        assert!(health.reasons()["pulsar"].contains("refused"), "before the next try");
    }
}
