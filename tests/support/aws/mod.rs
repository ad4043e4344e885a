//! A stand-in for STS and DynamoDB for what others do not check: who calls, with which session, until when, and who may do what. It answers
//! over HTTP or, with a certificate of its own for another name, over HTTPS. Tests script it. Signatures are not verified.

mod answers;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The static keys that STS knows from the start. The secret is never sent: whatever shows it, leaks it.
pub const ROOT: (&str, &str) = ("AKROOT", "hush-root-secret");

/// A running stand-in; it ends when it is dropped.
pub struct Aws {
    address: SocketAddr,
    tls: bool,
    state: Arc<Mutex<State>>,
    held: watch::Sender<bool>,
    _stop: DropGuard,
}

/// How STS is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sts {
    Works,
    /// With this status and code.
    Fails(u16, &'static str),
    /// It takes the request and never answers.
    Silent,
}

/// A session that STS gave out.
#[derive(Debug, Clone, Default)]
pub struct Assumed {
    pub role: String,
    pub session_name: String,
    pub external_id: Option<String>,
    /// The access key that asked; empty for a web identity.
    pub by: String,
    pub region: String,
    pub token: Option<String>,
    /// The access key of the session.
    pub key: String,
}

pub struct State {
    pub sts: Sts,
    /// How long a session is.
    pub session: Duration,
    /// Asked for with each role.
    pub external_id: Option<&'static str>,
    pub assumed: Vec<Assumed>,
    /// Operations that nobody may call.
    pub denied: Vec<&'static str>,
    /// Calls of DynamoDB: operation, access key.
    pub calls: Vec<(String, String)>,
    /// Calls of DynamoDB that were refused for their credentials.
    pub refused: usize,
    pub in_flight: usize,
    /// The most calls of DynamoDB that were under way at once.
    pub most_in_flight: usize,
    /// Access keys, and when they end.
    keys: BTreeMap<String, Option<SystemTime>>,
}

impl State {
    /// Takes a static key from now on.
    pub fn know(&mut self, key: &str) {
        self.keys.insert(key.to_owned(), None);
    }

    /// No key and no session of before counts any more.
    pub fn forget_all(&mut self) {
        self.keys.clear();
    }
}

impl Aws {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    pub async fn start_with_tls() -> Self {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("key.pem")).expect("a key");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair");
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            sts: Sts::Works,
            session: Duration::from_secs(3_600),
            external_id: None,
            assumed: Vec::new(),
            denied: Vec::new(),
            calls: Vec::new(),
            refused: 0,
            in_flight: 0,
            most_in_flight: 0,
            keys: BTreeMap::from([(ROOT.0.to_owned(), None)]),
        }));
        let stop = CancellationToken::new();
        let (held, holds) = watch::channel(false);
        let aws = Self { address, tls: tls.is_some(), state: state.clone(), held, _stop: stop.clone().drop_guard() };
        let accepting = async move {
            loop {
                let Ok((connection, _)) = listener.accept().await else { continue };
                let (state, holds, tls) = (state.clone(), holds.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, &state, holds.clone()));
                    let server = http1::Builder::new();
                    // A client that goes away, or does not like the certificate, is none of ours.
                    match tls {
                        Some(tls) => {
                            if let Ok(connection) = tls.accept(connection).await {
                                let _ = server.serve_connection(TokioIo::new(connection), service).await;
                            }
                        }
                        None => drop(server.serve_connection(TokioIo::new(connection), service).await),
                    }
                });
            }
        };
        tokio::spawn(stop.run_until_cancelled_owned(accepting));
        aws
    }

    pub fn endpoint(&self) -> String {
        format!("http{}://{}", if self.tls { "s" } else { "" }, self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While on, calls of DynamoDB are not answered.
    pub fn hold(&self, on: bool) {
        self.held.send_replace(on);
    }
}

async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    mut holds: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (target, authorization) = (header("x-amz-target"), header("authorization"));
    // Credential=KEY/date/region/service/aws4_request
    let mut scope = authorization.split("Credential=").nth(1).unwrap_or_default().split('/').map(str::to_owned);
    let (key, region) = (scope.next().unwrap_or_default(), scope.nth(1).unwrap_or_default());
    let body = request.into_body().collect().await?.to_bytes();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, kind, body) = match target.split_once('.') {
        None => {
            if lock().sts == Sts::Silent {
                std::future::pending::<()>().await;
            }
            let (status, body) = answers::sts(&mut lock(), &String::from_utf8_lossy(&body), &key, &region);
            (status, "text/xml", body)
        }
        Some((_, operation)) => {
            {
                let mut state = lock();
                state.in_flight += 1;
                state.most_in_flight = state.most_in_flight.max(state.in_flight);
            }
            let _ = holds.wait_for(|held| !held).await;
            let mut state = lock();
            state.in_flight -= 1;
            let (status, body) = answers::dynamodb(&mut state, operation, &key);
            (status, "application/x-amz-json-1.0", body)
        }
    };
    let response = Response::builder().status(status).header("content-type", kind);
    Ok(response.body(Full::from(body)).expect("a response"))
}
