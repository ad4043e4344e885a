//! A stand-in for a broker, for what a real one does not show: what each connection tells it, and what it can be made to say. Every topic has no
//! partitions and is its own. What is published is counted, and gone.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use pulsar::message::{
    Codec, Message,
    proto::{
        BaseCommand, CommandAuthChallenge, CommandConnect, CommandConnected, CommandError, CommandLookupTopicResponse,
        CommandPartitionedTopicMetadataResponse, CommandProducerSuccess, CommandSendReceipt, CommandSuccess, MessageIdData, ServerError,
        base_command::Type, command_lookup_topic_response::LookupType as Lookup,
        command_partitioned_topic_metadata_response::LookupType as Metadata,
    },
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{broadcast, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    codec::Framed,
    sync::{CancellationToken, DropGuard},
};

/// A running broker; it ends when it is dropped.
pub struct Broker {
    pub url: String,
    state: watch::Sender<State>,
    orders: broadcast::Sender<Order>,
    _stop: DropGuard,
}

#[derive(Debug, Default, Clone)]
pub struct State {
    /// How it is: bytes, or what it has been since long ago.
    pub max_message_size: Option<i32>,
    /// The data of authentications that it does not take.
    pub refused: Vec<Vec<u8>>,
    /// What lookups answer instead of its own URL, and whether that is the end of it.
    pub elsewhere: Option<Elsewhere>,
    /// What was seen: how each connection began,
    pub hellos: Vec<CommandConnect>,
    /// what challenges were answered with,
    pub answers: Vec<Vec<u8>>,
    /// the bytes of each entry that was stored,
    pub stored: Vec<usize>,
    /// whether lookups were authoritative,
    pub lookups: Vec<bool>,
    /// and how many connections there are.
    pub open: usize,
}

#[derive(Debug, Clone)]
pub enum Elsewhere {
    /// Ask there.
    Redirect(String),
    /// It is there, and reached through this address.
    BehindProxy(String),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Challenge,
    Close,
}

impl State {
    /// Method and data of each connection.
    pub fn shown(&self) -> Vec<(String, String)> {
        let text = |hello: &CommandConnect| {
            let data = String::from_utf8_lossy(hello.auth_data()).into_owned();
            (hello.auth_method_name.clone().unwrap_or_default(), data)
        };
        self.hellos.iter().map(text).collect()
    }
}

impl Broker {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    pub async fn start_with_tls(config: ServerConfig) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let url = if tls.is_some() { format!("pulsar+ssl://localhost:{port}") } else { format!("pulsar://127.0.0.1:{port}") };
        let (state, orders, stop) = (watch::Sender::new(State::default()), broadcast::Sender::new(16), CancellationToken::new());
        let broker = Self { url: url.clone(), state: state.clone(), orders: orders.clone(), _stop: stop.clone().drop_guard() };
        let accepting = async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (state, orders, url, tls, stop) = (state.clone(), orders.subscribe(), url.clone(), tls.clone(), stop.clone());
                tokio::spawn(async move {
                    let serving = async {
                        match tls {
                            Some(tls) => {
                                if let Ok(connection) = tls.accept(connection).await {
                                    talk(connection, &url, &state, orders).await;
                                }
                            }
                            None => talk(connection, &url, &state, orders).await,
                        }
                    };
                    state.send_modify(|state| state.open += 1);
                    stop.run_until_cancelled(serving).await;
                    state.send_modify(|state| state.open -= 1);
                });
            }
        };
        tokio::spawn(accepting);
        broker
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Waits until this holds.
    pub async fn wait_for(&self, what: &str, holds: impl FnMut(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        let waiting = tokio::time::timeout(Duration::from_secs(30), states.wait_for(holds)).await;
        let Ok(state) = waiting else { panic!("{what}: not within 30 s: {:?}", self.state()) };
        state.expect("it lives").clone()
    }

    /// Asks everybody who they are once more.
    pub fn challenge(&self) {
        self.orders.send(Order::Challenge).expect("somebody is connected");
    }

    /// Closes every connection, as a broker that is restarted.
    pub async fn close(&self) {
        self.orders.send(Order::Close).expect("somebody is connected");
        self.wait_for("all connections are closed", |state| state.open == 0).await;
    }
}

