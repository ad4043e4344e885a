//! Credentials, region and HTTP: the keys that both workers have.

use std::{fmt, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{load, source::endpoint, validate::Problems};
use crate::dynamodb::{
    client,
    credentials::{Credentials, Sts},
    http,
};

/// The Java connector's plugin names. Its own classes are not there to be loaded: each name stands for a way to get credentials.
const DEFAULT_CHAIN_PLUGIN: &str = "org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin";
const ASSUME_ROLE_PLUGIN: &str = "org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin";

/// Keys of `configs` that say where AWS is, how it is called and who we are to it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsKeys {
    /// The AWS region, such as `us-east-1`. Without it, the region of the stream's or table's ARN, of the environment (`AWS_REGION`), or of the
    /// profile. May be given together with endpoints.
    pub aws_region: Option<String>,
    /// How to get credentials, by the Java connector's names: empty with `awsCredentialPluginParam` for static keys,
    /// `org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin` for the default chain,
    /// `org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin` for a role.
    pub aws_credential_plugin_name: Option<String>,
    /// JSON for the plugin: `{"accessKey":"…","secretKey":"…","sessionToken":"…"}` (the token is optional), or
    /// `{"roleArn":"…","roleSessionName":"…","externalId":"…"}` (the external id is optional). Not needed for the default chain.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_credential_plugin_param: Option<SecretString>,
    #[serde(flatten)]
    pub credentials: CredentialKeys,
    /// Accept any certificate of any server, even an expired or forged one. For tests with a self-signed certificate, never for AWS itself:
    /// whoever is in between can read and change everything. The log warns about it at every start.
    pub trust_all_certificates: bool,
    /// Requests to AWS under way at once, over all services; more wait for their turn. 1 to 100,000. Default: no limit of its own (the workers bound
    /// their requests).
    pub http_max_concurrency: Option<u64>,
    /// How long a connection may take to be there. Milliseconds, 100 to 60,000.
    pub http_connect_timeout: u64,
    /// How long a request may take from being sent to its whole answer. Milliseconds, 1,000 to 600,000. Shorter is no better: what timed out may still be
    /// written, and a write that lands late can overtake a newer one.
    pub http_read_timeout: u64,
}

impl Default for AwsKeys {
    fn default() -> Self {
        let http = http::Settings::default();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            aws_region: None,
            aws_credential_plugin_name: None,
            aws_credential_plugin_param: None,
            credentials: CredentialKeys::default(),
            trust_all_certificates: false,
            http_max_concurrency: None,
            http_connect_timeout: millis(http.connect_timeout),
            http_read_timeout: millis(http.read_timeout),
        }
    }
}

/// Where credentials come from. By Flink's names, where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provider {
    /// What the other keys say; without any, the default chain: environment, profile, web identity, container or instance role.
    #[serde(rename = "AUTO")]
    Auto,
    /// `awsAccessKey`, `awsSecretKey`, and `awsSessionToken` for temporary keys.
    #[serde(rename = "BASIC")]
    Basic,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, and nothing else.
    #[serde(rename = "ENV_VAR")]
    EnvVar,
    /// `awsProfile` of the shared configuration files or of `awsProfileFile`.
    #[serde(rename = "PROFILE")]
    Profile,
    /// `awsRoleArn`, with `awsRoleSource` or the other keys as the credentials to assume it with.
    #[serde(rename = "ASSUME_ROLE")]
    AssumeRole,
    /// `awsWebIdentityTokenFile` and `awsRoleArn`, or the variables that Kubernetes sets.
    #[serde(rename = "WEB_IDENTITY_TOKEN")]
    WebIdentityToken,
    /// `awsCredentialProcess`.
    #[serde(rename = "PROCESS")]
    Process,
    #[serde(rename = "SYS_PROP")]
    #[schemars(skip)]
    SysProp,
    #[serde(rename = "CUSTOM")]
    #[schemars(skip)]
    Custom,
}

