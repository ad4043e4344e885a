//! Reads one DynamoDB stream.
//!
//! GetRecords pages are kept as the text that the service sent (`docs/decisions/001`): the HTTP client is wrapped, see [`keep_pages`].

use std::{cell::RefCell, mem};

use aws_sdk_dynamodbstreams::{
    Client,
    types::{self, ShardFilter, ShardFilterType, ShardIteratorType},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector},
        orchestrator::HttpRequest,
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::classify;
use crate::{
    error::{Error, Kind, Result},
    ports::{self, Page, ReadFrom, SequenceNumber, Shard, ShardId, ShardPage, StreamArn, StreamStatus},
};

/// One stream, by the Streams API. The client has to be made with an HTTP client of [`keep_pages`].
#[derive(Debug, Clone)]
pub struct StreamReader {
    client: Client,
    stream_arn: StreamArn,
}

impl StreamReader {
    pub fn new(client: Client, stream_arn: impl AsRef<str>) -> Self {
        Self { client, stream_arn: StreamArn::new(stream_arn) }
    }
}

/// How many pages a glance looks through: the service may answer with empty ones although records follow.
const GLANCE_PAGES: usize = 4;

/// What a glance at a shard finds around a position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// When the record at the position was created. Epoch milliseconds.
    pub reached: Option<i64>,
    /// When the first record after it was.
    pub next: Option<i64>,
    /// There is none after it.
    pub at_tip: bool,
}

impl StreamReader {
    /// Looks at the record with this number and at the first after it; without a number, at the shard's first. For people: a worker reads.
    pub async fn glance(&self, shard: &ShardId, at: Option<&SequenceNumber>) -> Result<Glance> {
        use ports::StreamReader as _;
        let from = at.map_or(ReadFrom::TrimHorizon, |number| ReadFrom::At(number.clone()));
        let mut iterator = self.shard_iterator(shard, &from).await?;
        let mut glance = Glance::default();
        for _ in 0..GLANCE_PAGES {
            let page = self.page(shard, &iterator, Some(2)).await?;
            for record in &page.records {
                let why = |error| Error::new(Kind::Unavailable, format!("read shard {shard} of {}", self.stream_arn), error);
                let RecordText { dynamodb: change } = serde_json::from_slice(record).map_err(why)?;
                // The service tells seconds, as a number with a fraction or without.
                let created = (change.approximate_creation_date_time * 1000.0) as i64;
                if at.is_some_and(|at| SequenceNumber::parse(&change.sequence_number).is_ok_and(|number| number <= *at)) {
                    glance.reached = Some(created);
                } else {
                    glance.next = Some(created);
                    return Ok(glance);
                }
            }
            match page.next_iterator {
                Some(next) => iterator = next,
                None => break,
            }
        }
        glance.at_tip = true;
        Ok(glance)
    }

    /// A page of so many records at most.
    async fn page(&self, shard: &ShardId, iterator: &str, limit: Option<i32>) -> Result<Page> {
        let doing = || format!("read shard {shard} of {} (dynamodb:GetRecords)", self.stream_arn);
        let call = async {
            let sent = self.client.get_records().shard_iterator(iterator).set_limit(limit).send().await;
            sent.map(|_| PAGE.with(RefCell::take))
        };
        let page = PAGE.scope(RefCell::default(), call).await.map_err(|error| classify(doing(), error))?;
        let page = page.ok_or_else(|| Error::new(Kind::Fatal, doing(), "the client was made without keep_pages"))?;
        read_page(&page).map_err(|error| Error::new(Kind::Unavailable, doing(), format!("the answer is not readable: {error}")))
    }
}

#[derive(Deserialize)]
struct RecordText {
    dynamodb: ChangeText,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChangeText {
    #[serde(default)]
    approximate_creation_date_time: f64,
    sequence_number: String,
}

impl ports::StreamReader for StreamReader {
    fn arn(&self) -> &StreamArn {
        &self.stream_arn
    }

    async fn list_shards(&self, after: Option<&ShardId>) -> Result<ShardPage> {
        let doing = || format!("list the shards of {} (dynamodb:DescribeStream)", self.stream_arn);
        let request = self.client.describe_stream().stream_arn(self.stream_arn.as_str());
        let request = request.set_exclusive_start_shard_id(after.map(ToString::to_string));
        let answer = request.send().await.map_err(|error| classify(doing(), error))?;
        page(answer.stream_description).ok_or_else(|| Error::new(Kind::Unavailable, doing(), "the answer describes no stream"))
    }

