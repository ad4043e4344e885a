use super::*;

fn credentials(json: &str) -> (String, Vec<String>) {
    let keys: AwsKeys = serde_json::from_str(json).expect(json);
    let mut problems = Problems::default();
    let credentials = format!("{:?}", keys.settings(&mut problems).credentials);
    let problems = problems.into_result("test").err().map(|error| error.why().lines().skip(1).map(str::to_owned).collect());
    (credentials, problems.unwrap_or_default())
}

#[test]
fn each_kind_of_credentials_has_its_keys() {
    for (json, expected) in [
        ("{}", "DefaultChain"),
        (r#"{"awsCredentialPluginParam":" "}"#, "DefaultChain"),
        (r#"{"awsCredentialPluginName":"org.apache.pulsar.io.aws.AwsDefaultProviderChainPlugin"}"#, "DefaultChain"),
        (r#"{"awsCredentialPluginParam":"{\"accessKey\":\"AK\",\"secretKey\":\"hush\"}"}"#, r#"Static { access_key: "AK""#),
        (r#"{"awsProfile":"ops"}"#, r#"Profile { name: Some("ops"), file: None }"#),
        (r#"{"awsProfile":"ops","awsProfileFile":"f"}"#, r#"file: Some("f")"#),
        (
            r#"{"awsRoleArn":"arn:aws:iam::1:role/r"}"#,
            r#"session_name: "pulsar-io-dynamodb", external_id: None, sts: Sts { endpoint: None, region: None }, base: DefaultChain"#,
        ),
        (r#"{"awsRoleArn":"arn:aws:iam::1:role/r","awsProfile":"ops"}"#, r#"base: Profile { name: Some("ops")"#),
        (
            r#"{"awsCredentialPluginName":"org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin","awsCredentialPluginParam":"{\"roleArn\":\"arn:r\",\"roleSessionName\":\"s\"}"}"#,
            r#"AssumeRole { role_arn: "arn:r", session_name: "s""#,
        ),
    ] {
        let (credentials, problems) = credentials(json);
        assert!(credentials.contains(expected), "{json}: {credentials}");
        assert!(problems.is_empty(), "{json}: {problems:?}");
        assert!(!credentials.contains("hush"), "a secret shows: {credentials}");
    }
}

#[test]
fn each_provider_has_its_keys() {
    for (json, expected) in [
        (r#"{"awsCredentialsProvider":"AUTO"}"#, "DefaultChain"),
        (r#"{"awsAccessKey":"AK","awsSecretKey":"hush","awsSessionToken":"hush"}"#, r#"Static { access_key: "AK""#),
        (r#"{"awsCredentialsProvider":"BASIC","awsAccessKey":"AK","awsSecretKey":"hush"}"#, r#"Static { access_key: "AK""#),
        (r#"{"awsCredentialsProvider":"ENV_VAR"}"#, "Environment"),
        (r#"{"awsCredentialsProvider":"PROFILE"}"#, "Profile { name: None, file: None }"),
        (
            r#"{"awsCredentialsProvider":"PROFILE","awsProfile":"p","awsProfileFile":"f"}"#,
            r#"Profile { name: Some("p"), file: Some("f") }"#,
        ),
        (r#"{"awsCredentialProcess":"cat hush"}"#, "Process { command: SecretBox"),
        (r#"{"awsCredentialsProvider":"WEB_IDENTITY_TOKEN"}"#, "WebIdentity { token_file: None, role_arn: None"),
        (
            r#"{"awsWebIdentityTokenFile":"t","awsRoleArn":"arn:r","awsRoleSessionName":"s"}"#,
            r#"WebIdentity { token_file: Some("t"), role_arn: Some("arn:r"), session_name: Some("s")"#,
        ),
        (
            r#"{"awsCredentialsProvider":"ASSUME_ROLE","awsRoleArn":"arn:r","awsAccessKey":"AK","awsSecretKey":"hush","awsExternalId":"hush"}"#,
            r#"base: Static { access_key: "AK""#,
        ),
        (
            r#"{"awsRoleArn":"arn:outer","awsStsEndpoint":"http://sts","awsStsRegion":"eu-west-1",
                "awsRoleSource":{"awsRoleArn":"arn:inner","awsStsRegion":"eu-west-2","awsRoleSource":{"awsAccessKey":"AK","awsSecretKey":"hush"}}}"#,
            r#"sts: Sts { endpoint: Some("http://sts"), region: Some("eu-west-1") }, base: AssumeRole { role_arn: "arn:inner""#,
        ),
        (
            r#"{"awsRoleArn":"arn:outer","awsStsEndpoint":"http://sts","awsRoleSource":{"awsRoleArn":"arn:inner","awsStsRegion":"eu-west-2"}}"#,
            r#"sts: Sts { endpoint: Some("http://sts"), region: Some("eu-west-2") }, base: DefaultChain"#,
        ),
    ] {
        let (credentials, problems) = credentials(json);
        assert!(credentials.contains(expected), "{json}: {credentials}");
        assert!(problems.is_empty(), "{json}: {problems:?}");
        assert!(!credentials.contains("hush"), "a secret shows: {credentials}");
    }
}

#[test]
fn keys_that_would_not_count_are_told() {
    for (json, key, expected) in [
        (r#"{"awsCredentialsProvider":"SYS_PROP"}"#, "awsCredentialsProvider", "write ENV_VAR, or BASIC"),
        (r#"{"awsCredentialsProvider":"CUSTOM"}"#, "awsCredentialsProvider", "write PROCESS"),
        (r#"{"awsCredentialsProvider":"BASIC","awsAccessKey":"AK"}"#, "awsSecretKey", "is missing"),
        (r#"{"awsSecretKey":"hush"}"#, "awsAccessKey", "is missing"),
        (r#"{"awsSessionToken":"hush"}"#, "awsSessionToken", "which keys"),
        (r#"{"awsCredentialsProvider":"PROCESS"}"#, "awsCredentialProcess", "which command"),
        (r#"{"awsCredentialsProvider":"ENV_VAR","awsProfile":"p"}"#, "awsProfile", "no effect with awsCredentialsProvider: ENV_VAR"),
        (
            r#"{"awsCredentialsProvider":"BASIC","awsAccessKey":"AK","awsSecretKey":"hush","awsRoleArn":"arn:r"}"#,
            "awsRoleArn",
            "write ASSUME_ROLE",
        ),
        (r#"{"awsCredentialsProvider":"ASSUME_ROLE"}"#, "awsRoleArn", "which role"),
        (r#"{"awsWebIdentityTokenFile":"t"}"#, "awsRoleArn", "which role is assumed with the token"),
        (r#"{"awsCredentialsProvider":"WEB_IDENTITY_TOKEN","awsRoleArn":"arn:r"}"#, "awsWebIdentityTokenFile", "is missing"),
        (r#"{"awsWebIdentityTokenFile":"t","awsRoleArn":"arn:r","awsExternalId":"hush"}"#, "awsExternalId", "not asked for"),
        (r#"{"awsAccessKey":"AK","awsSecretKey":"hush","awsProfile":"p"}"#, "awsProfile", "together with awsAccessKey"),
        (r#"{"awsRoleSource":{}}"#, "awsRoleSource", "which role is assumed with it"),
        (r#"{"awsRoleArn":"arn:r","awsRoleSource":{"awsAcessKey":"hush"}}"#, "awsRoleSource.awsAcessKey", "did you mean awsAccessKey"),
        (r#"{"awsRoleArn":"arn:r","awsRoleSource":{"awsSecretKey":"hush"}}"#, "awsRoleSource.awsAccessKey", "is missing"),
        (r#"{"awsRoleArn":"arn:r","awsRoleSource":{"awsSecretKey":{"hush":1}}}"#, "awsRoleSource.awsSecretKey", "has to be text"),
        (r#"{"awsRoleArn":"arn:r","awsProfile":"p","awsRoleSource":{}}"#, "awsRoleSource", "together with awsProfile"),
        (r#"{"awsRoleArn":"arn:r","awsStsEndpoint":"sts"}"#, "awsStsEndpoint", "has to be a URL"),
        (r#"{"awsStsRegion":"EU"}"#, "awsStsRegion", "is no region"),
        (r#"{"awsRegion":"US_EAST_1"}"#, "awsRegion", "is no region"),
        (r#"{"httpMaxConcurrency":0}"#, "httpMaxConcurrency", "from 1 to 100000"),
        (r#"{"httpConnectTimeout":99}"#, "httpConnectTimeout", "from 100 to 60000"),
        (r#"{"httpReadTimeout":999}"#, "httpReadTimeout", "from 1000 to 600000"),
    ] {
        let (_, problems) = credentials(json);
        let told = problems.iter().any(|problem| problem.contains(&format!("configs.{key}: ")) && problem.contains(expected));
        assert!(told, "{json}: {problems:?}");
        assert!(!problems.iter().any(|problem| problem.contains("hush")), "a secret shows: {problems:?}");
    }
}

#[test]
fn a_roles_source_shows_no_secret_before_it_is_read() {
    let keys: AwsKeys = serde_json::from_str(r#"{"awsRoleSource":{"awsSecretKey":"hush"}}"#).expect("keys");
    assert!(!format!("{keys:?}").contains("hush"));
}

#[test]
fn wrong_credentials_are_told_without_their_secret() {
    for (json, expected) in [
        (r#"{"awsCredentialPluginParam":"{\"accessKey\":\"AK\",\"secret\":\"hush\"}"}"#, "has to be JSON like"),
        (r#"{"awsCredentialPluginParam":"hush"}"#, "has to be JSON like"),
        (r#"{"awsCredentialPluginName":"my.Plugin"}"#, "is not known"),
        (r#"{"awsCredentialPluginName":"org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin"}"#, "roleArn"),
        (r#"{"awsProfile":"p","awsCredentialPluginParam":"{\"accessKey\":\"AK\",\"secretKey\":\"hush\"}"}"#, "keep one"),
        (r#"{"awsProfileFile":"f"}"#, "which profile"),
        (r#"{"awsExternalId":"hush"}"#, "which role"),
        (r#"{"awsRoleArn":"r"}"#, "role's ARN"),
    ] {
        let (_, problems) = credentials(json);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{json}: {problems:?}");
        assert!(!problems.iter().any(|problem| problem.contains("hush")), "a secret shows: {problems:?}");
    }
}
