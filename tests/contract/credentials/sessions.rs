use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use pulsar_io_dynamodb::{
    dynamodb::{
        client,
        credentials::{Credentials, Sts as Place},
        streams::resolve_stream,
    },
    error::Kind,
    metrics::health::Health,
};

use super::{call, dynamodb, role, root, settings, sts, told};
use crate::{
    lab::eventually,
    support::aws::{Aws, Sts},
};

const LIMIT: Duration = Duration::from_secs(60);

/// A file that is removed again.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let file = Self(env::temp_dir().join(format!("{}-{name}", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("written");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Each role is assumed with the session of the one inside it (nested roles), in the region and with the external id that were configured.
/// The Java connector asked the STS of the environment's region and knew no external id (W17).
#[tokio::test]
async fn w17_nested_roles_are_assumed_from_the_inside_with_the_external_id() {
    let aws = Aws::start().await;
    aws.state().external_id = Some("hush-external");
    let with_id = |mut credentials: Credentials| {
        if let Credentials::AssumeRole { external_id, .. } = &mut credentials {
            *external_id = Some("hush-external".into());
        }
        credentials
    };
    let inner = with_id(role("inner", Place { region: Some("eu-central-1".into()), ..sts(&aws) }, root()));
    let outer = with_id(role("outer", sts(&aws), inner.clone()));
    let client = dynamodb(&settings(outer), &aws).await;
    call(&client).await.expect("allowed");
    call(&client).await.expect("allowed");
    let assumed = aws.state().assumed.clone();
    let seen: Vec<_> = assumed.iter().map(|one| (one.role.as_str(), one.by.as_str(), one.region.as_str(), one.key.as_str())).collect();
    let expected = [
        ("arn:aws:iam::123456789012:role/inner", "AKROOT", "eu-central-1", "ASIA0"),
        ("arn:aws:iam::123456789012:role/outer", "ASIA0", "eu-west-1", "ASIA1"),
    ];
    assert_eq!(seen, expected, "each once, however many calls there are");
    assert!(assumed.iter().all(|one| one.session_name == "session" && one.external_id.as_deref() == Some("hush-external")));
    assert!(aws.state().calls.iter().all(|(_, key)| key == "ASIA1"), "{:?}", aws.state().calls);

    let without = dynamodb(&settings(role("outer", sts(&aws), root())), &aws).await;
    let error = call(&without).await.expect_err("the external id is missing");
    assert_eq!(error.kind(), Kind::Credentials);
    let text = told(&error);
    assert!(text.contains("assume the role arn:aws:iam::123456789012:role/outer (sts:AssumeRole)"), "{text}");
    assert!(text.contains("AccessDenied") && text.contains("is not authorized to perform: sts:AssumeRole"), "{text}");
}

/// The token is read again for each session: Kubernetes replaces the file.
#[tokio::test]
async fn a_web_identity_token_is_read_for_each_session() {
    let aws = Aws::start().await;
    aws.state().session = Duration::from_secs(4);
    let token = File::new("token", "hush-token-1\n");
    let credentials = Credentials::WebIdentity {
        token_file: Some(token.0.clone()),
        role_arn: Some("arn:aws:iam::123456789012:role/web".into()),
        session_name: None,
        sts: sts(&aws),
    };
    let client = dynamodb(&settings(credentials), &aws).await;
    call(&client).await.expect("allowed");
    token.write("hush-token-2");
    eventually("another session", LIMIT, async || {
        call(&client).await.expect("allowed");
        (aws.state().assumed.len() > 1).then_some(())
    })
    .await;
    let assumed = aws.state().assumed.clone();
    assert_eq!(assumed[0].token.as_deref(), Some("hush-token-1"));
    assert_eq!(assumed[1].token.as_deref(), Some("hush-token-2"));
    assert!(assumed.iter().all(|one| one.by.is_empty() && one.session_name == "pulsar-io-dynamodb"));

    fs::remove_file(&token.0).expect("removed");
    let error = eventually("the token is missed", LIMIT, async || call(&client).await.err()).await;
    assert!(error.kind() == Kind::Credentials && told(&error).contains("the token file"), "{error}");
    token.write("hush-token-3");
    eventually("the token is there again", LIMIT, async || call(&client).await.ok()).await;
}

/// Sessions that end are followed by others before they do: no call is ever made with one that has ended.
#[tokio::test]
async fn sessions_are_renewed_before_they_end() {
    let aws = Aws::start().await;
    aws.state().session = Duration::from_secs(4);
    let client = dynamodb(&settings(role("short", sts(&aws), root())), &aws).await;
    eventually("four sessions", LIMIT, async || {
        call(&client).await.expect("allowed");
        (aws.state().assumed.len() >= 4).then_some(())
    })
    .await;
    assert_eq!(aws.state().refused, 0, "a session was used after its end");
}

