use std::time::{Duration, Instant};

use pulsar_io_dynamodb::{
    dynamodb::{
        client::{self, Settings},
        http,
    },
    error::Kind,
};
use tokio::net::{TcpSocket, TcpStream};

use super::{call, dynamodb, root, settings, told};
use crate::{lab::eventually, support::aws::Aws};

fn with(http: http::Settings) -> Settings {
    Settings { http, ..settings(root()) }
}

/// A certificate that nobody vouches for is refused, unless all are trusted.
#[tokio::test]
async fn certificates_are_verified_unless_all_are_trusted() {
    let aws = Aws::start_with_tls().await;
    let error = call(&dynamodb(&with(http::Settings::default()), &aws).await).await.expect_err("a self-signed certificate");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(told(&error).contains("invalid peer certificate"), "{error}");
    assert!(aws.state().calls.is_empty(), "something was sent");

    let trusting = http::Settings { trust_all_certificates: true, ..http::Settings::default() };
    call(&dynamodb(&with(trusting), &aws).await).await.expect("trusted");
    assert_eq!(aws.state().calls.len(), 1);
}

/// So is that of STS: the same client calls it.
#[tokio::test]
async fn the_certificate_of_sts_counts_as_well() {
    let aws = Aws::start_with_tls().await;
    let mut settings = settings(super::role("r", super::sts(&aws), root()));
    let error = call(&dynamodb(&settings, &aws).await).await.expect_err("a self-signed certificate");
    assert_eq!(error.kind(), Kind::Credentials, "{error}");
    settings.http.trust_all_certificates = true;
    call(&dynamodb(&settings, &aws).await).await.expect("trusted");
    assert_eq!(aws.state().assumed.len(), 1);
}

/// Never more requests at once than the limit, and each gets its turn. Also without verification.
#[tokio::test]
async fn requests_at_once_are_limited() {
    for trust_all_certificates in [false, true] {
        for (limit, expected) in [(Some(3), 3), (None, 20)] {
            let aws = Aws::start().await;
            let client =
                dynamodb(&with(http::Settings { max_concurrency: limit, trust_all_certificates, ..Default::default() }), &aws).await;
            aws.hold(true);
            let calls = futures_util::future::join_all((0..20).map(|_| call(&client)));
            let watch = async {
                eventually("as many as may be", Duration::from_secs(30), async || (aws.state().in_flight == expected).then_some(())).await;
                aws.hold(false);
            };
            let (answers, ()) = tokio::join!(calls, watch);
            assert!(answers.iter().all(Result::is_ok));
            assert_eq!(aws.state().calls.len(), 20);
            assert!(limit.is_none() || aws.state().most_in_flight == expected, "{} at once", aws.state().most_in_flight);
        }
    }
}

/// An answer that does not come is given up after `httpReadTimeout`; the outcome is unknown then.
#[tokio::test]
async fn an_answer_is_awaited_for_the_read_timeout() {
    for trust_all_certificates in [false, true] {
        let aws = Aws::start().await;
        let read_timeout = Duration::from_millis(300);
        let client = dynamodb(&with(http::Settings { read_timeout, trust_all_certificates, ..Default::default() }), &aws).await;
        aws.hold(true);
        let begin = Instant::now();
        let error = call(&client).await.expect_err("no answer");
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let took = begin.elapsed();
        assert!(took >= read_timeout && took < Duration::from_secs(3), "{took:?}: {error}");
    }
}

/// A host that takes no connection is given up after `httpConnectTimeout`: one whose queue is full does not answer.
#[tokio::test]
async fn a_connection_is_awaited_for_the_connect_timeout() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("bound");
    // Filled, and never accepted.
    let mut queue = Vec::new();
    while let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        queue.push(connection);
    }
    for trust_all_certificates in [false, true] {
        let connect_timeout = Duration::from_millis(300);
        let settings = with(http::Settings { connect_timeout, trust_all_certificates, ..Default::default() });
        let client = client::dynamodb(&client::load(&settings).await.expect("clients"), Some(&format!("http://{address}")));
        let begin = Instant::now();
        let error = call(&client).await.expect_err("no connection");
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let took = begin.elapsed();
        assert!(took >= connect_timeout && took < Duration::from_secs(3), "{took:?}: {error}");
    }
}
