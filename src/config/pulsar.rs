//! How to reach Pulsar: flags, then the environment, then Pulsar's own `client.conf`, then the default.

mod plugin;

use std::{collections::BTreeMap, fs, path::Path};

use secrecy::{ExposeSecret, SecretString};

use self::plugin::{Of, authentication};
use super::validate::Problems;
use crate::{
    error::{Error, Kind, Result},
    pulsar::{
        auth::{Authentication, ClientCertificate, Token},
        client::Settings,
    },
};

/// What the command line and the environment say; each overrides `client.conf`.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub url: Option<String>,
    /// Instead of a plugin.
    pub token: Option<Token>,
    /// A Java class.
    pub auth_plugin: Option<String>,
    pub auth_params: Option<SecretString>,
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
        None => ClientConf::default(),
        Some(path) => {
            let failed = |why: String| Error::new(Kind::Configuration, format!("read {}", path.display()), why);
            let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            ClientConf::parse(&text).map_err(failed)?
        }
    };
    let url = given.url.or(from_file.url).unwrap_or_else(|| DEFAULT_URL.into());
    if !["pulsar://", "pulsar+ssl://"].iter().any(|scheme| url.starts_with(scheme)) {
        let why = format!("{url:?} has to start with pulsar:// or pulsar+ssl:// (--pulsar-url, PULSAR_URL, or brokerServiceUrl)");
        return Err(Error::new(Kind::Configuration, "use the Pulsar URL", why));
    }
    let wrong = |why: String| Error::new(Kind::Configuration, "use the authentication of the Pulsar client", why);
    let authentication = match (given.token, given.auth_plugin) {
        (Some(_), Some(_)) => {
            return Err(wrong("there is a token (--token-file, PULSAR_TOKEN) and a plugin (--auth-plugin): give one of them".into()));
        }
        (Some(token), None) => Some(Authentication::Token(token)),
        (None, Some(plugin)) => {
            let params = given.auth_params.unwrap_or_default();
            authentication(&plugin, params.expose_secret()).map_err(|(of, why)| match of {
                Of::Plugin => wrong(format!("--auth-plugin: {why}")),
                Of::Params => wrong(format!("PULSAR_AUTH_PARAMS or --auth-params-file, for {plugin}: {why}")),
            })?
        }
        (None, None) => from_file.authentication,
    };
    let trust_certs = given.trust_certs.or(from_file.trust_certs);
    let settings = Settings { url, authentication, trust_certs, client_certificate: from_file.client_certificate };
    certificate_is_shown(&settings).map_err(wrong)?;
    Ok(settings)
}

/// Without TLS nobody asks for a certificate, and the broker would refuse us without a word about it.
fn certificate_is_shown(settings: &Settings) -> Result<(), String> {
    match &settings.authentication {
        Some(Authentication::Certificate(_)) if !settings.url.starts_with("pulsar+ssl://") => {
            Err(format!("AuthenticationTls needs a URL that starts with pulsar+ssl://, and it is {:?}", settings.url))
        }
        _ => Ok(()),
    }
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
    let authentication = authentication(&access.auth_plugin, access.auth_params.expose_secret()).unwrap_or_else(|(of, why)| {
        problems.add(if of == Of::Plugin { "clientAuthenticationPlugin" } else { "clientAuthenticationParameters" }, why);
        None
    });
    let trust_certs = (!access.trust_certs.is_empty()).then(|| access.trust_certs.clone().into());
    let settings = Settings { url: access.url.clone(), authentication, trust_certs, client_certificate: None };
    if let Err(why) = certificate_is_shown(&settings) {
        problems.add("clientAuthenticationPlugin", why);
    }
    problems.into_result("of the functions worker's Pulsar client")?;
    Ok(settings)
}

/// The Pulsar client verifies always; whoever turned that off has to know, and a token is not for everybody.
const INSECURE: &str =
    "connections without verification are not supported; name the broker's certificate authority in tlsTrustCertsFilePath";

/// What `client.conf` says.
#[derive(Debug, Default)]
struct ClientConf {
    url: Option<String>,
    authentication: Option<Authentication>,
    trust_certs: Option<std::path::PathBuf>,
    client_certificate: Option<ClientCertificate>,
}

