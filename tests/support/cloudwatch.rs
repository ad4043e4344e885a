//! A stand-in for CloudWatch: keeps what it is put, or fails as it is told.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pulsar_io_dynamodb::dynamodb::{
    client::{self, SdkConfig},
    credentials::Credentials,
};
use serde_json::{Map, Number, Value};
use tokio::{net::TcpListener, task::JoinHandle};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// An HTTP status and an error code.
    Error(u16, &'static str),
    Hang,
}

/// Stops when it is dropped.
pub struct StandIn {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    calls: usize,
    puts: Vec<Value>,
    /// Who signed the calls: the access key.
    signers: Vec<String>,
    forward: Option<String>,
}

impl StandIn {
    pub async fn start() -> Self {
        Self::forwarding(None).await
    }

    /// As `start`, and whatever is taken goes on to another stand-in, which speaks JSON and not CBOR.
    pub async fn forwarding(to: Option<String>) -> Self {
        let state = Arc::new(Mutex::new(State { forward: to, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let served = state.clone();
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let state = served.clone();
                let service = service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(answer(request, &state).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { endpoint: format!("http://{address}"), state, serving }
    }

    /// The next calls are answered so, then all are taken.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().expect("not poisoned").answers.extend(answers);
    }

    pub fn calls(&self) -> usize {
        self.state.lock().expect("not poisoned").calls
    }

    /// The bodies of the calls that were taken.
    pub fn puts(&self) -> Vec<Value> {
        self.state.lock().expect("not poisoned").puts.clone()
    }

    /// All data that were taken.
    pub fn data(&self) -> Vec<Value> {
        self.puts().iter().flat_map(|put| put["MetricData"].as_array().expect("data").clone()).collect()
    }

    pub fn signers(&self) -> Vec<String> {
        self.state.lock().expect("not poisoned").signers.clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A configuration with keys of its own.
pub async fn sdk_config() -> SdkConfig {
    let credentials = Credentials::Static { access_key: "WORKERSKEY".into(), secret_key: "hush".into(), session_token: None };
    client::load(&client::Settings { region: Some("eu-west-1".into()), credentials, ..client::Settings::default() })
        .await
        .expect("complete")
}

async fn answer(request: Request<Incoming>, state: &Mutex<State>) -> Response<Full<Bytes>> {
    assert!(request.uri().path().ends_with("/operation/PutMetricData"), "{}", request.uri());
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default();
    let (encoding, signature) = (header("content-encoding"), header("authorization"));
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let body = match encoding.as_str() {
        "gzip" => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
            plain
        }
        _ => body.to_vec(),
    };
    let put = decode(&mut body.as_slice()).expect("a put");
    let (answer, forward) = {
        let mut state = state.lock().expect("not poisoned");
        state.calls += 1;
        let signer = signature.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        state.signers.push(signer.to_owned());
        (state.answers.pop_front().unwrap_or(Answer::Taken), state.forward.clone())
    };
    let (status, body) = match answer {
        Answer::Taken => {
            if let Some(to) = forward {
                json_call(&to, "PutMetricData", &put).await;
            }
            state.lock().expect("not poisoned").puts.push(put);
            // An empty map.
            (200, vec![0xa0])
        }
        Answer::Error(status, code) => (status, error(code)),
        Answer::Hang => std::future::pending().await,
    };
    let response = Response::builder().status(status).header("smithy-protocol", "rpc-v2-cbor").header("content-type", "application/cbor");
    response.body(Full::new(body.into())).expect("a response")
}

/// Asks the other stand-in, in the protocol that it knows.
pub async fn json_call(endpoint: &str, action: &str, body: &Value) -> Value {
    let address = endpoint.strip_prefix("http://").expect("a loopback address");
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let request = Request::post("/")
        .header("host", address)
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/monitoring/aws4_request, SignedHeaders=host, Signature=x",
        )
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", format!("GraniteServiceVersion20100801.{action}"))
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    connection.abort();
    assert!(status.is_success(), "{action}: {status}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}

/// An error as CBOR: `{"__type": …, "message": "scripted"}`.
fn error(code: &str) -> Vec<u8> {
    let mut body = vec![0xa2];
    for text in ["__type", &format!("com.amazonaws.cloudwatch#{code}"), "message", "scripted"] {
        body.extend([0x78, u8::try_from(text.len()).expect("short")]);
        body.extend(text.as_bytes());
    }
    body
}

/// CBOR (RFC 8949) as JSON; tags are left out. `None` at the end of an indefinite collection.
fn decode(input: &mut &[u8]) -> Option<Value> {
    fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = input.split_at(count);
        *input = rest;
        taken
    }
    let first = take(input, 1)[0];
    let (major, minor) = (first >> 5, first & 31);
    if first == 0xff {
        return None;
    }
    let width = match minor {
        0..24 => 0,
        24..28 => 1 << (minor - 24),
        _ => 0,
    };
    let argument = take(input, width).iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let (argument, indefinite) = (if width == 0 { u64::from(minor) } else { argument }, minor == 31);
    let count = if indefinite { usize::MAX } else { argument as usize };
    Some(match major {
        0 => argument.into(),
        1 => (-1 - argument as i64).into(),
        2 | 3 => String::from_utf8(take(input, count).to_vec()).expect("text").into(),
        4 => (0..count).map_while(|_| decode(input)).collect::<Vec<_>>().into(),
        5 => {
            let pair = |_| Some((decode(input)?.as_str()?.to_owned(), decode(input)?));
            (0..count).map_while(pair).collect::<Map<_, _>>().into()
        }
        6 => decode(input)?,
        _ => match minor {
            20 | 21 => (minor == 21).into(),
            26 => Number::from_f64(f64::from(f32::from_bits(argument as u32))).into(),
            27 => Number::from_f64(f64::from_bits(argument)).into(),
            _ => Value::Null,
        },
    })
}
