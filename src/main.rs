//! The process: arguments → configuration → logging, metrics → runtime → drain → exit code.

use std::{collections::BTreeMap, env, fs, process::ExitCode, sync::LazyLock};

use clap::{CommandFactory, FromArgMatches};
use pulsar_io_dynamodb::{
    cli::{Check, Cli, Command, ConfigSchema, Kind, Pulsar},
    config::{self, load, pulsar::Given, reference},
    error::{Error, Kind as ErrorKind, Result},
    host::{self, bridge, check::Report, functions, standalone},
    leases, logging,
    metrics::page,
    pulsar::auth::Token,
    supervisor::{EXIT_FAILURE, EXIT_USAGE, exit_code},
};
use secrecy::SecretString;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    if functions::instance::is_meant(&arguments) {
        return ended(functions::run(&arguments, &environment()));
    }
    let parsed = Cli::command().long_version(PROVENANCE.as_str()).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and a reader that has gone away is none of ours.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    ended(run(cli, &environment()))
}

/// What this executable was made of. `scripts/static` and the image's build tell the commit; any other build does without, since asking for it would
/// compile everything again after each commit. Here and not in the library, so that a new commit compiles this file alone.
static PROVENANCE: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("BUILD_COMMIT").filter(|commit| !commit.is_empty()).unwrap_or("unknown");
    let features = if cfg!(feature = "cloudwatch") { "cloudwatch" } else { "none" };
    let libc = if cfg!(target_env = "musl") { "musl" } else { "glibc" };
    format!(
        "{}\ncommit: {commit}\nfeatures: {features}\nbuilt for: {} {}, {libc}",
        env!("CARGO_PKG_VERSION"),
        env::consts::OS,
        env::consts::ARCH
    )
});

fn ended(outcome: Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pulsar-io-dynamodb: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn environment() -> BTreeMap<String, String> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

fn run(cli: Cli, environment: &BTreeMap<String, String>) -> Result<ExitCode> {
    match cli.command {
        Command::Source(run) => {
            let source = config::source::check(&load::read(&run.config)?, environment, config::Transport::Own)?;
            let pulsar = pulsar_settings(run.pulsar, environment)?;
            logging::start(&run.log.log_level, run.log.log_format, Vec::new())?;
            standalone::source(source, pulsar, run.http_address)
        }
        Command::Sink(run) => {
            let sink = config::sink::check(&load::read(&run.config)?, environment, config::sink::Consumer::Own)?;
            let pulsar = pulsar_settings(run.pulsar, environment)?;
            logging::start(&run.log.log_level, run.log.log_format, Vec::new())?;
            standalone::sink(sink, pulsar, run.http_address)
        }
        Command::Bridge(settings) => {
            logging::start(&settings.log_level, settings.log_format, Vec::new())?;
            bridge::run(environment)
        }
        Command::Leases(command) => leases::run(&command, environment),
        Command::Check(check) => check_file(check, environment),
        Command::ConfigSchema(wanted) => {
            print!("{}", schema(&wanted));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check_file(check: Check, environment: &BTreeMap<String, String>) -> Result<ExitCode> {
    let document = load::read(&check.config)?;
    let source_fields = load::properties::<config::source::SourceFields>();
    let of_a_sink = |name: &String| document.top.contains_key(name) && !source_fields.contains_key(name);
    let is_sink = load::properties::<config::sink::SinkFields>().keys().any(of_a_sink);
    let kind = check.kind.unwrap_or(if is_sink { Kind::Sink } else { Kind::Source });
    let good = || println!("{} is a good configuration of a {}", document.name, if kind == Kind::Source { "source" } else { "sink" });
    let report = match kind {
        Kind::Source => {
            let source = config::source::check(&document, environment, config::Transport::Own)?;
            good();
            connected(check, environment, |pulsar| host::check::source(&source, &pulsar))?
        }
        Kind::Sink => {
            let sink = config::sink::check(&document, environment, config::sink::Consumer::Own)?;
            good();
            connected(check, environment, |pulsar| host::check::sink(&sink, &pulsar))?
        }
    };
    let Some(report) = report else { return Ok(ExitCode::SUCCESS) };
    print!("{}", report.text);
    Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// With --connect, what calling each service says.
fn connected(
    check: Check,
    environment: &BTreeMap<String, String>,
    call: impl FnOnce(pulsar_io_dynamodb::pulsar::client::Settings) -> Result<Report>,
) -> Result<Option<Report>> {
    if !check.connect {
        return Ok(None);
    }
    let pulsar = pulsar_settings(check.pulsar, environment)?;
    logging::start(&check.log.log_level, check.log.log_format, Vec::new())?;
    call(pulsar).map(Some)
}

fn schema(wanted: &ConfigSchema) -> String {
    if wanted.metrics {
        return page::markdown();
    }
    if wanted.java {
        return if wanted.kind == Some(Kind::Sink) { config::java::sink_class() } else { config::java::source_class() };
    }
    if wanted.markdown {
        return reference::markdown();
    }
    let schema = if wanted.kind == Some(Kind::Sink) { reference::sink_schema() } else { reference::source_schema() };
    format!("{schema:#}\n")
}

fn pulsar_settings(flags: Pulsar, environment: &BTreeMap<String, String>) -> Result<pulsar_io_dynamodb::pulsar::client::Settings> {
    let variable = |name: &str| environment.get(name).filter(|text| !text.is_empty()).map(|text| SecretString::from(text.clone()));
    let auth_params = match &flags.auth_params_file {
        Some(path) => {
            let failed = |error| Error::new(ErrorKind::Configuration, format!("read {}", path.display()), error);
            Some(SecretString::from(fs::read_to_string(path).map_err(failed)?))
        }
        None => variable("PULSAR_AUTH_PARAMS"),
    };
    let given = Given {
        url: flags.pulsar_url,
        token: flags.token_file.map(Token::File).or_else(|| variable("PULSAR_TOKEN").map(Token::Text)),
        auth_plugin: flags.auth_plugin,
        auth_params,
        trust_certs: flags.trust_certs,
    };
    config::pulsar::settings(given, flags.client_conf.as_deref())
}