impl ClientConf {
    /// Reads the keys of Pulsar's `conf/client.conf` that matter here. The others are left alone.
    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
        let pairs = lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
        let values: BTreeMap<&str, &str> = pairs.filter(|(_, value)| !value.is_empty()).collect();
        if values.get("tlsAllowInsecureConnection").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Err(format!("tlsAllowInsecureConnection=true: {INSECURE}"));
        }
        let text = |key: &str| values.get(key).copied().unwrap_or_default();
        let authentication = authentication(text("authPlugin"), text("authParams")).map_err(|(of, why)| match of {
            Of::Plugin => format!("authPlugin: {why}"),
            Of::Params => format!("authParams: {why}"),
        })?;
        let client_certificate = match (values.get("tlsCertificateFilePath"), values.get("tlsKeyFilePath")) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate: certificate.into(), key: key.into() }),
            (None, None) => None,
            _ => return Err("tlsCertificateFilePath and tlsKeyFilePath: one needs the other".into()),
        };
        Ok(Self {
            url: values.get("brokerServiceUrl").map(ToString::to_string),
            authentication,
            trust_certs: values.get("tlsTrustCertsFilePath").map(Into::into),
            client_certificate,
        })
    }
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
                    tlsTrustCertsFilePath=/certs/ca.pem\ntlsAllowInsecureConnection=false\ntlsEnableHostnameVerification=true\nuseKeyStoreTls=false\n\
                    tlsKeyFilePath=/certs/key.pem\ntlsCertificateFilePath=/certs/client.pem\n";
        let found = ClientConf::parse(text).expect("readable");
        assert_eq!(found.url.as_deref(), Some("pulsar+ssl://broker:6651/"));
        assert_eq!(found.trust_certs, Some(PathBuf::from("/certs/ca.pem")));
        let pair = ClientCertificate { certificate: "/certs/client.pem".into(), key: "/certs/key.pem".into() };
        assert_eq!(found.client_certificate, Some(pair));
        assert!(matches!(found.authentication, Some(Authentication::Token(Token::Text(token))) if token.expose_secret() == "a.b.c"));
        let basic =
            "authPlugin=org.apache.pulsar.client.impl.auth.AuthenticationBasic\nauthParams={\"userId\":\"alice\",\"password\":\"a=b\"}\n";
        let found = ClientConf::parse(basic).expect("readable").authentication;
        assert!(matches!(found, Some(Authentication::Basic { user, password }) if user == "alice" && password.expose_secret() == "a=b"));
    }

    #[test]
    fn what_is_given_comes_before_client_conf() {
        let file = std::env::temp_dir().join(format!("client-{}.conf", std::process::id()));
        fs::write(&file, "brokerServiceUrl=pulsar://file:6650\nauthPlugin=token\nauthParams=file:///secrets/token\n").expect("written");
        let found = settings(Given { url: Some("pulsar://flag:6650".into()), ..Default::default() }, Some(&file)).expect("complete");
        assert_eq!(found.url, "pulsar://flag:6650");
        assert!(matches!(found.authentication, Some(Authentication::Token(Token::File(path))) if path.as_os_str() == "/secrets/token"));
        let found = settings(Given::default(), Some(&file)).expect("complete");
        assert_eq!(found.url, "pulsar://file:6650");
        let basic = Given {
            auth_plugin: Some("AuthenticationBasic".into()),
            auth_params: Some(r#"{"userId":"alice","password":"p"}"#.into()),
            ..Default::default()
        };
        let found = settings(basic, Some(&file)).expect("complete");
        assert!(matches!(found.authentication, Some(Authentication::Basic { user, .. }) if user == "alice"));
        fs::remove_file(file).expect("removed");
        assert_eq!(settings(Given::default(), None).expect("complete").url, "pulsar://localhost:6650");
    }

    #[test]
    fn a_wrong_client_conf_says_what_and_never_the_token() {
        for (text, expected) in [
            ("authPlugin=org.apache.pulsar.client.impl.auth.AuthenticationSasl", "authPlugin: org.apache"),
            ("authPlugin=token\nauthParams=hush", "authParams"),
            ("tlsAllowInsecureConnection=true", "tlsTrustCertsFilePath"),
            ("tlsKeyFilePath=/hush", "tlsCertificateFilePath"),
        ] {
            let why = ClientConf::parse(text).expect_err(text);
            assert!(why.contains(expected) && !why.contains("hush"), "{why}");
        }
    }

    #[test]
    fn a_wrong_flag_or_variable_says_which_and_never_its_secret() {
        let token = || Some(Token::Text("hush".into()));
        let plugin = |class: &str| Some(class.to_owned());
        for (given, expected) in [
            (Given { url: Some("http://x".into()), ..Default::default() }, "--pulsar-url"),
            (Given { token: token(), auth_plugin: plugin("basic"), ..Default::default() }, "one of them"),
            (Given { auth_plugin: plugin("basic"), ..Default::default() }, "PULSAR_AUTH_PARAMS"),
            (Given { auth_plugin: plugin("basic"), auth_params: Some("hush".into()), ..Default::default() }, "--auth-params-file"),
            (Given { auth_plugin: plugin("a.Sasl"), ..Default::default() }, "--auth-plugin: a.Sasl"),
            (
                Given { auth_plugin: plugin("tls"), auth_params: Some("tlsCertFile:/hush,tlsKeyFile:/hush".into()), ..Default::default() },
                "pulsar+ssl://",
            ),
        ] {
            let error = settings(given, None).expect_err(expected);
            assert_eq!(error.kind(), Kind::Configuration);
            assert!(error.to_string().contains(expected) && !error.to_string().contains("hush"), "{error}");
        }
    }
}
