//! A stand-in for DynamoDB Streams over HTTP, for many shards and hundreds of thousands of records a second. It serves the three calls that
//! a reader makes, and DescribeTable of its one table; CloudWatch's PutMetricData is taken and forgotten. Tests and the benchmark
//! (`benches/source`) script it.

pub mod record;
pub mod stream;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    record::{PAGE, Template},
    stream::{From, Stream},
};

/// The table whose stream this is.
pub const TABLE: &str = "orders";
const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/orders";

/// A running stand-in; it ends when it is dropped.
pub struct StandIn {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    template: Arc<Template>,
    stop: CancellationToken,
}

/// How calls fail.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// With this error, such as `LimitExceededException`.
    Error(&'static str),
    /// It is answered later.
    Delay(Duration),
    /// It is done, but the connection breaks before the answer.
    LostAnswer,
}

pub struct State {
    /// The streams that the table has had. Only the last one can take records.
    pub streams: Vec<Stream>,
    /// Operation, fault, how many calls.
    faults: Vec<(&'static str, Fault, usize)>,
    /// Iterators of an earlier generation have expired.
    generation: u64,
    calls: BTreeMap<String, u64>,
    knows_children: bool,
}

impl State {
    /// The stream that takes records.
    pub fn stream(&mut self) -> &mut Stream {
        self.streams.last_mut().expect("there is always one")
    }

    /// So many of the next calls of an operation, such as `GetRecords`, fail.
    pub fn fail(&mut self, operation: &'static str, fault: Fault, times: usize) {
        self.faults.push((operation, fault, times));
    }

    /// Every iterator that was given out has expired.
    pub fn expire_iterators(&mut self) {
        self.generation += 1;
    }

    /// DescribeStream refuses CHILD_SHARDS from now on, as emulators do.
    pub fn forget_children(&mut self) {
        self.knows_children = false;
    }

    /// Switches a disabled stream on again: a new one, with another ARN.
    pub fn enable_again(&mut self, shards: usize) {
        self.stream().disable();
        self.streams.push(Stream::new(label(self.streams.len()), shards));
    }

    /// How many calls of an operation there were.
    pub fn calls(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }

    fn fault(&mut self, operation: &str) -> Option<Fault> {
        *self.calls.entry(operation.to_owned()).or_default() += 1;
        let at = self.faults.iter().position(|(of, _, times)| *of == operation && *times > 0)?;
        self.faults[at].2 -= 1;
        Some(self.faults[at].1)
    }
}

fn label(at: usize) -> String {
    format!("2026-11-21T08:00:{at:02}.000")
}

fn arn(stream: &Stream) -> String {
    format!("{ARN}/stream/{}", stream.label)
}

/// An error of the service.
struct Refusal(&'static str, String);

type Answer = Result<Bytes, Refusal>;

impl StandIn {
    /// A stream with so many open shards, on a free port of loopback. Each record's JSON text has `record_bytes` bytes.
    pub fn start(shards: usize, record_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let streams = vec![Stream::new(label(0), shards)];
        let state = State { streams, faults: Vec::new(), generation: 0, calls: BTreeMap::new(), knows_children: true };
        let state = Arc::new(Mutex::new(state));
        let template = Arc::new(Template::new(record_bytes));
        let stop = CancellationToken::new();
        let served = (state.clone(), template.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (state, template, stop) = served;
            runtime.block_on(stop.run_until_cancelled_owned(serve(listener, state, template)));
        });
        Self { address, state, template, stop }
    }

    /// For `awsEndpoint`, and for `cloudwatchEndpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Of the stream that takes records.
    pub fn stream_arn(&self) -> String {
        arn(self.state().stream())
    }

    /// To script it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The texts of some records of the stream that takes records, as GetRecords would send them.
    pub fn page(&self, shard: usize, from: u64) -> Bytes {
        let records = self.state().stream().page(shard, from, PAGE).map(|page| page.0);
        self.template.answer(records.unwrap_or_default().into_iter(), None)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, template: Arc<Template>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        // Small answers must not wait for the acknowledgement of those before.
        let _ = connection.set_nodelay(true);
        let (state, template) = (state.clone(), template.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &state, &template));
            // A client that goes away is none of ours; a lost answer ends here as well.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

/// The connection is to break.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl std::error::Error for Broken {}

async fn answer(request: Request<Incoming>, state: &Mutex<State>, template: &Template) -> Result<Response<Full<Bytes>>, Broken> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map_err(|_| Broken)?.to_bytes();
    let Some((_, operation)) = target.split_once('.') else {
        let taken = r#"<PutMetricDataResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></PutMetricDataResponse>"#;
        return Ok(Response::builder().header("content-type", "text/xml").body(Full::from(taken)).expect("a response"));
    };
    let fault = state.lock().unwrap_or_else(PoisonError::into_inner).fault(operation);
    if let Some(Fault::Delay(delay)) = fault {
        tokio::time::sleep(delay).await;
    }
    let answered = match fault {
        Some(Fault::Error(kind)) => Err(Refusal(kind, "scripted".into())),
        _ => match serde_json::from_slice(&body) {
            Ok(request) => state.lock().unwrap_or_else(PoisonError::into_inner).answer(operation, &request, template),
            Err(error) => Err(Refusal("SerializationException", error.to_string())),
        },
    };
    if let Some(Fault::LostAnswer) = fault {
        return Err(Broken);
    }
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal(kind, message)) => {
            let status = if kind == "InternalServerError" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
            let body = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message});
            (status, body.to_string().into())
        }
    };
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    Ok(response.body(Full::new(body)).expect("a response"))
}

