//! One instance as it was told on its command line, whatever the shape of that was: which one it is, where it is asked for its state, how it
//! reaches Pulsar, and what was registered.

use std::collections::BTreeMap;

use super::{conf, details::Details, flags};
use crate::{
    config::pulsar::Access,
    error::{Error, Kind, Result},
};

/// Pulsar's Kubernetes runtime and Function Mesh number an instance by the end of its pod's name: `orders-source-2`.
const POD_NAME: &str = "POD_NAME";

/// What either command line says, as it says it.
pub struct Given {
    /// -1: the pod's name says it.
    pub id: i64,
    pub port: i64,
    /// 0: none.
    pub metrics_port: i64,
    pub cluster: String,
    pub access: Access,
    pub details: Details,
}

/// An instance that can be asked for its state; whether it can work is another question.
pub struct Instance {
    /// From 0 on: which of the parallel ones.
    pub id: u32,
    pub tenant: String,
    pub namespace: String,
    pub name: String,
    pub cluster: String,
    /// Where `InstanceControl` is served.
    pub port: u16,
    /// Where metrics are served.
    pub metrics_port: Option<u16>,
    pub access: Access,
    pub details: Details,
}

/// Which of the two shapes a command line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Its value's place among the arguments.
    Conf(usize),
    Flags,
}

fn shape(arguments: &[String]) -> Option<Shape> {
    let conf = arguments.first().is_some_and(|first| first == "-instance-conf" || first == "--instance-conf");
    let flags = || arguments.iter().any(|argument| argument == flags::DETAILS).then_some(Shape::Flags);
    conf.then_some(Shape::Conf(1)).or_else(flags)
}

/// Whether Pulsar's worker or Function Mesh started this process. `arguments` are without the program's name.
pub fn is_meant(arguments: &[String]) -> bool {
    shape(arguments).is_some()
}

impl Instance {
    /// Reads a command line that [`is_meant`], and what its host puts into the environment. Errors without showing a value: it may be a secret.
    pub fn parse(arguments: &[String], environment: &BTreeMap<String, String>) -> Result<Self> {
        let (option, given) = match shape(arguments) {
            // A shell that lost the quotes has made pieces of it.
            Some(Shape::Conf(at)) => ("-instance-conf", conf::parse(&arguments[at..].join(" "))),
            Some(Shape::Flags) | None => ("the options", flags::parse(arguments)),
        };
        let wrong = |why: String| Error::new(Kind::Configuration, format!("read {option} of Pulsar's functions host"), why);
        let given = given.map_err(wrong)?;
        let port = |name: &str, number: i64| u16::try_from(number).map_err(|_| wrong(format!("{name}: {number} is no port")));
        let id = match given.id {
            -1 => environment.get(POD_NAME).and_then(|pod| pod.rsplit('-').next()).and_then(|end| end.parse().ok()),
            id => u32::try_from(id).ok(),
        };
        let id = id.ok_or_else(|| wrong(format!("there is no instance id, and {POD_NAME} does not end with one")))?;
        let is_conf = matches!(shape(arguments), Some(Shape::Conf(_)));
        let access = if is_conf { or_of_the_pod(given.access, environment) } else { given.access };
        let details = given.details;
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        if details.name.is_empty() {
            return Err(wrong("there is no name".into()));
        }
        if given.port == 0 {
            return Err(wrong("there is no port to be asked for the state on".into()));
        }
        Ok(Self {
            id,
            tenant: or(&details.tenant, "public"),
            namespace: or(&details.namespace, "default"),
            name: details.name.clone(),
            cluster: given.cluster,
            port: port("port", given.port)?,
            metrics_port: Some(port("metrics port", given.metrics_port)?).filter(|port| *port != 0),
            access,
            details,
        })
    }

    /// `tenant/namespace/name`, Pulsar's fully qualified name of a function.
    pub fn full_name(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.namespace, self.name)
    }
}

