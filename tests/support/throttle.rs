//! DynamoDB Local with a limit: a proxy in front of it that throttles the calls that name one table, all of them or by chance.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What DynamoDB says when a table's capacity, its partition's, or the account's is used up.
const REFUSALS: [&str; 3] = ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];

/// A running proxy; it ends when it is dropped.
pub struct Throttle {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

struct State {
    percent: u64,
    /// Draws a number below the bound.
    draw: Box<dyn FnMut(u64) -> u64 + Send>,
    refused: u64,
    passed: u64,
}

impl Throttle {
    /// In front of `endpoint`, for the calls that name `table`. Nothing is refused yet. `draw` gives a number below its argument.
    pub async fn start(endpoint: &str, table: &str, draw: impl FnMut(u64) -> u64 + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { percent: 0, draw: Box::new(draw), refused: 0, passed: 0 }));
        let stop = CancellationToken::new();
        let proxy = Arc::new(Proxy {
            client: Client::builder(TokioExecutor::new()).build_http(),
            endpoint: endpoint.to_owned(),
            named: format!("\"TableName\":\"{table}\""),
            state: state.clone(),
        });
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(listener, proxy)));
        Self { address, state, _stop: stop.drop_guard() }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on so many of a hundred calls are refused. Returns how many were refused and how many passed since it was said last.
    pub fn refuse(&self, percent: u64) -> (u64, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.percent = percent;
        (std::mem::take(&mut state.refused), std::mem::take(&mut state.passed))
    }
}

struct Proxy {
    client: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
    /// How a call names the table.
    named: String,
    state: Arc<Mutex<State>>,
}

async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        let _ = connection.set_nodelay(true);
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| proxy.answer(request));
            // A client that goes away is none of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refusal(StatusCode::BAD_REQUEST, "SerializationException")) };
        let body = body.to_bytes();
        if let Some(kind) = self.refused(&body) {
            return Ok(refusal(StatusCode::BAD_REQUEST, kind));
        }
        let mut onward = Request::builder().method(parts.method).uri(format!("{}{}", self.endpoint, parts.uri));
        for (name, value) in parts.headers.iter().filter(|(name, _)| *name != http::header::HOST) {
            onward = onward.header(name, value);
        }
        let answer = self.client.request(onward.body(Full::new(body)).expect("a request")).await;
        let Ok(answer) = answer else { return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")) };
        let (parts, body) = answer.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")) };
        Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
    }

    fn refused(&self, body: &[u8]) -> Option<&'static str> {
        if !String::from_utf8_lossy(body).contains(&self.named) {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if (state.draw)(100) >= state.percent {
            state.passed += 1;
            return None;
        }
        state.refused += 1;
        Some(REFUSALS[(state.draw)(REFUSALS.len() as u64) as usize])
    }
}

fn refusal(status: StatusCode, kind: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{kind}","message":"Rate exceeded"}}"#);
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    response.body(Full::new(body.into())).expect("a response")
}