/// Who we are to AWS; also what a role is assumed with.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialKeys {
    /// Where credentials come from: `AUTO` (default: what the other keys say, else the default chain), `BASIC`, `ENV_VAR`, `PROFILE`, `ASSUME_ROLE`,
    /// `WEB_IDENTITY_TOKEN` or `PROCESS`. Not needed, except for `ENV_VAR`, and for `PROFILE` and `WEB_IDENTITY_TOKEN` by the environment alone.
    #[schemars(with = "Option<Provider>")]
    pub aws_credentials_provider: Option<Provider>,
    /// The id of an access key. With `awsSecretKey`.
    pub aws_access_key: Option<String>,
    /// The secret of the access key.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_secret_key: Option<SecretString>,
    /// The session token of temporary keys.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_session_token: Option<SecretString>,
    /// A profile of the shared AWS configuration files.
    pub aws_profile: Option<String>,
    /// Another file to read the profile from, in the form of `~/.aws/credentials` or of `~/.aws/config`.
    pub aws_profile_file: Option<PathBuf>,
    /// A command that prints credentials as JSON, as the AWS command line's `credential_process` does. A shell runs it, with this process's rights.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_credential_process: Option<SecretString>,
    /// A role to assume, with the credentials that `awsRoleSource`, the other keys, or the default chain give.
    pub aws_role_arn: Option<String>,
    /// The session's name for `awsRoleArn`, as CloudTrail shows it. Default: `pulsar-io-dynamodb`.
    pub aws_role_session_name: Option<String>,
    /// The external id that the role's owner asks for.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub aws_external_id: Option<SecretString>,
    /// What `awsRoleArn` is assumed with: a mapping with the keys of credentials once more (`awsCredentialsProvider`, `awsAccessKey`, …, also another
    /// `awsRoleArn`). Below `secrets` and in the environment it is JSON.
    #[schemars(with = "Option<Map<String, Value>>", extend("writeOnly" = true))]
    pub aws_role_source: Option<RoleSource>,
    /// A file with a token of an identity provider, to assume `awsRoleArn` with. It is read again for each session. Kubernetes sets the variable
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`, which the default chain takes.
    pub aws_web_identity_token_file: Option<PathBuf>,
    /// URL of STS, instead of the region's own.
    pub aws_sts_endpoint: Option<String>,
    /// The region whose STS is asked. Default: the region of everything else.
    pub aws_sts_region: Option<String>,
}

/// The keys of a role's own credentials, not yet read. Never shown: there may be secrets in it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct RoleSource(Map<String, Value>);

impl fmt::Debug for RoleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoleSource([REDACTED])")
    }
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
        let region = text(&self.aws_region);
        is_region(&region, "configs.awsRegion", problems);
        let within = |value: u64, range: std::ops::RangeInclusive<u64>, key: &str, problems: &mut Problems| {
            problems.require(range.contains(&value), key, format!("has to be from {} to {}", range.start(), range.end()));
        };
        if let Some(limit) = self.http_max_concurrency {
            within(limit, 1..=100_000, "configs.httpMaxConcurrency", problems);
        }
        within(self.http_connect_timeout, 100..=60_000, "configs.httpConnectTimeout", problems);
        within(self.http_read_timeout, 1_000..=600_000, "configs.httpReadTimeout", problems);
        let sts = Sts::default();
        client::Settings {
            region,
            credentials: self.credentials.credentials(self.plugin(problems), &sts, "configs.", problems),
            http: http::Settings {
                trust_all_certificates: self.trust_all_certificates,
                max_concurrency: self.http_max_concurrency.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
                connect_timeout: Duration::from_millis(self.http_connect_timeout),
                read_timeout: Duration::from_millis(self.http_read_timeout),
            },
        }
    }

    /// What the Java connector's two keys say, if they say anything.
    fn plugin(&self, problems: &mut Problems) -> Option<Credentials> {
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
                    sts: self.credentials.sts(&Sts::default(), "configs.", &mut Problems::default()),
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

impl CredentialKeys {
    /// What these keys say. `plugin` is what the Java connector's keys say, `sts` the place of STS one level above, `prefix` where the keys are.
    fn credentials(&self, plugin: Option<Credentials>, sts: &Sts, prefix: &str, problems: &mut Problems) -> Credentials {
        let sts = self.sts(sts, prefix, problems);
        let provider = self.aws_credentials_provider.unwrap_or(Provider::Auto);
        let at = |key: &str| format!("{prefix}{key}");
        match provider {
            Provider::SysProp => problems.add(
                at("awsCredentialsProvider"),
                "SYS_PROP reads a JVM's system properties, and there is no JVM here: write ENV_VAR, or BASIC with awsAccessKey and awsSecretKey",
            ),
            Provider::Custom => problems.add(
                at("awsCredentialsProvider"),
                "CUSTOM loads a Java class: write PROCESS, with a command that prints the credentials as JSON in awsCredentialProcess",
            ),
            _ => {}
        }
        self.only_what_counts(provider, plugin.is_some(), prefix, problems);
        let role_arn = text(&self.aws_role_arn);
        if let Some(arn) = &role_arn {
            problems.require(arn.starts_with("arn:"), &at("awsRoleArn"), "has to be a role's ARN: arn:aws:iam::<account>:role/<name>");
        }
        let by_token = provider == Provider::WebIdentityToken || (provider == Provider::Auto && self.aws_web_identity_token_file.is_some());
        if by_token {
            // Each may come from the environment, where Kubernetes puts them.
            let own = (self.aws_web_identity_token_file.is_some(), role_arn.is_some());
            problems.require(
                own.0 || !own.1,
                &at("awsWebIdentityTokenFile"),
                "is missing: the file with the token to assume awsRoleArn with",
            );
            problems.require(own.1 || !own.0, &at("awsRoleArn"), "is missing: which role is assumed with the token?");
            return Credentials::WebIdentity {
                token_file: self.aws_web_identity_token_file.clone(),
                role_arn,
                session_name: text(&self.aws_role_session_name),
                sts,
            };
        }
        match (provider, role_arn) {
            (Provider::AssumeRole, None) => {
                problems.add(at("awsRoleArn"), "is missing: which role?");
                Credentials::default()
            }
            (Provider::AssumeRole | Provider::Auto, Some(role_arn)) => {
                let base = match &self.aws_role_source {
                    Some(RoleSource(keys)) => {
                        let prefix = at("awsRoleSource.");
                        let keys: CredentialKeys = load::mapping(keys.clone(), &prefix, problems);
                        keys.credentials(None, &sts, &prefix, problems)
                    }
                    None => self.leaf(Provider::Auto, plugin, prefix, problems),
                };
                Credentials::AssumeRole {
                    role_arn,
                    session_name: text(&self.aws_role_session_name).unwrap_or_else(|| DEFAULT_SESSION_NAME.into()),
                    external_id: self.aws_external_id.clone(),
                    sts,
                    base: Box::new(base),
                }
            }
            (provider, _) => self.leaf(provider, plugin, prefix, problems),
        }
    }

    /// Credentials that are had without a role.
    fn leaf(&self, provider: Provider, plugin: Option<Credentials>, prefix: &str, problems: &mut Problems) -> Credentials {
        let at = |key: &str| format!("{prefix}{key}");
        let keys_given = self.aws_access_key.is_some() || self.aws_secret_key.is_some();
        let process = self.aws_credential_process.as_ref().filter(|command| !command.expose_secret().trim().is_empty());
        match provider {
            Provider::EnvVar => return Credentials::Environment,
            Provider::Process if process.is_none() => problems.add(at("awsCredentialProcess"), "is missing: which command?"),
            _ => {}
        }
        if provider == Provider::Basic || keys_given {
            let (access_key, secret_key) = (text(&self.aws_access_key), self.aws_secret_key.clone());
            problems.require(access_key.is_some(), &at("awsAccessKey"), "is missing: static keys are awsAccessKey and awsSecretKey");
            problems.require(secret_key.is_some(), &at("awsSecretKey"), "is missing: static keys are awsAccessKey and awsSecretKey");
            return Credentials::Static {
                access_key: access_key.unwrap_or_default(),
                secret_key: secret_key.unwrap_or_default(),
                session_token: self.aws_session_token.clone(),
            };
        }
        if let Some(command) = process {
            return Credentials::Process { command: command.clone() };
        }
        let profile = text(&self.aws_profile);
        if provider == Provider::Profile || profile.is_some() {
            return Credentials::Profile { name: profile, file: self.aws_profile_file.clone() };
        }
        plugin.unwrap_or_default()
    }

    /// A key that would be silently left unread is a problem.
    fn only_what_counts(&self, provider: Provider, plugin: bool, prefix: &str, problems: &mut Problems) {
        let role = self.aws_role_arn.is_some() || provider == Provider::AssumeRole;
        let token = self.aws_web_identity_token_file.is_some() || provider == Provider::WebIdentityToken;
        // What a key needs to count. Sources of credentials first.
        let sources = [
            ("awsCredentialPluginName and awsCredentialPluginParam", plugin, None),
            ("awsAccessKey", self.aws_access_key.is_some() || self.aws_secret_key.is_some(), Some(Provider::Basic)),
            ("awsProfile", self.aws_profile.is_some(), Some(Provider::Profile)),
            ("awsCredentialProcess", self.aws_credential_process.is_some(), Some(Provider::Process)),
            ("awsWebIdentityTokenFile", self.aws_web_identity_token_file.is_some(), Some(Provider::WebIdentityToken)),
            ("awsRoleSource", self.aws_role_source.is_some(), Some(Provider::AssumeRole)),
        ];
        let mut given = sources.iter().filter(|(_, given, _)| *given);
        if let (Some((first, ..)), Some((second, ..))) = (given.next(), given.next()) {
            problems.add(format!("{prefix}{second}"), format!("is given together with {first}; keep one of them"));
        }
        let named = !matches!(provider, Provider::Auto | Provider::SysProp | Provider::Custom);
        for (key, _, own) in sources.iter().filter(|(_, given, own)| named && *given && *own != Some(provider)) {
            // A role is assumed with any of them but a token, which is a way of its own.
            let assumes = provider == Provider::AssumeRole && *own != Some(Provider::WebIdentityToken);
            problems.require(assumes, &format!("{prefix}{key}"), format!("has no effect with awsCredentialsProvider: {}", name(provider)));
        }
        let plain = named && !matches!(provider, Provider::AssumeRole | Provider::WebIdentityToken);
        problems.require(
            !plain || self.aws_role_arn.is_none(),
            &format!("{prefix}awsRoleArn"),
            format!("has no effect with awsCredentialsProvider: {}; write ASSUME_ROLE, or leave the provider out", name(provider)),
        );
        problems.require(
            self.aws_session_token.is_none()
                || self.aws_access_key.is_some()
                || self.aws_secret_key.is_some()
                || provider == Provider::Basic,
            &format!("{prefix}awsSessionToken"),
            "needs awsAccessKey and awsSecretKey: the token of which keys?",
        );
        problems.require(
            self.aws_profile_file.is_none() || self.aws_profile.is_some() || provider == Provider::Profile,
            &format!("{prefix}awsProfileFile"),
            "needs awsProfile: which profile of the file?",
        );
        problems.require(
            self.aws_role_session_name.is_none() || role || token,
            &format!("{prefix}awsRoleSessionName"),
            "needs awsRoleArn: which role?",
        );
        problems.require(
            self.aws_external_id.is_none() || (role && !token),
            &format!("{prefix}awsExternalId"),
            if token { "is not asked for when a role is assumed with a token" } else { "needs awsRoleArn: which role?" },
        );
        problems.require(
            self.aws_role_source.is_none() || role,
            &format!("{prefix}awsRoleSource"),
            "needs awsRoleArn: which role is assumed with it?",
        );
    }

    /// Where STS is; what is not said here is as one level above.
    fn sts(&self, above: &Sts, prefix: &str, problems: &mut Problems) -> Sts {
        endpoint(&self.aws_sts_endpoint, &format!("{prefix}awsStsEndpoint"), problems);
        let region = text(&self.aws_sts_region);
        is_region(&region, &format!("{prefix}awsStsRegion"), problems);
        Sts { endpoint: text(&self.aws_sts_endpoint).or_else(|| above.endpoint.clone()), region: region.or_else(|| above.region.clone()) }
    }
}

fn name(provider: Provider) -> String {
    serde_json::to_value(provider).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn text(value: &Option<String>) -> Option<String> {
    value.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Such as `us-gov-west-1`, `eusc-de-east-1`; `ddblocal` and the like for emulators.
fn is_region(value: &Option<String>, key: &str, problems: &mut Problems) {
    let legal = |text: &String| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if let Some(text) = value.as_ref().filter(|text| !legal(text)) {
        problems.add(key, format!("{text:?} is no region: write one like us-east-1"));
    }
}

#[cfg(test)]
mod tests;
