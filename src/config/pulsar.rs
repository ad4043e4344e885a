//! How to reach Pulsar: flags, then the environment, then Pulsar's own `client.conf`, then the default.

use std::{collections::BTreeMap, fs, path::Path};

use secrecy::{ExposeSecret, SecretString};

use super::validate::Problems;
use crate::{
    error::{Error, Kind, Result},
    pulsar::client::{Settings, Token},
};

/// What the command line and the environment say; each overrides `client.conf`.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub url: Option<String>,
    pub token: Option<Token>,
    pub trust_certs: Option<std::path::PathBuf>,
}

/// How to reach Pulsar, in the words of Pulsar's worker. What is empty was not given.
#[derive(Debug, Clone)]
pub struct Access {
    /// `pulsar://` or `pulsar+ssl://`; TLS is nowhere else.
    pub url: String,
    /// A Java class.
    pub auth_plugin: String,
    pub auth_params: SecretString,
    pub trust_certs: String,
    pub allow_insecure: bool,
}

const DEFAULT_URL: &str = "pulsar://localhost:6650";

/// Puts together what is given and what `client.conf` says.
pub fn settings(given: Given, client_conf: Option<&Path>) -> Result<Settings> {
    let from_file = match client_conf {
        None => Given::default(),
        Some(path) => {
            let failed = |why: String| Error::new(Kind::Configuration, format!("read {}", path.display()), why);
            let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            from_client_conf(&text).map_err(failed)?
        }
    };
    let url = given.url.or(from_file.url).unwrap_or_else(|| DEFAULT_URL.into());
    if !["pulsar://", "pulsar+ssl://"].iter().any(|scheme| url.starts_with(scheme)) {
        let why = format!("{url:?} has to start with pulsar:// or pulsar+ssl:// (--pulsar-url, PULSAR_URL, or brokerServiceUrl)");
        return Err(Error::new(Kind::Configuration, "use the Pulsar URL", why));
    }
    Ok(Settings { url, token: given.token.or(from_file.token), trust_certs: given.trust_certs.or(from_file.trust_certs) })
}

/// As Pulsar's functions worker says it. Errors with all that is wrong.
pub fn of_a_worker(access: &Access) -> Result<Settings> {
    let mut problems = Problems::default();
    let tls = access.url.starts_with("pulsar+ssl://");
    problems.require(
        tls || access.url.starts_with("pulsar://"),
        "pulsarServiceURL",
        format!("{:?} has to start with pulsar:// or pulsar+ssl://", access.url),
    );
    // Without TLS there is nothing to verify.
    problems.require(!(tls && access.allow_insecure), "tlsAllowInsecureConnection", INSECURE);
    let token = authentication(&access.auth_plugin, access.auth_params.expose_secret()).unwrap_or_else(|(of, why)| {
        problems.add(if of == Of::Plugin { "clientAuthenticationPlugin" } else { "clientAuthenticationParameters" }, why);
        None
    });
    problems.into_result("of the functions worker's Pulsar client")?;
    let trust_certs = (!access.trust_certs.is_empty()).then(|| access.trust_certs.clone().into());
    Ok(Settings { url: access.url.clone(), token, trust_certs })
}

/// The Pulsar client verifies always; whoever turned that off has to know, and a token is not for everybody.
const INSECURE: &str =
    "connections without verification are not supported; name the broker's certificate authority in tlsTrustCertsFilePath";

/// Reads the keys of Pulsar's `conf/client.conf` that matter here. The others are left alone.
fn from_client_conf(text: &str) -> Result<Given, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
    let pairs = lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
    let values: BTreeMap<&str, &str> = pairs.filter(|(_, value)| !value.is_empty()).collect();
    if values.get("tlsAllowInsecureConnection").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Err(format!("tlsAllowInsecureConnection=true: {INSECURE}"));
    }
    let text = |key: &str| values.get(key).copied().unwrap_or_default();
    let token = authentication(text("authPlugin"), text("authParams")).map_err(|(of, why)| match of {
        Of::Plugin => format!("authPlugin: {why}"),
        Of::Params => format!("authParams: {why}"),
    })?;
    Ok(Given {
        url: values.get("brokerServiceUrl").map(ToString::to_string),
        token,
        trust_certs: values.get("tlsTrustCertsFilePath").map(Into::into),
    })
}

