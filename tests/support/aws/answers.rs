//! What the stand-in answers.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use super::{Assumed, State, Sts};

/// Status and body of an answer of STS.
pub fn sts(state: &mut State, form: &str, key: &str, region: &str) -> (u16, String) {
    let form: BTreeMap<String, String> =
        form.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    let field = |name: &str| form.get(name).cloned();
    let action = field("Action").unwrap_or_default();
    if let Sts::Fails(status, code) = state.sts {
        return refusal(status, code, "scripted");
    }
    if action != "AssumeRoleWithWebIdentity" && !holds(state, key) {
        return refusal(403, "InvalidClientTokenId", "The security token included in the request is invalid.");
    }
    if action == "GetCallerIdentity" {
        let role = state.assumed.iter().rfind(|assumed| assumed.key == key).map(|assumed| assumed.role.clone());
        let who = role.unwrap_or_else(|| format!("arn:aws:iam::000000000000:user/{key}"));
        return (
            200,
            format!(
                "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{who}</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"
            ),
        );
    }
    let role = field("RoleArn").unwrap_or_default();
    let external_id = field("ExternalId");
    if action == "AssumeRole" && external_id.as_deref() != state.external_id {
        return refusal(403, "AccessDenied", &format!("User: {key} is not authorized to perform: sts:AssumeRole on resource: {role}"));
    }
    let assumed = Assumed {
        role,
        session_name: field("RoleSessionName").unwrap_or_default(),
        external_id,
        by: key.to_owned(),
        region: region.to_owned(),
        token: field("WebIdentityToken"),
        key: format!("ASIA{}", state.assumed.len()),
    };
    let ends = SystemTime::now() + state.session;
    let since = ends.duration_since(UNIX_EPOCH).expect("after 1970");
    let expiration = chrono::DateTime::from_timestamp_millis(since.as_millis() as i64)
        .expect("a time")
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let body = format!(
        "<{action}Response><{action}Result><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>hush-session-secret</SecretAccessKey>\
         <SessionToken>hush-session-token</SessionToken><Expiration>{expiration}</Expiration></Credentials></{action}Result></{action}Response>",
        assumed.key
    );
    state.keys.insert(assumed.key.clone(), Some(ends));
    state.assumed.push(assumed);
    (200, body)
}

fn refusal(status: u16, code: &str, message: &str) -> (u16, String) {
    let kind = if status >= 500 { "Receiver" } else { "Sender" };
    (status, format!("<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"))
}

fn holds(state: &State, key: &str) -> bool {
    state.keys.get(key).is_some_and(|ends| ends.is_none_or(|ends| SystemTime::now() < ends))
}

/// Status and body of an answer of DynamoDB or DynamoDB Streams: of one table `orders` with a stream of one empty shard.
pub fn dynamodb(state: &mut State, operation: &str, key: &str) -> (u16, String) {
    state.calls.push((operation.to_owned(), key.to_owned()));
    let refused =
        |kind: &str, message: String| (400, json!({"__type": format!("com.amazon.coral.service#{kind}"), "message": message}).to_string());
    if !holds(state, key) {
        state.refused += 1;
        let kind = if state.keys.contains_key(key) { "ExpiredTokenException" } else { "UnrecognizedClientException" };
        return refused(kind, "The security token included in the request is expired or invalid".into());
    }
    if state.denied.contains(&operation) {
        return refused("AccessDeniedException", format!("User: {key} is not authorized to perform: dynamodb:{operation}"));
    }
    let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-11-21T08:00:00.000";
    let answer = match operation {
        "DescribeTable" => json!({"Table": {"TableName": "orders", "TableStatus": "ACTIVE", "LatestStreamArn": arn,
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}], "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}]}}),
        "DescribeStream" => json!({"StreamDescription": {"StreamArn": arn, "StreamStatus": "ENABLED",
            "Shards": [{"ShardId": "shardId-0", "SequenceNumberRange": {"StartingSequenceNumber": "1"}}]}}),
        "GetShardIterator" => json!({"ShardIterator": "iterator"}),
        "GetRecords" => json!({"Records": [], "NextShardIterator": "iterator"}),
        "PutItem" | "UpdateItem" | "DeleteItem" => {
            return refused("ConditionalCheckFailedException", "The conditional request failed".into());
        }
        _ => json!({}),
    };
    (200, answer.to_string())
}

/// Of `application/x-www-form-urlencoded`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|byte| (byte as char).to_digit(16)).expect("two digits");
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (digit() * 16 + digit()) as u8,
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("text")
}
