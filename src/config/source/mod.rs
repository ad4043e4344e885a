//! The source's keys.

pub mod messages;
pub mod producer;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::{
    messages::MessageKeys,
    producer::{BatchBuilder, ProducerKeys},
};
use super::{
    ProcessingGuarantees, Transport,
    alias::Aliases,
    aws::AwsKeys,
    direction,
    lease::LeaseKeys,
    load::{self, Document},
    validate::{Problems, full_topic_name},
    worker_id,
};
use crate::{
    dynamodb::{client, lease_table::Billing},
    error::Result,
    metrics::kcl,
    pulsar::publisher::Options,
    source::{
        Settings, StartPosition, clock,
        convert::shape::{Shape, Template},
        gap::OnTrimmed,
        once::{MOST_UNWRITTEN, Once},
    },
};

/// Fields of Pulsar's `SourceConfig` that the source uses.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceFields {
    /// Default: `public`.
    pub tenant: Option<String>,
    /// Default: `default`.
    pub namespace: Option<String>,
    /// The connector's name. With tenant and namespace it is the owner in the lease table, so it has to stay the same over restarts. Required.
    pub name: Option<String>,
    /// The topic to publish to. `${table}` and `${eventName}` in it stand for the table and for INSERT, MODIFY or REMOVE; the order of an item's
    /// changes holds in each topic, and not over several. Required.
    pub topic_name: Option<String>,
    /// `ATLEAST_ONCE` (default); `ATMOST_ONCE` is taken as that. `EFFECTIVELY_ONCE` publishes each record once, also after crashes: with the archive
    /// (`sources create`), and with deduplication switched on for the topic, its namespace or the broker; refused elsewhere.
    pub processing_guarantees: ProcessingGuarantees,
    /// Pulsar's producer settings: `compressionType` and `maxPendingMessages` (accepted and not acknowledged, for each partition; 0 or nothing: three batches)
    /// have effect, `maxPendingMessagesAcrossPartitions` and `useThreadLocalProducers` have none, `batchBuilder: KEY_BASED` and `cryptoConfig`
    /// are refused.
    pub producer_config: Map<String, Value>,
    /// `DEFAULT`; `KEY_BASED` is refused.
    pub batch_builder: Option<BatchBuilder>,
}

/// Where to start reading shards without a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitialPosition {
    #[serde(rename = "AT_TIMESTAMP")]
    AtTimestamp,
    #[default]
    #[serde(rename = "LATEST")]
    Latest,
    #[serde(rename = "TRIM_HORIZON")]
    TrimHorizon,
}

/// What happens when the stream has dropped records before they were read: after 24 hours without progress, say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTrimmedKey {
    #[default]
    Continue,
    Fail,
    /// Not in this version; known, so that it is refused with a reason.
    #[schemars(skip)]
    Snapshot,
}

/// How much goes to CloudWatch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CloudwatchMetrics {
    #[default]
    #[serde(rename = "off")]
    Off,
    #[serde(rename = "summary")]
    Summary,
    #[serde(rename = "detailed")]
    Detailed,
}

/// `off` is a boolean to some readers of YAML, and so it may come as one.
fn cloudwatch_level<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<CloudwatchMetrics, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Bool(false) => Ok(CloudwatchMetrics::Off),
        serde_json::Value::Bool(true) => Ok(CloudwatchMetrics::Summary),
        other => serde_json::from_value(other).map_err(serde::de::Error::custom),
    }
}

