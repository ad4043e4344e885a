//! What has to be found out before a message can be worked on.
//!
//! The message is held meanwhile and nothing further is received, so that the order stays; writes under way go on.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    error::Result,
    ports::{InboundMessage, Schema, SchemaId, Schemas},
};

/// What is asked, once for many messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Schema(SchemaId),
}

/// What was found out. `None`: there is none.
#[derive(Debug)]
pub enum Answer {
    Schema(SchemaId, Option<Schema>),
}

/// A message with the question under way that it waits for.
pub struct Held {
    message: InboundMessage,
    answer: BoxFuture<'static, Result<Answer>>,
}

impl Held {
    pub fn new<S: Schemas>(message: InboundMessage, question: Question, schemas: &Arc<S>) -> Self {
        let answer: BoxFuture<'static, Result<Answer>> = match question {
            Question::Schema(id) => {
                let schemas = schemas.clone();
                Box::pin(async move {
                    let schema = schemas.schema(&id).await?;
                    Ok(Answer::Schema(id, schema))
                })
            }
        };
        Self { message, answer }
    }
}

/// The held message with the answer to its question; `None` where none is held. Cancel-safe: the question goes on.
pub async fn answered(held: &mut Option<Held>) -> Option<Result<(InboundMessage, Answer)>> {
    let answer = held.as_mut()?.answer.as_mut().await;
    let Held { message, .. } = held.take()?;
    Some(answer.map(|answer| (message, answer)))
}
