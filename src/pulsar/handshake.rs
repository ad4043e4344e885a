//! The one thing that the client library learns from the broker and keeps to itself: how large a message may be.

use std::time::Duration;

use super::{
    client::{Attempts, Settings},
    connection::{Address, Connection},
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
    // Of several brokers the first one: they have one configuration.
    let address = Address { url: settings.url.clone(), behind_proxy: None };
    let connection = Connection::open(settings, &address).await?;
    Ok(connection.max_message_size.unwrap_or(DEFAULT_MAX_MESSAGE_SIZE))
}

#[cfg(test)]
mod tests {
    use ::pulsar::message::{
        Codec, Message,
        proto::{BaseCommand, CommandConnected, CommandError, ServerError, base_command::Type},
    };
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_util::codec::Framed;

    use super::*;
    use crate::pulsar::client::Token;

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
