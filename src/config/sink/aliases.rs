//! Flink's and RisingWave's names for the sink's keys.

use crate::config::alias::{Aliases, Family};

/// The names that Flink's sink (SQL options, and the properties of its Java API) and RisingWave's have for the keys.
pub const ALIASES: Aliases = Aliases {
    names: &[
        ("table-name", "tableName"),
        ("table", "tableName"),
        ("dynamodb.table", "tableName"),
        ("primary_key", "primaryKey"),
        ("sink.ignore-nulls", "nulls"),
        ("aws.region", "awsRegion"),
        ("region", "awsRegion"),
        ("aws.endpoint", "awsEndpoint"),
        ("aws.endpoint_url", "awsEndpoint"),
        ("endpoint_url", "awsEndpoint"),
        ("endpoint", "awsEndpoint"),
        ("aws.trust.all.certificates", "trustAllCertificates"),
        ("aws.credentials.provider", "awsCredentialsProvider"),
        ("aws.credentials.basic.accesskeyid", "awsAccessKey"),
        ("aws.credentials.access_key_id", "awsAccessKey"),
        ("access_key", "awsAccessKey"),
        ("aws.credentials.basic.secretkey", "awsSecretKey"),
        ("aws.credentials.secret_access_key", "awsSecretKey"),
        ("secret_key", "awsSecretKey"),
        ("aws.credentials.session_token", "awsSessionToken"),
        ("session_token", "awsSessionToken"),
        ("aws.credentials.profile.name", "awsProfile"),
        ("aws.profile", "awsProfile"),
        ("profile", "awsProfile"),
        ("aws.credentials.profile.path", "awsProfileFile"),
        ("aws.credentials.role.arn", "awsRoleArn"),
        ("arn", "awsRoleArn"),
        ("aws.credentials.role.sessionName", "awsRoleSessionName"),
        ("aws.credentials.role.externalId", "awsExternalId"),
        ("aws.credentials.role.external_id", "awsExternalId"),
        ("external_id", "awsExternalId"),
        ("aws.credentials.role.stsEndpoint", "awsStsEndpoint"),
        ("aws.credentials.role.provider", "awsRoleSource.awsCredentialsProvider"),
        ("aws.credentials.webIdentityToken.file", "awsWebIdentityTokenFile"),
        ("sink.batch.max-size", "maxBatchSize"),
        ("dynamodb.max_batch_item_nums", "maxBatchSize"),
        ("sink.requests.max-inflight", "maxInFlightRequests"),
        ("dynamodb.max_future_send_nums", "maxInFlightRequests"),
        ("sink.requests.max-buffered", "maxBufferedMessages"),
        ("sink.flush-buffer.timeout", "flushTimeout"),
        ("dynamodb.batch_write_retry_backoff_ms", "backoffTime"),
        ("sink.fail-on-error", "failOnError"),
        ("sink.http-client.max-concurrency", "httpMaxConcurrency"),
        ("sink.http-client.read-timeout", "httpReadTimeout"),
    ],
    families: &[
        // The role's own source of credentials: the same names once more, to any depth.
        Family { prefix: "aws.credentials.role.provider.", stands_for: "aws.credentials.", inside: Some("awsRoleSource") },
        // Flink's Java API puts `provider` into each name.
        Family { prefix: "aws.credentials.provider.", stands_for: "aws.credentials.", inside: None },
    ],
    instead: &[
        (
            "aws.credentials.custom.class",
            "is a Java class: write awsCredentialProcess, a command that prints the credentials as JSON, with awsCredentialsProvider: PROCESS",
        ),
        ("sink.http-client.protocol.version", "leave it out: DynamoDB is always called by HTTP/1.1"),
        ("sink.flush-buffer.size", "has no effect in Flink; the bytes of all that waits are bounded by maxBufferedBytes"),
        ("dynamodb.max_batch_rows", "has no effect in RisingWave; write maxBatchSize, 25 at most"),
        ("dynamodb.batch_write_retry_times", "leave it out: what DynamoDB does not take is sent again until it does"),
        ("connector", "leave it out: the sink that Pulsar runs is chosen by the archive or the sinkType"),
    ],
};

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::{
            load::{self, Document},
            sink::{Consumer, Sink, SinkKeys, check},
        },
        error::Result,
    };

    fn checked(top: Value) -> Result<Sink> {
        let Value::Object(top) = top else { unreachable!("an object") };
        check(&Document { name: "test".into(), top }, &BTreeMap::new(), Consumer::Own)
    }

    /// Each name stands for a key that there is.
    #[test]
    fn aliases_mean_keys_that_exist() {
        let known = load::properties::<SinkKeys>();
        for (alias, key) in ALIASES.names {
            assert!(key.split('.').all(|part| known.contains_key(part)), "{alias}: {key}");
            assert!(!known.contains_key(*alias), "{alias} is a key itself");
        }
    }

    #[test]
    fn flinks_options_are_taken() {
        let flink = json!({
            "table-name": "copy", "aws.region": "us-east-2", "aws.endpoint": "http://dynamodb", "sink.batch.max-size": "20",
            "sink.requests.max-inflight": "5", "sink.requests.max-buffered": "100", "sink.flush-buffer.timeout": "70",
            "sink.http-client.max-concurrency": "9", "sink.http-client.read-timeout": "360000", "aws.trust.all.certificates": "true",
            "aws.credentials.provider": "ASSUME_ROLE", "aws.credentials.role.arn": "arn:outer", "aws.credentials.role.sessionName": "s",
            "aws.credentials.role.externalId": "hush", "aws.credentials.role.stsEndpoint": "http://sts",
            "aws.credentials.role.provider": "ASSUME_ROLE", "aws.credentials.role.provider.role.arn": "arn:inner",
            "aws.credentials.role.provider.role.sessionName": "t", "aws.credentials.role.provider.role.provider": "BASIC",
            "aws.credentials.role.provider.role.provider.basic.accesskeyid": "AK",
        });
        let configs = json!({"name": "n", "inputs": ["a"], "configs": flink,
            "secrets": {"aws.credentials.role.provider.role.provider.basic.secretkey": "hush"}});
        let sink = checked(configs).expect("complete");
        assert_eq!((&*sink.settings.table_name, sink.aws.region.as_deref()), ("copy", Some("us-east-2")));
        assert_eq!(sink.dynamodb_endpoint.as_deref(), Some("http://dynamodb"));
        assert_eq!((sink.settings.max_batch, sink.settings.max_in_flight, sink.settings.max_buffered), (20, 5, 100));
        assert_eq!(sink.settings.flush_timeout, Duration::from_millis(70));
        assert_eq!((sink.aws.http.max_concurrency, sink.aws.http.read_timeout), (Some(9), Duration::from_secs(360)));
        assert!(sink.aws.http.trust_all_certificates);
        let credentials = format!("{:?}", sink.aws.credentials);
        assert!(credentials.starts_with(r#"AssumeRole { role_arn: "arn:outer", session_name: "s""#), "{credentials}");
        assert!(credentials.contains(r#"base: AssumeRole { role_arn: "arn:inner", session_name: "t""#), "{credentials}");
        assert!(credentials.contains(r#"base: Static { access_key: "AK""#) && !credentials.contains("hush"), "{credentials}");
    }

    #[test]
    fn risingwaves_options_are_taken() {
        for (risingwave, expected) in [
            (
                json!({"table": "copy", "aws.region": "r", "aws.credentials.access_key_id": "AK", "aws.credentials.secret_access_key": "hush",
                    "aws.credentials.session_token": "hush", "dynamodb.max_batch_item_nums": 10}),
                r#"Static { access_key: "AK""#,
            ),
            (
                json!({"dynamodb.table": "copy", "region": "r", "access_key": "AK", "secret_key": "hush", "arn": "arn:r", "external_id": "hush"}),
                r#"base: Static { access_key: "AK""#,
            ),
            (
                json!({"table": "copy", "endpoint_url": "http://d", "aws.credentials.role.arn": "arn:r", "aws.credentials.role.external_id": "hush"}),
                r#"AssumeRole { role_arn: "arn:r""#,
            ),
            (json!({"table": "copy", "profile": "ops"}), r#"Profile { name: Some("ops")"#),
        ] {
            let sink = checked(json!({"name": "n", "inputs": ["a"], "configs": risingwave.clone()})).expect("complete");
            let credentials = format!("{:?}", sink.aws.credentials);
            assert!(credentials.contains(expected) && !credentials.contains("hush"), "{risingwave}: {credentials}");
            assert_eq!(&*sink.settings.table_name, "copy");
        }
    }

    /// Flink's other providers; what a JVM alone can do says what to write instead.
    #[test]
    fn flinks_providers_have_an_analogue_or_say_what_to_write() {
        for (options, expected) in [
            (json!({"aws.credentials.provider": "AUTO"}), "DefaultChain"),
            (json!({"aws.credentials.provider": "ENV_VAR"}), "Environment"),
            (
                json!({"aws": {"credentials": {"provider": "PROFILE", "profile.name": "p", "profile.path": "f"}}}),
                r#"Profile { name: Some("p"), file: Some("f") }"#,
            ),
            (
                json!({"aws.credentials.provider": "WEB_IDENTITY_TOKEN", "aws.credentials.webIdentityToken.file": "t",
                    "aws.credentials.role.arn": "arn:r"}),
                r#"WebIdentity { token_file: Some("t"), role_arn: Some("arn:r")"#,
            ),
            // The properties of Flink's Java API.
            (
                json!({"aws.credentials.provider.basic.accesskeyid": "AK", "aws.credentials.provider.basic.secretkey": "hush"}),
                r#"Static { access_key: "AK""#,
            ),
            (json!({"aws.credentials.provider": "SYS_PROP"}), "write ENV_VAR, or BASIC"),
            (
                json!({"aws.credentials.provider": "CUSTOM", "aws.credentials.custom.class": "x.Y"}),
                "is a Java class: write awsCredentialProcess",
            ),
            (json!({"aws.credentials.provider": "BASICS"}), "unknown variant `BASICS`, expected one of `AUTO`"),
        ] {
            let mut configs = json!({"tableName": "copy"});
            configs.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
            let outcome = checked(json!({"name": "n", "inputs": ["a"], "configs": configs}));
            let outcome = outcome.map_or_else(|error| error.to_string(), |sink| format!("{:?}", sink.aws.credentials));
            assert!(outcome.contains(expected) && !outcome.contains("hush"), "{options}: {outcome}");
        }
    }
}
