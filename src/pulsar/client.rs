//! The connection to Pulsar, and what its errors mean.

use std::{fs, ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use ::pulsar::{
    ConnectionRetryOptions, OperationRetryOptions, Pulsar, TokioExecutor,
    authentication::Authentication,
    error::{AuthenticationError, ConnectionError, ConsumerError, ServiceDiscoveryError},
    message::proto::ServerError,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::health::Health,
};

/// A connected client of the library, and what connections beside it need; cheap to clone.
#[derive(Clone)]
pub struct Client {
    library: Pulsar<TokioExecutor>,
    settings: Arc<Settings>,
}

impl Client {
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Deref for Client {
    type Target = Pulsar<TokioExecutor>;

    fn deref(&self) -> &Self::Target {
        &self.library
    }
}

/// How to reach Pulsar. Comes from flags, the environment or `client.conf`, never from a connector's configuration file.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `pulsar://host:6650` or `pulsar+ssl://host:6651`.
    pub url: String,
    pub token: Option<Token>,
    /// PEM file of the certificates that are trusted beside the built-in roots. A certificate and its host name are always verified.
    pub trust_certs: Option<PathBuf>,
}

/// A token to authenticate with.
#[derive(Debug, Clone)]
pub enum Token {
    Text(SecretString),
    /// Read for each connection, so that a token that is replaced in time never expires.
    File(PathBuf),
}

impl Token {
    /// The token as it is now, as bytes for the broker. Errors with the file that cannot be read, and why.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        let text = match self {
            Self::Text(text) => text.expose_secret().to_owned(),
            Self::File(path) => fs::read_to_string(path).map_err(|error| format!("token file {}: {error}", path.display()))?,
        };
        Ok(text.trim().into())
    }
}

/// First delay after a failure of the connection; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A broker restart takes a few seconds: only what lasts longer is worth a red light.
const PATIENCE: Duration = Duration::from_secs(10);
/// What works for a shorter time than that is no cure.
const CURED: Duration = Duration::from_secs(30);

/// Connects; waits as long as it takes until a broker answers. Errors only on what waiting cannot heal.
pub async fn connect(settings: &Settings, health: &Health) -> Result<Client> {
    let doing = || format!("connect to Pulsar at {}", settings.url);
    let configuration = |why: String| Error::new(Kind::Configuration, doing(), why);
    if !["pulsar://", "pulsar+ssl://"].iter().any(|scheme| settings.url.starts_with(scheme)) {
        return Err(configuration("the URL has to start with pulsar:// or pulsar+ssl://".into()));
    }
    settings.token.as_ref().map(Token::read).transpose().map_err(configuration)?;
    let certificates = settings
        .trust_certs
        .as_ref()
        .map(|path| fs::read(path).map_err(|error| configuration(format!("trusted certificates in {}: {error}", path.display()))));
    let certificates = certificates.transpose()?;

    let mut attempts = Attempts::new("pulsar", health.clone());
    loop {
        let mut builder = Pulsar::builder(&settings.url, TokioExecutor)
            // Few tries of the client's own: the loops above it know when to turn health red.
            .with_connection_retry_options(ConnectionRetryOptions {
                max_retries: 2,
                max_backoff: Duration::from_secs(1),
                connection_timeout: Duration::from_secs(5),
                keep_alive: Duration::from_secs(30),
                ..Default::default()
            })
            .with_operation_retry_options(OperationRetryOptions {
                retry_delay: Duration::from_millis(500),
                max_retries: Some(4),
                ..Default::default()
            });
        if let Some(token) = &settings.token {
            builder = builder.with_auth_provider(Box::new(TokenAuthentication(token.clone())));
        }
        if let Some(certificates) = &certificates {
            builder = builder.with_certificate_chain(certificates.clone());
        }
        match attempts.watch(builder.build()).await.map_err(|error| classify(doing(), &error)) {
            Ok(library) => {
                attempts.succeeded();
                return Ok(Client { library, settings: Arc::new(settings.clone()) });
            }
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// Gives the token to each new connection.
struct TokenAuthentication(Token);

#[async_trait::async_trait]
impl Authentication for TokenAuthentication {
    fn auth_method_name(&self) -> String {
        "token".into()
    }

    async fn initialize(&mut self) -> Result<(), AuthenticationError> {
        Ok(())
    }

    async fn auth_data(&mut self) -> Result<Vec<u8>, AuthenticationError> {
        // A file that is being replaced is there again soon.
        self.0.read().map_err(AuthenticationError::Retriable)
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

/// The kind of a client error: what the server said, or that the way to it is down.
pub fn classify(doing: impl Into<String>, error: &::pulsar::Error) -> Error {
    use ::pulsar::Error as E;
    let kind = match error {
        E::Connection(error)
        | E::Consumer(ConsumerError::Connection(error))
        | E::ServiceDiscovery(ServiceDiscoveryError::Connection(error)) => connection_kind(error),
        E::ServiceDiscovery(ServiceDiscoveryError::Query(Some(server), _)) => server_kind(*server),
        E::Authentication(AuthenticationError::Retriable(_)) => Kind::Unavailable,
        E::Authentication(_) => Kind::Credentials,
        _ => Kind::Unavailable,
    };
    Error::new(kind, doing, error)
}

fn connection_kind(error: &ConnectionError) -> Kind {
    match error {
        ConnectionError::PulsarError(Some(server), _) => server_kind(*server),
        ConnectionError::Authentication(AuthenticationError::Retriable(_)) => Kind::Unavailable,
        ConnectionError::Authentication(_) => Kind::Credentials,
        ConnectionError::DnsName(_) | ConnectionError::SocketAddr(_) => Kind::NotFound,
        _ => Kind::Unavailable,
    }
}

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

    fn settings(url: &str) -> Settings {
        Settings { url: url.into(), token: None, trust_certs: None }
    }

    #[tokio::test]
    async fn what_is_no_pulsar_url_is_a_configuration_error() {
        let error = connect(&settings("http://localhost:8080"), &Health::default()).await.err().expect("refused");
        assert_eq!(error.kind(), Kind::Configuration);
        assert!(error.to_string().contains("pulsar+ssl://"), "{error}");
    }

    #[tokio::test]
    async fn an_unreadable_token_file_is_named() {
        let missing = Settings { token: Some(Token::File("no/such/token".into())), ..settings("pulsar://127.0.0.1:1") };
        let error = connect(&missing, &Health::default()).await.err().expect("refused");
        assert_eq!(error.kind(), Kind::Configuration);
        assert!(error.to_string().contains("no/such/token"), "{error}");
    }

    #[test]
    fn a_token_is_not_in_debug_output() {
        let secret = Settings { token: Some(Token::Text("hush".to_string().into())), ..settings("pulsar://localhost") };
        assert!(!format!("{secret:?}").contains("hush"));
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

    #[tokio::test]
    async fn a_token_that_is_replaced_is_used_for_the_next_connection() {
        let path = std::env::temp_dir().join(format!("token-{}", std::process::id()));
        let mut authentication = TokenAuthentication(Token::File(path.clone()));
        for token in ["first", "second"] {
            fs::write(&path, format!("{token}\n")).expect("written");
            assert_eq!(authentication.auth_data().await.expect("readable"), token.as_bytes());
        }
        fs::remove_file(path).expect("removed");
    }
}
