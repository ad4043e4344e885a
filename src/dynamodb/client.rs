//! The AWS clients: one HTTP client, one set of credentials.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_types::SdkConfig;

use super::{credentials::Credentials, stream_reader::keep_pages};
use crate::error::{Error, Kind, Result};

/// Where AWS is and who we are to it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Without one, the region of the environment or the profile.
    pub region: Option<String>,
    pub credentials: Credentials,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Long: what timed out may still be written, and a write that lands late can overtake a newer one.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// Loads the configuration that all clients share. Calls no service yet.
///
/// The SDK's own retries are off: the stages own theirs, where they can keep order, slow down and tell the operator.
pub async fn load(settings: &Settings) -> Result<SdkConfig> {
    let http_client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT).build());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let config = settings.credentials.prepare(loader).load().await;
    if config.region().is_none() {
        let why = "no region: set awsRegion, the variable AWS_REGION, or a region in the profile";
        return Err(Error::new(Kind::Configuration, "set up the AWS clients", why));
    }
    match settings.credentials.provider(&config).await {
        Some(provider) => Ok(config.into_builder().credentials_provider(provider).build()),
        None => Ok(config),
    }
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
