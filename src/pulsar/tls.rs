//! TLS to brokers and identity providers: who is trusted, who we are, and what a refusal means.

use std::{io, path::Path, sync::Arc};

use rustls::{
    AlertDescription as Alert, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use super::{auth::ClientCertificate, client::Settings};
use crate::error::{Error, Kind, Result};

/// For one connection: the files are read anew. Certificates and host names are always verified.
pub(super) fn connector(settings: &Settings) -> Result<TlsConnector> {
    let wrong = |why: String| Error::new(Kind::Configuration, format!("connect to Pulsar at {}", settings.url), why);
    let mut roots = mozillas();
    if let Some(path) = &settings.trust_certs {
        add(&mut roots, path).map_err(wrong)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(error.to_string()))?.with_root_certificates(roots);
    let config = match settings.certificate() {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = pair(certificate).map_err(wrong)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong(named(certificate, &error)))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Mozilla's authorities, as of this build.
pub(super) fn mozillas() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let named = |error: &dyn std::fmt::Display| format!("trusted certificates in {}: {error}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| named(&error))? {
        roots.add(certificate.map_err(|error| named(&error))?).map_err(|error| named(&error))?;
    }
    Ok(())
}

/// The certificates and the key of a client. Errors with the file that cannot be used, and why.
pub(super) fn pair(client: &ClientCertificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let ClientCertificate { certificate, key } = client;
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("the certificate in {}: {error}", certificate.display()))?;
    if chain.is_empty() {
        return Err(format!("the certificate in {}: there is none in it", certificate.display()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("the key in {}: {error}", key.display()))?;
    Ok((chain, key))
}

fn named(ClientCertificate { certificate, key }: &ClientCertificate, error: &dyn std::fmt::Display) -> String {
    format!("the certificate in {} with the key in {}: {error}", certificate.display(), key.display())
}

/// What an error of a connection means: who does not trust whom, and what to do.
pub(super) fn explain(error: &io::Error, settings: &Settings) -> (Kind, String) {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let trusted = settings.trust_certs.as_ref().map(|path| format!(", and those in {}", path.display())).unwrap_or_default();
            let why = format!(
                "the broker's certificate is not good: {why}. Trusted are Mozilla's authorities{trusted}: --trust-certs, PULSAR_TRUST_CERTS or \
                 tlsTrustCertsFilePath names others"
            );
            (Kind::Unavailable, why)
        }
        Some(rustls::Error::AlertReceived(alert)) => match settings.certificate() {
            Some(ClientCertificate { certificate, .. }) if is_about_a_certificate(*alert) => {
                let why = format!(
                    "the broker does not take the certificate in {} ({alert:?}): it has expired, or no authority that the broker trusts has signed it",
                    certificate.display()
                );
                (Kind::Credentials, why)
            }
            None if *alert == Alert::CertificateRequired => {
                (Kind::Credentials, "the broker wants a certificate, and there is none: configure AuthenticationTls".into())
            }
            _ => (Kind::Unavailable, error.to_string()),
        },
        _ => (Kind::Unavailable, error.to_string()),
    }
}

/// Of one that was shown. Brokers, which leave it to a Java callback whom they trust, say `InternalError` for one that they do not.
fn is_about_a_certificate(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::HandshakeFailure
            | Alert::InternalError
    )
}