impl State {
    fn answer(&self, operation: &str, request: &Value, template: &Template) -> Answer {
        let text = |name: &str| request[name].as_str().unwrap_or_default();
        match operation {
            "DescribeTable" if text("TableName") == TABLE || text("TableName") == ARN => {
                let latest = self.streams.last().expect("there is always one");
                let mut table = json!({"TableName": TABLE, "TableArn": ARN, "TableStatus": "ACTIVE"});
                table["LatestStreamLabel"] = latest.label.as_str().into();
                table["LatestStreamArn"] = arn(latest).into();
                table["StreamSpecification"] = json!({"StreamEnabled": latest.status == "ENABLED", "StreamViewType": "NEW_AND_OLD_IMAGES"});
                Ok(json!({"Table": table}).to_string().into())
            }
            "DescribeTable" => {
                Err(Refusal("ResourceNotFoundException", format!("Requested resource not found: Table: {}", text("TableName"))))
            }
            "DescribeStream" => {
                let stream = &self.streams[self.find(text("StreamArn"))?];
                let filter = &request["ShardFilter"];
                if !filter.is_null() && !self.knows_children {
                    return Err(Refusal("ValidationException", "ShardFilter is not known".into()));
                }
                let mut described = stream.describe(request["ExclusiveStartShardId"].as_str(), filter["ShardId"].as_str());
                described["StreamArn"] = arn(stream).into();
                described["TableName"] = TABLE.into();
                Ok(json!({"StreamDescription": described}).to_string().into())
            }
            "GetShardIterator" => {
                let at = self.find(text("StreamArn"))?;
                let stream = &self.streams[at];
                let missing = || Refusal("ResourceNotFoundException", format!("Requested resource not found: Shard: {}", text("ShardId")));
                let shard = stream.find(text("ShardId")).ok_or_else(missing)?;
                let number = record::number(text("SequenceNumber"));
                let from = match (text("ShardIteratorType"), number) {
                    ("TRIM_HORIZON", _) => From::TrimHorizon,
                    ("LATEST", _) => From::Latest,
                    ("AT_SEQUENCE_NUMBER", Some(number)) => From::At(number),
                    ("AFTER_SEQUENCE_NUMBER", Some(number)) => From::After(number),
                    _ => return Err(Refusal("ValidationException", "no such position".into())),
                };
                let from = stream.start(shard, from).ok_or_else(trimmed)?;
                Ok(json!({"ShardIterator": self.iterator(at, shard, from)}).to_string().into())
            }
            "GetRecords" => {
                let parts: Vec<u64> = text("ShardIterator").split(':').filter_map(|part| part.parse().ok()).collect();
                let [generation, stream, shard, from] = parts[..] else {
                    return Err(Refusal("ValidationException", "Invalid ShardIterator".into()));
                };
                if generation < self.generation {
                    return Err(Refusal("ExpiredIteratorException", "Iterator has expired".into()));
                }
                let (at, shard) = (stream as usize, shard as usize);
                let limit = request["Limit"].as_u64().map_or(PAGE, |limit| limit as usize);
                let (records, next, last) = self.streams[at].page(shard, from, limit).ok_or_else(trimmed)?;
                let next = (!last).then(|| self.iterator(at, shard, next));
                Ok(template.answer(records.into_iter(), next.as_deref()))
            }
            _ => Err(Refusal("UnknownOperationException", format!("the stand-in knows no {operation}"))),
        }
    }

    fn find(&self, wanted: &str) -> Result<usize, Refusal> {
        let missing = || Refusal("ResourceNotFoundException", format!("Requested resource not found: Stream: {wanted} not found"));
        self.streams.iter().position(|stream| arn(stream) == wanted).ok_or_else(missing)
    }

    fn iterator(&self, stream: usize, shard: usize, from: u64) -> String {
        format!("{}:{stream}:{shard}:{from}", self.generation)
    }
}

fn trimmed() -> Refusal {
    Refusal("TrimmedDataAccessException", "The operation attempted to read past the oldest stream record in a shard.".into())
}
