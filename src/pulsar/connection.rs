//! A connection to a broker of our own, for what the client library does not do: tell how large a message may be, ask for a schema without a consumer,
//! send a batch that was encoded once (`docs/decisions/019`), and tell a consumer whose turn it is (`docs/decisions/026`).

use std::{io, sync::Arc, time::Duration};

use ::pulsar::message::{
    Message,
    proto::{AuthData, BaseCommand, CommandAuthResponse, CommandConnect, CommandPing, CommandPong, FeatureFlags, base_command::Type},
};
use bytes::Buf;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::codec::Framed;

use super::{
    client::{Settings, Token, server_kind},
    frames::Frames,
};
use crate::error::{Error, Kind, Result};

const CLIENT_VERSION: &str = concat!("pulsar-io-dynamodb-", env!("CARGO_PKG_VERSION"));
/// Of Pulsar's protocol, as the client library speaks it.
const PROTOCOL_VERSION: i32 = 12;
/// After so long without a word from an idle broker it is asked whether it is there; after as long again it is not.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `pulsar://host:port` or `pulsar+ssl://host:port`, of the broker or of a Pulsar proxy. Of several hosts the first one counts.
    pub url: String,
    /// What a proxy is told: the broker's `host:port` or URL.
    pub behind_proxy: Option<String>,
}

/// An authenticated connection. Commands on it are answered where they are about the connection itself.
pub(super) struct Connection {
    frames: Framed<Box<dyn Stream>, Frames>,
    settings: Settings,
    broker: String,
    /// `None`: a broker older than the setting.
    pub max_message_size: Option<usize>,
    /// Whether anything came since the last pulse.
    heard: bool,
    /// Whether the broker was asked then if it is there.
    asked: bool,
}

impl Connection {
    /// Connects and authenticates. Takes as long as the network does: the caller has a limit.
    pub async fn open(settings: &Settings, address: &Address) -> Result<Self> {
        let broker = address.url.clone();
        let down = |error: io::Error| Error::new(Kind::Unavailable, format!("connect to Pulsar at {broker}"), error);
        let (scheme, host_and_port) = address.url.split_once("://").unwrap_or_default();
        let host_and_port = host_and_port.split([',', '/']).next().unwrap_or_default();
        let tls = scheme == "pulsar+ssl";
        let has_port = host_and_port.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let host_and_port = if has_port { host_and_port.to_owned() } else { format!("{host_and_port}:{}", if tls { 6651 } else { 6650 }) };
        let stream = TcpStream::connect(&host_and_port).await.map_err(down)?;
        stream.set_nodelay(true).map_err(down)?;
        let stream: Box<dyn Stream> = if tls {
            let host = host_and_port.rsplit_once(':').map_or(&*host_and_port, |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|error| down(io::Error::other(error)))?;
            Box::new(tls_connector(settings)?.connect(name, stream).await.map_err(down)?)
        } else {
            Box::new(stream)
        };
        let frames = Framed::new(stream, Frames);
        let mut connection = Self { frames, settings: settings.clone(), broker, max_message_size: None, heard: false, asked: false };
        connection.shake_hands(address).await?;
        Ok(connection)
    }