    async fn children(&self, parent: &ShardId) -> Result<Option<ShardPage>> {
        let doing = || format!("find the children of shard {parent} of {} (dynamodb:DescribeStream)", self.stream_arn);
        let filter = ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(parent.as_str()).build();
        let answer = match self.client.describe_stream().stream_arn(self.stream_arn.as_str()).shard_filter(filter).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = classify(doing(), error);
                // An endpoint that does not know the filter.
                return if error.kind() == Kind::Invalid { Ok(None) } else { Err(error) };
            }
        };
        let page =
            page(answer.stream_description).ok_or_else(|| Error::new(Kind::Unavailable, doing(), "the answer describes no stream"))?;
        // Neither does one that answers with other shards: DynamoDB Local leaves the filter unread.
        let filtered = page.shards.iter().all(|shard| shard.parent.as_ref() == Some(parent));
        Ok(filtered.then_some(page))
    }

    async fn shard_iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String> {
        let doing = || format!("get an iterator for shard {shard} of {} (dynamodb:GetShardIterator)", self.stream_arn);
        let (kind, sequence_number) = match from {
            ReadFrom::TrimHorizon => (ShardIteratorType::TrimHorizon, None),
            ReadFrom::At(number) => (ShardIteratorType::AtSequenceNumber, Some(number.to_string())),
            ReadFrom::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(number.to_string())),
        };
        let request = self.client.get_shard_iterator().stream_arn(self.stream_arn.as_str()).shard_id(shard.as_str());
        let request = request.shard_iterator_type(kind).set_sequence_number(sequence_number);
        let answer = request.send().await.map_err(|error| classify(doing(), error))?;
        answer.shard_iterator.ok_or_else(|| Error::new(Kind::Unavailable, doing(), "the answer has no iterator"))
    }

    async fn get_records(&self, shard: &ShardId, iterator: &str) -> Result<Page> {
        self.page(shard, iterator, None).await
    }
}

fn page(stream: Option<types::StreamDescription>) -> Option<ShardPage> {
    let stream = stream?;
    let status = match stream.stream_status {
        Some(types::StreamStatus::Enabling) => StreamStatus::Enabling,
        Some(types::StreamStatus::Disabling) => StreamStatus::Disabling,
        Some(types::StreamStatus::Disabled) => StreamStatus::Disabled,
        _ => StreamStatus::Enabled,
    };
    let shards = stream.shards.unwrap_or_default().into_iter().filter_map(shard).collect();
    Some(ShardPage { status, shards, next: stream.last_evaluated_shard_id.map(ShardId::new) })
}

/// `None` for a shard without an id, which no answer has.
fn shard(shard: types::Shard) -> Option<Shard> {
    // The numbers themselves are nobody's business, so an odd one costs nothing (spec R11).
    let closed = shard.sequence_number_range.is_some_and(|range| range.ending_sequence_number.is_some());
    Some(Shard { id: ShardId::new(shard.shard_id?), parent: shard.parent_shard_id.map(ShardId::new), closed })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageText<'p> {
    #[serde(borrow, default)]
    records: Vec<&'p RawValue>,
    #[serde(default)]
    next_shard_iterator: Option<String>,
}

/// Cuts a page into its records without copying them.
fn read_page(body: &Bytes) -> Result<Page, serde_json::Error> {
    let page: PageText<'_> = serde_json::from_slice(body)?;
    Ok(Page {
        records: page.records.iter().map(|record| body.slice_ref(record.get().as_bytes())).collect(),
        next_iterator: page.next_shard_iterator,
    })
}

// === the text of a page ===

/// Room that an answer's own word for its length gets before it is there: a page's 1 MB of data is up to twice that as text.
const MOST_BYTES: usize = 2 * 1024 * 1024;

tokio::task_local! {
    /// Set around a GetRecords call: takes the body of its answer. The SDK polls its HTTP client within the caller's task.
    static PAGE: RefCell<Option<Bytes>>;
}

/// Wraps an HTTP client so that the body of a successful GetRecords answer is kept for the caller, and the SDK parses an empty object.
pub fn keep_pages(inner: SharedHttpClient) -> SharedHttpClient {
    KeepPages(inner).into_shared()
}

#[derive(Debug)]
struct KeepPages(SharedHttpClient);

impl HttpClient for KeepPages {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(KeepPage(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct KeepPage(SharedHttpConnector);

impl HttpConnector for KeepPage {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            let wanted = PAGE.try_with(|_| ()).is_ok() && answer.status().is_success();
            if wanted {
                let length = answer.headers().get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                let mut body = ByteStream::new(mem::replace(answer.body_mut(), SdkBody::taken()));
                // Piece by piece: the SDK's own way keeps all pieces until it has joined them, twice the page.
                let mut text = BytesMut::with_capacity(usize::min(length, MOST_BYTES));
                while let Some(piece) = body.try_next().await.map_err(|error| ConnectorError::io(error.into()))? {
                    text.extend_from_slice(&piece);
                }
                PAGE.with(|page| page.replace(Some(text.freeze())));
                *answer.body_mut() = SdkBody::from("{}");
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_text() {
        let text = r#"{"Records":[{"eventID":"1",  "x":"\u00e9"},{"b":{"B":"AQ=="},"a":1.50}],"NextShardIterator":"next"}"#;
        let page = read_page(&Bytes::from_static(text.as_bytes())).expect("a page");
        assert_eq!(page.records, [&br#"{"eventID":"1",  "x":"\u00e9"}"#[..], &br#"{"b":{"B":"AQ=="},"a":1.50}"#[..]]);
        assert_eq!(page.next_iterator.as_deref(), Some("next"));
    }

    #[test]
    fn the_last_page_may_carry_records_and_has_no_next_iterator() {
        let page = read_page(&Bytes::from_static(br#"{"Records":[{}]}"#)).expect("a page");
        assert_eq!((page.records.len(), page.next_iterator), (1, None));
        let page = read_page(&Bytes::from_static(br#"{"NextShardIterator":null}"#)).expect("a page");
        assert_eq!((page.records.len(), page.next_iterator), (0, None));
        assert!(read_page(&Bytes::from_static(b"<html>")).is_err());
    }
}
