//! The reference and the JSON schemas, generated from the keys' doc comments. `tests/contract/cli.rs` compares them with the committed files.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{
    HOST_FIELDS, load,
    sink::{SinkFields, SinkKeys, aliases::ALIASES},
    source::{SourceFields, SourceKeys},
};

/// Where the source does not do what the Java connector does, and why.
const DEVIATIONS: &[(&str, &str, &str)] = &[
    (
        "`applicationName`",
        "the default is `pulsar-dynamodb`, as documented",
        "the Java connector's runtime sets \"Apache Pulsar IO Connector\", which is no table name",
    ),
    (
        "`awsEndpoint`, `dynamoEndpoint`",
        "may be given together with `awsRegion`, and each on its own",
        "the Java connector fails with any endpoint",
    ),
    (
        "`awsDynamodbStreamArn`",
        "may also be a table's ARN or `table:NAME`",
        "a stream that is switched off and on has a new ARN, which is followed",
    ),
    (
        "`awsCredentialPluginParam`",
        "not needed for the default chain; static keys may have a `sessionToken`, roles an `externalId`",
        "the Java connector's page promises the first and cannot do the others",
    ),
    (
        "`STSAssumeRoleProviderPlugin`",
        "asks the STS of `awsRegion`, or of `awsStsRegion` or `awsStsEndpoint`",
        "the Java connector asks that of the environment's region, whatever `awsRegion` is",
    ),
    (
        "`initialPositionInStream: LATEST`",
        "means from the first start on, also after a restart without a checkpoint",
        "the Java connector jumps to the new tip and loses what was written meanwhile",
    ),
    (
        "`initialPositionInStream: AT_TIMESTAMP`",
        "works",
        "the Java connector does not start with it: KCL is given the position without the time, and refuses it",
    ),
    (
        "`checkpointInterval`",
        "is in milliseconds, and only acknowledged records are checkpointed",
        "the Java connector writes one after each batch, of records that Pulsar does not have yet",
    ),
    (
        "`numRetries`",
        "has no effect: a checkpoint is tried for as long as the lease is held",
        "giving up would repeat more records after a restart",
    ),
    (
        "lease table",
        "is created with on-demand capacity",
        "10 write units, the Java connector's setting, are used up by about 8 busy shards",
    ),
    (
        "`producerConfig.compressionType`",
        "the default is `NONE`",
        "Pulsar IO compresses the Java connector's messages with LZ4; consumers read either, and it costs processor time",
    ),
    ("unknown keys", "are refused with a suggestion", "as the Java connector does, but all at once"),
    (
        "CloudWatch",
        "off unless `cloudwatchMetrics` says `summary` or `detailed`; the dimension `ShardId` only with `cloudwatchShardId`",
        "the Java connector's cannot be switched off, need a permission, and cost about ten new metrics for each shard six times a day",
    ),
];

/// `connector-config/REFERENCE.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration reference\n\n\
         Generated from the code by `pulsar-io-dynamodb config-schema --markdown`; do not edit.\n\n\
         A file is YAML or JSON, in the form that `pulsar-admin sources create --source-config-file` and `sinks create --sink-config-file` take. \
         A key below `configs` is overridden by a text of the same name below `secrets`, and both by an environment variable: \
         `awsRegion` by `PULSAR_IO_DYNAMODB_AWS_REGION`. Secrets are never shown.\n",
    );
    section::<SourceFields>(&mut page, "Source: Pulsar's fields", "");
    section::<SourceKeys>(&mut page, "Source: keys below `configs`", "");
    section::<SinkFields>(&mut page, "Sink: Pulsar's fields", "");
    section::<SinkKeys>(&mut page, "Sink: keys below `configs`", "");
    page += "\n## Sink: the names that Flink and RisingWave have for the keys\n\n\
             Taken as well, also below `secrets`, flat (`aws.region: x`) or as mappings (`aws: {region: x}`). One of several names for a key may be given. \
             `aws.credentials.role.provider.X` is the key of `aws.credentials.X` in `awsRoleSource`, to any depth; `aws.credentials.provider.X` is \
             `aws.credentials.X`.\n\n| name | key |\n|---|---|\n";
    for (name, key) in ALIASES.names {
        let _ = writeln!(page, "| `{name}` | `{key}` |");
    }
    page += "\n| name | instead |\n|---|---|\n";
    for (name, text) in ALIASES.instead {
        let _ = writeln!(page, "| `{name}` | {text} |");
    }
    let others = HOST_FIELDS.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    page += &format!("\nPulsar's other fields are accepted and have no effect in the standalone host: {others}.\n");

    page += "\n## How to reach Pulsar\n\nNever in the file. Flags come before the environment, the environment before `client.conf`.\n\n\
             | flag | environment | `client.conf` | meaning |\n|---|---|---|---|\n\
             | `--pulsar-url` | `PULSAR_URL` | `brokerServiceUrl` | `pulsar://host:6650` or `pulsar+ssl://host:6651`; several hosts are separated by commas. Default: `pulsar://localhost:6650` |\n\
             | `--token-file` | `PULSAR_TOKEN_FILE`, `PULSAR_TOKEN` | `authPlugin`, `authParams` | a token, from a file or the environment, never an argument |\n\
             | `--auth-plugin` | `PULSAR_AUTH_PLUGIN` | `authPlugin` | another authentication: `AuthenticationBasic`, `AuthenticationTls` or `AuthenticationOAuth2`, with or without its package |\n\
             | `--auth-params-file` | `PULSAR_AUTH_PARAMS_FILE`, `PULSAR_AUTH_PARAMS` | `authParams` | its parameters, as Pulsar's tools take them ([forms](../docs/functions.md#secrets-authentication-tls)); never an argument |\n\
             | | | `tlsCertificateFilePath`, `tlsKeyFilePath` | PEM files: the certificate that is shown to a broker that asks for one, whatever the authentication is |\n\
             | `--trust-certs` | `PULSAR_TRUST_CERTS` | `tlsTrustCertsFilePath` | PEM file of trusted certificates |\n\
             | | | `tlsAllowInsecureConnection` | `true` is refused: certificates and host names are always verified |\n\
             | `--client-conf` | `PULSAR_CLIENT_CONF` | | the file itself |\n";

    page += "\n## Deviations from the Java connector\n\n| what | here | why |\n|---|---|---|\n";
    for (what, here, why) in DEVIATIONS {
        let _ = writeln!(page, "| {what} | {here} | {why} |");
    }
    page += "\n## Metrics\n\n[All of them](../docs/metrics.md).\n";
    page
}