/// Which of the two settings of an authentication is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Plugin,
    Params,
}

/// What a Java class of Pulsar's client and its parameters mean here. Empty means none.
fn authentication(plugin: &str, params: &str) -> Result<Option<Token>, (Of, String)> {
    match plugin {
        "" => Ok(None),
        plugin if plugin.ends_with("AuthenticationToken") || plugin == "token" => {
            // Never shown: it may be the token itself.
            const WANTED: &str = "has to be token:…, file:///… or {\"token\":\"…\"}";
            token(params).map(Some).ok_or((Of::Params, WANTED.into()))
        }
        plugin => Err((Of::Plugin, format!("{plugin} is not supported: only token authentication is, by this version"))),
    }
}

/// As Pulsar's tools write a token: `token:TEXT`, `file:///path`, `{"token":"TEXT"}`, or the bare text of a JWT.
pub fn token(params: &str) -> Option<Token> {
    if let Ok(serde_json::Value::Object(map)) = serde_json::from_str(params) {
        return map.get("token")?.as_str().map(|text| Token::Text(text.into()));
    }
    if let Some(text) = params.strip_prefix("token:") {
        return Some(Token::Text(text.to_string().into()));
    }
    if let Some(path) = params.strip_prefix("file:") {
        return Some(Token::File(path.strip_prefix("//").unwrap_or(path).into()));
    }
    (params.matches('.').count() == 2).then(|| Token::Text(params.to_string().into()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn client_conf_is_read_as_pulsars_tools_write_it() {
        let text = "# comment\nwebServiceUrl=http://x:8080/\nbrokerServiceUrl=pulsar+ssl://broker:6651/\n\
                    authPlugin=org.apache.pulsar.client.impl.auth.AuthenticationToken\nauthParams=token:a.b.c\n\
                    tlsTrustCertsFilePath=/certs/ca.pem\ntlsAllowInsecureConnection=false\ntlsEnableHostnameVerification=true\nuseKeyStoreTls=false\n";
        let given = from_client_conf(text).expect("readable");
        assert_eq!(given.url.as_deref(), Some("pulsar+ssl://broker:6651/"));
        assert_eq!(given.trust_certs, Some(PathBuf::from("/certs/ca.pem")));
        assert!(matches!(given.token, Some(Token::Text(token)) if token.expose_secret() == "a.b.c"));
    }

    #[test]
    fn what_is_given_comes_before_client_conf() {
        let file = std::env::temp_dir().join(format!("client-{}.conf", std::process::id()));
        fs::write(&file, "brokerServiceUrl=pulsar://file:6650\nauthPlugin=token\nauthParams=file:///secrets/token\n").expect("written");
        let found = settings(Given { url: Some("pulsar://flag:6650".into()), ..Default::default() }, Some(&file)).expect("complete");
        assert_eq!(found.url, "pulsar://flag:6650");
        assert!(matches!(found.token, Some(Token::File(path)) if path.as_os_str() == "/secrets/token"));
        let found = settings(Given::default(), Some(&file)).expect("complete");
        assert_eq!(found.url, "pulsar://file:6650");
        fs::remove_file(file).expect("removed");
        assert_eq!(settings(Given::default(), None).expect("complete").url, "pulsar://localhost:6650");
    }

    #[test]
    fn a_wrong_client_conf_says_what_and_never_the_token() {
        for (text, expected) in [
            ("authPlugin=org.apache.pulsar.client.impl.auth.AuthenticationTls", "only token"),
            ("authPlugin=token\nauthParams=hush", "authParams"),
            ("tlsAllowInsecureConnection=true", "tlsTrustCertsFilePath"),
        ] {
            let why = from_client_conf(text).expect_err(text);
            assert!(why.contains(expected) && !why.contains("hush"), "{why}");
        }
        let error = settings(Given { url: Some("http://x".into()), ..Default::default() }, None).expect_err("no Pulsar URL");
        assert_eq!(error.kind(), Kind::Configuration);
    }
}
