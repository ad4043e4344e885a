//! Who we are to AWS.

use std::path::PathBuf;

use aws_config::{ConfigLoader, profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig, sts::AssumeRoleProvider};
use aws_credential_types::{Credentials as Keys, provider::SharedCredentialsProvider};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_types::SdkConfig;
use secrecy::{ExposeSecret, SecretString};

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
    /// A profile of the shared configuration files, or of `file`.
    Profile {
        name: String,
        file: Option<PathBuf>,
    },
    /// A role that is assumed with `base`, and again before the session ends.
    AssumeRole {
        role_arn: String,
        session_name: String,
        external_id: Option<SecretString>,
        base: Box<Credentials>,
    },
}

impl Credentials {
    /// Tells the loader what also decides other settings: a profile may hold the region.
    pub(super) fn prepare(&self, loader: ConfigLoader) -> ConfigLoader {
        match self {
            Credentials::Profile { name, file } => {
                let loader = loader.profile_name(name);
                match file {
                    Some(file) => loader.profile_files(profile_files(file)),
                    None => loader,
                }
            }
            Credentials::AssumeRole { base, .. } => base.prepare(loader),
            Credentials::DefaultChain | Credentials::Static { .. } => loader,
        }
    }

    /// The provider, made with a loaded configuration; `None` leaves the default chain as it is.
    pub(super) async fn provider(&self, config: &SdkConfig) -> Option<SharedCredentialsProvider> {
        match self {
            Credentials::DefaultChain => None,
            Credentials::Static { access_key, secret_key, session_token } => {
                let token = session_token.as_ref().map(|token| token.expose_secret().to_owned());
                let keys = Keys::new(access_key, secret_key.expose_secret(), token, None, "configuration");
                Some(SharedCredentialsProvider::new(keys))
            }
            Credentials::Profile { name, file } => {
                let mut provider_config = ProviderConfig::default().with_region(config.region().cloned());
                if let Some(http_client) = config.http_client() {
                    provider_config = provider_config.with_http_client(http_client);
                }
                let mut builder = ProfileFileCredentialsProvider::builder().configure(&provider_config).profile_name(name);
                if let Some(file) = file {
                    builder = builder.profile_files(profile_files(file));
                }
                Some(SharedCredentialsProvider::new(builder.build()))
            }
            Credentials::AssumeRole { role_arn, session_name, external_id, base } => {
                let mut builder = AssumeRoleProvider::builder(role_arn).session_name(session_name).configure(config);
                if let Some(id) = external_id {
                    builder = builder.external_id(id.expose_secret());
                }
                let role = match Box::pin(base.provider(config)).await {
                    Some(base) => builder.build_from_provider(base).await,
                    None => builder.build().await,
                };
                Some(SharedCredentialsProvider::new(role))
            }
        }
    }
}

/// In the form of `~/.aws/config` (`[profile NAME]`) or of `~/.aws/credentials` (`[NAME]`).
fn profile_files(file: &std::path::Path) -> EnvConfigFiles {
    EnvConfigFiles::builder().with_file(EnvConfigFileKind::Config, file).with_file(EnvConfigFileKind::Credentials, file).build()
}