async fn talk(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    url: &str,
    state: &watch::Sender<State>,
    mut orders: broadcast::Receiver<Order>,
) {
    let mut frames = Framed::new(connection, Codec);
    loop {
        let answer = tokio::select! {
            order = orders.recv() => match order {
                Ok(Order::Challenge) => Some(challenge()),
                Ok(Order::Close) | Err(_) => return,
            },
            frame = frames.next() => {
                let Some(Ok(message)) = frame else { return };
                answer(message, url, state)
            }
        };
        if let Some(command) = answer
            && frames.send(Message { command, payload: None }).await.is_err()
        {
            return;
        }
    }
}

fn challenge() -> BaseCommand {
    BaseCommand { r#type: Type::AuthChallenge.into(), auth_challenge: Some(CommandAuthChallenge::default()), ..Default::default() }
}

fn answer(message: Message, url: &str, state: &watch::Sender<State>) -> Option<BaseCommand> {
    let Message { command, payload } = message;
    if let Some(hello) = command.connect {
        let refused = state.borrow().refused.iter().any(|data| data == hello.auth_data());
        state.send_modify(|state| state.hellos.push(hello));
        return Some(if refused { refusal() } else { connected(state.borrow().max_message_size) });
    }
    if let Some(response) = command.auth_response {
        let data = response.response.and_then(|data| data.auth_data).unwrap_or_default();
        state.send_modify(|state| state.answers.push(data));
        return None;
    }
    if let Some(question) = command.partition_metadata {
        let answer = CommandPartitionedTopicMetadataResponse {
            partitions: Some(0),
            request_id: question.request_id,
            response: Some(Metadata::Success.into()),
            ..Default::default()
        };
        let kind = Type::PartitionedMetadataResponse.into();
        return Some(BaseCommand { r#type: kind, partition_metadata_response: Some(answer), ..Default::default() });
    }
    if let Some(question) = command.lookup_topic {
        state.send_modify(|state| state.lookups.push(question.authoritative()));
        let (response, proxy, there) = match state.borrow().elsewhere.clone() {
            None => (Lookup::Connect, false, url.to_owned()),
            Some(Elsewhere::Redirect(there)) => (Lookup::Redirect, false, there),
            Some(Elsewhere::BehindProxy(there)) => (Lookup::Connect, true, there),
        };
        let with_tls = url.starts_with("pulsar+ssl");
        let answer = CommandLookupTopicResponse {
            broker_service_url: (!with_tls).then(|| there.clone()),
            broker_service_url_tls: with_tls.then_some(there),
            response: Some(response.into()),
            request_id: question.request_id,
            authoritative: Some(true),
            proxy_through_service_url: Some(proxy),
            ..Default::default()
        };
        return Some(BaseCommand { r#type: Type::LookupResponse.into(), lookup_topic_response: Some(answer), ..Default::default() });
    }
    if let Some(producer) = command.producer {
        let success = CommandProducerSuccess { request_id: producer.request_id, producer_name: "stand-in".into(), ..Default::default() };
        return Some(BaseCommand { r#type: Type::ProducerSuccess.into(), producer_success: Some(success), ..Default::default() });
    }
    if let (Some(send), Some(payload)) = (command.send, payload) {
        state.send_modify(|state| state.stored.push(payload.data.len()));
        let receipt = CommandSendReceipt {
            producer_id: send.producer_id,
            sequence_id: send.sequence_id,
            message_id: Some(MessageIdData { ledger_id: 1, entry_id: send.sequence_id, ..Default::default() }),
            ..Default::default()
        };
        return Some(BaseCommand { r#type: Type::SendReceipt.into(), send_receipt: Some(receipt), ..Default::default() });
    }
    let close = command.close_producer?;
    let success = CommandSuccess { request_id: close.request_id, ..Default::default() };
    Some(BaseCommand { r#type: Type::Success.into(), success: Some(success), ..Default::default() })
}

fn connected(max_message_size: Option<i32>) -> BaseCommand {
    let connected = CommandConnected { server_version: "stand-in".into(), max_message_size, ..Default::default() };
    BaseCommand { r#type: Type::Connected.into(), connected: Some(connected), ..Default::default() }
}

fn refusal() -> BaseCommand {
    let error =
        CommandError { request_id: u64::MAX, error: ServerError::AuthenticationError.into(), message: "Unable to authenticate".into() };
    BaseCommand { r#type: Type::Error.into(), error: Some(error), ..Default::default() }
}
