//! A connection to a broker. Of the client library only the codec and the commands are used: it does not tell how large a message may be, asks for a
//! schema through a consumer alone, encodes each batch anew (`docs/decisions/019`), does not say whose turn it is (`docs/decisions/026`), and has no
//! client certificates (`docs/decisions/030`).

use std::{fmt, io, time::Duration};

use ::pulsar::message::{
    Message,
    proto::{
        AuthData, BaseCommand, CommandAuthResponse, CommandConnect, CommandPing, CommandPong, FeatureFlags, ServerError, base_command::Type,
    },
};
use bytes::Buf;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::{codec::Framed, task::AbortOnDropHandle};

use super::{
    client::{Settings, server_kind},
    frames::Frames,
    tls,
};
use crate::error::{Error, Kind, Result};

const CLIENT_VERSION: &str = concat!("pulsar-io-dynamodb-", env!("CARGO_PKG_VERSION"));
/// Of Pulsar's protocol, as the client library speaks it.
const PROTOCOL_VERSION: i32 = 12;
/// After so long without a word from an idle broker it is asked whether it is there; after as long again it is not.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pulsar's default `maxMessageSize`, which brokers that are older than the setting have.
pub const DEFAULT_MAX_MESSAGE_SIZE: usize = 5 * 1024 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `pulsar://host:port` or `pulsar+ssl://host:port`, of the broker or of a Pulsar proxy. One host: [`Settings::hosts`] has a URL's others.
    pub url: String,
    /// What a proxy is told: the broker's `host:port` or URL.
    pub behind_proxy: Option<String>,
}

/// An authenticated connection. Commands on it are answered where they are about the connection itself.
pub(super) struct Connection {
    frames: Framed<Box<dyn Stream>, Frames>,
    settings: Settings,
    broker: String,
    /// What the broker takes as one message, in bytes.
    pub max_message_size: usize,
    /// What the broker was shown last.
    shown: Option<Vec<u8>>,
    /// It asks who we are once more, and this is being found out: it may take a while, and messages come meanwhile.
    asking: Option<AbortOnDropHandle<Result<Vec<u8>>>>,
    /// What it is to be shown, until that is sent.
    to_show: Option<Vec<u8>>,
    /// Whether anything came since the last pulse.
    heard: bool,
    /// Whether the broker was asked then if it is there.
    asked: bool,
}

impl Connection {
    /// Connects and authenticates. Takes as long as the network and an identity provider do: the caller has a limit.
    pub async fn open(settings: &Settings, address: &Address) -> Result<Self> {
        let broker = address.url.clone();
        let failed = |kind: Kind, why: String| Error::new(kind, format!("connect to Pulsar at {broker}"), why);
        let down = |error: io::Error| failed(Kind::Unavailable, error.to_string());
        let (scheme, host_and_port) = address.url.split_once("://").unwrap_or_default();
        let host_and_port = host_and_port.split('/').next().unwrap_or_default();
        let tls = scheme == "pulsar+ssl";
        let has_port = host_and_port.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let host_and_port = if has_port { host_and_port.to_owned() } else { format!("{host_and_port}:{}", if tls { 6651 } else { 6650 }) };
        let stream = TcpStream::connect(&host_and_port).await.map_err(down)?;
        stream.set_nodelay(true).map_err(down)?;
        let stream: Box<dyn Stream> = if tls {
            let host = host_and_port.rsplit_once(':').map_or(&*host_and_port, |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|error| down(io::Error::other(error)))?;
            let explained = |error: io::Error| {
                let (kind, why) = tls::explain(&error, settings);
                failed(kind, why)
            };
            Box::new(tls::connector(settings)?.connect(name, stream).await.map_err(explained)?)
        } else {
            Box::new(stream)
        };
        let mut connection = Self {
            frames: Framed::new(stream, Frames),
            settings: settings.clone(),
            broker,
            max_message_size: DEFAULT_MAX_MESSAGE_SIZE,
            shown: None,
            asking: None,
            to_show: None,
            heard: false,
            asked: false,
        };
        connection.shake_hands(address).await?;
        Ok(connection)
    }

