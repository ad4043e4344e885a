//! What any broker tells about a topic: which broker serves it, and how many partitions it has.

use ::pulsar::message::proto::{
    BaseCommand, CommandLookupTopic, CommandPartitionedTopicMetadata, base_command::Type,
    command_lookup_topic_response::LookupType as Lookup, command_partitioned_topic_metadata_response::LookupType as Metadata,
};

use super::{
    client::{Client, server_kind},
    connection::Address,
};
use crate::error::{Error, Kind, Result};

/// The only request on its connection.
const REQUEST: u64 = 0;
/// Brokers send on to one another: as the Java client does by default (`maxLookupRedirects`).
const MAX_REDIRECTS: usize = 20;

/// The broker that serves a topic partition. The topic is made, where the broker may do that.
pub(super) async fn broker_of(client: &Client, topic: &str) -> Result<Address> {
    let settings = client.settings();
    let failed = |kind: Kind, why: &str| Error::new(kind, format!("look up topic {topic}"), why);
    let mut connection = client.open_any().await?;
    let service = connection.url().to_owned();
    let mut authoritative = false;
    for _ in 0..=MAX_REDIRECTS {
        let question =
            CommandLookupTopic { topic: topic.to_owned(), request_id: REQUEST, authoritative: Some(authoritative), ..Default::default() };
        connection.send(BaseCommand { r#type: Type::Lookup.into(), lookup_topic: Some(question), ..Default::default() }).await?;
        let answer = connection.receive().await?;
        if let Some(error) = &answer.error {
            return Err(failed(server_kind(error.error()), &error.message));
        }
        let Some(answer) = answer.lookup_topic_response else {
            return Err(failed(Kind::Unavailable, "the broker answers with something else"));
        };
        if answer.response.is_none() || answer.response() == Lookup::Failed {
            let kind = answer.error.map_or(Kind::Unavailable, |_| server_kind(answer.error()));
            return Err(failed(kind, answer.message.as_deref().unwrap_or("the broker does not say why")));
        }
        let (redirected, proxied) = (answer.response() == Lookup::Redirect, answer.proxy_through_service_url());
        authoritative = answer.authoritative();
        let url = if settings.with_tls() { answer.broker_service_url_tls } else { answer.broker_service_url };
        let url = url.filter(|url| !url.is_empty());
        let url = url.ok_or_else(|| failed(Kind::NotFound, "its broker has no address of this URL's kind, with or without TLS"))?;
        let address = if proxied {
            let broker = url.split_once("://").map_or(&*url, |(_, host)| host).trim_end_matches('/').to_owned();
            Address { url: service.clone(), behind_proxy: Some(broker) }
        } else {
            Address { url, behind_proxy: None }
        };
        if !redirected {
            return Ok(address);
        }
        connection = client.open(&address).await?;
    }
    Err(failed(Kind::Unavailable, "brokers send on to one another without an end"))
}

/// The names of a topic's partitions; the topic's own where it has none.
pub(super) async fn partitions(client: &Client, topic: &str) -> Result<Vec<String>> {
    // A partition has none itself.
    if topic.contains("-partition-") {
        return Ok(vec![topic.to_owned()]);
    }
    let failed = |kind: Kind, why: &str| Error::new(kind, format!("look up the partitions of topic {topic}"), why);
    let mut connection = client.open_any().await?;
    let question = CommandPartitionedTopicMetadata { topic: topic.to_owned(), request_id: REQUEST, ..Default::default() };
    let command = BaseCommand { r#type: Type::PartitionedMetadata.into(), partition_metadata: Some(question), ..Default::default() };
    connection.send(command).await?;
    let answer = connection.receive().await?;
    if let Some(error) = &answer.error {
        return Err(failed(server_kind(error.error()), &error.message));
    }
    let Some(answer) = answer.partition_metadata_response else {
        return Err(failed(Kind::Unavailable, "the broker answers with something else"));
    };
    match answer.partitions {
        Some(partitions) if answer.response.is_some() && answer.response() == Metadata::Success => Ok(match partitions {
            0 => vec![topic.to_owned()],
            _ => (0..partitions).map(|number| format!("{topic}-partition-{number}")).collect(),
        }),
        _ => {
            let kind = answer.error.map_or(Kind::Unavailable, |_| server_kind(answer.error()));
            Err(failed(kind, answer.message.as_deref().unwrap_or("the broker does not say why")))
        }
    }
}
