//! From a file (YAML, of which JSON is a part) and the environment to typed keys.
//!
//! Every key has a default, so each is read on its own first: that way all wrong ones are found, not just the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    HOST_FIELDS,
    alias::{Aliases, Named, unknown},
    sink::SinkKeys,
    source::SourceKeys,
    validate::Problems,
};
use crate::error::{Error, Kind, Result};

/// Environment variables with this prefix override keys: `PULSAR_IO_DYNAMODB_AWS_REGION` is `awsRegion`.
pub const ENVIRONMENT_PREFIX: &str = "PULSAR_IO_DYNAMODB_";

/// Variables with the prefix that are no keys of `configs`.
const OTHER_VARIABLES: &[&str] =
    &["PULSAR_IO_DYNAMODB_LOG", "PULSAR_IO_DYNAMODB_LOG_FORMAT", "PULSAR_IO_DYNAMODB_HTTP_ADDRESS", "PULSAR_IO_DYNAMODB_NATIVE_PATH"];

/// A file's content, not yet typed.
#[derive(Debug, Clone)]
pub struct Document {
    /// For messages: the file's name.
    pub name: String,
    pub top: Map<String, Value>,
}

/// Reads a file. Fails when it is not there or is not YAML or JSON.
pub fn read(path: &Path) -> Result<Document> {
    let name = path.display().to_string();
    let failed = |why: String| Error::new(Kind::Configuration, format!("read the configuration {name}"), why);
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    match serde_saphyr::from_str(&text) {
        Ok(Value::Object(top)) => Ok(Document { name, top }),
        Ok(_) => Err(failed("it has to be a mapping of keys to values".into())),
        // The first line has the place and the reason. The others quote the file, secrets included.
        Err(error) => Err(failed(error.to_string().lines().next().unwrap_or_default().to_owned())),
    }
}

/// Reads Pulsar's fields at the top of the document.
pub fn top<T: DeserializeOwned + JsonSchema>(document: &Document, problems: &mut Problems) -> T {
    let mut fields = document.top.clone();
    fields.retain(|name, _| name != "configs" && name != "secrets" && !HOST_FIELDS.contains(&name.as_str()));
    typed(Named::from(fields), "", problems)
}

/// Reads the keys below `configs`, by their own names or by `aliases`. A value of `secrets` overrides the plain one of the same name, the
/// environment overrides both.
pub fn configs<T: DeserializeOwned + JsonSchema>(
    document: &Document,
    environment: &BTreeMap<String, String>,
    aliases: &Aliases,
    problems: &mut Problems,
) -> T {
    let schemas = properties::<T>();
    let plain = object(document.top.get("configs"), "configs", problems);
    let mut keys = aliases.own_names(plain, &schemas, true, "configs.", problems);
    let mut secrets = object(document.top.get("secrets"), "secrets", problems);
    secrets.retain(|name, secret| {
        // Not shown: it is a secret.
        const TEXT: &str = "has to be text here; references to a secret store are resolved by the host that knows it";
        problems.require(secret.is_string(), &format!("secrets.{name}"), TEXT);
        secret.is_string()
    });
    for (name, secret) in &mut secrets {
        if let Some(schema) = schemas.get(name) {
            *secret = as_expected(secret.take(), schema);
        }
    }
    keys.overlay(aliases.own_names(secrets, &schemas, false, "secrets.", problems));
    let known: BTreeMap<String, String> = properties::<T>().into_keys().map(|name| (variable(&name), name)).collect();
    // One environment may serve both workers.
    let others: BTreeSet<String> =
        properties::<SourceKeys>().into_keys().chain(properties::<SinkKeys>().into_keys()).map(|name| self::variable(&name)).collect();
    for (variable, value) in environment.iter().filter(|(variable, _)| variable.starts_with(ENVIRONMENT_PREFIX)) {
        match known.get(variable) {
            Some(name) => drop(keys.keys.insert(name.clone(), Value::String(value.clone()))),
            None if OTHER_VARIABLES.contains(&variable.as_str()) || others.contains(variable) || is_kubernetes(variable) => {}
            None => problems.add(variable, unknown(variable, known.keys().map(String::as_str))),
        }
    }
    typed(keys, "configs.", problems)
}

/// What Kubernetes sets in each pod for a service that is named like this program.
fn is_kubernetes(variable: &str) -> bool {
    let rest = variable.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or_default();
    rest == "PORT" || ["SERVICE_HOST", "SERVICE_PORT", "PORT_"].iter().any(|start| rest.starts_with(start))
}

fn object(value: Option<&Value>, name: &str, problems: &mut Problems) -> Map<String, Value> {
    match value {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => {
            problems.add(name, "has to be a mapping of keys to values");
            Map::new()
        }
    }
}

