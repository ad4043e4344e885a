//! A producer on a connection of its own: one entry at a time, each answered before the next (`docs/decisions/019`).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::pulsar::message::proto::{
    BaseCommand, CommandCloseProducer, CommandError, CommandProducer, CommandSendError, ServerError, base_command::Type,
};
use bytes::Buf;

use super::entry::{Entry, Sender};
use crate::{
    error::{Error, Kind, Result},
    pulsar::{
        client::{Client, server_kind},
        connection::Connection,
        lookup,
    },
};

/// For each step: to find the topic's broker, connect and be let in; to send an entry and have its receipt. Pulsar's clients wait as long.
const LIMIT: Duration = Duration::from_secs(30);
/// The only request on its connection.
const REQUEST: u64 = 0;

/// A producer of one topic partition. What fails leaves it unusable, unless the broker has refused an entry: it goes on with the next one then.
pub(super) struct Producer {
    connection: Connection,
    topic: String,
    id: u64,
    name: String,
    schema_version: Option<Vec<u8>>,
    sequence: u64,
}

impl Producer {
    /// Finds the topic's broker and becomes a producer there.
    pub async fn open(client: &Client, topic: &str) -> Result<Self> {
        // Brokers tell the producers of one address apart by it, in their logs too.
        static IDS: AtomicU64 = AtomicU64::new(0);
        let open = async {
            let connection = client.open(&lookup::broker_of(client, topic).await?).await?;
            let id = IDS.fetch_add(1, Ordering::Relaxed);
            let mut producer = Self { connection, topic: topic.to_owned(), id, name: String::new(), schema_version: None, sequence: 0 };
            producer.register().await?;
            Ok(producer)
        };
        within(topic, "no answer to the opening of a producer", open).await
    }

    async fn register(&mut self) -> Result<()> {
        let command = CommandProducer {
            topic: self.topic.clone(),
            producer_id: self.id,
            request_id: REQUEST,
            user_provided_producer_name: Some(false),
            ..Default::default()
        };
        self.connection.send(BaseCommand { r#type: Type::Producer.into(), producer: Some(command), ..Default::default() }).await?;
        loop {
            let answer = self.connection.receive().await?;
            if let Some(success) = answer.producer_success {
                self.name = success.producer_name;
                self.schema_version = success.schema_version.filter(|version| !version.is_empty());
                return Ok(());
            }
            self.still_open(&answer)?;
        }
    }

    /// Sends an entry and waits until the broker has stored it. An error that the broker gave for the entry itself is of a kind that no time heals.
    pub async fn send(&mut self, entry: &Entry) -> Result<()> {
        let sequence = self.sequence;
        self.sequence += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
        let sender = Sender {
            producer: self.id,
            name: &self.name,
            sequence,
            schema_version: self.schema_version.as_deref(),
            now: u64::try_from(now).unwrap_or(0),
        };
        let (head, content) = entry.frame(sender);
        let topic = self.topic.clone();
        let sent = async {
            self.connection.write(head.chain(content)).await?;
            loop {
                let answer = self.connection.receive().await?;
                if answer.send_receipt.as_ref().is_some_and(|receipt| receipt.sequence_id == sequence) {
                    return Ok(());
                }
                self.still_open(&answer)?;
            }
        };
        within(&topic, "no receipt", sent).await
    }

    /// Waits for what ends the producer while nothing is to be sent. May be dropped at any await.
    pub async fn idle(&mut self) -> Error {
        loop {
            match self.connection.idle().await {
                Ok(command) => {
                    if let Err(ended) = self.still_open(&command) {
                        return ended;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    pub async fn close(mut self) -> Result<()> {
        let close = CommandCloseProducer { producer_id: self.id, request_id: REQUEST + 1 };
        let command = BaseCommand { r#type: Type::CloseProducer.into(), close_producer: Some(close), ..Default::default() };
        let topic = self.topic.clone();
        let closed = async {
            self.connection.send(command).await?;
            while self.connection.receive().await?.success.is_none() {}
            Ok(())
        };
        within(&topic, "no answer to the closing of a producer", closed).await
    }

    /// What a command means that is no answer of the expected kind.
    fn still_open(&self, command: &BaseCommand) -> Result<()> {
        let refused =
            |code: ServerError, why: &str| Err(Error::new(server_kind(code), doing(&self.topic), format!("{}: {why}", code.as_str_name())));
        match command {
            BaseCommand { error: Some(error @ CommandError { message, .. }), .. } => refused(error.error(), message),
            BaseCommand { send_error: Some(error @ CommandSendError { message, .. }), .. } => refused(error.error(), message),
            BaseCommand { close_producer: Some(_), .. } => Err(Error::new(
                Kind::Unavailable,
                doing(&self.topic),
                "the broker has closed the producer, as it does when it hands a topic over",
            )),
            _ => Ok(()),
        }
    }
}

fn doing(topic: &str) -> String {
    format!("publish to topic {topic}")
}

async fn within<T>(topic: &str, what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    let too_late = |_| Err(Error::new(Kind::Unavailable, doing(topic), format!("{what} within {} s", LIMIT.as_secs())));
    tokio::time::timeout(LIMIT, step).await.unwrap_or_else(too_late)
}
