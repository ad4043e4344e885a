//! `-instance-conf`: one JSON object, as Pulsar's worker gives it to functions in Go (`GoInstanceConfig`), and Function Mesh to `golang` ones.
//!
//! Newer workers put all that was registered into `functionDetails`. Older ones, and Function Mesh, have only single keys, and fewer of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{
    details::{Details, RetryDetails, SinkSpec, SourceSpec},
    instance::Given,
};
use crate::config::pulsar::Access;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conf {
    #[serde(rename = "pulsarServiceURL")]
    pulsar_service_url: String,
    /// -1: the pod's name says it.
    #[serde(rename = "instanceID", deserialize_with = "integer")]
    instance_id: i64,
    #[serde(deserialize_with = "integer")]
    port: i64,
    #[serde(deserialize_with = "integer")]
    metrics_port: i64,
    cluster_name: String,
    tenant: String,
    name_space: String,
    name: String,
    log_topic: String,
    #[serde(deserialize_with = "integer")]
    processing_guarantees: i64,
    secrets_map: String,
    user_config: String,
    client_authentication_plugin: String,
    client_authentication_parameters: String,
    tls_trust_certs_file_path: String,
    tls_allow_insecure_connection: bool,
    subscription_name: String,
    #[serde(deserialize_with = "integer")]
    subscription_position: i64,
    /// Topics, each with a text that holds its `ConsumerSpec` as JSON.
    source_input_specs: BTreeMap<String, String>,
    /// The only topic that versions without `sourceInputSpecs` know.
    source_specs_topic: String,
    #[serde(alias = "isRegexPatternSubscription")]
    regex_pattern_subscription: bool,
    sink_specs_topic: String,
    dead_letter_topic: String,
    function_details: String,
}

/// What is wrong says the error; it has no value in it, since that may be a secret.
pub fn parse(text: &str) -> Result<Given, String> {
    let given: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        format!(
            "it is no JSON object ({error}). If Function Mesh runs it as a `golang` function: its command line breaks values with quotes or spaces, \
             so leave funcConfig empty and set the keys as variables of the pod (PULSAR_IO_DYNAMODB_…)"
        )
    })?;
    let given = given.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let mut conf: Conf = serde_json::from_value(Value::Object(given)).map_err(|error| error.to_string())?;
    let details = match std::mem::take(&mut conf.function_details) {
        text if text.trim().is_empty() => conf.details()?,
        text => serde_json::from_str(&text).map_err(|error| format!("functionDetails: {error}"))?,
    };
    Ok(Given {
        id: conf.instance_id,
        port: conf.port,
        metrics_port: conf.metrics_port,
        cluster: conf.cluster_name,
        access: Access {
            url: conf.pulsar_service_url,
            auth_plugin: conf.client_authentication_plugin,
            auth_params: conf.client_authentication_parameters.into(),
            trust_certs: conf.tls_trust_certs_file_path,
            allow_insecure: conf.tls_allow_insecure_connection,
        },
        details,
    })
}

impl Conf {
    /// From the single keys what `functionDetails` would say.
    fn details(&self) -> Result<Details, String> {
        let mut input_specs = BTreeMap::new();
        for (topic, spec) in &self.source_input_specs {
            let spec = serde_json::from_str(spec).map_err(|error| format!("sourceInputSpecs, {topic}: {error}"))?;
            input_specs.insert(topic.clone(), spec);
        }
        if input_specs.is_empty() && !self.source_specs_topic.is_empty() {
            let spec = serde_json::json!({ "isRegexPattern": self.regex_pattern_subscription });
            input_specs.insert(self.source_specs_topic.clone(), spec);
        }
        let guarantees = ["ATLEAST_ONCE", "ATMOST_ONCE", "EFFECTIVELY_ONCE", "MANUAL"];
        let guarantee = usize::try_from(self.processing_guarantees).ok().and_then(|at| guarantees.get(at));
        Ok(Details {
            tenant: self.tenant.clone(),
            namespace: self.name_space.clone(),
            name: self.name.clone(),
            log_topic: self.log_topic.clone(),
            processing_guarantees: (*guarantee.ok_or("processingGuarantees: there is no such number")?).into(),
            user_config: self.user_config.clone(),
            secrets_map: self.secrets_map.clone(),
            source: SourceSpec {
                subscription_name: self.subscription_name.clone(),
                subscription_position: if self.subscription_position == 1 { "EARLIEST" } else { "LATEST" }.into(),
                input_specs,
                ..SourceSpec::default()
            },
            sink: SinkSpec { topic: self.sink_specs_topic.clone(), ..SinkSpec::default() },
            retry_details: RetryDetails { dead_letter_topic: self.dead_letter_topic.clone() },
            ..Details::default()
        })
    }
}

/// Whole numbers that may come as doubles or as text.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let wrong = || serde::de::Error::custom("has to be a whole number");
    match Value::deserialize(deserializer)? {
        Value::Number(number) => super::numbers::whole(&number).ok_or_else(wrong),
        Value::String(text) => text.trim().parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}
