//! What has to be found out before a message can be worked on.
//!
//! The message is held meanwhile and nothing further is received, so that the order stays; writes under way go on.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::tables::{self, Missing};
use crate::{
    error::Result,
    metrics::health::Health,
    ports::{InboundMessage, ItemTables, KeySchema, Schema, SchemaId, Schemas},
};

/// What is asked, once for many messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Schema(SchemaId),
    Table(Arc<str>),
}

/// What was found out. `None`: there is none.
#[derive(Debug)]
pub enum Answer {
    Schema(SchemaId, Option<Schema>),
    Table(Arc<str>, Option<KeySchema>),
}

/// Who is asked.
pub struct Asked<S, T> {
    pub schemas: Arc<S>,
    pub tables: Arc<T>,
    /// What is done about a table that a message names and that is not there.
    pub missing: Missing,
    pub backoff: Duration,
    pub health: Health,
}

/// A message with the question under way that it waits for.
pub struct Held {
    message: Box<InboundMessage>,
    answer: BoxFuture<'static, Result<Answer>>,
}

impl Held {
    pub fn new<S: Schemas, T: ItemTables>(message: Box<InboundMessage>, question: Question, asked: &Asked<S, T>) -> Self {
        let answer: BoxFuture<'static, Result<Answer>> = match question {
            Question::Table(name) => {
                let (tables, health) = (asked.tables.clone(), asked.health.clone());
                let (missing, backoff) = (asked.missing.clone(), asked.backoff);
                Box::pin(async move {
                    let schema = tables::find(&*tables, &name, &missing, backoff, &health).await?;
                    Ok(Answer::Table(name, schema))
                })
            }
            Question::Schema(id) => {
                let schemas = asked.schemas.clone();
                Box::pin(async move {
                    let schema = schemas.schema(&id).await?;
                    Ok(Answer::Schema(id, schema))
                })
            }
        };
        Self { message, answer }
    }

    pub fn is_of(&self, topic: &str) -> bool {
        *self.message.entry.topic == *topic
    }
}

/// The held message with the answer to its question; `None` where none is held. Cancel-safe: the question goes on.
pub async fn answered(held: &mut Option<Held>) -> Option<Result<(Box<InboundMessage>, Answer)>> {
    let answer = held.as_mut()?.answer.as_mut().await;
    let Held { message, .. } = held.take()?;
    Some(answer.map(|answer| (message, answer)))
}
