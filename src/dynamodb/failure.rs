//! What an answer of the AWS SDK means: the only place that knows the services' error codes.

use std::error::Error as StdError;

use aws_credential_types::provider::error::{CredentialsError, TokenError};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use serde::Deserialize;

use crate::error::{Error, Kind, Limit};

/// Turns a failed call into an [`Error`] that keeps the service's code and words, or the root cause where no service answered.
///
/// `doing` completes "could not …": name the action and what it was for. Conditional failures that a caller expects
/// (`ConditionalCheckFailedException`) are to be looked at before; here they are `Invalid`.
pub fn classify<E>(doing: impl Into<String>, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let mut limit = Limit::Unknown;
    let (kind, why) = match &error {
        SdkError::ServiceError(answer) => {
            limit = answer.raw().body().bytes().map_or(Limit::Unknown, limit_of);
            let (code, message) = (answer.err().code(), answer.err().message());
            let status = answer.raw().status().as_u16();
            let why = match (code, message) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(code), None) => format!("{code} (HTTP {status})"),
                (None, Some(message)) => format!("HTTP {status}: {message}"),
                (None, None) => format!("HTTP {status} without an error code"),
            };
            (of_code(code.unwrap_or_default(), status), why)
        }
        // An answer that cannot be read says nothing about the request.
        SdkError::ResponseError(_) | SdkError::TimeoutError(_) => (Kind::Unavailable, chain(&error)),
        // The SDK reports missing or failing credentials in either of these.
        SdkError::DispatchFailure(_) if concerns_credentials(&error) => (Kind::Credentials, chain(&error)),
        SdkError::DispatchFailure(_) => (Kind::Unavailable, chain(&error)),
        _ if concerns_credentials(&error) => (Kind::Credentials, chain(&error)),
        _ => (Kind::Invalid, chain(&error)),
    };
    Error::new(kind, doing, why).throttled_by(limit)
}

/// The widest of the limits that an answer names. They are `Table` or `Index`, `Read` or `Write`, and these endings ("ThrottlingReason", Amazon DynamoDB API
/// Reference). Several exceptions have them, so they are read from the answer's own text.
fn limit_of(body: &[u8]) -> Limit {
    #[derive(Deserialize)]
    struct Throttled {
        #[serde(alias = "throttlingReasons", rename = "ThrottlingReasons", default)]
        reasons: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(alias = "Reason", default)]
        reason: String,
    }
    const ENDINGS: [(&str, Limit); 5] = [
        ("IndexWriteKeyRangeThroughputExceeded", Limit::IndexKeyRange),
        ("KeyRangeThroughputExceeded", Limit::KeyRange),
        ("ProvisionedThroughputExceeded", Limit::Provisioned),
        ("MaxOnDemandThroughputExceeded", Limit::OnDemandMaximum),
        ("AccountLimitExceeded", Limit::Account),
    ];
    let limits = serde_json::from_slice::<Throttled>(body).map(|throttled| throttled.reasons).unwrap_or_default();
    let of =
        |reason: &Reason| ENDINGS.iter().find(|(ending, _)| reason.reason.ends_with(ending)).map_or(Limit::Unknown, |(_, limit)| *limit);
    limits.iter().map(of).max().unwrap_or_default()
}

/// The kind of an error code of DynamoDB, DynamoDB Streams or the common errors of AWS; an unknown code goes by its HTTP status.
fn of_code(code: &str, status: u16) -> Kind {
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "SlowDown" => Kind::Throttled,
        "InternalServerError"
        | "InternalServerException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "ResourceInUseException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException" => Kind::Unavailable,
        "ExpiredIteratorException" => Kind::ExpiredIterator,
        "TrimmedDataAccessException" => Kind::TrimmedData,
        "ResourceNotFoundException" | "TableNotFoundException" => Kind::NotFound,
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" | "KMSAccessDeniedException" => Kind::AccessDenied,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => Kind::Credentials,
        "ItemCollectionSizeLimitExceededException" => Kind::ItemCollectionFull,
        _ => match status {
            429 => Kind::Throttled,
            500.. => Kind::Unavailable,
            401 | 403 | 407 if code.is_empty() => Kind::AccessDenied,
            // A request time-out and a proxy's "too early".
            408 | 425 => Kind::Unavailable,
            // Without a code it is no answer of the service: a proxy, say. Nothing may be given up for that.
            _ if code.is_empty() => Kind::Unavailable,
            _ => Kind::Invalid,
        },
    }
}

