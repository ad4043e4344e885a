//! A real broker that wants to know who we are, over TLS: what is published and consumed by each method, and what is told where it does not work.

use std::{fs, net::TcpListener, path::PathBuf};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use pulsar_io_dynamodb::{
    config::pulsar::{Access, of_a_worker},
    metrics::health::Health,
    ports::Publisher,
    pulsar::{
        client::{Client, Settings, connect},
        publisher::{Options, TopicPublisher},
    },
};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::json;

use super::{
    eventually,
    functions::{Functions, PATIENCE},
    lab,
    own_pulsar::OwnPulsar,
    table::Table,
};
use crate::{
    contract::pulsar::{inbox, message, next},
    support::{
        certificates::Authority,
        issuer::{self, Issuer},
    },
};

const AUTH: &str = "org.apache.pulsar.client.impl.auth";
/// No colon: the broker takes the data apart at each of them.
const PASSWORD: &str = "right & = %x";
/// A line of an htpasswd file for that.
const HTPASSWD: &str = "alice:$apr1$abcdefgh$IwJU/elJfAOVD6oijOc1W1\n";

/// A JSON Web Token for `role`, which ends at that time, signed by ES256.
fn token(key: &KeyPair, role: &str, ends: i64) -> String {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(json!({"alg": "ES256"})), part(json!({"sub": role, "exp": ends})));
    // DER: a sequence of two integers, which the token has as 32 bytes each.
    let der = key.sign(signed.as_bytes()).expect("signed");
    let number = |at: usize| {
        let bytes = &der[at + 2..at + 2 + usize::from(der[at + 1])];
        let bytes = &bytes[bytes.len().saturating_sub(32)..];
        [vec![0; 32 - bytes.len()], bytes.to_vec()].concat()
    };
    let second = 4 + usize::from(der[3]);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode([number(2), number(second)].concat()))
}

struct Secured {
    pulsar: OwnPulsar,
    url_with_tls: String,
    folder: PathBuf,
    authority: Authority,
    /// Of the tokens that it takes.
    key: KeyPair,
}

