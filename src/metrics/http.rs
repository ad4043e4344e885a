//! `/metrics` for Prometheus (and `/`, where Pulsar's worker and Function Mesh ask), `/healthz` for probes, `/status` for a person who asks why.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

use super::{health::Health, prometheus::Exporter};
use crate::error::{Error, Kind, Result};

/// Scrapers and probes at the same time; more have to wait.
const MAX_CONNECTIONS: usize = 64;
/// How often histograms are folded up, so that memory stays bounded when nobody scrapes: until then each value takes eight bytes.
const UPKEEP: Duration = Duration::from_secs(1);
/// A connection that asks nothing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the address, so that a wrong one is noticed before any work starts.
///
/// `what` it is for, in messages.
pub async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| Error::new(Kind::Configuration, format!("listen on {what} {address}"), error))
}

/// Answers until `stop` is cancelled; without a listener it only does the metrics' upkeep.
pub async fn serve(listener: Option<TcpListener>, metrics: Exporter, health: Health, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut upkeep = interval(UPKEEP);
    let accept = async |listener: &Option<TcpListener>| match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = upkeep.tick() => metrics.upkeep(),
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let (metrics, health) = (metrics.clone(), health.clone());
                    let service = service_fn(move |request| {
                        let response = respond(&request, &metrics, &health);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let mut server = http1::Builder::new();
                    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                    connections.spawn(server.serve_connection(TokioIo::new(stream), service));
                }
                Err(error) => tracing::warn!(%error, "could not accept an HTTP connection"),
            }
        }
    }
}

fn respond(request: &Request<Incoming>, metrics: &Exporter, health: &Health) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/metrics" | "/" => text(StatusCode::OK, "text/plain; version=0.0.4", metrics.render()),
        "/healthz" => {
            let (status, body) = health_answer(health);
            text(status, "text/plain; charset=utf-8", body)
        }
        "/status" => text(StatusCode::OK, "application/json", status(health)),
        _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "try /metrics, /healthz or /status\n".into()),
    }
}

/// 200 and `ok`, or 503 with a line for each reason (H1).
fn health_answer(health: &Health) -> (StatusCode, String) {
    let reasons = health.reasons();
    if reasons.is_empty() {
        return (StatusCode::OK, "ok\n".into());
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|(stage, reason)| format!("{stage}: {reason}\n")).collect())
}

/// Health's reasons, and each shard that a source reads, as JSON.
fn status(health: &Health) -> String {
    let reasons = health.reasons();
    let status = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "healthy": reasons.is_empty(),
        "reasons": reasons,
        "shards": health.shards().status(),
    });
    format!("{status:#}\n")
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_red_with_the_reason_until_it_is_green_h1() {
        let health = Health::default();
        assert_eq!(health_answer(&health), (StatusCode::OK, "ok\n".into()));
        health.red("write", "the table is gone");
        assert_eq!(health_answer(&health), (StatusCode::SERVICE_UNAVAILABLE, "write: the table is gone\n".into()));
        health.green("write");
        assert_eq!(health_answer(&health).0, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn status_has_the_reasons_and_each_shard_h1() {
        let health = Health::default();
        let meter = health.shards().enter(&crate::ports::ShardId::new("shardId-1"), &[]);
        meter.page(tokio::time::Instant::now(), true, None);
        health.red("publish shardId-1", "no receipt");
        let status: serde_json::Value = serde_json::from_str(&status(&health)).expect("JSON");
        assert_eq!((&status["healthy"], &status["reasons"]["publish shardId-1"]), (&false.into(), &"no receipt".into()));
        assert_eq!((&status["shards"][0]["shard"], &status["shards"][0]["lagSeconds"]), (&"shardId-1".into(), &0.0.into()));
    }
}