/// The whole chain of causes, each part once: "dispatch failure: io error: … : Connection refused".
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let cause = cause.to_string();
        // Wrappers often repeat what they wrap.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn concerns_credentials(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>() || cause.is::<TokenError>())
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn StdError + 'static)| (*cause).source())
}

#[cfg(test)]
mod tests {
    use aws_credential_types::provider::{ProvideCredentials, future};
    use aws_sdk_dynamodb::{Client, config};
    use aws_smithy_runtime_api::client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::HttpRequest,
        result::ConnectorError,
    };
    use aws_smithy_types::body::SdkBody;

    use super::*;

    /// Answers every request in the same way.
    #[derive(Debug, Clone)]
    enum Answer {
        Status(u16, &'static str),
        Refused,
    }

    impl HttpConnector for Answer {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            HttpConnectorFuture::ready(match self {
                Answer::Status(status, body) => Ok(HttpResponse::new((*status).try_into().expect("a status"), SdkBody::from(*body))),
                Answer::Refused => {
                    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                    Err(ConnectorError::io(refused.into()))
                }
            })
        }
    }

    fn client(answer: Answer) -> config::Builder {
        config::Config::builder()
            .behavior_version_latest()
            .region(config::Region::new("eu-west-1"))
            .retry_config(config::retry::RetryConfig::disabled())
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(answer.clone())))
    }

    fn keys() -> config::Credentials {
        config::Credentials::new("key", "secret", None, None, "test")
    }

    async fn describe(config: config::Builder) -> Error {
        let error = Client::from_conf(config.build()).describe_table().table_name("orders").send().await.expect_err("a failure");
        classify("describe table orders", error)
    }

    async fn answer(status: u16, body: &'static str) -> Error {
        describe(client(Answer::Status(status, body)).credentials_provider(keys())).await
    }

    #[tokio::test]
    async fn a_service_error_keeps_its_code_and_words() {
        let error = answer(
            400,
            r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User u is not authorized to perform: dynamodb:DescribeTable"}"#,
        )
        .await;
        assert_eq!(error.kind(), Kind::AccessDenied);
        assert_eq!(error.why(), "AccessDeniedException: User u is not authorized to perform: dynamodb:DescribeTable");

        let error = answer(400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"no table"}"#).await;
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.why(), "ResourceNotFoundException: no table");
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_root_cause() {
        let error = describe(client(Answer::Refused).credentials_provider(keys())).await;
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("connection refused"), "{error}");
    }

    #[tokio::test]
    async fn missing_credentials_are_not_taken_for_an_outage() {
        #[derive(Debug)]
        struct Nobody;
        impl ProvideCredentials for Nobody {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no provider in the chain has any")))
            }
        }
        let error = describe(client(Answer::Status(200, "{}")).credentials_provider(Nobody)).await;
        assert_eq!(error.kind(), Kind::Credentials, "{error}");
        assert!(error.why().contains("no provider in the chain has any"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_without_a_code_goes_by_its_status() {
        assert_eq!(answer(503, "<html>try later</html>").await.kind(), Kind::Unavailable);
        assert_eq!(answer(403, "<html>proxy says no</html>").await.kind(), Kind::AccessDenied);
    }

    #[test]
    fn each_code_has_its_kind() {
        for (code, kind) in [
            ("ProvisionedThroughputExceededException", Kind::Throttled),
            ("ThrottlingException", Kind::Throttled),
            ("RequestLimitExceeded", Kind::Throttled),
            ("LimitExceededException", Kind::Throttled),
            ("ExpiredIteratorException", Kind::ExpiredIterator),
            ("TrimmedDataAccessException", Kind::TrimmedData),
            ("ResourceNotFoundException", Kind::NotFound),
            ("ExpiredTokenException", Kind::Credentials),
            ("UnrecognizedClientException", Kind::Credentials),
            ("InvalidSignatureException", Kind::Credentials),
            ("ValidationException", Kind::Invalid),
            ("SerializationException", Kind::Invalid),
            ("ConditionalCheckFailedException", Kind::Invalid),
            ("ItemCollectionSizeLimitExceededException", Kind::ItemCollectionFull),
            ("InternalServerError", Kind::Unavailable),
            ("TransactionConflictException", Kind::Unavailable),
            ("TransactionInProgressException", Kind::Unavailable),
            ("ReplicatedWriteConflictException", Kind::Unavailable),
            ("NobodyKnowsException", Kind::Invalid),
        ] {
            assert_eq!(of_code(code, 400), kind, "{code}");
        }
        assert_eq!(of_code("NobodyKnowsException", 500), Kind::Unavailable);
    }
}
