//! The connection to Pulsar, and what its errors mean.

use std::{fs, path::PathBuf, time::Duration};

use ::pulsar::{
    Authentication, ConnectionRetryOptions, OperationRetryOptions, Pulsar, TokioExecutor,
    error::{AuthenticationError, ConnectionError, ConsumerError, ProducerError, ServiceDiscoveryError},
    message::proto::ServerError,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::health::Health,
};

/// A connected client; cheap to clone, one pool of connections.
pub type Client = Pulsar<TokioExecutor>;

/// How to reach Pulsar. Comes from flags, the environment or `client.conf`, never from a connector's configuration file.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `pulsar://host:6650` or `pulsar+ssl://host:6651`.
    pub url: String,
    pub token: Option<Token>,
    /// PEM file of the certificates that are trusted beside the built-in roots.
    pub trust_certs: Option<PathBuf>,
    /// Accepts any certificate.
    pub allow_insecure: bool,
    pub hostname_verification: bool,
}

/// A token to authenticate with.
#[derive(Debug, Clone)]
pub enum Token {
    Text(SecretString),
    /// Read at each start.
    File(PathBuf),
}

/// First delay after a failure of the connection; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A broker restart takes a few seconds: only what lasts longer is worth a red light.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects; waits as long as it takes until a broker answers. Errors only on what waiting cannot heal.
pub async fn connect(settings: &Settings, health: &Health) -> Result<Client> {
    let doing = || format!("connect to Pulsar at {}", settings.url);
    let configuration = |why: String| Error::new(Kind::Configuration, doing(), why);
    if !["pulsar://", "pulsar+ssl://"].iter().any(|scheme| settings.url.starts_with(scheme)) {
        return Err(configuration("the URL has to start with pulsar:// or pulsar+ssl://".into()));
    }
    let token = match &settings.token {
        None => None,
        Some(Token::Text(text)) => Some(text.expose_secret().trim().to_owned()),
        Some(Token::File(path)) => {
            let text = fs::read_to_string(path).map_err(|error| configuration(format!("token file {}: {error}", path.display())))?;
            Some(text.trim().to_owned())
        }
    };
    let certificates = settings
        .trust_certs
        .as_ref()
        .map(|path| fs::read(path).map_err(|error| configuration(format!("trusted certificates in {}: {error}", path.display()))));
    let certificates = certificates.transpose()?;

    let mut attempts = Attempts::new("pulsar", health.clone());
    loop {
        let mut builder = Pulsar::builder(&settings.url, TokioExecutor)
            .with_allow_insecure_connection(settings.allow_insecure)
            .with_tls_hostname_verification_enabled(settings.hostname_verification)
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
        if let Some(token) = &token {
            builder = builder.with_auth(Authentication { name: "token".into(), data: token.clone().into_bytes() });
        }
        if let Some(certificates) = &certificates {
            builder = builder.with_certificate_chain(certificates.clone());
        }
        match builder.build().await.map_err(|error| classify(doing(), &error)) {
            Ok(client) => {
                attempts.succeeded();
                return Ok(client);
            }
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// Retries with backoff; turns health red when it takes long, or at once when a person has to act.
pub struct Attempts {
    stage: String,
    health: Health,
    backoff: Duration,
    failing_since: Option<tokio::time::Instant>,
}

impl Attempts {
    pub fn new(stage: impl Into<String>, health: Health) -> Self {
        Self { stage: stage.into(), health, backoff: MIN_BACKOFF, failing_since: None }
    }

    pub fn succeeded(&mut self) {
        if self.failing_since.take().is_some() {
            tracing::info!(stage = self.stage, "works again");
            self.health.green(&self.stage);
        }
        self.backoff = MIN_BACKOFF;
    }

    /// Waits before the next try, or gives the error back where trying again cannot help.
    pub async fn failed(&mut self, error: Error) -> Result<()> {
        metrics::counter!(crate::metrics::names::ERRORS, "stage" => "pulsar", "kind" => format!("{:?}", error.kind())).increment(1);
        if error.retry() == Retry::Never {
            return Err(error);
        }
        let since = *self.failing_since.get_or_insert_with(tokio::time::Instant::now);
        tracing::warn!(stage = self.stage, %error, "trying again");
        if error.retry() == Retry::Manual || since.elapsed() >= PATIENCE {
            self.health.red(self.stage.clone(), &error);
        }
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Ok(())
    }
}

/// The kind of a client error: what the server said, or that the way to it is down.
pub fn classify(doing: impl Into<String>, error: &::pulsar::Error) -> Error {
    use ::pulsar::Error as E;
    let kind = match error {
        E::Connection(error)
        | E::Consumer(ConsumerError::Connection(error))
        | E::Producer(ProducerError::Connection(error))
        | E::ServiceDiscovery(ServiceDiscoveryError::Connection(error)) => connection_kind(error),
        E::ServiceDiscovery(ServiceDiscoveryError::Query(Some(server), _)) => server_kind(*server),
        E::Producer(ProducerError::Batch(inner)) => return classify(doing, inner),
        E::Producer(ProducerError::Fenced) => Kind::Fatal,
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

fn server_kind(server: ServerError) -> Kind {
    use ServerError as S;
    match server {
        S::AuthenticationError => Kind::Credentials,
        S::AuthorizationError => Kind::AccessDenied,
        S::TopicNotFound | S::SubscriptionNotFound => Kind::NotFound,
        S::TooManyRequests => Kind::Throttled,
        S::TopicTerminatedError | S::InvalidTopicName | S::IncompatibleSchema | S::NotAllowedError | S::UnsupportedVersionError => {
            Kind::Invalid
        }
        S::ProducerFenced => Kind::Fatal,
        _ => Kind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings { url: url.into(), token: None, trust_certs: None, allow_insecure: false, hostname_verification: true }
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
        attempts.failed(Error::new(Kind::AccessDenied, "publish", "no")).await.expect("tried again");
        assert!(health.reasons()["pulsar"].contains("permission"));
        assert!(attempts.failed(Error::new(Kind::Fatal, "publish", "fenced")).await.is_err());
    }
}
