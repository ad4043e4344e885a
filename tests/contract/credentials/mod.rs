//! Credentials and HTTP against STS: moto's where it checks (`moto`), an own stand-in for what it does not check: who asks with what, external
//! ids, sessions that end, outages (`sessions`), certificates and limits (`http`), and what `check --connect` says (`check`).

mod check;
mod http;
mod moto;
mod sessions;

use aws_sdk_dynamodb::Client;
use pulsar_io_dynamodb::{
    dynamodb::{
        client::{self, Settings},
        credentials::{Credentials, Sts},
        failure::classify,
    },
    error::{Error, Result},
};

use crate::support::aws::{Aws, ROOT};

fn root() -> Credentials {
    Credentials::Static { access_key: ROOT.0.into(), secret_key: ROOT.1.into(), session_token: None }
}

fn sts(aws: &Aws) -> Sts {
    Sts { endpoint: Some(aws.endpoint()), region: None }
}

fn role(name: &str, sts: Sts, base: Credentials) -> Credentials {
    Credentials::AssumeRole {
        role_arn: format!("arn:aws:iam::123456789012:role/{name}"),
        session_name: "session".into(),
        external_id: None,
        sts,
        base: Box::new(base),
    }
}

fn settings(credentials: Credentials) -> Settings {
    Settings { region: Some("eu-west-1".into()), credentials, ..Settings::default() }
}

async fn dynamodb(settings: &Settings, aws: &Aws) -> Client {
    client::dynamodb(&client::load(settings).await.expect("clients"), Some(&aws.endpoint()))
}

/// One call, as a stage makes it.
async fn call(client: &Client) -> Result<()> {
    let answer = client.describe_table().table_name("orders").send().await;
    answer.map(drop).map_err(|error| classify("describe table orders (dynamodb:DescribeTable)", error))
}

/// What a person is told, without the secrets that the stand-in knows.
fn told(error: &Error) -> String {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hush"), "a secret shows: {text}");
    error.to_string()
}