/// Keys of the source below `configs`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceKeys {
    #[serde(flatten)]
    pub aws: AwsKeys,
    /// What to read: a stream's ARN, or a table's ARN, or `table:NAME`. A table stands for its streams, one after the other: when its stream is switched
    /// off and on again, or the table is made anew, the new stream is read from its beginning once the old one is finished. A stream's ARN
    /// stands for that stream alone: once it is switched off and read, the source ends with exit code 1. Required.
    pub aws_dynamodb_stream_arn: Option<String>,
    /// URL of DynamoDB Streams, instead of the region's own.
    pub aws_endpoint: Option<String>,
    /// URL of DynamoDB (the lease table), instead of the region's own.
    pub dynamo_endpoint: Option<String>,
    /// URL of CloudWatch, instead of the region's own. Has no effect while `cloudwatchMetrics` is `off`.
    pub cloudwatch_endpoint: Option<String>,
    /// Metrics under the Java connector's names, in the namespace `applicationName`: `off`, `summary` (what alarms are made of), or `detailed`
    /// (also the duration and success of each kind of call). `true` is taken for `summary`, `false` for `off`. CloudWatch charges for each
    /// metric, and the credentials need `cloudwatch:PutMetricData`.
    #[serde(deserialize_with = "cloudwatch_level")]
    pub cloudwatch_metrics: CloudwatchMetrics,
    /// Whether CloudWatch metrics about one shard have the dimension `ShardId`, as the Java connector's have. A shard lives about four hours, so
    /// each shard makes about ten new metrics to pay for six times a day.
    pub cloudwatch_shard_id: bool,
    /// The name of the lease table, and so of the application. One stream for each name: a connector on another stream is refused while this one runs.
    pub application_name: String,
    /// Where shards without a lease are read from: `LATEST` (what is written from the first start on), `TRIM_HORIZON` (all that the
    /// stream still has, 24 hours at most), or `AT_TIMESTAMP` (from `startAtTime` on). Existing leases go on where they are.
    pub initial_position_in_stream: InitialPosition,
    /// For `AT_TIMESTAMP`: ISO 8601 (with or without milliseconds and offset; without one it is UTC), `yyyy-MM-dd`, RFC 1123, or epoch milliseconds.
    #[schemars(with = "Option<String>")]
    pub start_at_time: Option<String>,
    /// What happens to a shard whose next records the stream has dropped before they were read, since nobody read them for 24 hours: `continue` (with the
    /// oldest that are left) or `fail` (nothing more of it is published, health is red with the bounds of the gap and what to do, and the
    /// process ends when it has no other shard left to read). Each gap is counted and logged either way.
    pub on_trimmed: OnTrimmedKey,
    /// How often the checkpoint of a shard is written at most. Milliseconds. A restart repeats at most what was published since.
    pub checkpoint_interval: u64,
    /// The first delay after throttling; it grows with further throttling. Milliseconds, at least 1.
    pub backoff_time: u64,
    /// How often the Java connector tries to write a checkpoint. Here a checkpoint is tried for as long as the lease is held, so this has no effect.
    pub num_retries: u64,
    /// Records read and not yet acknowledged by Pulsar, over all shards. 1 to 1,000,000.
    pub receive_queue_size: u64,
    #[serde(flatten)]
    pub messages: MessageKeys,
    #[serde(flatten)]
    pub producer: ProducerKeys,
    #[serde(flatten)]
    pub leases: LeaseKeys,
}

/// The Java connector's defaults.
impl Default for SourceKeys {
    fn default() -> Self {
        Self {
            aws: AwsKeys::default(),
            aws_dynamodb_stream_arn: None,
            aws_endpoint: None,
            dynamo_endpoint: None,
            cloudwatch_endpoint: None,
            cloudwatch_metrics: CloudwatchMetrics::Off,
            cloudwatch_shard_id: false,
            application_name: "pulsar-dynamodb".into(),
            initial_position_in_stream: InitialPosition::Latest,
            start_at_time: None,
            on_trimmed: OnTrimmedKey::Continue,
            checkpoint_interval: 60_000,
            backoff_time: 3_000,
            num_retries: 3,
            receive_queue_size: 1_000,
            messages: MessageKeys::default(),
            producer: ProducerKeys::default(),
            leases: LeaseKeys::default(),
        }
    }
}

/// A checked configuration of a source.
#[derive(Debug, Clone)]
pub struct Source {
    pub settings: Settings,
    pub aws: client::Settings,
    /// Its full name, maybe with `${table}` or `${eventName}` in it.
    pub topic: String,
    /// Its limit is the broker's to tell.
    pub publishing: Options,
    /// A stream ARN, a table ARN, or `table:NAME`.
    pub stream: String,
    pub lease_table: String,
    pub billing: Billing,
    pub streams_endpoint: Option<String>,
    pub dynamodb_endpoint: Option<String>,
    /// `None`: nothing goes to CloudWatch.
    pub cloudwatch: Option<kcl::Settings>,
}

impl Source {
    /// The topic that is known before there is a message.
    pub fn own_topic(&self) -> Option<&str> {
        self.settings.shape.topic.is_none().then_some(self.topic.as_str())
    }
}

