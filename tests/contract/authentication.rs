//! Who we are to Pulsar, and what of it changes while connections live: each connection tells it, those that look up as those that publish.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use hyper::StatusCode;
use pulsar_io_dynamodb::{
    error::{Error, Kind},
    metrics::health::Health,
    ports::Publisher,
    pulsar::{
        auth::{Authentication, ClientCertificate, Token},
        client::{Client, Settings, connect},
        oauth2::{ClientCredentials, KeyFile, OAuth2},
        publisher::{Batching, Options, TopicPublisher},
    },
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::json;

use super::pulsar::message;
use crate::{
    lab::eventually,
    support::{
        broker::{Broker, Elsewhere},
        certificates::{Authority, Certificate},
        issuer::{self, Issuer},
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("target is writable");
    folder
}

async fn publisher(client: &Client, options: Options, health: &Health) -> TopicPublisher {
    TopicPublisher::open(client.clone(), Some("persistent://public/default/t"), options, health.clone()).await.expect("a publisher").0
}

async fn publish(publisher: &TopicPublisher, text: &str) {
    let receipt = publisher.publish(message("key", text)).await.expect("accepted");
    tokio::time::timeout(PATIENCE, receipt.stored()).await.expect("in time").expect("stored");
}

fn client_credentials(issuer: &Issuer, secret: &str) -> Authentication {
    let key = json!({"type": "client_credentials", "client_id": issuer::CLIENT.0, "client_secret": secret}).to_string();
    Authentication::OAuth2(Arc::new(OAuth2::new(ClientCredentials {
        issuer: issuer.url(),
        key: KeyFile::Text(key.into()),
        audience: Some("urn:pulsar & more".into()),
        scope: Some("a b".into()),
    })))
}

/// A client that the broker lets in; it would be tried for ever.
async fn let_in(settings: &Settings) -> Client {
    let health = Health::default();
    let connected = tokio::time::timeout(PATIENCE, connect(settings, &health)).await;
    connected.unwrap_or_else(|_| panic!("not let in: {:?}", health.reasons())).expect("let in")
}

/// What health says once it is red.
async fn red(health: &Health) -> String {
    eventually("health is red", PATIENCE, async || health.reasons().into_values().next()).await
}

#[tokio::test]
async fn every_connection_says_who_we_are_by_each_method() {
    let hush = || "hush".to_owned().into();
    for (authentication, expected) in [
        (None, ("", "")),
        (Some(Authentication::Token(Token::Text(hush()))), ("token", "hush")),
        (Some(Authentication::Basic { user: "alice".into(), password: hush() }), ("basic", "alice:hush")),
    ] {
        let broker = Broker::start().await;
        let settings = Settings { authentication, ..Settings::at(&*broker.url) };
        let client = let_in(&settings).await;
        publish(&publisher(&client, Options::default(), &Health::default()).await, "x").await;
        let shown = broker.state().shown();
        // To connect, for the partitions, for the broker, and to publish.
        assert_eq!(shown, vec![(expected.0.to_owned(), expected.1.to_owned()); 4]);
    }
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_told_with_what_it_was_and_without_the_secret() {
    let broker = Broker::start().await;
    broker.set(|state| state.refused.push(b"alice:hush".to_vec()));
    let authentication = Authentication::Basic { user: "alice".into(), password: "hush".to_owned().into() };
    let settings = Settings { authentication: Some(authentication), ..Settings::at(&*broker.url) };
    let health = Health::default();
    let connecting = connect(&settings, &health);
    tokio::select! {
        _ = connecting => panic!("it was let in"),
        told = red(&health) => {
            for expected in [&*broker.url, "Unable to authenticate", "the user alice", "basic", "check the credentials"] {
                assert!(told.contains(expected), "{expected} is not in {told}");
            }
            assert!(!told.contains("hush"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_token_of_an_identity_provider_is_asked_for_once_and_again_when_the_broker_asks() {
    let (broker, issuer) = (Broker::start().await, Issuer::start().await);
    let settings = Settings { authentication: Some(client_credentials(&issuer, issuer::CLIENT.1)), ..Settings::at(&*broker.url) };
    let client = let_in(&settings).await;
    let publisher = publisher(&client, Options::default(), &Health::default()).await;
    publish(&publisher, "x").await;
    assert_eq!(broker.state().shown(), vec![("token".to_owned(), "hush-token-1".to_owned()); 4]);
    let expected = [
        ("grant_type", "client_credentials"),
        ("client_id", issuer::CLIENT.0),
        ("client_secret", issuer::CLIENT.1),
        ("audience", "urn:pulsar & more"),
        ("scope", "a b"),
    ];
    let expected = BTreeMap::from(expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(issuer.state().asked, [expected]);

    // The token has come to its end for the broker, whatever is kept here. The producer waits for work meanwhile, and goes on.
    for again in [&b"hush-token-2"[..], b"hush-token-3"] {
        broker.challenge();
        broker.wait_for("the challenge is answered", |state| state.answers.last().is_some_and(|answer| answer == again)).await;
    }
    publish(&publisher, "y").await;
    assert_eq!((broker.state().hellos.len(), broker.state().stored.len()), (4, 2), "it was the same connection");
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_where_the_broker_does_not_take_it() {
    let (broker, issuer) = (Broker::start().await, Issuer::start().await);
    issuer.state().expires_in = 0;
    broker.set(|state| state.refused.push(b"hush-token-1".to_vec()));
    let settings = Settings { authentication: Some(client_credentials(&issuer, issuer::CLIENT.1)), ..Settings::at(&*broker.url) };
    let health = Health::default();
    connect(&settings, &health).await.expect("the second one is taken");
    assert!(health.reasons().is_empty(), "{:?}", health.reasons());
    issuer.state().expires_in = 3_600;
    // The one without a life was not kept, and the next one is, until it is refused.
    let client = connect(&settings, &health).await.expect("connected");
    let publisher = publisher(&client, Options::default(), &health).await;
    publish(&publisher, "x").await;
    broker.set(|state| state.refused.push(b"hush-token-3".to_vec()));
    broker.close().await;
    publish(&publisher, "y").await;
    let tokens: Vec<_> = broker.state().shown().into_iter().map(|(_, token)| token).collect();
    let number = |number: usize| format!("hush-token-{number}");
    assert_eq!(tokens[..6], [number(1), number(2), number(3), number(3), number(3), number(3)], "{tokens:?}");
    assert_eq!((&tokens[6], tokens.last()), (&number(3), Some(&number(4))), "{tokens:?}");
}

#[tokio::test]
async fn what_an_identity_provider_refuses_is_told_without_the_secret() {
    let (broker, issuer) = (Broker::start().await, Issuer::start().await);
    let told = async |authentication: Authentication| {
        let settings = Settings { authentication: Some(authentication), ..Settings::at(&*broker.url) };
        let health = Health::default();
        tokio::select! {
            outcome = connect(&settings, &health) => panic!("it ended: {:?}", outcome.err()),
            told = red(&health) => told,
        }
    };
    let wrong = told(client_credentials(&issuer, "hush-wrong")).await;
    for expected in [&*issuer.url(), "/token", "the client connector", "invalid_client: no such client", "check the credentials"] {
        assert!(wrong.contains(expected), "{expected} is not in {wrong}");
    }
    assert!(!wrong.contains("hush"), "{wrong}");
    let nowhere = ClientCredentials {
        issuer: issuer.url().replace("/realms/", "/nowhere/"),
        key: KeyFile::Text(r#"{"client_id":"x","client_secret":"hush"}"#.to_owned().into()),
        audience: None,
        scope: None,
    };
    let nowhere = told(Authentication::OAuth2(Arc::new(OAuth2::new(nowhere)))).await;
    assert!(nowhere.contains("/nowhere/test/.well-known/openid-configuration answers with 404"), "{nowhere}");
    issuer.state().fails = Some(StatusCode::SERVICE_UNAVAILABLE);
    let down = told(client_credentials(&issuer, issuer::CLIENT.1)).await;
    assert!(down.contains("/token answers with 503"), "{down}");
    assert!(broker.state().hellos.is_empty(), "nobody was asked without a token");
}

/// The process, with all that it says.
#[tokio::test]
async fn neither_secret_nor_token_are_in_the_log_even_at_trace() {
    let (broker, issuer) = (Broker::start().await, Issuer::start().await);
    let key = folder("oauth2").join("key.json");
    fs::write(&key, json!({"client_id": issuer::CLIENT.0, "client_secret": issuer::CLIENT.1}).to_string()).expect("writable");
    let log = key.with_file_name("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"))
        .args(["sink", "--config", "connector-config/sink.yaml", "--log-level", "trace", "--auth-plugin", "AuthenticationOAuth2"])
        .args(["--pulsar-url", &broker.url])
        .env("PULSAR_AUTH_PARAMS", json!({"issuerUrl": issuer.url(), "privateKey": format!("file://{}", key.display())}).to_string())
        .env("AWS_REGION", "us-east-1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).expect("writable"))
        .spawn()
        .expect("it starts");
    broker.wait_for("a lookup", |state| !state.lookups.is_empty()).await;
    child.kill().expect("it ends");
    child.wait().expect("it ends");
    let log = fs::read_to_string(&log).expect("a log");
    assert!(broker.state().shown().contains(&("token".into(), "hush-token-1".into())), "the token was not shown: this proves nothing");
    assert!(log.contains("a new token for Pulsar") && !log.contains("hush"), "{log}");
    // As the bytes of a protocol message, too.
    assert!(!log.contains("104, 117, 115, 104"), "{log}");
    fs::remove_dir_all(key.parent().expect("a folder")).expect("removed");
}

fn pem(Certificate { certificate, key }: &Certificate) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    (certificate, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"))
}

/// A broker that wants a certificate which this authority has signed.
async fn broker_that_trusts(authority: &Authority) -> Broker {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("a verifier");
    let (certificate, key) = pem(&authority.server());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let config = config.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).expect("a pair");
    Broker::start_with_tls(config).await
}

#[tokio::test]
async fn a_certificate_is_shown_by_every_connection_read_anew_and_told_where_it_is_not_taken() {
    let folder = folder("certificates");
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let trusted = folder.join("ca.pem");
    fs::write(&trusted, authority.pem()).expect("writable");
    let broker = broker_that_trusts(&authority).await;
    let (certificate, key) = authority.client("alice", false).write(&folder, "client");
    let authentication = Authentication::Certificate(ClientCertificate { certificate: certificate.clone(), key: key.clone() });
    let settings = Settings { authentication: Some(authentication), trust_certs: Some(trusted), ..Settings::at(&*broker.url) };
    let client = let_in(&settings).await;
    let health = Health::default();
    let publisher = publisher(&client, Options::default(), &health).await;
    publish(&publisher, "x").await;
    assert_eq!(broker.state().shown(), vec![("tls".to_owned(), String::new()); 4]);

    let told = async |settings: &Settings| {
        let health = Health::default();
        tokio::select! {
            outcome = connect(settings, &health) => panic!("it ended: {:?}", outcome.err()),
            told = red(&health) => told,
        }
    };
    authority.client("alice", true).write(&folder, "client");
    let expired = told(&settings).await;
    assert!(
        expired.contains(&*certificate.to_string_lossy()) && expired.contains("expired") && expired.contains("check the cred"),
        "{expired}"
    );
    other.client("alice", false).write(&folder, "client");
    assert!(told(&settings).await.contains("no authority that the broker trusts"));
    let none = told(&Settings { authentication: None, ..settings.clone() }).await;
    assert!(none.contains("AuthenticationTls"), "{none}");
    let untrusted = told(&Settings { trust_certs: None, ..settings.clone() }).await;
    assert!(untrusted.contains("broker's certificate is not good") && untrusted.contains("--trust-certs"), "{untrusted}");

    // The key of another one is a mistake before anything is tried.
    fs::write(&key, authority.client("alice", false).key).expect("writable");
    let mismatch: Error = connect(&settings, &Health::default()).await.err().expect("refused");
    assert!(mismatch.kind() == Kind::Configuration && mismatch.to_string().contains(&*key.to_string_lossy()), "{mismatch}");

    // Replaced in time, it counts for the next connection.
    authority.client("alice", false).write(&folder, "client");
    broker.close().await;
    publish(&publisher, "y").await;
    assert!(health.reasons().is_empty(), "{:?}", health.reasons());
    fs::remove_dir_all(folder).expect("removed");
}

#[tokio::test]
async fn a_lookup_is_sent_on_to_another_broker_through_a_proxy_and_past_a_host_that_is_down() {
    let (first, second, third) = (Broker::start().await, Broker::start().await, Broker::start().await);
    first.set(|state| state.elsewhere = Some(Elsewhere::Redirect(second.url.clone())));
    second.set(|state| state.elsewhere = Some(Elsewhere::Redirect(third.url.clone())));
    let hosts = first.url.replace("pulsar://", "pulsar://127.0.0.1:1,");
    let client = let_in(&Settings::at(hosts)).await;
    publish(&publisher(&client, Options::default(), &Health::default()).await, "x").await;
    assert_eq!((first.state().stored.len(), second.state().stored.len(), third.state().stored.len()), (0, 0, 1));
    assert_eq!((first.state().lookups, second.state().lookups, third.state().lookups), (vec![false], vec![true], vec![true]));

    // A proxy: every connection goes to it, and says to whom.
    let proxy = Broker::start().await;
    proxy.set(|state| state.elsewhere = Some(Elsewhere::BehindProxy("pulsar://behind:6650".into())));
    let client = let_in(&Settings::at(&*proxy.url)).await;
    publish(&publisher(&client, Options::default(), &Health::default()).await, "x").await;
    let told: Vec<_> = proxy.state().hellos.into_iter().map(|hello| hello.proxy_to_broker_url).collect();
    assert_eq!(told, [None, None, None, Some("behind:6650".into())]);

    // Brokers that disagree for ever end the lookup, not the worker.
    third.set(|state| state.elsewhere = Some(Elsewhere::Redirect(first.url.clone())));
    let health = Health::default();
    let client = connect(&Settings::at(&*first.url), &health).await.expect("connected");
    let publisher = publisher(&client, Options::default(), &health).await;
    let receipt = publisher.publish(message("key", "x")).await.expect("accepted");
    assert!(red(&health).await.contains("send on to one another"));
    third.set(|state| state.elsewhere = None);
    tokio::time::timeout(PATIENCE, receipt.stored()).await.expect("in time").expect("stored");
}

/// W9: what the broker takes may be another after it was restarted, or on another broker.
#[tokio::test]
async fn w9_the_brokers_limit_is_followed_over_a_reconnection() {
    let broker = Broker::start().await;
    broker.set(|state| state.max_message_size = Some(2_000));
    let client = let_in(&Settings::at(&*broker.url)).await;
    let options =
        Options { batching: Some(Batching { max_delay: Duration::from_millis(200), ..Batching::default() }), ..Options::default() };
    let publisher = publisher(&client, options, &Health::default()).await;
    publish(&publisher, "x").await;
    let large = "y".repeat(1_500);
    publish(&publisher, &large).await;

    // Lower: what is too large comes back, though it was accepted before that was known; what is not goes, in batches that are small enough.
    broker.set(|state| state.max_message_size = Some(1_000));
    broker.close().await;
    let before = broker.state().stored.len();
    let mut receipts = Vec::new();
    for text in ["z".repeat(500), large.clone(), "z".repeat(500), "z".repeat(500)] {
        receipts.push(publisher.publish(message("key", &text)).await.expect("accepted"));
    }
    let mut fates = Vec::new();
    for receipt in receipts {
        fates.push(tokio::time::timeout(PATIENCE, receipt.stored()).await.expect("in time"));
    }
    let back = fates.remove(1).expect_err("too large");
    assert_eq!((back.error.kind(), back.message.expect("it comes back").payload.len()), (Kind::TooLarge, 1_500));
    assert!(back.error.to_string().contains("1000"), "{}", back.error);
    assert!(fates.iter().all(Result::is_ok), "{fates:?}");
    let stored = broker.state().stored.split_off(before);
    assert!(stored.len() >= 2 && stored.iter().all(|bytes| *bytes <= 1_000), "{stored:?}");
    let refusal = publisher.publish(message("key", &large)).await.expect_err("known by now");
    assert_eq!(refusal.error.kind(), Kind::TooLarge);

    // Higher again, and without a limit of its own.
    broker.set(|state| state.max_message_size = None);
    broker.close().await;
    publish(&publisher, "x").await;
    publish(&publisher, &large).await;
}
