//! Who we are to AWS: where credentials come from. `kept` says when they are asked for.

use std::{env, fs, path::PathBuf, process::Stdio, time::SystemTime};

use aws_config::{
    ConfigLoader, default_provider::credentials::DefaultCredentialsChain, environment::EnvironmentVariableCredentialsProvider,
    profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials as Keys,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_types::{SdkConfig, origin::Origin, region::Region};
use chrono::DateTime;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::failure::classify;

/// Where the credentials come from.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Environment, profile, web identity, container or instance role: whichever is there first.
    #[default]
    DefaultChain,
    Static {
        access_key: String,
        secret_key: SecretString,
        session_token: Option<SecretString>,
    },
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and nothing else.
    Environment,
    /// A profile of the shared configuration files, or of `file`. Without a name, `AWS_PROFILE` or `default`.
    Profile {
        name: Option<String>,
        file: Option<PathBuf>,
    },
    /// What a command prints, in the form of the AWS command line's `credential_process`.
    Process {
        command: SecretString,
    },
    /// A role that is assumed with an identity provider's token. What is not given is in the variables that Kubernetes sets.
    WebIdentity {
        token_file: Option<PathBuf>,
        role_arn: Option<String>,
        session_name: Option<String>,
        sts: Sts,
    },
    /// A role that is assumed with `base`, and again before the session ends.
    AssumeRole {
        role_arn: String,
        session_name: String,
        external_id: Option<SecretString>,
        sts: Sts,
        base: Box<Credentials>,
    },
}

/// Which STS is asked for a role; what is not given is as for every other service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sts {
    pub endpoint: Option<String>,
    pub region: Option<String>,
}

const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const ROLE_ARN: &str = "AWS_ROLE_ARN";
const SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
const DEFAULT_SESSION_NAME: &str = "pulsar-io-dynamodb";

impl Credentials {
    /// Tells the loader what also decides other settings: a profile may hold the region.
    pub(super) fn prepare(&self, mut loader: ConfigLoader) -> ConfigLoader {
        match self {
            Credentials::Profile { name, file } => {
                if let Some(name) = name {
                    loader = loader.profile_name(name);
                }
                match file {
                    Some(file) => loader.profile_files(profile_files(file)),
                    None => loader,
                }
            }
            Credentials::AssumeRole { base, .. } => base.prepare(loader),
            _ => loader,
        }
    }

    /// The STS that these credentials come from, if they do.
    pub(super) fn sts(&self) -> Option<&Sts> {
        match self {
            Credentials::AssumeRole { sts, .. } | Credentials::WebIdentity { sts, .. } => Some(sts),
            _ => None,
        }
    }

    /// Asks for credentials once. Files, variables and commands are read again each time, so that what a person mends counts without a restart.
    ///
    /// `config` has region and HTTP client, and the retries and time-outs for STS.
    pub(super) async fn fetch(&self, config: &SdkConfig) -> provider::Result {
        match self {
            Credentials::DefaultChain => {
                let mut chain = DefaultCredentialsChain::builder().configure(provider_config(config));
                chain.set_region(config.region().cloned());
                chain.build().await.provide_credentials().await
            }
            Credentials::Static { access_key, secret_key, session_token } => {
                let token = session_token.as_ref().map(|token| token.expose_secret().to_owned());
                Ok(Keys::new(access_key, secret_key.expose_secret(), token, None, "configuration"))
            }
            Credentials::Environment => EnvironmentVariableCredentialsProvider::new().provide_credentials().await,
            Credentials::Profile { name, file } => {
                let mut builder = ProfileFileCredentialsProvider::builder().configure(&provider_config(config));
                if let Some(name) = name {
                    builder = builder.profile_name(name);
                }
                if let Some(file) = file {
                    builder = builder.profile_files(profile_files(file));
                }
                builder.build().provide_credentials().await
            }
            Credentials::Process { command } => run(command.expose_secret()).await,
            Credentials::WebIdentity { token_file, role_arn, session_name, sts } => {
                let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
                let missing =
                    |name: &str| CredentialsError::not_loaded(format!("neither the configuration nor the variable {name} is set"));
                let file = token_file.clone().or_else(|| variable(TOKEN_FILE).map(PathBuf::from)).ok_or_else(|| missing(TOKEN_FILE))?;
                let role_arn = role_arn.clone().or_else(|| variable(ROLE_ARN)).ok_or_else(|| missing(ROLE_ARN))?;
                let session_name = session_name.clone().or_else(|| variable(SESSION_NAME)).unwrap_or_else(|| DEFAULT_SESSION_NAME.into());
                let token = fs::read_to_string(&file)
                    .map_err(|error| CredentialsError::provider_error(format!("the token file {}: {error}", file.display())))?;
                let request = sts.client(config, None).assume_role_with_web_identity().role_arn(&role_arn).role_session_name(session_name);
                match request.web_identity_token(token.trim()).send().await {
                    Ok(answer) => session(answer.credentials, &role_arn),
                    Err(error) => {
                        let doing =
                            format!("assume the role {role_arn} with the token in {} (sts:AssumeRoleWithWebIdentity)", file.display());
                        Err(CredentialsError::provider_error(classify(doing, error)))
                    }
                }
            }
            Credentials::AssumeRole { role_arn, session_name, external_id, sts, base } => {
                let base = SharedCredentialsProvider::new(Once { credentials: (**base).clone(), config: config.clone() });
                let request = sts.client(config, Some(base)).assume_role().role_arn(role_arn).role_session_name(session_name);
                let external_id = external_id.as_ref().map(|id| id.expose_secret().to_owned());
                match request.set_external_id(external_id).send().await {
                    Ok(answer) => session(answer.credentials, role_arn),
                    Err(error) => {
                        let doing = format!("assume the role {role_arn} (sts:AssumeRole)");
                        Err(CredentialsError::provider_error(classify(doing, error)))
                    }
                }
            }
        }
    }
}