/// Function Mesh gives `golang` functions these variables, and nothing on the command line.
fn or_of_the_pod(given: Access, environment: &BTreeMap<String, String>) -> Access {
    let variable = |name: &str| environment.get(name).cloned().unwrap_or_default();
    let or = |given: String, name: &str| if given.is_empty() { variable(name) } else { given };
    let with_auth = !given.auth_plugin.is_empty();
    Access {
        url: or(given.url, "brokerServiceURL"),
        auth_params: if with_auth { given.auth_params } else { variable("clientAuthenticationParameters").into() },
        auth_plugin: or(given.auth_plugin, "clientAuthenticationPlugin"),
        trust_certs: or(given.trust_certs, "tlsTrustCertsFilePath"),
        allow_insecure: given.allow_insecure || variable("tlsAllowInsecureConnection").eq_ignore_ascii_case("true"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(conf: &str, environment: &[(&str, &str)]) -> Result<Instance> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Instance::parse(&["-instance-conf".to_owned(), conf.to_owned()], &environment)
    }

    #[test]
    fn only_the_two_shapes_are_taken_for_one() {
        let meant = |line: &str| is_meant(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(meant("-instance-conf {}") && meant("-cp x Main --function_details {}"));
        assert!(!meant("source --config -instance-conf") && !meant("check") && !meant(""));
    }

    #[test]
    fn the_pod_knows_which_instance_it_is_where_the_command_line_does_not() {
        let conf = r#"{"instanceID":-1,"port":9093,"name":"n"}"#;
        assert_eq!(parse(conf, &[(POD_NAME, "n-function-7")]).map(|instance| instance.id).ok(), Some(7));
        for environment in [&[][..], &[(POD_NAME, "n-x")][..]] {
            assert!(parse(conf, environment).err().expect("nobody knows").to_string().contains(POD_NAME));
        }
        let given =
            parse(r#"{"instanceID":3.0,"port":"9093","name":"n","metricsPort":0}"#, &[(POD_NAME, "n-function-7")]).expect("complete");
        assert_eq!((given.id, given.port, given.metrics_port, given.full_name().as_str()), (3, 9093, None, "public/default/n"));
    }

    #[test]
    fn what_is_no_instance_is_told_without_its_values() {
        for (conf, expected) in [
            (r#"{"userConfig":"hush"#, "leave funcConfig empty"),
            (r#"{"name":"hush","port":0}"#, "no port"),
            (r#"{"name":"n","port":70000}"#, "70000 is no port"),
            (r#"{"port":1}"#, "no name"),
            (r#"{"name":"n","port":1,"functionDetails":"{hush"}"#, "functionDetails"),
            (r#"{"name":"n","port":1,"sourceInputSpecs":{"t":"{hush"}}"#, "sourceInputSpecs, t"),
            (r#"{"name":"n","port":1,"processingGuarantees":9}"#, "processingGuarantees"),
        ] {
            let error = parse(conf, &[]).err().expect(conf);
            assert!(error.kind() == Kind::Configuration && error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_pods_variables_say_how_to_reach_pulsar_unless_the_command_line_does() {
        let environment = [
            ("brokerServiceURL", "pulsar://pod:6650"),
            ("clientAuthenticationPlugin", "Token"),
            ("clientAuthenticationParameters", "token:pod"),
            ("tlsTrustCertsFilePath", "/pod.pem"),
        ];
        use secrecy::ExposeSecret;
        let Access { url, auth_plugin, auth_params, trust_certs, .. } =
            parse(r#"{"port":1,"name":"n"}"#, &environment).expect("complete").access;
        assert_eq!(
            (&*url, &*auth_plugin, auth_params.expose_secret(), &*trust_certs),
            ("pulsar://pod:6650", "Token", "token:pod", "/pod.pem")
        );
        let conf =
            r#"{"port":1,"name":"n","pulsarServiceURL":"pulsar://x","clientAuthenticationPlugin":"P","clientAuthenticationParameters":""}"#;
        let Access { url, auth_plugin, auth_params, .. } = parse(conf, &environment).expect("complete").access;
        assert_eq!((&*url, &*auth_plugin, auth_params.expose_secret()), ("pulsar://x", "P", ""));
    }
}
