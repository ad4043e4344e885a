//! `--function_details JSON …`: the options of Pulsar's `JavaInstanceMain`, as Function Mesh writes them for its Source, Sink and generic resources.
//!
//! The program stands where `java` or `pulsar_rust_instance` was to be, so what a virtual machine takes may come first.

use std::collections::BTreeMap;

use super::instance::Given;
use crate::config::pulsar::Access;

/// The option that no other command line has.
pub const DETAILS: &str = "--function_details";

/// Each option's value. A value that is an empty shell variable is not there at all, so that the next option follows; one with spaces in it
/// came without quotes, and is in pieces.
fn options(arguments: &[String]) -> BTreeMap<&str, String> {
    let mut options = BTreeMap::new();
    let mut current = None;
    for argument in arguments {
        if argument.starts_with("--") {
            current = Some(options.entry(argument.as_str()).or_insert_with(String::new));
        } else if let Some(value) = &mut current {
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str(argument);
        }
    }
    options
}

/// What is wrong says the error; it has no value in it, since that may be a secret.
pub fn parse(arguments: &[String]) -> Result<Given, String> {
    let options = options(arguments);
    let text = |name: &str| options.get(name).map(|value| value.trim()).unwrap_or_default();
    let number = |name: &str, default: i64| match text(name) {
        "" => Ok(default),
        text => text.parse().map_err(|_| format!("{name}: has to be a whole number")),
    };
    // Pulsar's own process runtime leaves the shell's quotes around it.
    let details = text(DETAILS);
    let details = details.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(details);
    Ok(Given {
        id: number("--instance_id", -1)?,
        port: number("--port", 0)?,
        metrics_port: number("--metrics_port", 0)?,
        cluster: text("--cluster_name").into(),
        access: Access {
            url: text("--pulsar_serviceurl").into(),
            auth_plugin: text("--client_auth_plugin").into(),
            auth_params: text("--client_auth_params").to_owned().into(),
            trust_certs: text("--tls_trust_cert_path").into(),
            allow_insecure: text("--tls_allow_insecure").eq_ignore_ascii_case("true"),
        },
        details: serde_json::from_str(details).map_err(|error| format!("{DETAILS}: {error}"))?,
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn parsed(line: &str) -> Result<Given, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_a_virtual_machine_takes_is_passed_over_and_quotes_are_taken_off() {
        let given = parsed(
            "-cp /a.jar:/b.jar -Dx=y -XX:+UseG1GC --add-opens java.base/java=ALL org.apache.pulsar.JavaInstanceMain --jar x.nar \
             --instance_id 2 --port 9093 --expose_pulsaradmin --function_details '{\"name\":\"n\"}'",
        )
        .expect("complete");
        assert_eq!((given.id, given.port, given.metrics_port, given.details.name.as_str()), (2, 9093, 0, "n"));
    }

    #[test]
    fn an_empty_variable_takes_no_option_for_its_value_and_pieces_are_put_together() {
        let given = parsed(
            "--function_details {} --client_auth_plugin --client_auth_params {\"a\": \"b c\"} --use_tls false --tls_trust_cert_path",
        )
        .expect("complete");
        assert_eq!((given.access.auth_plugin.as_str(), given.access.auth_params.expose_secret()), ("", "{\"a\": \"b c\"}"));
        assert_eq!(given.access.trust_certs, "");
    }

    #[test]
    fn what_cannot_be_read_is_named_and_not_shown() {
        for (line, expected) in [("--function_details hush", DETAILS), ("--function_details {} --port hush", "--port: has to be")] {
            let why = parsed(line).err().expect(line);
            assert!(why.contains(expected) && !why.contains("hush"), "{why}");
        }
    }
}
