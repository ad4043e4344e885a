//! Tokens of an identity provider, for its client credentials (RFC 6749, 4.4): what Pulsar's Java client does as `AuthenticationOAuth2`.

use std::{error::Error as _, fmt, fs, iter, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::tls;
use crate::error::{Error, Kind, Result};

/// For a token, with the question where to ask for it.
const LIMIT: Duration = Duration::from_secs(20);
/// Of an answer, in bytes. Tokens with many claims have some thousand.
const MAX_ANSWER: usize = 256 * 1024;
/// Where a provider says where it gives out tokens (OpenID Connect Discovery 1.0, 4).
const DISCOVERY: &str = ".well-known/openid-configuration";

/// Asks for tokens, and keeps each for most of its life.
#[derive(Debug)]
pub struct OAuth2 {
    client: ClientCredentials,
    /// Locked while a token is asked for: whoever needs one too waits for it.
    kept: Mutex<Option<Kept>>,
}

/// Who asks whom for what.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// `https://…`; `/.well-known/openid-configuration` below it says where tokens are given out.
    pub issuer: String,
    pub key: KeyFile,
    pub audience: Option<String>,
    pub scope: Option<String>,
}

/// JSON with `client_id` and `client_secret`.
#[derive(Debug, Clone)]
pub enum KeyFile {
    Text(SecretString),
    /// Read for each token.
    File(PathBuf),
}

#[derive(Deserialize)]
struct Key {
    client_id: String,
    client_secret: SecretString,
}

#[derive(Debug)]
struct Kept {
    token: SecretString,
    until: Instant,
}

#[derive(Deserialize)]
struct Discovered {
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    /// Seconds. A token whose life is not told is not kept.
    #[serde(default)]
    expires_in: f64,
}

/// RFC 6749, 5.2.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error: String,
    error_description: String,
}

impl OAuth2 {
    pub fn new(client: ClientCredentials) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// A token that is good for some time still.
    ///
    /// # Errors
    /// `Credentials` where the provider refuses; `Unavailable` where it does not answer.
    pub(super) async fn token(&self) -> Result<SecretString> {
        let mut kept = self.kept.lock().await;
        if let Some(Kept { token, .. }) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(token.clone());
        }
        let late = |_| Err(self.failed(Kind::Unavailable, format!("no answer within {} s", LIMIT.as_secs())));
        let granted = tokio::time::timeout(LIMIT, self.ask()).await.unwrap_or_else(late)?;
        let Granted { access_token: token, expires_in } = granted;
        tracing::debug!(issuer = self.client.issuer, expires_in, "a new token for Pulsar");
        *kept = Some(Kept { token: token.clone(), until: Instant::now() + kept_for(expires_in) });
        Ok(token)
    }

    /// The next token is another one, where this is the one that is kept.
    pub(super) async fn forget(&self, token: &[u8]) {
        let mut kept = self.kept.lock().await;
        if kept.as_ref().is_some_and(|kept| kept.token.expose_secret().as_bytes() == token) {
            *kept = None;
        }
    }

    /// Whether the key file can be used. Errors with what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        self.client.key.read().map(drop)
    }

    async fn ask(&self) -> Result<Granted> {
        let ClientCredentials { issuer, key, audience, scope } = &self.client;
        let key = key.read().map_err(|why| self.failed(Kind::Credentials, why))?;
        let http = self.http()?;
        let discovery = format!("{}/{DISCOVERY}", issuer.trim_end_matches('/'));
        let request = Request::get(&discovery).header(ACCEPT, "application/json").body(Full::default());
        let (status, body) = self.call(&http, &discovery, request).await?;
        let odd = |from: &str, why: &dyn fmt::Display| self.failed(Kind::Unavailable, format!("{from} answers with something else: {why}"));
        if status != StatusCode::OK {
            return Err(self.failed(Kind::NotFound, format!("{discovery} answers with {status}: is the issuer's URL right?")));
        }
        let Discovered { token_endpoint } = serde_json::from_slice(&body).map_err(|error| odd(&discovery, &error))?;

        let mut form =
            vec![("grant_type", "client_credentials"), ("client_id", &key.client_id), ("client_secret", key.client_secret.expose_secret())];
        form.extend(audience.as_deref().map(|audience| ("audience", audience)));
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        let request = Request::post(&token_endpoint)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form_of(&form)));
        let (status, body) = self.call(&http, &token_endpoint, request).await?;
        match status {
            // Not with the reader's words: they may quote a token.
            StatusCode::OK => serde_json::from_slice(&body).map_err(|_| odd(&token_endpoint, &"there is no access_token in it")),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let Refused { error, error_description } = serde_json::from_slice(&body).unwrap_or_default();
                let reasons: Vec<_> = [error, error_description].into_iter().filter(|reason| !reason.is_empty()).collect();
                let why = format!("{token_endpoint} refuses the client {} ({status}) {}", key.client_id, reasons.join(": "));
                Err(self.failed(Kind::Credentials, why.trim_end()))
            }
            _ => Err(self.failed(Kind::Unavailable, format!("{token_endpoint} answers with {status}"))),
        }
    }

    async fn call(&self, http: &Http, url: &str, request: http::Result<Request<Full<Bytes>>>) -> Result<(StatusCode, Bytes)> {
        let request = request.map_err(|error| self.failed(Kind::Invalid, format!("{url} is no URL: {error}")))?;
        let answer = http.request(request).await.map_err(|error| {
            let causes = iter::successors(error.source(), |cause| (*cause).source()).map(|cause| format!(": {cause}"));
            self.failed(Kind::Unavailable, format!("{url} does not answer: {error}{}", causes.collect::<String>()))
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.failed(Kind::Unavailable, format!("{url} does not answer in full: {error}")))?;
        Ok((status, body.to_bytes()))
    }

    /// Trusts what the machine trusts, as a browser does; Mozilla's authorities where it trusts nobody.
    fn http(&self) -> Result<Http> {
        let native = rustls_native_certs::load_native_certs();
        let mut roots = tls::mozillas();
        if !native.certs.is_empty() {
            roots.roots.clear();
            roots.add_parsable_certificates(native.certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| self.failed(Kind::Fatal, error))?.with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https))
    }

    fn failed(&self, kind: Kind, why: impl fmt::Display) -> Error {
        Error::new(kind, format!("get a token for Pulsar from {}", self.client.issuer), why)
    }
}

