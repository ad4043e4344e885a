//! What `docker/` and its page say is true of the program and of each other. Nothing is built or started here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pulsar_io_dynamodb::config::{self, load};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands behind `name` up to the end of the word, each time.
fn behind<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let word = |rest: &'t str| rest.split(|end: char| end.is_whitespace() || end == '"').next().unwrap_or_default();
    text.split(name).skip(1).map(word).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn images_are_built_with_the_pinned_toolchain_and_for_the_pulsar_that_is_tested() {
    let rust = behind(&text("rust-toolchain.toml"), "channel = \"").concat();
    let (parts, compose) = (text("scripts/parts"), text("docker/compose.yaml"));
    let pulsar = behind(&parts, "\npulsar_version=")[0];
    for dockerfile in ["docker/Dockerfile", "docker/Dockerfile.nar"] {
        assert_eq!(behind(&text(dockerfile), "ARG RUST="), [rust.as_str()], "{dockerfile}");
    }
    assert_eq!(behind(&text("docker/Dockerfile.nar"), "ARG PULSAR="), [pulsar]);
    assert_eq!(behind(&compose, "apachepulsar/pulsar:"), [pulsar]);
    assert_eq!(behind(&compose, "amazon/dynamodb-local:"), behind(&parts, "\ndynamodb_version="));
    for resource in ["source", "sink"] {
        let archive = format!("connectors/pulsar-io-dynamodb-{pulsar}.nar");
        assert!(text(&format!("docker/function-mesh/{resource}.yaml")).contains(&archive), "{resource}: java.jar is not {archive}");
    }
}

#[test]
fn compose_names_files_and_services_that_are_there() {
    let compose = yaml("docker/compose.yaml");
    let services = compose["services"].as_object().expect("services");
    let mut mounted = BTreeSet::new();
    for (name, service) in services {
        for volume in strings(&service["volumes"]) {
            let file = root().join("docker").join(volume.split(':').next().expect("a source"));
            assert!(file.is_file(), "{name}: {volume}");
            mounted.insert(file.canonicalize().expect("it is there"));
        }
        for other in service["depends_on"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            assert!(services.contains_key(other), "{name} depends on {other}");
        }
    }
    // The dashboard and the alerts are those that the documentation has.
    for file in ["docs/dashboards/pulsar-io-dynamodb.json", "docs/dashboards/alerts.yaml"] {
        assert!(mounted.contains(&root().join(file).canonicalize().expect("it is there")), "{file} is not mounted");
    }
    let home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().expect("a path");
    let folder = yaml("docker/compose/grafana-dashboards.yaml")["providers"][0]["options"]["path"].as_str().expect("a path").to_owned();
    assert!(strings(&compose["services"]["grafana"]["volumes"]).iter().any(|volume| volume.contains(&format!(":{home}:"))));
    assert_eq!(Path::new(home).parent(), Some(Path::new(&folder)));

    let dockerfile = text("docker/Dockerfile");
    let port = behind(&dockerfile, "PULSAR_IO_DYNAMODB_HTTP_ADDRESS=0.0.0.0:")[0];
    let prometheus = yaml("docker/compose/prometheus.yaml");
    for target in strings(&prometheus["scrape_configs"][0]["static_configs"][0]["targets"]) {
        let (service, asked) = target.split_once(':').expect("a port");
        assert!(services.contains_key(service) && asked == port, "{target}");
    }
    let url = yaml("docker/compose/grafana-datasource.yaml")["datasources"][0]["url"].as_str().expect("a URL").to_owned();
    assert!(services.contains_key(url.trim_start_matches("http://").split(':').next().expect("a host")), "{url}");
}

#[test]
fn the_workers_of_compose_start_and_meet_in_the_tables_that_the_shop_makes() {
    let compose = yaml("docker/compose.yaml");
    let environment = |service: &str| -> BTreeMap<String, String> {
        let variables = compose["services"][service]["environment"].as_object().expect("variables");
        variables.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    };
    for service in ["source", "sink"] {
        let command = strings(&compose["services"][service]["command"]).join(" ");
        assert_eq!(command, format!("{service} --config /etc/pulsar-io-dynamodb/{service}.yaml"));
    }
    let document = |file: &str| load::read(&root().join("connector-config").join(file)).expect("readable");
    let source = config::source::check(&document("source.yaml"), &environment("source"), config::Transport::Own)
        .unwrap_or_else(|error| panic!("{error}"));
    let sink = config::sink::check(&document("sink.yaml"), &environment("sink"), config::sink::Consumer::Own)
        .unwrap_or_else(|error| panic!("{error}"));
    let endpoint = Some("http://dynamodb:8000");
    assert_eq!(
        (source.dynamodb_endpoint.as_deref(), source.streams_endpoint.as_deref(), sink.dynamodb_endpoint.as_deref()),
        (endpoint, endpoint, endpoint)
    );
    assert_eq!(sink.subscription.topics, [source.topic]);
    let shop = text("docker/compose/shop");
    let made: BTreeSet<_> = behind(&shop, "\ntable ").into_iter().collect();
    assert_eq!(made, BTreeSet::from([source.stream.trim_start_matches("table:"), &*sink.settings.table_name]));
}

/// The actions of a service that a text names.
fn actions(text: &str, service: &str) -> BTreeSet<String> {
    let word = |rest: &str| rest.chars().take_while(char::is_ascii_alphabetic).collect::<String>();
    // `PutItem`, not the region in an ARN.
    let is_action = |word: &String| {
        word.starts_with(|first: char| first.is_ascii_uppercase()) && word.contains(|other: char| other.is_ascii_lowercase())
    };
    text.split(&format!("{service}:")).skip(1).map(word).filter(is_action).collect()
}

#[test]
fn the_page_allows_each_action_that_the_program_needs_and_no_other() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            match path.extension().and_then(|extension| extension.to_str()) {
                None => sources(&path, text),
                Some("rs") => *text += &fs::read_to_string(path).expect("text"),
                Some(_) => {}
            }
        }
    }
    let (page, mut code) = (text("docs/containers.md"), String::new());
    sources(&root().join("src"), &mut code);
    for policy in page.split("```json\n").skip(1) {
        let policy: Value = serde_json::from_str(policy.split("```").next().expect("an end")).expect("JSON");
        assert_eq!(policy["Version"], "2012-10-17");
    }
    let mut needed = actions(&code, "dynamodb");
    // What AWS asks for a transaction are the permissions of its writes.
    assert!(needed.remove("TransactWriteItems"));
    assert_eq!(actions(&page, "dynamodb"), needed);
    assert_eq!(actions(&page, "cloudwatch"), actions(&code, "cloudwatch"));
}
