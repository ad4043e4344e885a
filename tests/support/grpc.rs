//! What Pulsar's worker asks an instance, asked with hyper's own client.

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

/// The answer, or `None` while nobody listens. Fails, with its number, on an outcome that is not good.
pub async fn call<T: Message + Default>(port: u16, method: &str) -> Option<T> {
    let (status, message) = outcome(port, method).await?;
    assert_eq!(status, "0", "{method}");
    Some(T::decode(message).expect("a message"))
}

/// `grpc-status` and the message.
pub async fn outcome(port: u16, method: &str) -> Option<(String, Bytes)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    let driving = tokio::spawn(connection);
    // `google.protobuf.Empty`, not compressed.
    let request = Request::post(format!("http://127.0.0.1:{port}/proto.InstanceControl/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"application/grpc".parse().expect("a header")));
    let answer = response.into_body().collect().await.expect("whole");
    driving.abort();
    let status = answer.trailers().expect("trailers")["grpc-status"].to_str().expect("text").to_owned();
    let mut body = answer.to_bytes();
    if !body.is_empty() {
        assert_eq!(body.get_u8(), 0, "not compressed");
        assert_eq!(body.get_u32() as usize, body.len(), "one message");
    }
    Some((status, body))
}