/// A container is killed after 30 s in Kubernetes, after 10 s by Pulsar's process runtime.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Checks a document as a source's configuration: all problems at once.
pub fn check(document: &Document, environment: &BTreeMap<String, String>, transport: Transport) -> Result<Source> {
    direction::reads(document)?;
    let mut problems = Problems::default();
    let fields: SourceFields = load::top(document, &mut problems);
    let keys: SourceKeys = load::configs(document, environment, &Aliases::default(), &mut problems);
    let cloudwatch = cloudwatch(&keys, &mut problems);

    let name = required(fields.name, "name", &mut problems);
    let topic = required(fields.topic_name, "topicName", &mut problems);
    let topic = if topic.is_empty() { topic } else { full_topic_name(&topic, "topicName", &mut problems) };
    let template = topic.contains("${").then(|| Template::parse(&topic)).transpose().unwrap_or_else(|wrong| {
        problems.add("topicName", wrong);
        None
    });
    let is_once = fields.processing_guarantees == ProcessingGuarantees::EffectivelyOnce;
    problems.require(
        !is_once || transport == Transport::PulsarIo,
        "processingGuarantees",
        "EFFECTIVELY_ONCE works with the archive alone (sources create --archive, or --source-type dynamodb): use that, or write ATLEAST_ONCE",
    );
    let stream = required(keys.aws_dynamodb_stream_arn, "configs.awsDynamodbStreamArn", &mut problems);
    let known = stream.is_empty()
        || stream.starts_with("table:")
        || (stream.starts_with("arn:") && stream.contains(":dynamodb:") && stream.contains(":table/"));
    problems.require(
        known,
        "configs.awsDynamodbStreamArn",
        format!("{stream:?} is neither a stream's ARN (arn:aws:dynamodb:…:table/NAME/stream/…), nor a table's, nor table:NAME"),
    );
    table_name(&keys.application_name, "configs.applicationName", &mut problems);
    endpoint(&keys.aws_endpoint, "configs.awsEndpoint", &mut problems);
    endpoint(&keys.dynamo_endpoint, "configs.dynamoEndpoint", &mut problems);
    endpoint(&keys.cloudwatch_endpoint, "configs.cloudwatchEndpoint", &mut problems);
    problems.require((1..=1_000_000).contains(&keys.receive_queue_size), "configs.receiveQueueSize", "has to be from 1 to 1000000");
    problems.require(keys.backoff_time >= 1, "configs.backoffTime", "has to be at least 1 (milliseconds)");
    let start = start_position(keys.initial_position_in_stream, keys.start_at_time.as_deref(), &mut problems);
    problems.require(
        keys.on_trimmed != OnTrimmedKey::Snapshot,
        "configs.onTrimmed",
        "snapshot is not supported by this version: write continue or fail",
    );
    let shape = Shape { topic: template, ..keys.messages.shape(&mut problems) };
    let publishing = keys.producer.options(fields.producer_config, fields.batch_builder, &mut problems);
    let poison = keys.messages.poison(&topic, &mut problems);
    let mut aws = keys.aws.settings(&mut problems);
    aws.region = region(aws.region, &stream, not_blank(keys.aws_endpoint.clone()).is_some(), &mut problems);
    let leases = keys.leases.settings(&mut problems);
    problems.require(
        !is_once || leases.rewind_on_adopt.is_zero(),
        "configs.rewindOnAdopt",
        "publishes records again, which EFFECTIVELY_ONCE is not to: start once with ATLEAST_ONCE and wait a minute, then write EFFECTIVELY_ONCE and leave it out",
    );
    problems.into_result(&document.name)?;

    let tenant = fields.tenant.unwrap_or_else(|| "public".into());
    let namespace = fields.namespace.unwrap_or_else(|| "default".into());
    Ok(Source {
        settings: Settings {
            worker_id: worker_id(&tenant, &namespace, &name, 0),
            start,
            started_at: clock::epoch_millis(),
            checkpoint_interval: Duration::from_millis(keys.checkpoint_interval),
            backoff: Duration::from_millis(keys.backoff_time),
            max_in_flight: usize::try_from(keys.receive_queue_size).unwrap_or(usize::MAX),
            failover: leases.failover,
            max_leases: leases.max_leases,
            assume_dead: leases.assume_dead,
            rewind_on_adopt: leases.rewind_on_adopt,
            on_trimmed: if keys.on_trimmed == OnTrimmedKey::Fail { OnTrimmed::Fail } else { OnTrimmed::Continue },
            drain_timeout: DRAIN_TIMEOUT,
            poison,
            once: is_once.then(|| Once { application: keys.application_name.as_str().into(), most_unwritten: MOST_UNWRITTEN }),
            shape,
        },
        aws,
        topic,
        publishing,
        stream,
        lease_table: keys.application_name,
        billing: leases.billing,
        streams_endpoint: not_blank(keys.aws_endpoint),
        dynamodb_endpoint: not_blank(keys.dynamo_endpoint),
        cloudwatch,
    })
}

