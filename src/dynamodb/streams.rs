//! Finds the streams of a table.

use std::time::Duration;

use super::{failure::classify, stream_reader::StreamReader};
use crate::{
    error::{Error, Kind, Result, Retry},
    metrics::health::Health,
    ports::{self, StreamArn},
};

/// What a source reads, by what its configuration names: a stream's ARN, a table's ARN, or `table:NAME`.
#[derive(Debug, Clone)]
pub struct Streams {
    dynamodb: aws_sdk_dynamodb::Client,
    streams: aws_sdk_dynamodbstreams::Client,
    reference: String,
}

impl Streams {
    /// `streams` has to be made with an HTTP client of [`super::stream_reader::keep_pages`].
    pub fn new(dynamodb: aws_sdk_dynamodb::Client, streams: aws_sdk_dynamodbstreams::Client, reference: impl Into<String>) -> Self {
        Self { dynamodb, streams, reference: reference.into() }
    }
}

impl ports::Streams for Streams {
    type Reader = StreamReader;

    fn follows(&self) -> bool {
        !is_stream(&self.reference)
    }

    async fn latest(&self) -> Result<StreamArn> {
        latest(&self.dynamodb, &self.reference).await
    }

    fn open(&self, stream: &StreamArn) -> StreamReader {
        StreamReader::new(self.streams.clone(), stream)
    }
}

fn is_stream(reference: &str) -> bool {
    reference.contains("/stream/")
}

async fn latest(client: &aws_sdk_dynamodb::Client, reference: &str) -> Result<StreamArn> {
    if is_stream(reference) {
        return Ok(StreamArn::new(reference));
    }
    let table = reference.strip_prefix("table:").unwrap_or(reference);
    let doing = || format!("find the stream of table {table} (dynamodb:DescribeTable)");
    let answer = client.describe_table().table_name(table).send().await.map_err(|error| classify(doing(), error))?;
    let arn = answer.table.and_then(|table| table.latest_stream_arn);
    arn.map(StreamArn::new)
        .ok_or_else(|| Error::new(Kind::Configuration, doing(), "the table has no stream; switch one on, with new and old images"))
}

/// How long a table may take to say which stream it has.
const RESOLVE_BACKOFF: Duration = Duration::from_secs(1);

/// The stream that is meant by a stream's ARN, a table's ARN, or `table:NAME`.
///
/// Waits, with red health, while DynamoDB is not reachable or refuses the credentials. A table that does not exist or has no stream is
/// an error.
pub async fn resolve_stream(client: &aws_sdk_dynamodb::Client, reference: &str, health: &Health) -> Result<StreamArn> {
    const STAGE: &str = "find the stream";
    loop {
        match latest(client, reference).await {
            Ok(arn) => {
                health.green(STAGE);
                return Ok(arn);
            }
            Err(error) if error.retry() != Retry::Never && error.kind() != Kind::NotFound => {
                tracing::warn!(%error, "trying again");
                health.red(STAGE, &error);
                tokio::time::sleep(RESOLVE_BACKOFF).await;
            }
            Err(error) => return Err(error),
        }
    }
}
