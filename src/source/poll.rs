//! Reads one shard: drives [`Reading`], converts what comes, and hands it to the shard's window.

use bytes::Bytes;
use metrics::{counter, histogram};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    Shared, StartPosition,
    catalog::Existence,
    convert::{Order, Record, shape::Shape},
    discover::floor_second,
    gap::{Gap, OnTrimmed, Until},
    heal::{self, CALL_LIMIT},
    poison::Content,
    publish::{Room, Source, Window},
    shard::{Fullness, Reading, Step, Verdict},
};
use crate::{
    error::{Error, Kind, Result},
    metrics::names,
    ports::{Checkpoint, Lease, LeaseTable, Moment, OutboundMessage, Page, Publisher, SequenceNumber, ShardId, StreamReader},
};

/// Hands on every record of the shard from the lease's checkpoint on. Returns when the last one is handed on.
///
/// Errors with `LeaseLost` (L2), `Poison` for a record that stops the shard, `TrimmedData` for a gap that does (G1), and with what nothing heals. May be dropped at any await: what
/// was handed on is known to the window.
pub async fn read<R: StreamReader, L: LeaseTable, P: Publisher>(
    shared: &Shared<R, L, P>,
    lease: &Lease,
    window: &mut Window<P>,
) -> Result<()> {
    let shard = &lease.shard;
    let stage = format!("shard {shard}");
    let mut reading = Reading::resume(&lease.checkpoint, shared.settings.backoff);
    let start = Start::of(lease, shared.settings.start);
    loop {
        let called = shared.clock.now();
        let failure = match reading.next(called) {
            Step::End => {
                window.meter().ended();
                return Ok(());
            }
            Step::Wait(until) => {
                shared.clock.sleep_until(until).await;
                continue;
            }
            Step::GetIterator(from) => match heal::within(CALL_LIMIT, &stage, shared.reader.shard_iterator(shard, &from)).await {
                Ok(iterator) => {
                    reading.got_iterator(iterator);
                    continue;
                }
                Err(error) => error,
            },
            Step::GetRecords(iterator) => {
                let mut room = shared.budget.page().await?;
                let (called, call_started) = (shared.clock.now(), Instant::now());
                match heal::within(CALL_LIMIT, &stage, shared.reader.get_records(shard, &iterator)).await {
                    Ok(page) => {
                        let fullness = count(&page, shard);
                        if shared.settings.on_trimmed == OnTrimmed::Fail
                            && let Some(after) = reading.gap()
                        {
                            let until = first(&page).map_or(Until::Now, Until::Record);
                            return Err(Gap { after, until }.error(shard));
                        }
                        let arrived = Instant::now();
                        let newest = hand_on(&page, shard, &shared.settings.shape, &start, &mut reading, window, &mut room).await?;
                        if fullness != Fullness::Empty {
                            histogram!(names::SOURCE_HAND_ON_SECONDS, names::SHARD => shard.to_string()).record(arrived.elapsed());
                        }
                        window.meter().page(call_started, fullness == Fullness::Empty, newest);
                        histogram!(names::SOURCE_PAGE_SECONDS, names::SHARD => shard.to_string()).record(call_started.elapsed());
                        if reading.got_page(fullness, page.next_iterator, called, shared.clock.now()) {
                            shared.health.green(&stage);
                        }
                        continue;
                    }
                    Err(error) => error,
                }
            }
        };
        counter!(names::SOURCE_GET_RECORDS, "outcome" => "error", names::SHARD => shard.to_string()).increment(1);
        heal::count("shard", &failure);
        let mut verdict = reading.failed(&failure, shared.clock.now(), fastrand::f64());
        if verdict == Verdict::AskStream {
            verdict = match shared.catalog.existence(shard).await? {
                Existence::Trimmed => reading.vanished(),
                Existence::Listed => Verdict::Again { tell: true },
            };
        }
        match verdict {
            Verdict::Again { tell } => {
                if failure.kind() == Kind::ExpiredIterator {
                    counter!(names::SOURCE_ITERATORS_EXPIRED, names::SHARD => shard.to_string()).increment(1);
                }
                tracing::debug!(%shard, error = %failure, "reading is tried again");
                if tell {
                    shared.health.red(stage.clone(), &failure);
                }
            }
            Verdict::Gap { after } => {
                counter!(names::SOURCE_GAPS).increment(1);
                let gap = Gap { after, until: if reading.next(Moment::MAX) == Step::End { Until::EndOfShard } else { Until::Now } };
                if shared.settings.on_trimmed == OnTrimmed::Fail && gap.until == Until::EndOfShard {
                    return Err(gap.error(shard));
                }
                window.gap(shared.clock.epoch_millis());
                tracing::error!(%shard, error = %failure, "a gap: {gap} were gone before they were read");
            }
            Verdict::AskStream | Verdict::Fatal => return Err(failure),
        }
    }
}

/// From when on records are wanted.
struct Start {
    /// Epoch milliseconds.
    not_before: Option<i64>,
}

impl Start {
    /// The start that the row has kept. A row of the Java connector has kept none: with AT_TIMESTAMP the configuration still says it; with
    /// LATEST nobody knows it any more, and reading the whole shard is the way that loses nothing.
    fn of(lease: &Lease, start: StartPosition) -> Self {
        let start_at = match (lease.start_at, &lease.checkpoint, start) {
            (Some(kept), ..) => Some(kept),
            (None, Checkpoint::AtTimestamp, StartPosition::AtTimestamp(configured)) => Some(configured),
            (None, Checkpoint::Latest | Checkpoint::AtTimestamp, _) => {
                tracing::warn!(shard = %lease.shard, "the lease does not say from when to read; the whole shard is read");
                None
            }
            (None, ..) => None,
        };
        Self { not_before: start_at.map(floor_second) }
    }
}

