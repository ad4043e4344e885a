//! Pulsar's authentication plugins: a Java class and its parameters, as Pulsar's tools, its worker and Function Mesh write them.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::pulsar::{
    auth::{Authentication, ClientCertificate, Token},
    oauth2::{ClientCredentials, KeyFile, OAuth2},
};

/// Which of the two settings of an authentication is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Plugin,
    Params,
}

/// What a Java class of Pulsar's client and its parameters mean here. No class means none. Classes may go without their package, or by the short
/// name that Pulsar's other clients have for them.
///
/// # Errors
/// Says what is wrong, and never shows parameters: they may be secrets.
pub fn authentication(plugin: &str, params: &str) -> Result<Option<Authentication>, (Of, String)> {
    let params = params.trim();
    let found = match plugin.trim().rsplit('.').next().unwrap_or_default() {
        "" | "AuthenticationDisabled" => return Ok(None),
        "AuthenticationToken" | "token" => {
            token(params).map(Authentication::Token).ok_or_else(|| "has to be token:…, file:///… or {\"token\":\"…\"}".into())
        }
        "AuthenticationBasic" | "basic" => basic(params),
        "AuthenticationTls" | "tls" => certificate(params),
        "AuthenticationOAuth2" | "oauth2" => oauth2(params),
        _ => {
            let why = format!(
                "{plugin} is not supported: AuthenticationToken, AuthenticationBasic, AuthenticationTls (PEM files) and AuthenticationOAuth2 are"
            );
            return Err((Of::Plugin, why));
        }
    };
    found.map(Some).map_err(|why| (Of::Params, why))
}

/// As Pulsar's tools write a token: `token:TEXT`, `file:///path`, `{"token":"TEXT"}`, or the bare text of a JWT.
fn token(params: &str) -> Option<Token> {
    if let Ok(Value::Object(map)) = serde_json::from_str(params) {
        return map.get("token")?.as_str().map(|text| Token::Text(text.into()));
    }
    if let Some(text) = params.strip_prefix("token:") {
        return Some(Token::Text(text.to_string().into()));
    }
    if let Some(path) = file(params) {
        return Some(Token::File(path.into()));
    }
    (params.matches('.').count() == 2).then(|| Token::Text(params.to_string().into()))
}

fn basic(params: &str) -> Result<Authentication, String> {
    const WANTED: &str = "has to be {\"userId\":\"…\",\"password\":\"…\"}";
    let mut params = pairs(params).ok_or(WANTED)?;
    let (Some(user), Some(password)) = (params.remove("userId"), params.remove("password")) else { return Err(WANTED.into()) };
    if user.is_empty() || user.contains(':') {
        return Err("userId: has to be there, and has no colon in it".into());
    }
    Ok(Authentication::Basic { user, password: password.into() })
}

fn certificate(params: &str) -> Result<Authentication, String> {
    const WANTED: &str = "has to be tlsCertFile:/…,tlsKeyFile:/… or {\"tlsCertFile\":\"…\",\"tlsKeyFile\":\"…\"}, both PEM files";
    let mut params = pairs(params).ok_or(WANTED)?;
    match (params.remove("tlsCertFile"), params.remove("tlsKeyFile")) {
        (Some(certificate), Some(key)) if !certificate.is_empty() && !key.is_empty() => {
            Ok(Authentication::Certificate(ClientCertificate { certificate: certificate.into(), key: key.into() }))
        }
        _ => Err(WANTED.into()),
    }
}

fn oauth2(params: &str) -> Result<Authentication, String> {
    const WANTED: &str = "has to be {\"issuerUrl\":\"https://…\",\"privateKey\":\"file:///…\",\"audience\":\"…\",\"scope\":\"…\"}; the last two may be left out";
    let Ok(Value::Object(_)) = serde_json::from_str(params) else { return Err(WANTED.into()) };
    let mut params = pairs(params).ok_or(WANTED)?;
    if params.get("type").is_some_and(|kind| kind != "client_credentials") {
        return Err("type: only client_credentials is supported".into());
    }
    let (Some(issuer), Some(key)) = (params.remove("issuerUrl"), params.remove("privateKey")) else { return Err(WANTED.into()) };
    if !["https://", "http://"].iter().any(|scheme| issuer.starts_with(scheme)) {
        return Err("issuerUrl: has to start with https://".into());
    }
    let mut given = |name: &str| params.remove(name).filter(|text| !text.is_empty());
    let (audience, scope) = (given("audience"), given("scope"));
    Ok(Authentication::OAuth2(Arc::new(OAuth2::new(ClientCredentials { issuer, key: key_file(&key)?, audience, scope }))))
}

/// `file:///path`, `file:/path`, `data:application/json;base64,…`, or JSON behind `data:application/json,`.
fn key_file(url: &str) -> Result<KeyFile, String> {
    const WANTED: &str = "privateKey: has to be file:///… or data:application/json;base64,…";
    if let Some(path) = file(url) {
        return Ok(KeyFile::File(path.into()));
    }
    let (kind, data) = url.strip_prefix("data:").and_then(|data| data.split_once(',')).ok_or(WANTED)?;
    let text = match kind.strip_suffix(";base64") {
        Some(_) => STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(WANTED)?,
        None => data.to_owned(),
    };
    Ok(KeyFile::Text(text.into()))
}

/// The path of a `file:` URL.
fn file(url: &str) -> Option<&str> {
    url.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path))
}

