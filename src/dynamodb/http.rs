//! The HTTP client that all AWS clients share: TLS, a limit of requests, and a look at each refusal.

use std::{fmt, sync::Arc, time::Duration};

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as TcpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_native_certs::{CertificateResult, load_native_certs};
use tokio::sync::Semaphore;

use super::kept::Kept;
use crate::error::{Error, Kind, Result};

/// How AWS is called.
#[derive(Debug, Clone)]
pub struct Settings {
    /// No certificate is verified.
    pub trust_all_certificates: bool,
    /// Requests under way at once; `None`: no limit here.
    pub max_concurrency: Option<usize>,
    pub connect_timeout: Duration,
    /// From sending to the whole answer.
    pub read_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_all_certificates: false,
            max_concurrency: None,
            connect_timeout: Duration::from_secs(3),
            // Long: what timed out may still be written, and a write that lands late can overtake a newer one.
            read_timeout: Duration::from_secs(20),
        }
    }
}

/// One client for all services. Time-outs are the SDK's part.
pub(super) fn client(settings: &Settings) -> Result<SharedHttpClient> {
    let plain = if settings.trust_all_certificates {
        tracing::warn!(
            "trustAllCertificates is on: NO CERTIFICATE IS VERIFIED, and whoever is between here and AWS can read and change everything, \
             credentials included; never use it outside of tests"
        );
        verified_by(settings.connect_timeout, |tls, provider| {
            tls.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
        })?
    } else if let Some(roots) = own_roots(&load_native_certs())? {
        tracing::info!("this machine has no certificates to trust: Mozilla's count, as of this build; SSL_CERT_FILE names others");
        verified_by(settings.connect_timeout, |tls, _| tls.with_root_certificates(roots).with_no_client_auth())?
    } else {
        Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
    };
    Ok(match settings.max_concurrency {
        Some(limit) => Limited { inner: plain, turns: Arc::new(Semaphore::new(limit)) }.into_shared(),
        None => plain,
    })
}

async fn body_of(answer: &mut HttpResponse) -> Result<bytes::Bytes, ConnectorError> {
    let body = ByteStream::new(std::mem::replace(answer.body_mut(), SdkBody::taken()));
    Ok(body.collect().await.map_err(|error| ConnectorError::io(error.into()))?.into_bytes())
}

// === a limit of requests ===

#[derive(Debug)]
struct Limited {
    inner: SharedHttpClient,
    turns: Arc<Semaphore>,
}

impl HttpClient for Limited {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(LimitedConnector { inner: self.inner.http_connector(settings, components), turns: self.turns.clone() })
    }
}

#[derive(Debug)]
struct LimitedConnector {
    inner: SharedHttpConnector,
    turns: Arc<Semaphore>,
}

impl HttpConnector for LimitedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, turns) = (self.inner.clone(), self.turns.clone());
        HttpConnectorFuture::new(async move {
            let _turn = turns.acquire().await.map_err(|error| ConnectorError::other(error.into(), None))?;
            let mut answer = inner.call(request).await?;
            // A connection is in use until the whole answer is there.
            *answer.body_mut() = SdkBody::from(body_of(&mut answer).await?);
            Ok(answer)
        })
    }
}

// === refused credentials ===

/// How the services say that credentials have ended or are not known any more.
const REFUSALS: &[&str] = &["ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"];
/// The code stands at the beginning.
const LOOKED_AT: usize = 1_024;

/// Wraps a client so that refused credentials are not kept.
pub(super) fn watched(inner: SharedHttpClient, kept: Arc<Kept>) -> SharedHttpClient {
    Watched { inner, kept }.into_shared()
}

#[derive(Debug)]
struct Watched {
    inner: SharedHttpClient,
    kept: Arc<Kept>,
}

impl HttpClient for Watched {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(WatchedConnector { inner: self.inner.http_connector(settings, components), kept: self.kept.clone() })
    }
}

#[derive(Debug)]
struct WatchedConnector {
    inner: SharedHttpConnector,
    kept: Arc<Kept>,
}

impl HttpConnector for WatchedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, kept) = (self.inner.call(request), self.kept.clone());
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            if answer.status().is_client_error() {
                let body = body_of(&mut answer).await?;
                let start = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]);
                if REFUSALS.iter().any(|code| start.contains(code)) {
                    kept.refused();
                }
                *answer.body_mut() = SdkBody::from(body);
            }
            Ok(answer)
        })
    }
}

// === certificates that the SDK's own client cannot be told to trust ===

/// An image of this program alone has no certificates. Where there should be some and none can be read is a mistake, and nothing stands in for them.
fn own_roots(found: &CertificateResult) -> Result<Option<RootCertStore>> {
    match (found.certs.is_empty(), found.errors.first()) {
        (false, _) => Ok(None),
        (true, None) => Ok(Some(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })),
        (true, Some(error)) => Err(Error::new(
            Kind::Configuration,
            "read the certificates to trust (SSL_CERT_FILE and SSL_CERT_DIR say where they are)",
            error,
        )),
    }
}

/// A plain client whose `trust` says how certificates are verified.
fn verified_by(
    connect_timeout: Duration,
    trust: impl FnOnce(ConfigBuilder<ClientConfig, WantsVerifier>, Arc<CryptoProvider>) -> ClientConfig,
) -> Result<SharedHttpClient> {
    let provider = Arc::new(ring::default_provider());
    let failed = |error: rustls::Error| Error::new(Kind::Fatal, "set up TLS", error);
    let tls = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(failed)?;
    let tls = trust(tls, provider);
    let mut tcp = TcpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
    Ok(http_client_fn(move |settings, _| SharedHttpConnector::new(Plain { client: client.clone(), read_timeout: settings.read_timeout() })))
}

#[derive(Clone)]
struct Plain {
    client: Client<HttpsConnector<TcpConnector>, SdkBody>,
    read_timeout: Option<Duration>,
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("read_timeout", &self.read_timeout).finish_non_exhaustive()
    }
}

impl HttpConnector for Plain {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Plain { client, read_timeout } = self.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let answered = tokio::time::timeout(read_timeout.unwrap_or(Duration::MAX), client.request(request));
            let answer = answered.await.map_err(|error| ConnectorError::timeout(error.into()))?;
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x)).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Takes every certificate; that its owner speaks is still verified.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_certificates_count_only_where_the_machine_has_none() {
        let mut found = CertificateResult::default();
        assert!(own_roots(&found).is_ok_and(|roots| roots.is_some_and(|roots| roots.len() > 100)));
        found.certs.push(CertificateDer::from(vec![0]));
        assert!(own_roots(&found).is_ok_and(|roots| roots.is_none()));
        // As SSL_CERT_FILE may name one.
        let unreadable = rustls_native_certs::load_certs_from_paths(Some("/no/such/file".as_ref()), None);
        assert!(own_roots(&unreadable).is_err_and(|error| error.to_string().contains("/no/such/file")));
    }
}