    /// A connection to the first of the URL's hosts that can be had.
    pub async fn open_any(settings: &Settings) -> Result<Self> {
        let mut failed = Error::new(Kind::Configuration, "connect to Pulsar", "its URL names no host");
        for url in settings.hosts() {
            match Self::open(settings, &Address { url, behind_proxy: None }).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn shake_hands(&mut self, address: &Address) -> Result<()> {
        let authentication = self.settings.authentication.clone();
        if let Some(authentication) = &authentication {
            self.shown = Some(authentication.data().await?);
        }
        let connect = CommandConnect {
            client_version: CLIENT_VERSION.into(),
            protocol_version: Some(PROTOCOL_VERSION),
            auth_method_name: authentication.as_ref().map(|authentication| authentication.method().into()),
            auth_data: self.shown.clone(),
            proxy_to_broker_url: address.behind_proxy.clone(),
            feature_flags: Some(FeatureFlags { supports_auth_refresh: Some(true), ..Default::default() }),
            ..Default::default()
        };
        self.send(BaseCommand { r#type: Type::Connect.into(), connect: Some(connect), ..Default::default() }).await?;
        let answer = self.receive().await?;
        match (answer.connected, answer.error) {
            (Some(connected), _) => {
                // 0: a broker older than the setting, as well.
                let size = connected.max_message_size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
                self.max_message_size = size.unwrap_or(DEFAULT_MAX_MESSAGE_SIZE);
                Ok(())
            }
            (None, Some(refused)) if refused.error() == ServerError::AuthenticationError => {
                let Some(authentication) = authentication else {
                    let why = format!("{}: it wants to know who we are, and no authentication is configured", refused.message);
                    return Err(self.failed(Kind::Credentials, why));
                };
                authentication.not_again(self.shown.as_deref().unwrap_or_default()).await;
                let method = authentication.method();
                let why = format!("{}: it does not take {authentication} (authentication method {method})", refused.message);
                Err(self.failed(Kind::Credentials, why))
            }
            (None, Some(refused)) => Err(self.failed(server_kind(refused.error()), refused.message)),
            (None, None) => Err(self.failed(Kind::Unavailable, "it answers with something else")),
        }
    }

    /// Of the broker, or of the proxy before it.
    pub fn url(&self) -> &str {
        &self.broker
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
            if let Some(data) = self.to_show.clone() {
                self.answer_challenge(data).await?;
                self.shown = self.to_show.take();
            }
            let frame = match &mut self.asking {
                None => self.frames.next().await,
                Some(asking) => tokio::select! {
                    biased;
                    found = asking => {
                        self.asking = None;
                        self.to_show = Some(found.map_err(|error| self.failed(Kind::Fatal, error))??);
                        continue;
                    }
                    frame = self.frames.next() => frame,
                },
            };
            let message = match frame {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    let (kind, why) = tls::explain(&error, &self.settings);
                    return Err(self.failed(kind, why));
                }
                None => return Err(self.failed(Kind::Unavailable, "it closed the connection")),
            };
            self.heard = true;
            let command = &message.command;
            if command.ping.is_some() {
                self.send(BaseCommand { r#type: Type::Pong.into(), pong: Some(CommandPong {}), ..Default::default() }).await?;
            } else if command.auth_challenge.is_some() {
                self.find_out_who_we_are()?;
            } else if command.pong.is_none() {
                return Ok(message);
            }
        }
    }

    /// What was shown has come to its end, or soon does. In a task of its own: `next` may be dropped at any time, and is called again.
    fn find_out_who_we_are(&mut self) -> Result<()> {
        let Some(authentication) = self.settings.authentication.clone() else {
            return Err(self.failed(Kind::Credentials, "it wants to know who we are, and no authentication is configured"));
        };
        let shown = self.shown.clone().unwrap_or_default();
        let finding = async move {
            authentication.not_again(&shown).await;
            authentication.data().await
        };
        self.asking.get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(finding)));
        Ok(())
    }

    async fn answer_challenge(&mut self, data: Vec<u8>) -> Result<()> {
        let method = self.settings.authentication.as_ref().map(|authentication| authentication.method().to_owned());
        let response = CommandAuthResponse {
            client_version: Some(CLIENT_VERSION.into()),
            response: Some(AuthData { auth_method_name: method, auth_data: Some(data) }),
            protocol_version: Some(PROTOCOL_VERSION),
        };
        self.send(BaseCommand { r#type: Type::AuthResponse.into(), auth_response: Some(response), ..Default::default() }).await
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

    fn failed(&self, kind: Kind, why: impl fmt::Display) -> Error {
        Error::new(kind, format!("talk to Pulsar at {}", self.broker), why)
    }
}

#[cfg(test)]
mod tests {
    use ::pulsar::message::{
        Codec,
        proto::{CommandAuthChallenge, CommandConnected, CommandSuccess},
    };
    use tokio::net::TcpListener;

    use super::*;
    use crate::pulsar::auth::{Authentication, Token};

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
        let settings = Settings { authentication: token.map(Authentication::Token), ..Settings::at(url.clone()) };
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