fn cloudwatch(keys: &SourceKeys, problems: &mut Problems) -> Option<kcl::Settings> {
    let level = match keys.cloudwatch_metrics {
        CloudwatchMetrics::Off => return None,
        CloudwatchMetrics::Summary => kcl::Level::Summary,
        CloudwatchMetrics::Detailed => kcl::Level::Detailed,
    };
    problems.require(cfg!(feature = "cloudwatch"), "configs.cloudwatchMetrics", "this program was built without CloudWatch: write off");
    Some(kcl::Settings {
        namespace: keys.application_name.clone(),
        level,
        shard_id: keys.cloudwatch_shard_id,
        endpoint: not_blank(keys.cloudwatch_endpoint.clone()),
    })
}

pub(super) fn required(value: Option<String>, key: &str, problems: &mut Problems) -> String {
    let value = value.unwrap_or_default().trim().to_owned();
    problems.require(!value.is_empty(), key, "is missing");
    value
}

pub(super) fn not_blank(value: Option<String>) -> Option<String> {
    value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

pub(super) fn endpoint(value: &Option<String>, key: &str, problems: &mut Problems) {
    let text = value.as_deref().map(str::trim).unwrap_or_default();
    let is_url = text.is_empty() || text.starts_with("http://") || text.starts_with("https://");
    problems.require(is_url, key, format!("{text:?} has to be a URL: https://host or http://host:port"));
}

/// DynamoDB's rule for table names.
pub(super) fn table_name(name: &str, key: &str, problems: &mut Problems) {
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) && (3..=255).contains(&name.len());
    problems.require(legal, key, format!("{name:?} is no table name: 3 to 255 of letters, digits, '_', '-' and '.'"));
}

/// The region that the stream is in, unless the endpoint is another than the region's: emulators have regions of their own.
fn region(given: Option<String>, stream: &str, own_endpoint: bool, problems: &mut Problems) -> Option<String> {
    let of_arn = stream.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2)).filter(|region| !region.is_empty());
    match (given, of_arn) {
        (Some(given), Some(of_arn)) if given != of_arn && !own_endpoint => {
            problems.add(
                "configs.awsRegion",
                format!("is {given}, but awsDynamodbStreamArn is in {of_arn}: leave one of them out, or correct it"),
            );
            Some(given)
        }
        (Some(given), _) => Some(given),
        (None, of_arn) => of_arn.map(str::to_owned),
    }
}

fn start_position(position: InitialPosition, start_at_time: Option<&str>, problems: &mut Problems) -> StartPosition {
    const KEY: &str = "configs.startAtTime";
    match (position, start_at_time.map(str::trim).filter(|text| !text.is_empty())) {
        (InitialPosition::TrimHorizon, _) => StartPosition::TrimHorizon,
        (InitialPosition::Latest, _) => StartPosition::Latest,
        (InitialPosition::AtTimestamp, None) => {
            problems.add(KEY, "is missing; initialPositionInStream is AT_TIMESTAMP");
            StartPosition::TrimHorizon
        }
        (InitialPosition::AtTimestamp, Some(text)) => match epoch_millis(text) {
            Some(millis) => StartPosition::AtTimestamp(millis),
            None => {
                problems.add(KEY, format!("{text:?} is no time: write 2026-11-21T08:00:00Z, 2026-11-21, or epoch milliseconds"));
                StartPosition::TrimHorizon
            }
        },
    }
}

/// The forms that the Java connector takes.
pub fn epoch_millis(text: &str) -> Option<i64> {
    if let Ok(millis) = text.parse() {
        return Some(millis);
    }
    let with_offset = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .or_else(|_| DateTime::parse_from_rfc2822(text));
    if let Ok(time) = with_offset {
        return Some(time.timestamp_millis());
    }
    let in_utc = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|date| date.and_time(chrono::NaiveTime::MIN)));
    in_utc.ok().map(|time| time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests;