    async fn shake_hands(&mut self, address: &Address) -> Result<()> {
        let token = self.token()?;
        let connect = CommandConnect {
            client_version: CLIENT_VERSION.into(),
            protocol_version: Some(PROTOCOL_VERSION),
            auth_method_name: token.is_some().then(|| "token".into()),
            auth_data: token,
            proxy_to_broker_url: address.behind_proxy.clone(),
            feature_flags: Some(FeatureFlags { supports_auth_refresh: Some(true), ..Default::default() }),
            ..Default::default()
        };
        self.send(BaseCommand { r#type: Type::Connect.into(), connect: Some(connect), ..Default::default() }).await?;
        let answer = self.receive().await?;
        match (answer.connected, answer.error) {
            (Some(connected), _) => {
                // 0: a broker older than the setting, as well.
                self.max_message_size = connected.max_message_size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
                Ok(())
            }
            (None, Some(refused)) => Err(self.failed(server_kind(refused.error()), refused.message)),
            (None, None) => Err(self.failed(Kind::Unavailable, "it answers with something else")),
        }
    }

    pub async fn send(&mut self, command: BaseCommand) -> Result<()> {
        let sent = self.frames.send(Message { command, payload: None }).await;
        sent.map_err(|error| self.failed(Kind::Unavailable, error))
    }

    /// Sends what is a frame already. Dropped before it is done, it leaves the connection unusable.
    pub async fn write(&mut self, mut frame: impl Buf) -> Result<()> {
        self.frames.flush().await.map_err(|error| self.failed(Kind::Unavailable, error))?;
        let stream = self.frames.get_mut();
        let written = async {
            stream.write_all_buf(&mut frame).await?;
            stream.flush().await
        };
        written.await.map_err(|error| self.failed(Kind::Unavailable, error))
    }

    /// The next command that is not about the connection itself. May be dropped at any await.
    pub async fn receive(&mut self) -> Result<BaseCommand> {
        self.next().await.map(|message| message.command)
    }

    /// As `receive`, with what a command carries.
    pub async fn next(&mut self) -> Result<Message> {
        loop {
            let message = match self.frames.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(self.failed(Kind::Unavailable, error)),
                None => return Err(self.failed(Kind::Unavailable, "it closed the connection")),
            };
            self.heard = true;
            let command = &message.command;
            if command.ping.is_some() {
                self.send(BaseCommand { r#type: Type::Pong.into(), pong: Some(CommandPong {}), ..Default::default() }).await?;
            } else if command.auth_challenge.is_some() {
                let response = AuthData { auth_method_name: Some("token".into()), auth_data: self.token()? };
                let response = CommandAuthResponse {
                    client_version: Some(CLIENT_VERSION.into()),
                    response: Some(response),
                    protocol_version: Some(PROTOCOL_VERSION),
                };
                self.send(BaseCommand { r#type: Type::AuthResponse.into(), auth_response: Some(response), ..Default::default() }).await?;
            } else if command.pong.is_none() {
                return Ok(message);
            }
        }
    }

    /// Waits while there is nothing to do, and sees to it that both sides know that the other is there. Returns what ends that: a command, or the
    /// connection's end. May be dropped at any await.
    pub async fn idle(&mut self) -> Result<BaseCommand> {
        (self.heard, self.asked) = (false, false);
        loop {
            match tokio::time::timeout(KEEP_ALIVE, self.receive()).await {
                Ok(ended) => return ended,
                Err(_) => self.pulse().await?,
            }
        }
    }

    /// To be called at regular intervals: asks a broker that was silent since the last time whether it is there.
    ///
    /// # Errors
    /// It was asked the last time, and nothing has come since.
    pub async fn pulse(&mut self) -> Result<()> {
        match (std::mem::take(&mut self.heard), self.asked) {
            (true, _) => self.asked = false,
            (false, true) => return Err(self.failed(Kind::Unavailable, "it does not answer")),
            (false, false) => {
                self.asked = true;
                self.send(BaseCommand { r#type: Type::Ping.into(), ping: Some(CommandPing {}), ..Default::default() }).await?;
            }
        }
        Ok(())
    }

    fn token(&self) -> Result<Option<Vec<u8>>> {
        let token = self.settings.token.as_ref().map(Token::read);
        token.transpose().map_err(|error| self.failed(Kind::Credentials, error))
    }

    fn failed(&self, kind: Kind, why: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("talk to Pulsar at {}", self.broker), why)
    }
}

/// Trusts what the client library trusts.
fn tls_connector(settings: &Settings) -> Result<TlsConnector> {
    let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Configuration, format!("connect to Pulsar at {}", settings.url), why);
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
    use ::pulsar::message::{
        Codec,
        proto::{CommandAuthChallenge, CommandConnected, CommandSuccess},
    };
    use tokio::net::TcpListener;

    use super::*;

    type Broker = Framed<TcpStream, Codec>;

    async fn tell(broker: &mut Broker, command: BaseCommand) {
        broker.send(Message { command, payload: None }).await.expect("sent");
    }

    async fn hear(broker: &mut Broker) -> BaseCommand {
        broker.next().await.expect("a frame").expect("a command").command
    }

    /// A connection that a broker has let in, the broker's end, and what it was shown.
    async fn connected(token: Option<Token>) -> (Connection, Broker, CommandConnect) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("pulsar://{}", listener.local_addr().expect("bound"));
        let settings = Settings { url: url.clone(), token, trust_certs: None };
        let address = Address { url, behind_proxy: Some("behind:6650".into()) };
        let serve = async {
            let mut broker = Framed::new(listener.accept().await.expect("a client").0, Codec);
            let hello = hear(&mut broker).await.connect.expect("connect");
            let connected = CommandConnected { server_version: "test".into(), ..Default::default() };
            tell(&mut broker, BaseCommand { r#type: Type::Connected.into(), connected: Some(connected), ..Default::default() }).await;
            (broker, hello)
        };
        let (connection, (broker, hello)) = tokio::join!(Connection::open(&settings, &address), serve);
        (connection.expect("let in"), broker, hello)
    }

    #[tokio::test]
    async fn a_proxy_is_told_the_broker_and_a_ping_is_answered_while_something_else_is_waited_for() {
        let (mut connection, mut broker, hello) = connected(None).await;
        assert_eq!((hello.proxy_to_broker_url.as_deref(), hello.auth_data), (Some("behind:6650"), None));
        let serve = async {
            tell(&mut broker, BaseCommand { r#type: Type::Ping.into(), ping: Some(CommandPing {}), ..Default::default() }).await;
            assert!(hear(&mut broker).await.pong.is_some());
            let success = CommandSuccess { request_id: 5, ..Default::default() };
            tell(&mut broker, BaseCommand { r#type: Type::Success.into(), success: Some(success), ..Default::default() }).await;
        };
        let (answer, ()) = tokio::join!(connection.receive(), serve);
        assert_eq!(answer.expect("a command").success.map(|success| success.request_id), Some(5));
        drop(broker);
        assert_eq!(connection.receive().await.expect_err("closed").kind(), Kind::Unavailable);
    }

    #[tokio::test]
    async fn a_broker_that_asks_again_is_shown_the_token_of_now() {
        let path = std::env::temp_dir().join(format!("challenge-{}", std::process::id()));
        std::fs::write(&path, "first").expect("written");
        let (mut connection, mut broker, hello) = connected(Some(Token::File(path.clone()))).await;
        assert_eq!((hello.auth_method_name.as_deref(), hello.auth_data.as_deref()), (Some("token"), Some(&b"first"[..])));
        assert_eq!(hello.feature_flags.and_then(|flags| flags.supports_auth_refresh), Some(true));
        std::fs::write(&path, "second").expect("written");
        let challenge = CommandAuthChallenge::default();
        tell(&mut broker, BaseCommand { r#type: Type::AuthChallenge.into(), auth_challenge: Some(challenge), ..Default::default() }).await;
        let shown = tokio::select! {
            command = hear(&mut broker) => command.auth_response.and_then(|answer| answer.response).and_then(|data| data.auth_data),
            _ = connection.receive() => None,
        };
        assert_eq!(shown.as_deref(), Some(&b"second"[..]));
        std::fs::remove_file(path).expect("removed");
    }

    #[tokio::test]
    async fn an_idle_broker_is_asked_whether_it_is_there_h1() {
        let (mut connection, mut broker, _) = connected(None).await;
        tokio::time::pause();
        let begin = tokio::time::Instant::now();
        let answers = async {
            for _ in 0..2 {
                assert!(hear(&mut broker).await.ping.is_some());
                tell(&mut broker, BaseCommand { r#type: Type::Pong.into(), pong: Some(CommandPong {}), ..Default::default() }).await;
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = connection.idle() => ended,
            () = answers => unreachable!("it hears for ever"),
        };
        assert_eq!(ended.expect_err("the third ping has no answer").kind(), Kind::Unavailable);
        assert!(begin.elapsed() >= 4 * KEEP_ALIVE, "{:?}", begin.elapsed());
    }
}