/// JSON with texts, or `name:value,name:value`.
fn pairs(params: &str) -> Option<BTreeMap<String, String>> {
    if params.starts_with('{') {
        return serde_json::from_str(params).ok();
    }
    params.split(',').map(|pair| pair.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const PACKAGE: &str = "org.apache.pulsar.client.impl.auth";

    fn found(class: &str, params: &str) -> Authentication {
        let found = authentication(class, params).unwrap_or_else(|(_, why)| panic!("{class} {params}: {why}"));
        found.unwrap_or_else(|| panic!("{class}: none"))
    }

    #[test]
    fn no_class_is_no_authentication() {
        for class in ["", "org.apache.pulsar.client.impl.auth.AuthenticationDisabled"] {
            assert!(authentication(class, "").is_ok_and(|found| found.is_none()), "{class:?}");
        }
    }

    #[test]
    fn each_form_of_a_token_is_read() {
        for class in [&*format!("{PACKAGE}.AuthenticationToken"), "AuthenticationToken", "token"] {
            for params in ["token:a.b.c", r#"{"token":"a.b.c"}"#, "a.b.c"] {
                let token = found(class, params);
                assert!(matches!(&token, Authentication::Token(Token::Text(text)) if text.expose_secret() == "a.b.c"), "{class} {params}");
            }
            for params in ["file:///secrets/token", "file:/secrets/token"] {
                let token = found(class, params);
                assert!(matches!(&token, Authentication::Token(Token::File(path)) if path.as_os_str() == "/secrets/token"), "{params}");
            }
        }
    }

    #[test]
    fn each_form_of_a_user_is_read() {
        for class in [&*format!("{PACKAGE}.AuthenticationBasic"), "AuthenticationBasic", "basic"] {
            for params in [r#"{"userId":"alice","password":"p:, ü"}"#, r#" { "password" : "p:, ü", "userId" : "alice" } "#] {
                let Authentication::Basic { user, password } = found(class, params) else { panic!("{class}") };
                assert_eq!((&*user, password.expose_secret()), ("alice", "p:, ü"), "{params}");
            }
        }
        let Authentication::Basic { user, password } = found("basic", "userId:alice,password:p:x") else { panic!("not basic") };
        assert_eq!((&*user, password.expose_secret()), ("alice", "p:x"));
    }

    #[test]
    fn each_form_of_a_certificate_is_read() {
        for class in [&*format!("{PACKAGE}.AuthenticationTls"), "AuthenticationTls", "tls"] {
            for params in ["tlsCertFile:/c.pem,tlsKeyFile:/k:1.pem", r#"{"tlsCertFile":"/c.pem","tlsKeyFile":"/k:1.pem"}"#] {
                let Authentication::Certificate(pair) = found(class, params) else { panic!("{class}") };
                assert_eq!(pair, ClientCertificate { certificate: "/c.pem".into(), key: "/k:1.pem".into() }, "{params}");
            }
        }
    }

    #[test]
    fn each_form_of_client_credentials_is_read() {
        let key = r#"{"client_id":"i","client_secret":"s"}"#;
        let encoded = format!("data:application/json;base64,{}", STANDARD.encode(key));
        assert!(matches!(key_file(&encoded), Ok(KeyFile::Text(text)) if text.expose_secret() == key));
        assert!(matches!(key_file(&format!("data:application/json,{key}")), Ok(KeyFile::Text(text)) if text.expose_secret() == key));
        for url in ["file:///key.json", "file:/key.json"] {
            assert!(matches!(key_file(url), Ok(KeyFile::File(path)) if path.as_os_str() == "/key.json"), "{url}");
        }
        for class in [&*format!("{PACKAGE}.oauth2.AuthenticationOAuth2"), "AuthenticationOAuth2", "oauth2"] {
            for more in ["", r#","type":"client_credentials","audience":"urn:a","scope":"s t""#] {
                let params = format!(r#"{{"issuerUrl":"https://issuer/x","privateKey":"file:///key.json"{more}}}"#);
                assert!(matches!(found(class, &params), Authentication::OAuth2(_)), "{params}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_never_shown() {
        for (class, params, expected) in [
            ("org.apache.pulsar.client.impl.auth.AuthenticationSasl", "hush", "AuthenticationSasl is not supported"),
            ("org.apache.pulsar.client.impl.auth.AuthenticationKeyStoreTls", "hush", "PEM files"),
            ("com.acme.MyAuthenticationToken", "token:hush", "MyAuthenticationToken is not supported"),
            ("token", "hush", "token:…"),
            ("basic", "hush", "userId"),
            ("basic", r#"{"userId":"hush"}"#, "password"),
            ("basic", r#"{"userId":"hush","password":5}"#, "password"),
            ("basic", r#"{"userId":"hu:sh","password":"hush"}"#, "no colon"),
            ("tls", "tlsCertFile:/hush", "tlsKeyFile"),
            ("tls", "", "tlsKeyFile"),
            ("oauth2", "hush", "issuerUrl"),
            ("oauth2", r#"{"issuerUrl":"https://hush"}"#, "privateKey"),
            ("oauth2", r#"{"issuerUrl":"hush","privateKey":"file:/hush"}"#, "https://"),
            ("oauth2", r#"{"issuerUrl":"https://hush","privateKey":"hush"}"#, "privateKey: has to be"),
            ("oauth2", r#"{"issuerUrl":"https://hush","privateKey":"data:application/json;base64,hush!"}"#, "privateKey: has to be"),
            ("oauth2", r#"{"type":"hush","issuerUrl":"https://x","privateKey":"file:/x"}"#, "client_credentials"),
        ] {
            let (of, why) = authentication(class, params).expect_err(params);
            assert!(why.contains(expected) && !why.contains("hush"), "{class} {params}: {why}");
            assert_eq!(of == Of::Plugin, why.contains("is not supported"), "{class}");
        }
    }
}