/// Reads the keys of a mapping inside the configuration. `prefix` is where it is, for messages: `configs.awsRoleSource.`.
pub fn mapping<T: DeserializeOwned + JsonSchema>(keys: Map<String, Value>, prefix: &str, problems: &mut Problems) -> T {
    typed(Named::from(keys), prefix, problems)
}

fn typed<T: DeserializeOwned + JsonSchema>(mut values: Named, prefix: &str, problems: &mut Problems) -> T {
    let known = properties::<T>();
    let mut good = Map::new();
    for (name, value) in std::mem::take(&mut values.keys) {
        let Some(schema) = known.get(&name) else {
            problems.add(format!("{prefix}{name}"), unknown(&name, known.keys().map(String::as_str)));
            continue;
        };
        if value.is_null() {
            continue;
        }
        let value = as_expected(value, schema);
        match serde_json::from_value::<T>(Value::Object(Map::from_iter([(name.clone(), value.clone())]))) {
            Ok(_) => drop(good.insert(name, value)),
            Err(error) => {
                problems.add(format!("{prefix}{}", values.shown(&name)), wrong(&value, schema, &error));
            }
        }
    }
    serde_json::from_value(Value::Object(good)).unwrap_or_else(|error| {
        problems.add(prefix.trim_end_matches('.'), error.to_string());
        serde_json::from_value(Value::Object(Map::new())).expect("every key has a default")
    })
}

/// As the Java connector's reader does: a number or a boolean may be given as text, and text as a number or boolean. So may a mapping or a
/// list, as JSON, and a list of texts with commas between them: secrets and the environment are nothing but text.
fn as_expected(value: Value, schema: &Value) -> Value {
    let expects = |kind: &str| allows(schema, kind);
    match &value {
        Value::String(text) if expects("integer") => text.trim().parse::<i64>().map_or(value, Value::from),
        Value::String(text) if expects("boolean") => text.trim().to_ascii_lowercase().parse::<bool>().map_or(value, Value::from),
        Value::String(text) if expects("object") => serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or(value),
        Value::String(text) if expects("array") => match serde_json::from_str(text) {
            Ok(list @ Value::Array(_)) => list,
            _ => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect(),
        },
        Value::Number(number) if expects("string") => Value::String(number.to_string()),
        Value::Bool(boolean) if expects("string") => Value::String(boolean.to_string()),
        _ => value,
    }
}

fn allows(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(one) => one == kind,
        Value::Array(several) => several.iter().any(|one| one == kind),
        _ => false,
    }
}

/// What to write instead of what is there. A secret is not shown.
fn wrong(value: &Value, schema: &Value, error: &serde_json::Error) -> String {
    if schema.get("writeOnly").is_some() {
        return if allows(schema, "object") { "has to be a mapping of keys to values" } else { "has to be text" }.into();
    }
    let wanted = match () {
        () if allows(schema, "integer") => "a whole number, 0 or more",
        () if allows(schema, "boolean") => "true or false",
        () if allows(schema, "array") && schema["items"]["type"] == "object" => "a list of mappings",
        // Of choices: serde's message lists what there is to choose from.
        () if allows(schema, "array") && value.is_array() && schema["items"].get("$ref").is_some() => return error.to_string(),
        () if allows(schema, "array") => "a list of texts",
        () if allows(schema, "string") => "text",
        // Of a choice: serde's message lists what there is to choose from.
        () => return error.to_string(),
    };
    let given = match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        value => value.to_string(),
    };
    format!("{given} has to be {wanted}")
}

/// The keys of a type with their schemas.
pub fn properties<T: JsonSchema>() -> BTreeMap<String, Value> {
    let schema = schemars::schema_for!(T).to_value();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties.into_iter().collect()
}

/// `awsRegion` → `PULSAR_IO_DYNAMODB_AWS_REGION`.
pub fn variable(key: &str) -> String {
    let mut name = ENVIRONMENT_PREFIX.to_string();
    for character in key.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubernetes_service_of_this_name_is_no_configuration() {
        for name in ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP_ADDR"] {
            assert!(is_kubernetes(&format!("PULSAR_IO_DYNAMODB_{name}")), "{name}");
        }
        assert!(!is_kubernetes("PULSAR_IO_DYNAMODB_AWS_REGOIN"));
    }

    #[test]
    fn variables_are_named_after_keys() {
        assert_eq!(variable("awsDynamodbStreamArn"), "PULSAR_IO_DYNAMODB_AWS_DYNAMODB_STREAM_ARN");
    }

    #[test]
    fn a_syntax_error_says_where_and_quotes_no_secret() {
        let path = std::env::temp_dir().join(format!("broken-{}.yaml", std::process::id()));
        fs::write(&path, "configs:\n  awsCredentialPluginParam: \"hush\n  x: 1\n").expect("written");
        let error = read(&path).expect_err("broken").to_string();
        fs::remove_file(path).expect("removed");
        assert!(error.contains("line 3") && !error.contains("hush"), "{error}");
    }
}