impl Secured {
    async fn start(lab: &super::Lab) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&lab.unique);
        let (authority, key) = (Authority::new("the lab's"), KeyPair::generate().expect("a key"));
        let (certificate, private) = authority.server().write(&folder, "broker");
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).expect("writable");
            path.to_str().expect("text").to_owned()
        };
        let (trusted, users) = (file("ca.pem", &authority.pem()), file("htpasswd", HTPASSWD));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let provider = "org.apache.pulsar.broker.authentication.AuthenticationProvider";
        let settings = [
            "authenticationEnabled=true".to_owned(),
            format!("authenticationProviders={provider}Token,{provider}Basic,{provider}Tls"),
            "authenticationRefreshCheckSeconds=1".to_owned(),
            format!("basicAuthConf=file://{users}"),
            format!("tokenPublicKey=data:;base64,{}", STANDARD.encode(key.subject_public_key_info())),
            "tokenPublicAlg=ES256".to_owned(),
            format!("brokerServicePortTls={port}"),
            format!("tlsCertificateFilePath={}", certificate.display()),
            format!("tlsKeyFilePath={}", private.display()),
            format!("tlsTrustCertsFilePath={trusted}"),
            format!("brokerClientAuthenticationPlugin={AUTH}.AuthenticationToken"),
            format!("brokerClientAuthenticationParameters=token:{}", token(&key, "broker", 4_102_444_800)),
        ];
        let settings = file("settings.conf", &(settings.join("\n") + "\n"));
        let pulsar = OwnPulsar::start(lab, &["--functions", "--settings", &settings]).await;
        Self { pulsar, url_with_tls: format!("pulsar+ssl://localhost:{port}"), folder, authority, key }
    }

    /// As Pulsar's functions worker says it.
    fn settings(&self, url: &str, plugin: &str, params: &str) -> Settings {
        let access = Access {
            url: url.to_owned(),
            auth_plugin: if plugin.is_empty() { String::new() } else { format!("{AUTH}.{plugin}") },
            auth_params: params.to_owned().into(),
            trust_certs: self.folder.join("ca.pem").to_str().expect("text").to_owned(),
            allow_insecure: false,
        };
        of_a_worker(&access).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn user(password: &str) -> String {
    json!({"userId": "alice", "password": password}).to_string()
}

async fn publish(client: &Client, topic: &str, texts: &[&str]) {
    let health = Health::default();
    let opened =
        tokio::time::timeout(PATIENCE, TopicPublisher::open(client.clone(), Some(topic), Options::default(), health.clone())).await;
    let (publisher, lanes) = opened.unwrap_or_else(|_| panic!("{topic}: {:?}", health.reasons())).expect("a publisher");
    for text in texts {
        let receipt = publisher.publish(message("key", text)).await.expect("accepted");
        tokio::time::timeout(PATIENCE, receipt.stored()).await.expect("in time").expect("stored");
    }
    drop(publisher);
    lanes.finished().await;
}

/// Why it is not let in.
async fn told(settings: &Settings) -> String {
    let health = Health::default();
    tokio::select! {
        outcome = connect(settings, &health) => panic!("it ended: {:?}", outcome.err()),
        told = eventually("health is red", PATIENCE, async || health.reasons().into_values().next()) => told,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_by_each_authentication_and_over_tls_it_publishes_and_consumes_and_says_why_where_it_may_not() {
    let Some(lab) = lab("authentication").await else { return };
    let secured = Secured::start(&lab).await;
    let (plain, tls) = (&*secured.pulsar.url, &*secured.url_with_tls);
    let (certificate, key) = secured.authority.client("alice", false).write(&secured.folder, "client");
    let pair = format!("tlsCertFile:{},tlsKeyFile:{}", certificate.display(), key.display());
    let issuer = Issuer::start().await;
    issuer.state().token = {
        let key = KeyPair::try_from(secured.key.serialize_der()).expect("the same key");
        // Of two seconds, however often it is asked for.
        Box::new(move |_| token(&key, "connector", chrono::Utc::now().timestamp() + 2))
    };
    let secret = STANDARD.encode(json!({"client_id": issuer::CLIENT.0, "client_secret": issuer::CLIENT.1}).to_string());
    let credentials =
        json!({"issuerUrl": issuer.url(), "privateKey": format!("data:application/json;base64,{secret}"), "audience": "urn:x"}).to_string();

    for (at, (url, plugin, params)) in [
        (plain, "AuthenticationBasic", &user(PASSWORD)),
        (tls, "AuthenticationBasic", &user(PASSWORD)),
        (tls, "AuthenticationToken", &format!("token:{}", token(&secured.key, "connector", 4_102_444_800))),
        (tls, "AuthenticationTls", &pair),
        (tls, "oauth2.AuthenticationOAuth2", &credentials),
    ]
    .into_iter()
    .enumerate()
    {
        let health = Health::default();
        let connected = tokio::time::timeout(PATIENCE, connect(&secured.settings(url, plugin, params), &health)).await;
        let client = connected.unwrap_or_else(|_| panic!("{plugin} at {url}: {:?}", health.reasons())).expect("let in");
        let topic = format!("persistent://public/default/{}-{at}", lab.unique);
        publish(&client, &topic, &["1", "2"]).await;
        let mut inbox = inbox(&client, &topic, 10).await;
        assert_eq!((next(&mut inbox).await.payload, next(&mut inbox).await.payload), ("1".into(), "2".into()), "{plugin} at {url}");

        if plugin.contains("OAuth2") {
            // The token ends while the consumer waits: the broker asks for another one, and the consumer goes on.
            let asked = issuer.state().asked.len();
            eventually("new tokens", PATIENCE, async || (issuer.state().asked.len() > asked + 2).then_some(())).await;
            publish(&client, &topic, &["3"]).await;
            assert_eq!(next(&mut inbox).await.payload, "3", "it was not lost meanwhile");
        }
    }

    let wrong = told(&secured.settings(tls, "AuthenticationBasic", &user("hush"))).await;
    assert!(wrong.contains("the user alice") && wrong.contains("check the credentials") && !wrong.contains("hush"), "{wrong}");
    let nobody = told(&secured.settings(tls, "", "")).await;
    assert!(nobody.contains("no authentication is configured"), "{nobody}");
    let ended = token(&secured.key, "connector", 1_600_000_000);
    let ended = told(&secured.settings(tls, "AuthenticationToken", &format!("token:{ended}"))).await;
    assert!(ended.contains("the token") && ended.contains("expiry"), "{ended}");
    secured.authority.client("alice", true).write(&secured.folder, "client");
    let expired = told(&secured.settings(tls, "AuthenticationTls", &pair)).await;
    assert!(expired.contains(&*certificate.to_string_lossy()) && expired.contains("expired"), "{expired}");
    let stranger = Settings { trust_certs: None, ..secured.settings(tls, "AuthenticationBasic", &user(PASSWORD)) };
    let stranger = told(&stranger).await;
    assert!(stranger.contains("the broker's certificate is not good") && stranger.contains("tlsTrustCertsFilePath"), "{stranger}");
    a_function_has_what_its_worker_has(&lab, &secured).await;
    secured.pulsar.stop().await;
    fs::remove_dir_all(secured.folder).expect("removed");
}

/// It is told nothing about Pulsar by whoever creates it.
async fn a_function_has_what_its_worker_has(lab: &super::Lab, secured: &Secured) {
    let Secured { pulsar, key, .. } = secured;
    let functions = Functions::of(lab, &pulsar.http_url, &pulsar.folder).await;
    let me = format!("token:{}", token(key, "connector", 4_102_444_800));
    let plugin = format!("{AUTH}.AuthenticationToken");
    let admin = ["--auth-plugin", &plugin, "--auth-params", &me, "functions"];
    let copy = Table::create(lab, "copy", None).await;
    let (sink, topic) = (format!("sink-{}", lab.unique), format!("persistent://public/default/items-{}", lab.unique));
    let client = connect(&secured.settings(&pulsar.url, "AuthenticationToken", &me), &Health::default()).await.expect("let in");
    publish(&client, &topic, &[r#"{"pk":"item-1","sk":1}"#]).await;
    let config = functions.config(json!({"tableName": copy.name, "awsSecretKey": "local"}));
    let program = functions.program.to_str().expect("text");
    let create = ["create", "--go", program, "--name", &sink, "--inputs", &topic, "--subs-position", "Earliest", "--user-config", &config];
    functions.admin(&[&admin[..], &create].concat()).await;
    eventually("the item", PATIENCE, async || (copy.items().await.len() == 1).then_some(())).await;
    functions.admin(&[&admin[..], &["delete", "--name", &sink]].concat()).await;
}
