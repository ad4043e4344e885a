//! Credentials and region: the keys that both workers have.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::validate::Problems;
use crate::dynamodb::{client, credentials::Credentials};

/// The Java connector's plugin names. Its own classes are not there to be loaded: each name stands for a way to get credentials.
const DEFAULT_CHAIN_PLUGIN: &str = "org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin";
const ASSUME_ROLE_PLUGIN: &str = "org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin";

/// Keys of `configs` that say who we are to AWS.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsKeys {
    /// The AWS region, such as `us-east-1`. Without it, the region of the environment (`AWS_REGION`) or of the profile. May be given together with endpoints.
    pub aws_region: Option<String>,
    /// How to get credentials, by the Java connector's names: empty with `awsCredentialPluginParam` for static keys,
    /// `org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin` for the default chain,
    /// `org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin` for a role.
    pub aws_credential_plugin_name: Option<String>,
    /// JSON for the plugin: `{"accessKey":"…","secretKey":"…","sessionToken":"…"}` (the token is optional), or
    /// `{"roleArn":"…","roleSessionName":"…","externalId":"…"}` (the external id is optional). Not needed for the default chain.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_credential_plugin_param: Option<SecretString>,
    /// A profile of the shared AWS configuration files.
    pub aws_profile: Option<String>,
    /// Another file to read `awsProfile` from.
    pub aws_profile_file: Option<PathBuf>,
    /// A role to assume, with the credentials that the other keys (or the default chain) give.
    pub aws_role_arn: Option<String>,
    /// The session's name for `awsRoleArn`, as CloudTrail shows it. Default: `pulsar-io-dynamodb`.
    pub aws_role_session_name: Option<String>,
    /// The external id that the role's owner asks for.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_external_id: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StaticKeys {
    access_key: String,
    secret_key: SecretString,
    session_token: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Role {
    role_arn: String,
    role_session_name: String,
    external_id: Option<SecretString>,
}

const DEFAULT_SESSION_NAME: &str = "pulsar-io-dynamodb";

impl AwsKeys {
    pub fn settings(&self, problems: &mut Problems) -> client::Settings {
        let region = self.aws_region.clone().filter(|region| !region.trim().is_empty());
        client::Settings { region, credentials: self.credentials(problems) }
    }

    fn credentials(&self, problems: &mut Problems) -> Credentials {
        let base = match (self.plugin(problems), &self.aws_profile) {
            (Some(_), Some(_)) => {
                problems.add(
                    "configs.awsProfile",
                    "is given together with awsCredentialPluginName or awsCredentialPluginParam; keep one of them",
                );
                Credentials::DefaultChain
            }
            (Some(plugin), None) => plugin,
            (None, Some(name)) => Credentials::Profile { name: name.clone(), file: self.aws_profile_file.clone() },
            (None, None) => Credentials::DefaultChain,
        };
        problems.require(
            self.aws_profile_file.is_none() || self.aws_profile.is_some(),
            "configs.awsProfileFile",
            "needs awsProfile: which profile of the file?",
        );
        let Some(role_arn) = &self.aws_role_arn else {
            for (key, given) in
                [("awsRoleSessionName", self.aws_role_session_name.is_some()), ("awsExternalId", self.aws_external_id.is_some())]
            {
                problems.require(!given, &format!("configs.{key}"), "needs awsRoleArn: which role?");
            }
            return base;
        };
        problems.require(role_arn.starts_with("arn:"), "configs.awsRoleArn", "has to be a role's ARN: arn:aws:iam::<account>:role/<name>");
        Credentials::AssumeRole {
            role_arn: role_arn.clone(),
            session_name: self.aws_role_session_name.clone().unwrap_or_else(|| DEFAULT_SESSION_NAME.into()),
            external_id: self.aws_external_id.clone(),
            base: Box::new(base),
        }
    }

