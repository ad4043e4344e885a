//! A stand-in for an identity provider: discovery, and tokens for client credentials.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The one client that it knows. The secret has what a form must encode.
pub const CLIENT: (&str, &str) = ("connector", "hush & = %+ü");

/// A running provider; it ends when it is dropped.
pub struct Issuer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

pub struct State {
    /// Of a token, in seconds.
    pub expires_in: u64,
    /// What the next token is, from its number.
    pub token: Box<dyn Fn(usize) -> String + Send>,
    /// What was asked with, each time a token was given out.
    pub asked: Vec<BTreeMap<String, String>>,
    /// Instead of a token.
    pub fails: Option<StatusCode>,
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let token = Box::new(|number| format!("hush-token-{number}"));
        let state = Arc::new(Mutex::new(State { expires_in: 3_600, token, asked: Vec::new(), fails: None }));
        let stop = CancellationToken::new();
        let issuer = Self { address, state: state.clone(), _stop: stop.clone().drop_guard() };
        let accepting = async move {
            while let Ok((connection, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, address, &state));
                    // A client that goes away is none of ours.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
                });
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(accepting).await });
        issuer
    }

    /// Below which it is discovered: not at the root, as with most of them.
    pub fn url(&self) -> String {
        format!("http://{}/realms/test/", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(request: Request<Incoming>, address: SocketAddr, state: &Mutex<State>) -> hyper::Result<Response<Full<Bytes>>> {
    let answered = |status: StatusCode, body: serde_json::Value| {
        let mut answer = Response::new(Full::from(body.to_string()));
        *answer.status_mut() = status;
        Ok(answer)
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/realms/test/.well-known/openid-configuration") => {
            answered(StatusCode::OK, json!({"issuer": "x", "token_endpoint": format!("http://{address}/token")}))
        }
        (&Method::POST, "/token") => {
            let body = request.into_body().collect().await?.to_bytes();
            let form = form(std::str::from_utf8(&body).expect("text"));
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(status) = state.fails {
                return answered(status, json!({}));
            }
            if (form.get("client_id").map(String::as_str), form.get("client_secret").map(String::as_str))
                != (Some(CLIENT.0), Some(CLIENT.1))
            {
                let refusal = json!({"error": "invalid_client", "error_description": "no such client"});
                return answered(StatusCode::UNAUTHORIZED, refusal);
            }
            let token = (state.token)(state.asked.len() + 1);
            state.asked.push(form);
            answered(StatusCode::OK, json!({"access_token": token, "token_type": "Bearer", "expires_in": state.expires_in}))
        }
        _ => answered(StatusCode::NOT_FOUND, json!({})),
    }
}

fn form(body: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let hex = [rest.next().expect("two digits"), rest.next().expect("two digits")];
                    u8::from_str_radix(std::str::from_utf8(&hex).expect("digits"), 16).expect("hexadecimal")
                }
                b'+' => b' ',
                other => other,
            });
        }
        String::from_utf8(bytes).expect("UTF-8")
    };
    body.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decoded(name), decoded(value))).collect()
}
