//! DynamoDB Local in trouble: a proxy in front of it that treats the calls about one table badly, all of them or by chance.

use std::{
    io,
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

/// What happens to so many of a hundred calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Throttled: nothing is done.
    pub refused: u64,
    /// Done, and the connection is closed instead of an answer.
    pub lost: u64,
    /// Of a batch, half of the writes is done and the others are returned.
    pub unprocessed: u64,
}

/// How many calls have met what.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub refused: u64,
    pub lost: u64,
    pub unprocessed: u64,
    pub passed: u64,
}

enum Fate {
    Pass,
    Refuse(&'static str),
    Lose,
    Halve,
}

struct State {
    faults: Faults,
    /// Draws a number below the bound.
    draw: Box<dyn FnMut(u64) -> u64 + Send>,
    tally: Tally,
}

impl Throttle {
    /// In front of `endpoint`, for the calls that name `table`. Nothing is refused yet. `draw` gives a number below its argument.
    pub async fn start(endpoint: &str, table: &str, draw: impl FnMut(u64) -> u64 + Send + 'static) -> Self {
        Self::of(endpoint, format!("\"TableName\":\"{table}\""), draw).await
    }

    /// The same for BatchWriteItem of `table` alone.
    pub async fn of_batches(endpoint: &str, table: &str, draw: impl FnMut(u64) -> u64 + Send + 'static) -> Self {
        Self::of(endpoint, format!("\"RequestItems\":{{\"{table}\":["), draw).await
    }

    async fn of(endpoint: &str, named: String, draw: impl FnMut(u64) -> u64 + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { faults: Faults::default(), draw: Box::new(draw), tally: Tally::default() }));
        let stop = CancellationToken::new();
        let proxy = Arc::new(Proxy {
            client: Client::builder(TokioExecutor::new()).build_http(),
            endpoint: endpoint.to_owned(),
            named,
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
        let tally = self.fail(Faults { refused: percent, ..Faults::default() });
        (tally.refused, tally.passed)
    }

    /// From now on this happens to the calls. Returns what has happened since it was said last.
    pub fn fail(&self, faults: Faults) -> Tally {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.faults = faults;
        std::mem::take(&mut state.tally)
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
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refusal(StatusCode::BAD_REQUEST, "SerializationException")) };
        let (mut body, mut returned) = (body.to_bytes(), None);
        let fate = self.fate(&body);
        match fate {
            Fate::Refuse(kind) => return Ok(refusal(StatusCode::BAD_REQUEST, kind)),
            Fate::Halve => (body, returned) = halved(&body),
            Fate::Pass | Fate::Lose => {}
        }
        let mut onward = Request::builder().method(parts.method).uri(format!("{}{}", self.endpoint, parts.uri));
        for (name, value) in parts.headers.iter().filter(|(name, _)| ![http::header::HOST, http::header::CONTENT_LENGTH].contains(*name)) {
            onward = onward.header(name, value);
        }
        let answer = self.client.request(onward.body(Full::new(body)).expect("a request")).await;
        let Ok(answer) = answer else { return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")) };
        let (parts, body) = answer.into_parts();
        let Ok(body) = body.collect().await else { return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")) };
        match returned {
            _ if matches!(fate, Fate::Lose) => Err(io::Error::other("the answer is lost")),
            Some(returned) if parts.status.is_success() => Ok(json(StatusCode::OK, returned)),
            _ => Ok(Response::from_parts(parts, Full::new(body.to_bytes()))),
        }
    }

    fn fate(&self, body: &[u8]) -> Fate {
        if !String::from_utf8_lossy(body).contains(&self.named) {
            return Fate::Pass;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { faults, draw, tally } = &mut *state;
        let drawn = draw(100);
        let (count, fate) = if drawn < faults.refused {
            (&mut tally.refused, Fate::Refuse(REFUSALS[draw(REFUSALS.len() as u64) as usize]))
        } else if drawn < faults.refused + faults.lost {
            (&mut tally.lost, Fate::Lose)
        } else if drawn < faults.refused + faults.lost + faults.unprocessed {
            (&mut tally.unprocessed, Fate::Halve)
        } else {
            (&mut tally.passed, Fate::Pass)
        };
        *count += 1;
        fate
    }
}

/// The first half of a batch, and the answer that returns the other one. One write alone is done.
fn halved(body: &[u8]) -> (Bytes, Option<String>) {
    let mut request: serde_json::Value = serde_json::from_slice(body).expect("a request is JSON");
    let mut returned = serde_json::Map::new();
    for (table, writes) in request["RequestItems"].as_object_mut().expect("a batch") {
        let writes = writes.as_array_mut().expect("a list");
        let rest = writes.split_off(writes.len().div_ceil(2));
        if !rest.is_empty() {
            returned.insert(table.clone(), rest.into());
        }
    }
    (request.to_string().into(), Some(serde_json::json!({ "UnprocessedItems": returned }).to_string()))
}

fn refusal(status: StatusCode, kind: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{kind}","message":"Rate exceeded"}}"#);
    json(status, body)
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    response.body(Full::new(body.into())).expect("a response")
}
