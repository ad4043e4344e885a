//! A worker with its own clients of Pulsar and AWS, for the hosts that are processes of their own.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    config::{sink::Sink, source::Source},
    dynamodb::{
        client,
        item_table::ItemTables,
        lease_table::LeaseTable,
        streams::{self, Streams},
    },
    error::Result,
    metrics::{
        self,
        health::Health,
        kcl::{self, Accumulator},
    },
    pulsar::{
        client::{Settings as PulsarSettings, connect},
        inbox::{SubscriptionType, TopicInbox},
        publisher::{Lanes, Options, TopicPublisher},
        schema::Registry,
    },
    sink,
    source::{self, clock::Clock},
};

/// Where a source's recordings for CloudWatch go, and how they are sent from there.
pub type Cloudwatch = Option<(Accumulator, kcl::Settings)>;

/// What a source's configuration asks for of that.
pub fn cloudwatch(configured: &Source) -> Cloudwatch {
    configured.cloudwatch.clone().map(|settings| (Accumulator::new(settings.clone()), settings))
}

/// After a drain there is nothing to wait for but the answer to a close.
const LANES_LIMIT: Duration = Duration::from_secs(3);

/// What a source reads and where it keeps its leases. What is wrong with it is told before anything is created.
pub(super) async fn reading(configured: &Source, health: &Health) -> Result<(client::SdkConfig, Streams, LeaseTable)> {
    let aws = client::load(&configured.aws).await?;
    let dynamodb = client::dynamodb(&aws, configured.dynamodb_endpoint.as_deref());
    let stream = streams::resolve_stream(&dynamodb, &configured.stream, health).await?;
    tracing::info!(%stream, topic = configured.topic, leases = configured.lease_table, "source");
    let streams = client::streams(&aws, configured.streams_endpoint.as_deref());
    let streams = Streams::new(dynamodb.clone(), streams, configured.stream.clone());
    let leases = LeaseTable::new(dynamodb, configured.lease_table.clone()).with_billing(configured.billing);
    Ok((aws, streams, leases))
}

/// Runs a source until it is stopped or cannot go on.
pub async fn source(
    configured: Source,
    pulsar: PulsarSettings,
    cloudwatch: Cloudwatch,
    health: Health,
    stop: CancellationToken,
) -> Result<()> {
    let ready = async {
        let (aws, streams, leases) = reading(&configured, &health).await?;
        let client = connect(&pulsar, &health).await?;
        let publisher = TopicPublisher::open(client, configured.own_topic(), configured.publishing.clone(), health.clone()).await?;
        Ok((aws, streams, leases, publisher))
    };
    // Getting ready can wait for long, for Pulsar say, and has to stop when it is told to.
    let Some(ready) = stop.run_until_cancelled(ready).await else { return Ok(()) };
    let (aws, streams, leases, (publisher, lanes)) = ready?;
    let working = async {
        let outcome = source::run(configured.settings, Clock::start(), streams, Arc::new(leases), publisher, health.clone(), stop).await;
        finish(lanes).await;
        outcome
    };
    measured(working, cloudwatch, &aws, &health).await
}

/// Runs a worker and, beside it, the metrics to CloudWatch; what is left of them goes when the worker has ended.
pub(super) async fn measured<T>(working: impl Future<Output = T>, cloudwatch: Cloudwatch, aws: &client::SdkConfig, health: &Health) -> T {
    #[cfg(feature = "cloudwatch")]
    if let Some((accumulator, settings)) = cloudwatch {
        let mut exporter = metrics::cloudwatch::Exporter::new(aws, &settings, accumulator, health.clone());
        let outcome = tokio::select! {
            outcome = working => outcome,
            never = exporter.run() => match never {},
        };
        exporter.finish().await;
        return outcome;
    }
    #[cfg(not(feature = "cloudwatch"))]
    let _ = (cloudwatch, aws, health);
    working.await
}

/// Waits for the publisher's end, but not for a broker that is gone: the worker has settled what it waits for.
async fn finish(lanes: Lanes) {
    if tokio::time::timeout(LANES_LIMIT, lanes.finished()).await.is_err() {
        tracing::warn!("the producers were not closed within {LANES_LIMIT:?}: Pulsar does not answer");
    }
}

/// Runs a sink until it is stopped or cannot go on.
pub async fn sink(configured: Sink, pulsar: PulsarSettings, health: Health, stop: CancellationToken) -> Result<()> {
    let ready = async {
        let aws = client::load(&configured.aws).await?;
        let dynamodb = client::dynamodb(&aws, configured.dynamodb_endpoint.as_deref());
        tracing::info!(topics = ?configured.subscription.topics, subscription = configured.subscription.name, table = %configured.settings.table_name, "sink");
        if matches!(configured.subscription.kind, SubscriptionType::Shared | SubscriptionType::KeyShared) {
            // A change event's message key is its event's id, not its item's key.
            tracing::warn!(
                subscription = ?configured.subscription.kind,
                "with more than one consumer the changes of an item may be written out of order; retainOrdering: true keeps the order"
            );
        }
        let tables = ItemTables::new(dynamodb);
        let client = connect(&pulsar, &health).await?;
        let dead_letters = match configured.dead_letter_topic.as_deref() {
            Some(topic) => {
                // What came in chunks goes on in chunks.
                let options = Options { chunking: true, ..Options::default() };
                Some(TopicPublisher::open(client.clone(), Some(topic), options, health.clone()).await?)
            }
            None => None,
        };
        Ok((tables, dead_letters.unzip(), TopicInbox::open(client, configured.subscription.clone(), health.clone()).await?))
    };
    let registry = Registry::new(pulsar.clone(), health.clone());
    let Some(ready) = stop.run_until_cancelled(ready).await else { return Ok(()) };
    let (tables, (dead_letters, lanes), inbox) = ready?;
    let outcome = sink::run(configured.settings, inbox, Arc::new(registry), Arc::new(tables), dead_letters, health, stop).await;
    if let Some(lanes) = lanes {
        finish(lanes).await;
    }
    outcome
}