/// Hands a page on, record by record. Returns the creation time of its newest record.
async fn hand_on<P: Publisher>(
    page: &Page,
    shard: &ShardId,
    shape: &Shape,
    start: &Start,
    reading: &mut Reading,
    window: &mut Window<P>,
    room: &mut Room,
) -> Result<Option<i64>> {
    let mut newest = None;
    for text in &page.records {
        let record = match Record::read(text, shape.order) {
            Ok(record) => record,
            Err(error) => {
                let (message, of) = unreadable(shard, text, &error)?;
                let sequence = of.sequence.clone();
                if !reading.has_read(&sequence) {
                    window.refuse(error, message, Content::Record, of, room).await?;
                    passed(shard, reading, sequence);
                }
                continue;
            }
        };
        let sequence = record.sequence_number.clone();
        if reading.has_read(&sequence) {
            continue;
        }
        newest = newest.max(record.created_at);
        if record.created_at.zip(start.not_before).is_some_and(|(created, wanted)| created < wanted) {
            window.skip(sequence.clone());
            counter!(names::SOURCE_SKIPPED, "reason" => "before_start").increment(1);
        } else if !shape.filter.matches(&record) {
            window.skip(sequence.clone());
            counter!(names::SOURCE_SKIPPED, "reason" => "filter").increment(1);
        } else {
            publish(text, record, shard, shape, window, room).await?;
        }
        passed(shard, reading, sequence);
    }
    Ok(newest)
}

/// Hands one record on as a message, or as one that cannot be published.
async fn publish<P: Publisher>(
    text: &Bytes,
    mut record: Record<'_>,
    shard: &ShardId,
    shape: &Shape,
    window: &mut Window<P>,
    room: &mut Room,
) -> Result<()> {
    let message = shape.message(&record, shard);
    let of = Source {
        sequence: record.sequence_number.clone(),
        event_id: std::mem::take(&mut record.event_id),
        created: record.created_at,
        size: text.len(),
    };
    match message {
        Ok(message) => window.send(message, of, room, || record.event_without_images()).await,
        Err(error) => {
            let message = raw(text, &of, &record.event_name);
            window.refuse(error, message, Content::Record, of, room).await
        }
    }
}

/// A record is done with, as far as reading goes.
fn passed(shard: &ShardId, reading: &mut Reading, sequence: SequenceNumber) {
    if let Some(after) = reading.read(sequence.clone()) {
        let gap = Gap { after, until: Until::Record(sequence) };
        tracing::error!(%shard, "a gap: {gap} are lost; going on after them");
    }
}

/// The number of a page's first record, if it can be read.
fn first(page: &Page) -> Option<SequenceNumber> {
    Some(Record::read(page.records.first()?, Order::Compat).ok()?.sequence_number)
}

/// What a dead letter holds of a record that cannot be read.
///
/// Errors where not even its sequence number can be: no checkpoint can pass it then, whatever the policy.
fn unreadable(shard: &ShardId, record: &[u8], error: &Error) -> Result<(OutboundMessage, Source)> {
    #[derive(Deserialize, Default)]
    struct Names {
        #[serde(rename = "eventID")]
        event_id: Option<String>,
        #[serde(rename = "eventName")]
        event_name: Option<String>,
        dynamodb: Option<Change>,
    }
    #[derive(Deserialize)]
    struct Change {
        #[serde(rename = "SequenceNumber")]
        sequence: Option<String>,
    }
    let names: Names = serde_json::from_slice(record).unwrap_or_default();
    let event_id = names.event_id.unwrap_or_default();
    let sequence = names.dynamodb.and_then(|change| change.sequence).and_then(|text| SequenceNumber::parse(&text).ok());
    let Some(sequence) = sequence else {
        let doing = format!("read a record of shard {shard} (event id {event_id:?})");
        let why =
            format!("{}, and its sequence number is unknown; the shard stops before it, and nothing after it is published", error.why());
        return Err(Error::new(Kind::Poison, doing, why));
    };
    let of = Source { sequence, event_id, created: None, size: record.len() };
    Ok((raw(record, &of, &names.event_name.unwrap_or_default()), of))
}

/// The record as DynamoDB sent it.
fn raw(record: &[u8], of: &Source, event_name: &str) -> OutboundMessage {
    let mut properties = vec![("SEQUENCE_NUMBER".into(), of.sequence.to_string())];
    if !event_name.is_empty() {
        properties.push(("EVENT_NAME".into(), event_name.to_owned()));
    }
    let key = (!of.event_id.is_empty()).then(|| of.event_id.clone());
    OutboundMessage { key, payload: record.to_vec(), properties, ..OutboundMessage::default() }
}

/// Counts a page that has come.
fn count(page: &Page, shard: &ShardId) -> Fullness {
    let (records, bytes) = (page.records.len(), page.records.iter().map(Bytes::len).sum());
    counter!(names::SOURCE_RECORDS, names::SHARD => shard.to_string()).increment(records as u64);
    counter!(names::SOURCE_RECORD_BYTES, names::SHARD => shard.to_string()).increment(bytes as u64);
    let fullness = Fullness::of(records, bytes);
    let outcome = match fullness {
        Fullness::Full => "full",
        Fullness::Partial => "partial",
        Fullness::Empty => "empty",
    };
    counter!(names::SOURCE_GET_RECORDS, "outcome" => outcome, names::SHARD => shard.to_string()).increment(1);
    fullness
}
