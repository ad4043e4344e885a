//! `InstanceControl`: what Pulsar's worker asks an instance for, over gRPC without TLS.
//!
//! Five calls that take nothing and answer with one message. So gRPC is what its page says of unary calls and no more
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): HTTP/2, a message behind five bytes, and its outcome in the trailers.

use std::{convert::Infallible, future::Ready, sync::Arc, sync::OnceLock, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited, combinators::WithTrailers};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::{net::TcpListener, task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

use super::{
    page::user_metrics,
    proto::{FunctionStatus, HealthCheckResult, MetricsData},
    tally::{Class, Tally},
};
use crate::metrics::{health::Health, prometheus::Exporter};

/// The worker keeps one; more have to wait.
const MAX_CONNECTIONS: usize = 16;
const MAX_STREAMS: u32 = 16;
/// An empty message has five bytes.
const MAX_REQUEST: usize = 1024;
const MINUTE: Duration = Duration::from_secs(60);
/// A connection that is gone without a word is noticed after that, and its place is free again.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

/// What the answers are made of; cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub instance_id: u32,
    pub tally: Tally,
    pub metrics: Exporter,
    pub health: Health,
    /// Why the worker has ended, or has never begun.
    pub failure: Arc<OnceLock<String>>,
}

impl Control {
    /// A worker that does not get on still runs: the reason is told, and it goes on when it can.
    pub fn status(&self) -> FunctionStatus {
        let counts = self.tally.counts();
        let reasons = || self.health.reasons().iter().map(|(stage, reason)| format!("{stage}: {reason}")).collect::<Vec<_>>().join("\n");
        let exceptions = |class| (signed(counts.exceptions(class)), self.tally.recent(class));
        let (num_user_exceptions, latest_user_exceptions) = exceptions(Class::User);
        let (num_system_exceptions, latest_system_exceptions) = exceptions(Class::System);
        let (num_source_exceptions, latest_source_exceptions) = exceptions(Class::Source);
        let (num_sink_exceptions, latest_sink_exceptions) = exceptions(Class::Sink);
        FunctionStatus {
            running: self.failure.get().is_none(),
            failure_exception: self.failure.get().cloned().unwrap_or_else(reasons),
            num_received: signed(counts.received),
            num_successfully_processed: signed(counts.processed),
            average_latency: counts.average_latency(),
            last_invocation_time: self.tally.last_invocation(),
            instance_id: self.instance_id.to_string(),
            num_user_exceptions,
            latest_user_exceptions,
            num_system_exceptions,
            latest_system_exceptions,
            num_source_exceptions,
            latest_source_exceptions,
            num_sink_exceptions,
            latest_sink_exceptions,
        }
    }

    fn metrics(&self) -> MetricsData {
        let (total, minute) = (self.tally.counts(), self.tally.of_minute());
        // As the worker adds them up in the status.
        let system = |counts: &super::tally::Counts| {
            signed([Class::System, Class::Source, Class::Sink].into_iter().map(|class| counts.exceptions(class)).sum())
        };
        MetricsData {
            received_total: signed(total.received),
            processed_successfully_total: signed(total.processed),
            system_exceptions_total: system(&total),
            user_exceptions_total: signed(total.exceptions(Class::User)),
            avg_process_latency: total.average_latency(),
            last_invocation: self.tally.last_invocation(),
            user_metrics: user_metrics(&self.metrics.render()),
            received_total_1min: signed(minute.received),
            processed_successfully_total_1min: signed(minute.processed),
            system_exceptions_total_1min: system(&minute),
            user_exceptions_total_1min: signed(minute.exceptions(Class::User)),
            avg_process_latency_1min: minute.average_latency(),
        }
    }

    /// The answer to a call, without its five bytes; `None` where there is no such call.
    fn answer(&self, path: &str) -> Option<Vec<u8>> {
        Some(match path.strip_prefix("/proto.InstanceControl/")? {
            "GetFunctionStatus" => self.status().encode_to_vec(),
            "GetMetrics" => self.metrics().encode_to_vec(),
            "GetAndResetMetrics" => {
                let metrics = self.metrics().encode_to_vec();
                self.tally.begin_minute();
                metrics
            }
            "ResetMetrics" => {
                self.tally.begin_minute();
                Vec::new()
            }
            "HealthCheck" => {
                let success = self.failure.get().is_none() && self.health.reasons().is_empty();
                HealthCheckResult { success }.encode_to_vec()
            }
            _ => return None,
        })
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Answers until `stop` is cancelled, and begins each minute.
pub async fn serve(listener: TcpListener, control: Control, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut minute = interval(MINUTE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = minute.tick() => control.tally.begin_minute(),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let control = control.clone();
                    let service = service_fn(move |request| {
                        let control = control.clone();
                        async move { Ok::<_, Infallible>(respond(request, &control).await) }
                    });
                    let mut server = http2::Builder::new(TokioExecutor::new());
                    server.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).keep_alive_interval(KEEP_ALIVE);
                    connections.spawn(server.serve_connection(TokioIo::new(stream), service));
                }
                Err(error) => tracing::warn!(%error, "could not accept a gRPC connection"),
            }
        }
    }
}

type Body = WithTrailers<Full<Bytes>, Ready<Option<Result<HeaderMap, Infallible>>>>;

async fn respond(request: Request<Incoming>, control: &Control) -> Response<Body> {
    let answer = control.answer(request.uri().path());
    // To its end, or the client sees its stream reset.
    let _ = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
    let status = if answer.is_some() { OK } else { UNIMPLEMENTED };
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static(status))]);
    let body = Full::new(answer.map(framed).unwrap_or_default()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Behind a byte that says it is not compressed, and its length.
fn framed(message: Vec<u8>) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}
