//! The AWS clients: one HTTP client, one set of credentials.

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, identity::IdentityCache, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
/// What all clients share: region, credentials, HTTP client, time-outs.
pub use aws_types::SdkConfig;

use super::{
    credentials::Credentials,
    http,
    kept::{self, Kept},
    stream_reader::keep_pages,
};
use crate::error::{Error, Kind, Result};

/// Where AWS is, how it is called and who we are to it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Without one, the region of the environment or the profile.
    pub region: Option<String>,
    pub credentials: Credentials,
    pub http: http::Settings,
}

/// Of one answer of STS. It is small, and a worker may be waiting.
const STS_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads the configuration that all clients share. Calls no service yet.
///
/// The SDK's own retries are off: the stages own theirs, where they can keep order, slow down and tell the operator. So is its cache of
/// credentials: see [`kept`].
pub async fn load(settings: &Settings) -> Result<SdkConfig> {
    let http_client = http::client(&settings.http)?;
    let (connect, read) = (settings.http.connect_timeout, settings.http.read_timeout);
    // An attempt may begin with asking for credentials.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(connect)
        .read_timeout(read)
        .operation_attempt_timeout(connect.saturating_add(read).saturating_add(kept::LIMIT));
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client.clone())
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let config = settings.credentials.prepare(loader).load().await;
    if config.region().is_none() {
        let why = "no region: set awsRegion, the variable AWS_REGION, or a region in the profile";
        return Err(Error::new(Kind::Configuration, "set up the AWS clients", why));
    }
    // A hiccup is not worth a red light; what lasts is told with its reason, which more attempts would keep back until nobody waits any more.
    let mut asking = config.to_builder();
    asking.set_retry_config(Some(RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(100))));
    asking.set_timeout_config(Some(TimeoutConfig::builder().connect_timeout(connect).operation_attempt_timeout(STS_TIMEOUT).build()));
    asking.set_identity_cache(Some(IdentityCache::lazy().build()));
    let kept = Arc::new(Kept::new(settings.credentials.clone(), asking.build()));
    let http_client = http::watched(http_client, kept.clone());
    Ok(config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::from(kept as Arc<dyn ProvideCredentials>))
        .http_client(http_client)
        .build())
}

/// A client for tables. `endpoint` overrides the standard one and the `AWS_ENDPOINT_URL` variables.
pub fn dynamodb(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_dynamodb::Client {
    let mut builder = aws_sdk_dynamodb::config::Builder::from(config);
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_dynamodb::Client::from_conf(builder.build())
}

/// A client for streams, which keeps the text of the pages it reads. `endpoint` overrides the standard one and the `AWS_ENDPOINT_URL` variables.
pub fn streams(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_dynamodbstreams::Client {
    let mut builder = aws_sdk_dynamodbstreams::config::Builder::from(config);
    if let Some(http_client) = config.http_client() {
        builder = builder.http_client(keep_pages(http_client));
    }
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_dynamodbstreams::Client::from_conf(builder.build())
}
