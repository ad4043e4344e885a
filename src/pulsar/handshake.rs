//! A connection of our own beside the client library's: for what the library learns from the broker and keeps to itself (how large a message
//! may be), and for what it asks only through a consumer that it would block (`schema`).

use std::{io, sync::Arc, time::Duration};

use ::pulsar::message::{
    Codec, Message,
    proto::{BaseCommand, CommandConnect, CommandConnected, base_command::Type},
};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::codec::Framed;

use super::{
    client::{Attempts, Settings, Token, server_kind},
    publisher::DEFAULT_MAX_MESSAGE_SIZE,
};
use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
};

/// For one connection and its answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The broker's `maxMessageSize` in bytes, as it tells each client that connects. Waits as long as it takes until a broker answers.
///
/// It is asked once: a worker that runs while the broker's setting is lowered has to be restarted.
pub async fn max_message_size(settings: &Settings, health: &Health) -> Result<usize> {
    let mut attempts = Attempts::new("pulsar", health.clone());
    loop {
        let answer = match tokio::time::timeout(LIMIT, ask(settings)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(Kind::Unavailable, doing(settings), format!("no answer within {} s", LIMIT.as_secs()))),
        };
        match answer {
            Ok(size) => {
                attempts.succeeded();
                return Ok(size);
            }
            Err(error) => attempts.failed(error).await?,
        }
    }
}

fn doing(settings: &Settings) -> String {
    format!("ask Pulsar at {} for its maxMessageSize", settings.url)
}

async fn ask(settings: &Settings) -> Result<usize> {
    let (_, connected) = open(settings, &doing(settings)).await?;
    // Absent, or 0: a broker older than the setting.
    let told = connected.max_message_size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    Ok(told.unwrap_or(DEFAULT_MAX_MESSAGE_SIZE))
}

/// A connection that has shaken hands.
pub(super) type Frames = Framed<Box<dyn Stream>, Codec>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects and authenticates. `doing` is what for, for errors.
pub(super) async fn open(settings: &Settings, doing: &str) -> Result<(Frames, CommandConnected)> {
    let down = |error: io::Error| Error::new(Kind::Unavailable, doing, error);
    let (scheme, address) = settings.url.split_once("://").unwrap_or_default();
    // The first of several brokers: they have one configuration, and any of them answers.
    let address = address.split([',', '/']).next().unwrap_or_default();
    let tls = scheme == "pulsar+ssl";
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let address = if has_port { address.to_owned() } else { format!("{address}:{}", if tls { 6651 } else { 6650 }) };
    let stream = TcpStream::connect(&address).await.map_err(down)?;
    let stream: Box<dyn Stream> = if tls {
        let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| down(io::Error::other(error)))?;
        Box::new(tls_connector(settings, doing)?.connect(name, stream).await.map_err(down)?)
    } else {
        Box::new(stream)
    };
    shake_hands(stream, settings, doing).await
}

async fn shake_hands(stream: Box<dyn Stream>, settings: &Settings, doing: &str) -> Result<(Frames, CommandConnected)> {
    let failed = |kind, why: &dyn std::fmt::Display| Error::new(kind, doing, why);
    let token = settings.token.as_ref().map(Token::read).transpose().map_err(|error| failed(Kind::Credentials, &error))?;
    let command = BaseCommand {
        r#type: Type::Connect.into(),
        connect: Some(CommandConnect {
            client_version: concat!("pulsar-io-dynamodb-", env!("CARGO_PKG_VERSION")).into(),
            protocol_version: Some(12),
            auth_method_name: token.is_some().then(|| "token".into()),
            auth_data: token,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut frames = Framed::new(stream, Codec);
    let answer = exchange(&mut frames, command, doing).await?;
    match (answer.connected, answer.error) {
        (Some(connected), _) => Ok((frames, connected)),
        (None, Some(refused)) => Err(failed(server_kind(refused.error()), &refused.message)),
        (None, None) => Err(failed(Kind::Unavailable, &"it answers with something else")),
    }
}

/// Sends a command and takes the next one that comes.
pub(super) async fn exchange(frames: &mut Frames, command: BaseCommand, doing: &str) -> Result<BaseCommand> {
    let down = |why: &dyn std::fmt::Display| Error::new(Kind::Unavailable, doing, why);
    frames.send(Message { command, payload: None }).await.map_err(|error| down(&error))?;
    match frames.next().await {
        Some(answer) => Ok(answer.map_err(|error| down(&error))?.command),
        None => Err(down(&"it closed the connection")),
    }
}

/// Trusts what the client library trusts.
fn tls_connector(settings: &Settings, doing: &str) -> Result<TlsConnector> {
    let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Configuration, doing, why);
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &settings.trust_certs {
        let named = |error: &dyn std::fmt::Display| wrong(&format_args!("trusted certificates in {}: {error}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| named(&error))? {
            roots.add(certificate.map_err(|error| named(&error))?).map_err(|error| named(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| wrong(&error))?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use ::pulsar::message::proto::{CommandError, ServerError};
    use tokio::net::TcpListener;

    use super::*;

    /// A broker for one connection, which answers with this. Returns the token that it was shown.
    async fn broker(answer: BaseCommand, token: Option<Token>) -> (Result<usize>, Option<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("pulsar://{}", listener.local_addr().expect("bound"));
        let settings = Settings { url, token, trust_certs: None };
        let serve = async {
            let mut frames = Framed::new(listener.accept().await.expect("a client").0, Codec);
            let hello = frames.next().await.expect("a frame").expect("a command").command.connect.expect("connect");
            frames.send(Message { command: answer, payload: None }).await.expect("answered");
            hello.auth_data
        };
        tokio::join!(ask(&settings), serve)
    }

    fn connected(max_message_size: Option<i32>) -> BaseCommand {
        let connected = CommandConnected { server_version: "test".into(), max_message_size, ..Default::default() };
        BaseCommand { r#type: Type::Connected.into(), connected: Some(connected), ..Default::default() }
    }

    #[tokio::test]
    async fn w9_the_brokers_own_limit_counts() {
        assert_eq!(broker(connected(Some(100_000)), None).await.0, Ok(100_000));
        assert_eq!(broker(connected(None), None).await.0, Ok(DEFAULT_MAX_MESSAGE_SIZE));
        let (_, shown) = broker(connected(None), Some(Token::Text("hush\n".to_owned().into()))).await;
        assert_eq!(shown.as_deref(), Some(&b"hush"[..]));
    }

    #[tokio::test]
    async fn a_broker_that_refuses_says_why() {
        let error = CommandError { request_id: u64::MAX, error: ServerError::AuthenticationError.into(), message: "no such token".into() };
        let refusal = BaseCommand { r#type: Type::Error.into(), error: Some(error), ..Default::default() };
        let error = broker(refusal, None).await.0.expect_err("refused");
        assert_eq!(error.kind(), Kind::Credentials);
        assert!(error.to_string().contains("no such token"), "{error}");
    }
}
