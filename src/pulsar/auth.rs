//! Who we are to Pulsar: what a new connection shows the broker, and shows again when the broker asks.
//!
//! The methods are those of Pulsar's Java client, under the names that it gives them on the wire.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use super::{oauth2::OAuth2, tls};
use crate::error::{Error, Kind, Result};

/// How to authenticate.
#[derive(Debug, Clone)]
pub enum Authentication {
    Token(Token),
    Basic {
        user: String,
        password: SecretString,
    },
    /// By the certificate that the TLS connection shows.
    Certificate(ClientCertificate),
    /// By tokens that an identity provider gives out.
    OAuth2(Arc<OAuth2>),
}

/// A token to authenticate with.
#[derive(Debug, Clone)]
pub enum Token {
    Text(SecretString),
    /// Read for each connection, so that a token that is replaced in time never expires.
    File(PathBuf),
}

/// PEM files. Read for each connection, so that a certificate that is replaced in time never expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those that lead from it to the authority that the broker trusts.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authentication {
    /// The name on the wire.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::OAuth2(_) => "token",
            Self::Basic { .. } => "basic",
            Self::Certificate(_) => "tls",
        }
    }

    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        if let Self::Certificate(certificate) = self { Some(certificate) } else { None }
    }

    /// What the broker is shown now. May ask the identity provider, which takes as long as that one's limit.
    pub(super) async fn data(&self) -> Result<Vec<u8>> {
        match self {
            Self::Token(token) => token.read().map_err(|why| Error::new(Kind::Credentials, "authenticate to Pulsar", why)),
            Self::Basic { user, password } => Ok(format!("{user}:{}", password.expose_secret()).into_bytes()),
            Self::Certificate(_) => Ok(Vec::new()),
            Self::OAuth2(oauth2) => Ok(Box::pin(oauth2.token()).await?.expose_secret().as_bytes().to_vec()),
        }
    }

    /// The broker does not take any more what it was shown, or asks for it anew: `data` does not give the same again out of a store.
    pub(super) async fn not_again(&self, shown: &[u8]) {
        if let Self::OAuth2(oauth2) = self {
            oauth2.forget(shown).await;
        }
    }

    /// Reads the files that are needed, as they are now. Errors with the one that cannot be used, and why.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Token(token) => token.read().map(drop),
            Self::Basic { .. } => Ok(()),
            Self::Certificate(certificate) => tls::pair(certificate).map(drop),
            Self::OAuth2(oauth2) => oauth2.check(),
        }
    }
}

/// For whoever has to mend it; never a secret.
impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(Token::Text(_)) => f.write_str("the token"),
            Self::Token(Token::File(path)) => write!(f, "the token in {}", path.display()),
            Self::Basic { user, .. } => write!(f, "the user {user} and its password"),
            Self::Certificate(ClientCertificate { certificate, .. }) => write!(f, "the certificate in {}", certificate.display()),
            Self::OAuth2(oauth2) => write!(f, "{oauth2}"),
        }
    }
}

impl Token {
    /// The token as it is now, as bytes for the broker. Errors with the file that cannot be read, and why.
    fn read(&self) -> Result<Vec<u8>, String> {
        let text = match self {
            Self::Text(text) => text.expose_secret().to_owned(),
            Self::File(path) => fs::read_to_string(path).map_err(|error| format!("token file {}: {error}", path.display()))?,
        };
        Ok(text.trim().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_is_replaced_is_used_for_the_next_connection() {
        let path = std::env::temp_dir().join(format!("token-{}", std::process::id()));
        let authentication = Authentication::Token(Token::File(path.clone()));
        for token in ["first", "second"] {
            fs::write(&path, format!("{token}\n")).expect("written");
            assert_eq!(authentication.data().await.expect("readable"), token.as_bytes());
        }
        fs::remove_file(path).expect("removed");
    }

    #[tokio::test]
    async fn the_broker_is_shown_what_the_java_client_shows_it_and_nobody_else_is() {
        let hush = || SecretString::from("hush");
        let certificate = ClientCertificate { certificate: "client.pem".into(), key: "hush.pem".into() };
        for (authentication, method, data, told) in [
            (Authentication::Token(Token::Text(hush())), "token", "hush", "the token"),
            (Authentication::Basic { user: "alice".into(), password: hush() }, "basic", "alice:hush", "alice"),
            (Authentication::Certificate(certificate), "tls", "", "client.pem"),
        ] {
            assert_eq!((authentication.method(), authentication.data().await.expect("there")), (method, data.as_bytes().to_vec()));
            assert!(authentication.to_string().contains(told) && !authentication.to_string().contains("hush"), "{authentication}");
            assert!(method == "tls" || !format!("{authentication:?}").contains("hush"), "{authentication:?}");
        }
    }
}
