use std::{env, fs};

use pulsar_io_dynamodb::dynamodb::{
    client::{self, Settings},
    credentials::{Credentials, Sts},
    probe::{Outcome, identity},
};

use super::{role, settings};

/// Address of moto, or `None` (said loudly) where `./test --fast` left it out.
fn moto(test: &str) -> Option<Sts> {
    match env::var("AWS_STANDIN_URL") {
        Ok(url) => Some(Sts { endpoint: Some(url), region: None }),
        Err(_) => {
            assert!(env::var("LAB").as_deref() != Ok("required"), "{test}: AWS_STANDIN_URL is not set; run ./test");
            eprintln!("SKIPPED: contract::credentials::moto::{test} needs the stand-in for AWS; ./test starts it");
            None
        }
    }
}

fn keys() -> Credentials {
    Credentials::Static { access_key: "AKIDEXAMPLE".into(), secret_key: "hush".into(), session_token: None }
}

/// Who STS says that we are.
async fn who(settings: &Settings, sts: &Sts) -> String {
    let config = client::load(settings).await.expect("clients");
    let asked = Settings { credentials: role("any", sts.clone(), Credentials::default()), ..settings.clone() };
    match identity(&config, &asked, false).await.outcome {
        Outcome::Works(arn) => arn,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn static_keys_are_their_owners() {
    let Some(sts) = moto("static_keys_are_their_owners") else { return };
    let arn = who(&settings(keys()), &sts).await;
    assert!(arn.starts_with("arn:aws:sts::123456789012:user/"), "{arn}");
}

#[tokio::test]
async fn a_role_is_assumed() {
    let Some(sts) = moto("a_role_is_assumed") else { return };
    let mut credentials = role("reader", sts.clone(), keys());
    if let Credentials::AssumeRole { external_id, .. } = &mut credentials {
        *external_id = Some("an id".into());
    }
    assert_eq!(who(&settings(credentials), &sts).await, "arn:aws:sts::123456789012:assumed-role/reader/session");
}

#[tokio::test]
async fn nested_roles_are_assumed() {
    let Some(sts) = moto("nested_roles_are_assumed") else { return };
    let credentials = role("outer", sts.clone(), role("inner", sts.clone(), keys()));
    assert_eq!(who(&settings(credentials), &sts).await, "arn:aws:sts::123456789012:assumed-role/outer/session");
}

#[tokio::test]
async fn a_role_is_assumed_with_a_web_identity() {
    let Some(sts) = moto("a_role_is_assumed_with_a_web_identity") else { return };
    let file = env::temp_dir().join(format!("{}-moto-token", std::process::id()));
    fs::write(&file, "a.web.token").expect("written");
    let credentials = Credentials::WebIdentity {
        token_file: Some(file.clone()),
        role_arn: Some("arn:aws:iam::123456789012:role/web".into()),
        session_name: Some("pod".into()),
        sts: sts.clone(),
    };
    let arn = who(&settings(credentials), &sts).await;
    fs::remove_file(file).expect("removed");
    assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/web/pod");
}

/// Roles of a profile go through the SDK's own chain; it takes the endpoint from the environment or the file.
#[tokio::test]
async fn a_profiles_own_role_is_assumed() {
    let Some(sts) = moto("a_profiles_own_role_is_assumed") else { return };
    let file = env::temp_dir().join(format!("{}-moto-profile", std::process::id()));
    let endpoint = sts.endpoint.clone().expect("an endpoint");
    let text = format!(
        "[profile base]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = hush\n\
         [profile ops]\nrole_arn = arn:aws:iam::123456789012:role/ops\nsource_profile = base\nrole_session_name = s\nendpoint_url = {endpoint}\n"
    );
    fs::write(&file, text).expect("written");
    let credentials = Credentials::Profile { name: Some("ops".into()), file: Some(file.clone()) };
    let arn = who(&settings(credentials), &sts).await;
    fs::remove_file(file).expect("removed");
    assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/ops/s");
}
