//! A table that takes BatchWriteItem: it answers late, out of order, throttles, and gives items back, as it is told. It knows which item was
//! stored last under each key.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

pub const TABLE: &str = "items";

/// What goes wrong, and how fast it answers.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// How long each answer takes.
    pub delay: Duration,
    /// Each takes another time up to that, and stores at its end.
    pub reorder: bool,
    /// Of a hundred requests.
    pub throttled: f64,
    /// Of a hundred items.
    pub unprocessed: f64,
}

/// What was stored.
#[derive(Debug, Default)]
pub struct Stored {
    /// The place of each key's item, by the key's number.
    pub last: HashMap<u64, u64>,
    /// The highest place so far.
    pub highest: u64,
    pub items: u64,
    pub requests: u64,
    /// When something was stored last.
    pub at: Option<Instant>,
}

pub struct Stub {
    address: SocketAddr,
    stored: Arc<Mutex<Stored>>,
    stop: CancellationToken,
}

impl Stub {
    /// On a free port of loopback, until it is dropped.
    pub fn start(faults: Faults, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (stored, stop) = (Arc::<Mutex<Stored>>::default(), CancellationToken::new());
        let (into, stopped) = (stored.clone(), stop.clone());
        std::thread::spawn(move || {
            fastrand::seed(seed);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(stopped.run_until_cancelled_owned(serve(listener, into, faults)));
        });
        Self { address, stored, stop }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, stored: Arc<Mutex<Stored>>, faults: Faults) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        let _ = connection.set_nodelay(true);
        let stored = stored.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &stored, faults));
            // A client that goes away is none of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, stored: &Mutex<Stored>, faults: Faults) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let describes = request.headers().get("x-amz-target").is_some_and(|target| target.as_bytes().ends_with(b"DescribeTable"));
    let body = request.into_body().collect().await?.to_bytes();
    let (status, text) = if describes {
        let keys =
            r#""KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"}]"#;
        (StatusCode::OK, format!(r#"{{"Table":{{"TableName":"{TABLE}","TableStatus":"ACTIVE",{keys}}}}}"#))
    } else {
        let limit = faults.delay.as_secs_f64();
        let delay = if faults.reorder { limit * fastrand::f64() } else { limit };
        if delay > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(delay)).await;
        }
        let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.requests += 1;
        if fastrand::f64() * 100.0 < faults.throttled {
            let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            (StatusCode::BAD_REQUEST, format!(r#"{{"__type":"{kind}","message":"scripted"}}"#))
        } else {
            (StatusCode::OK, stored.take(&body, faults.unprocessed))
        }
    };
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    Ok(response.body(Full::from(text)).expect("a response"))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<'b> {
    #[serde(borrow)]
    request_items: HashMap<Cow<'b, str>, Vec<&'b RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Write<'b> {
    #[serde(borrow)]
    put_request: Put<'b>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Put<'b> {
    #[serde(borrow)]
    item: Item<'b>,
}

#[derive(Deserialize)]
struct Item<'b> {
    #[serde(borrow)]
    pk: Text<'b>,
    seq: Number<'b>,
}

#[derive(Deserialize)]
struct Text<'b> {
    #[serde(rename = "S")]
    text: &'b str,
}

#[derive(Deserialize)]
struct Number<'b> {
    #[serde(rename = "N")]
    digits: &'b str,
}

impl Stored {
    /// Stores a batch but for what comes back unprocessed. Returns the answer.
    fn take(&mut self, body: &[u8], unprocessed: f64) -> String {
        let batch: Batch<'_> = serde_json::from_slice(body).expect("BatchWriteItem");
        let mut back: Vec<&str> = Vec::new();
        for write in batch.request_items.values().flatten() {
            if unprocessed > 0.0 && fastrand::f64() * 100.0 < unprocessed {
                back.push(write.get());
                continue;
            }
            let Write { put_request: Put { item } } = serde_json::from_str(write.get()).expect("a put");
            let key = item.pk.text.trim_start_matches("item-").parse().expect("a key of ours");
            let place = item.seq.digits.parse().expect("a number");
            self.last.insert(key, place);
            self.highest = self.highest.max(place);
            self.items += 1;
        }
        self.at = Some(Instant::now());
        if back.is_empty() {
            r#"{"UnprocessedItems":{}}"#.into()
        } else {
            format!(r#"{{"UnprocessedItems":{{"{TABLE}":[{}]}}}}"#, back.join(","))
        }
    }
}