/// The JSON schema of a source's file.
pub fn source_schema() -> Value {
    schema::<SourceFields, SourceKeys>("A DynamoDB source")
}

/// The JSON schema of a sink's file.
pub fn sink_schema() -> Value {
    let mut schema = schema::<SinkFields, SinkKeys>("A DynamoDB sink");
    let configs = &mut schema["properties"]["configs"];
    for (name, key) in ALIASES.names {
        configs["properties"][name] = json!({"description": format!("Another system's name of {key}.")});
        // Or as mappings.
        if let Some((first, _)) = name.split_once('.') {
            configs["properties"][first] = json!({"type": "object"});
        }
    }
    for family in ALIASES.families {
        configs["patternProperties"][format!("^{}", family.prefix.replace('.', "\\."))] = json!(true);
    }
    schema
}

fn schema<Fields: JsonSchema, Keys: JsonSchema>(title: &str) -> Value {
    let mut schema = schemars::schema_for!(Fields).to_value();
    let keys = schemars::schema_for!(Keys).to_value();
    schema["title"] = json!(title);
    schema["properties"]["configs"] = json!({"type": "object", "properties": keys["properties"], "additionalProperties": false});
    schema["properties"]["secrets"] = json!({"type": "object"});
    for name in HOST_FIELDS {
        schema["properties"][name] = json!(true);
    }
    schema["additionalProperties"] = json!(false);
    if let (Some(all), Some(more)) = (schema["$defs"].as_object().cloned(), keys["$defs"].as_object().cloned()) {
        schema["$defs"] = Value::Object(all.into_iter().chain(more).collect());
    } else if !keys["$defs"].is_null() {
        schema["$defs"] = keys["$defs"].clone();
    }
    schema
}

fn section<T: JsonSchema>(page: &mut String, title: &str, intro: &str) {
    let _ = write!(page, "\n## {title}\n\n{intro}| key | type | default | meaning |\n|---|---|---|---|\n");
    for (name, property) in load::properties::<T>() {
        let secret = if property.get("writeOnly").is_some() { " Secret." } else { "" };
        let default = match &property["default"] {
            Value::Null => String::new(),
            Value::String(text) if text.is_empty() => String::new(),
            Value::Array(list) if list.is_empty() => String::new(),
            value => format!("`{}`", value.to_string().trim_matches('"')),
        };
        let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{name}` | {} | {default} | {meaning}{secret} |", kind(&property));
    }
}

fn kind(property: &Value) -> &'static str {
    let has = |kind: &str| match &property["type"] {
        Value::String(one) => one == kind,
        Value::Array(several) => several.iter().any(|one| one == kind),
        _ => false,
    };
    match () {
        () if has("integer") => "number",
        () if has("boolean") => "boolean",
        () if has("array") => "list",
        () if has("string") => "text",
        () if has("object") => "mapping",
        () => "one of",
    }
}