/// While STS is away the old session is used to its end. Then each call says why, health is red with the reason, and all heals without a
/// restart.
#[tokio::test]
async fn h1_an_outage_of_sts_is_told_and_heals() {
    for outage in [Sts::Fails(503, "ServiceUnavailable"), Sts::Fails(403, "AccessDenied"), Sts::Silent] {
        let aws = Aws::start().await;
        aws.state().session = Duration::from_secs(4);
        let client = dynamodb(&settings(role("short", sts(&aws), root())), &aws).await;
        call(&client).await.expect("allowed");
        aws.state().sts = outage;
        call(&client).await.expect("the session has not ended");
        let error = eventually("the session ends", LIMIT, async || call(&client).await.err()).await;
        assert_eq!(error.kind(), Kind::Credentials, "{outage:?}: {error}");
        let reason = match outage {
            Sts::Fails(_, code) => code,
            _ => "no answer within",
        };
        assert!(told(&error).contains(reason), "{outage:?}: {error}");
        assert_eq!(aws.state().refused, 0, "a session was used after its end");

        let health = Health::default();
        let resolved = tokio::spawn({
            let (client, health) = (client.clone(), health.clone());
            async move { resolve_stream(&client, "table:orders", &health).await }
        });
        let red = eventually("health is red", LIMIT, async || health.reasons().into_values().next()).await;
        assert!(red.contains(reason) && !red.contains("hush"), "{outage:?}: {red}");
        aws.state().sts = Sts::Works;
        let stream = resolved.await.expect("no panic").expect("the stream");
        assert!(stream.as_str().contains("table/orders/stream/"), "{stream}");
        assert!(health.reasons().is_empty(), "{:?}", health.reasons());
    }
}

/// Keys in a file that a person replaces count without a restart, as soon as AWS refuses the old ones.
#[tokio::test]
async fn keys_that_were_replaced_are_read_again() {
    let aws = Aws::start().await;
    aws.state().know("AKONE");
    let file = File::new("profile", "[ops]\naws_access_key_id = AKONE\naws_secret_access_key = hush-one\nregion = ap-south-1\n");
    let credentials = Credentials::Profile { name: Some("ops".into()), file: Some(file.0.clone()) };
    let loaded = client::load(&client::Settings { credentials, ..client::Settings::default() }).await.expect("clients");
    assert_eq!(loaded.region().map(ToString::to_string).as_deref(), Some("ap-south-1"), "the profile's region");
    let client = client::dynamodb(&loaded, Some(&aws.endpoint()));
    call(&client).await.expect("allowed");
    aws.state().forget_all();
    let error = call(&client).await.expect_err("refused");
    assert!(error.kind() == Kind::Credentials && told(&error).contains("UnrecognizedClientException"), "{error}");
    aws.state().know("AKTWO");
    file.write("[profile ops]\naws_access_key_id = AKTWO\naws_secret_access_key = hush-two\n");
    eventually("the new keys are used", LIMIT, async || call(&client).await.ok()).await;
    assert_eq!(aws.state().calls.last().map(|(_, key)| key.as_str()), Some("AKTWO"));
}

#[tokio::test]
async fn a_command_prints_credentials_and_says_what_is_wrong() {
    let aws = Aws::start().await;
    aws.state().know("AKCMD");
    let process = |command: &str| settings(Credentials::Process { command: command.into() });
    let count = File::new("count", "");
    let soon = chrono::Utc::now() + Duration::from_secs(2);
    let printed = format!(
        r#"echo x >> {}; echo '{{"Version":1,"AccessKeyId":"AKCMD","SecretAccessKey":"hush","Expiration":"{}"}}'"#,
        count.0.display(),
        soon.to_rfc3339()
    );
    let client = dynamodb(&process(&printed), &aws).await;
    call(&client).await.expect("allowed");
    call(&client).await.expect("allowed");
    assert_eq!(fs::read_to_string(&count.0).expect("a count").lines().count(), 1, "it is run once for its time");

    for (command, expected) in [
        ("echo no vault >&2; exit 3", "failed (exit status: 3): no vault"),
        ("echo hush", "has to print JSON like"),
        (r#"echo '{"Version":2,"AccessKeyId":"a","SecretAccessKey":"hush"}'"#, "printed version 2"),
        (r#"echo '{"Version":1,"AccessKeyId":"a","SecretAccessKey":"hush","Expiration":"soon"}'"#, "no time"),
        ("/no/such/hush-command 2>/dev/null", "failed (exit status: 127)"),
        ("exec sleep 600", "no answer within 5s"),
    ] {
        let begin = Instant::now();
        let error = call(&dynamodb(&process(command), &aws).await).await.expect_err(command);
        assert!(error.kind() == Kind::Credentials && told(&error).contains(expected), "{command}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{command}: held up for {:?}", begin.elapsed());
    }
}

/// Many calls at once ask for one session.
#[tokio::test]
async fn calls_at_once_share_a_session() {
    let aws = Aws::start().await;
    let client = dynamodb(&settings(role("one", sts(&aws), root())), &aws).await;
    let calls = futures_util::future::join_all((0..50).map(|_| call(&client))).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(aws.state().assumed.len(), 1);
}

#[tokio::test]
async fn no_secret_shows_in_debug() {
    let aws = Aws::start().await;
    let settings = settings(role("one", sts(&aws), root()));
    let loaded = client::load(&settings).await.expect("clients");
    call(&client::dynamodb(&loaded, Some(&aws.endpoint()))).await.expect("allowed");
    for text in [format!("{settings:?}"), format!("{loaded:?}"), format!("{:?}", loaded.credentials_provider())] {
        assert!(!text.contains("hush"), "{text}");
    }
}