impl Sts {
    /// Without credentials for what needs none.
    pub(super) fn client(&self, config: &SdkConfig, credentials: Option<SharedCredentialsProvider>) -> aws_sdk_sts::Client {
        let mut builder = config.to_builder();
        builder.set_credentials_provider(credentials);
        if let Some(endpoint) = &self.endpoint {
            builder.set_endpoint_url(Some(endpoint.clone()));
            // Else AWS_ENDPOINT_URL_STS counts more.
            builder.insert_origin("endpoint_url", Origin::shared_config());
        }
        if let Some(region) = &self.region {
            builder.set_region(Region::new(region.clone()));
        }
        aws_sdk_sts::Client::new(&builder.build())
    }
}

/// What a role is assumed with: asked for when STS is called.
#[derive(Debug)]
struct Once {
    credentials: Credentials,
    config: SdkConfig,
}

impl ProvideCredentials for Once {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials.fetch(&self.config))
    }
}

fn session(answer: Option<aws_sdk_sts::types::Credentials>, role_arn: &str) -> provider::Result {
    let keys = answer.ok_or_else(|| CredentialsError::unhandled(format!("the answer of STS has no credentials for {role_arn}")))?;
    let ends = SystemTime::try_from(keys.expiration)
        .map_err(|_| CredentialsError::unhandled(format!("the session of {role_arn} ends at no time that is known here")))?;
    Ok(Keys::new(keys.access_key_id, keys.secret_access_key, Some(keys.session_token), Some(ends), "role"))
}

fn provider_config(config: &SdkConfig) -> ProviderConfig {
    let mut provider = ProviderConfig::default().with_region(config.region().cloned());
    if let Some(http_client) = config.http_client() {
        provider = provider.with_http_client(http_client);
    }
    if let Some(retries) = config.retry_config() {
        provider = provider.with_retry_config(retries.clone());
    }
    match config.timeout_config() {
        Some(timeouts) => provider.with_timeout_config(timeouts.clone()),
        None => provider,
    }
}

/// In the form of `~/.aws/config` (`[profile NAME]`) or of `~/.aws/credentials` (`[NAME]`).
fn profile_files(file: &std::path::Path) -> EnvConfigFiles {
    EnvConfigFiles::builder().with_file(EnvConfigFileKind::Config, file).with_file(EnvConfigFileKind::Credentials, file).build()
}

// === a command that prints credentials ===

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: Option<String>,
}

/// What a failing command said, at most: enough for its reason.
const SAID: usize = 300;

/// The SDK has this too, but leaves a command that hangs behind each time that it gives up.
async fn run(command: &str) -> provider::Result {
    let failed = |why: String| Err(CredentialsError::provider_error(format!("the command of awsCredentialProcess {why}")));
    let mut shell = tokio::process::Command::new("sh");
    let output = shell.arg("-c").arg(command).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = match output {
        Ok(output) => output,
        Err(error) => return failed(format!("could not be run: {error}")),
    };
    if !output.status.success() {
        let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID).collect();
        return failed(format!("failed ({}): {said}", output.status));
    }
    // serde's messages may quote a value, and these are secrets.
    let Ok(printed) = serde_json::from_slice::<Printed>(&output.stdout) else {
        return failed(
            r#"has to print JSON like {"Version":1,"AccessKeyId":"…","SecretAccessKey":"…","SessionToken":"…","Expiration":"…"}"#.into(),
        );
    };
    if printed.version != 1 {
        return failed(format!("printed version {}; 1 is known", printed.version));
    }
    let ends = match printed.expiration.as_deref().map(DateTime::parse_from_rfc3339) {
        None => None,
        Some(Ok(time)) => Some(SystemTime::from(time)),
        Some(Err(_)) => return failed("printed an Expiration that is no time: write 2026-11-21T08:00:00Z".into()),
    };
    let token = printed.session_token.map(|token| token.expose_secret().to_owned());
    Ok(Keys::new(printed.access_key_id, printed.secret_access_key.expose_secret(), token, ends, "process"))
}