    /// What the Java connector's two keys say, if they say anything.
    fn plugin(&self, problems: &mut Problems) -> Option<Credentials> {
        use secrecy::ExposeSecret;
        let name = self.aws_credential_plugin_name.as_deref().map(str::trim).unwrap_or_default();
        // The Java connector's documented default is one blank.
        let param = self.aws_credential_plugin_param.as_ref().map(|param| param.expose_secret().trim()).filter(|param| !param.is_empty());
        const PARAM: &str = "configs.awsCredentialPluginParam";
        // serde's messages may quote a value, and this one is a secret: they are not shown.
        match (name, param) {
            ("", None) => None,
            ("", Some(json)) => match serde_json::from_str::<StaticKeys>(json) {
                Ok(keys) => Some(Credentials::Static {
                    access_key: keys.access_key,
                    secret_key: keys.secret_key,
                    session_token: keys.session_token,
                }),
                Err(_) => {
                    problems.add(PARAM, r#"has to be JSON like {"accessKey":"…","secretKey":"…"}, with "sessionToken" for temporary keys"#);
                    None
                }
            },
            (DEFAULT_CHAIN_PLUGIN, _) => None,
            (ASSUME_ROLE_PLUGIN, param) => match param.and_then(|json| serde_json::from_str::<Role>(json).ok()) {
                Some(role) => Some(Credentials::AssumeRole {
                    role_arn: role.role_arn,
                    session_name: role.role_session_name,
                    external_id: role.external_id,
                    base: Box::default(),
                }),
                None => {
                    problems.add(PARAM, r#"has to be JSON like {"roleArn":"arn:aws:iam::…","roleSessionName":"…"}, with "externalId" where the role asks for one"#);
                    None
                }
            },
            (other, _) => {
                problems.add(
                    "configs.awsCredentialPluginName",
                    format!(
                        "{other:?} is not known: leave it empty for static keys, or write {DEFAULT_CHAIN_PLUGIN} or {ASSUME_ROLE_PLUGIN}"
                    ),
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(json: &str) -> (String, Vec<String>) {
        let keys: AwsKeys = serde_json::from_str(json).expect(json);
        let mut problems = Problems::default();
        let credentials = format!("{:?}", keys.settings(&mut problems).credentials);
        let problems = problems.into_result("test").err().map(|error| error.why().lines().skip(1).map(str::to_owned).collect());
        (credentials, problems.unwrap_or_default())
    }

    #[test]
    fn each_kind_of_credentials_has_its_keys() {
        for (json, expected) in [
            ("{}", "DefaultChain"),
            (r#"{"awsCredentialPluginParam":" "}"#, "DefaultChain"),
            (r#"{"awsCredentialPluginName":"org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin"}"#, "DefaultChain"),
            (r#"{"awsCredentialPluginParam":"{\"accessKey\":\"AK\",\"secretKey\":\"hush\"}"}"#, r#"Static { access_key: "AK""#),
            (r#"{"awsProfile":"ops"}"#, r#"Profile { name: "ops", file: None }"#),
            (r#"{"awsProfile":"ops","awsProfileFile":"f"}"#, r#"file: Some("f")"#),
            (r#"{"awsRoleArn":"arn:aws:iam::1:role/r"}"#, r#"session_name: "pulsar-io-dynamodb", external_id: None, base: DefaultChain"#),
            (r#"{"awsRoleArn":"arn:aws:iam::1:role/r","awsProfile":"ops"}"#, r#"base: Profile { name: "ops""#),
            (
                r#"{"awsCredentialPluginName":"org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin","awsCredentialPluginParam":"{\"roleArn\":\"arn:r\",\"roleSessionName\":\"s\"}"}"#,
                r#"AssumeRole { role_arn: "arn:r", session_name: "s""#,
            ),
        ] {
            let (credentials, problems) = credentials(json);
            assert!(credentials.contains(expected), "{json}: {credentials}");
            assert!(problems.is_empty(), "{json}: {problems:?}");
            assert!(!credentials.contains("hush"), "a secret shows: {credentials}");
        }
    }

    #[test]
    fn wrong_credentials_are_told_without_their_secret() {
        for (json, expected) in [
            (r#"{"awsCredentialPluginParam":"{\"accessKey\":\"AK\",\"secret\":\"hush\"}"}"#, "has to be JSON like"),
            (r#"{"awsCredentialPluginParam":"hush"}"#, "has to be JSON like"),
            (r#"{"awsCredentialPluginName":"my.Plugin"}"#, "is not known"),
            (r#"{"awsCredentialPluginName":"org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin"}"#, "roleArn"),
            (r#"{"awsProfile":"p","awsCredentialPluginParam":"{\"accessKey\":\"AK\",\"secretKey\":\"hush\"}"}"#, "keep one"),
            (r#"{"awsProfileFile":"f"}"#, "which profile"),
            (r#"{"awsExternalId":"hush"}"#, "which role"),
            (r#"{"awsRoleArn":"r"}"#, "role's ARN"),
        ] {
            let (_, problems) = credentials(json);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{json}: {problems:?}");
            assert!(!problems.iter().any(|problem| problem.contains("hush")), "a secret shows: {problems:?}");
        }
    }
}