type Http = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

impl fmt::Display for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token that {} gave out", self.client.issuer)
    }
}

impl KeyFile {
    /// Errors without what is in it.
    fn read(&self) -> Result<Key, String> {
        let (named, text) = match self {
            Self::Text(text) => ("privateKey".to_owned(), text.clone()),
            Self::File(path) => {
                let named = format!("the key file {}", path.display());
                let text = fs::read_to_string(path).map_err(|error| format!("{named}: {error}"))?;
                (named, text.into())
            }
        };
        serde_json::from_str(text.expose_secret()).map_err(|_| format!("{named}: has to be JSON with client_id and client_secret"))
    }
}

/// Nine tenths of its life, as the Java client does it: what is new is good everywhere before the old one ends.
fn kept_for(expires_in: f64) -> Duration {
    Duration::try_from_secs_f64(expires_in * 0.9).unwrap_or_default().min(Duration::from_secs(24 * 3_600))
}

/// `application/x-www-form-urlencoded`.
fn form_of(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                encoded += &format!("%{byte:02X}");
            }
            encoded
        })
    };
    pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_byte_by_byte() {
        assert_eq!(form_of(&[("a", "x-1_~."), ("b", "p&q=r +%é")]), "a=x-1_~.&b=p%26q%3Dr%20%2B%25%C3%A9");
    }

    #[test]
    fn a_token_is_kept_for_most_of_its_life_and_one_without_an_end_is_not() {
        assert_eq!(kept_for(3_600.0), Duration::from_secs(3_240));
        for odd in [0.0, -1.0, f64::NAN] {
            assert_eq!(kept_for(odd), Duration::ZERO);
        }
        assert_eq!(kept_for(1e300), Duration::ZERO);
        assert_eq!(kept_for(1e9), Duration::from_secs(86_400), "no overflow of a clock");
    }

    #[test]
    fn what_is_wrong_with_a_key_file_is_told_without_what_is_in_it() {
        for text in ["hush", r#"{"client_id":"hush"}"#, r#"{"client_id":"x","client_secret":5}"#] {
            let why = KeyFile::Text(text.into()).read().err().expect(text);
            assert!(why.contains("client_secret") && !why.contains("hush"), "{why}");
        }
        let why = KeyFile::File("no/such/key".into()).read().err().expect("not there");
        assert!(why.contains("no/such/key"), "{why}");
    }
}
