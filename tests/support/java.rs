//! Small Java programs (`tests/java/`, one file each) that do something with the Java connector's own classes: KCL, the Streams adapter, the AWS
//! SDK, Jackson, in the versions it bundles. A new program is a new file there with a `main`, started by its name.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, OnceLock},
};

/// A command that runs the program `name` of `tests/java/`; `None` (said loudly) where `./test --fast` left the classes out.
pub fn program(test: &str, name: &str) -> Option<Command> {
    let Ok(connector) = env::var("JAVA_CONNECTOR") else {
        assert!(env::var("LAB").as_deref() != Ok("required"), "{test}: JAVA_CONNECTOR is not set; run ./test");
        eprintln!("SKIPPED: {test} needs the Java connector's classes; ./test fetches them");
        return None;
    };
    static CLASSES: LazyLock<PathBuf> = LazyLock::new(compile);
    Some(java(&CLASSES, &format!("{connector}/lib/*"), name))
}

/// A command that runs the program `name` of `tests/java/pulsar/`, with the classes of the Pulsar distribution and DynamoDB Local's AWS SDK;
/// `None` (said loudly) where `./test --fast` left them out.
pub fn pulsar_program(test: &str, name: &str) -> Option<Command> {
    let (Ok(pulsar), Ok(dynamodb)) = (env::var("PULSAR_LIB"), env::var("DYNAMODB_LOCAL_LIB")) else {
        assert!(env::var("LAB").as_deref() != Ok("required"), "{test}: PULSAR_LIB and DYNAMODB_LOCAL_LIB are not set; run ./test");
        eprintln!("SKIPPED: {test} needs Pulsar's Java classes; ./test fetches them");
        return None;
    };
    let libraries = format!("{pulsar}/*:{dynamodb}/*");
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    let classes = CLASSES.get_or_init(|| compile_to("java-pulsar-classes", "tests/java/pulsar", Vec::new(), &libraries));
    Some(java(classes, &libraries, name))
}

/// The transform functions of `tests/java/transform/`, as the archive that Pulsar takes. Only where Pulsar's classes are.
pub fn transform_functions() -> PathBuf {
    let libraries = format!("{}/*", env::var("PULSAR_LIB").expect("scripts/parts sets it"));
    let classes = compile_to("java-transform-classes", "tests/java/transform", Vec::new(), &libraries);
    let archive = classes.with_extension("jar");
    let made = Command::new(tool("jar")).arg("--create").arg("--file").arg(&archive).arg("-C").arg(&classes).arg(".").status();
    assert!(made.expect("jar starts").success());
    archive
}

/// The smallest heap and fewest threads that do: several of these share a small machine with the other parts.
fn java(classes: &Path, libraries: &str, name: &str) -> Command {
    let mut command = Command::new(tool("java"));
    // The records are UTF-8, whatever the locale is.
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]);
    command.args(["-Dslf4j.internal.verbosity=ERROR", "-cp"]);
    command.arg(format!("{}:{libraries}", classes.display())).arg(name);
    command
}

/// All programs at once, once for each run of the tests.
fn compile() -> PathBuf {
    // Comes before the connector's own class of that name.
    let config = "benches/source/java-peer/src/org/apache/pulsar/io/dynamodb/DynamoDBSourceConfig.java";
    let libraries = format!("{}/lib/*", env::var("JAVA_CONNECTOR").expect("checked"));
    compile_to("java-classes", "tests/java", vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(config)], &libraries)
}

/// Compiles the programs of a folder, and `more`.
fn compile_to(classes: &str, folder: &str, more: Vec<PathBuf>, libraries: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = sources.read_dir().expect("it is there").map(|file| file.expect("readable").path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|extension| extension == "java")).collect();
    files.extend(more);
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join(classes);
    let mut javac = Command::new(tool("javac"));
    let lint = "-Xlint:all,-deprecation,-processing,-classfile,-path,-try";
    javac.args(["--release", "17", "-encoding", "UTF-8", lint, "-Werror", "-proc:none", "-cp", libraries, "-d"]);
    let output = javac.arg(&classes).args(&files).output().expect("javac starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    classes
}

/// The Java that `scripts/` takes too.
fn tool(name: &str) -> PathBuf {
    env::var_os("JAVA_HOME").map_or_else(|| name.into(), |home| Path::new(&home).join("bin").join(name))
}

/// A program that answers each line with one line of JSON. It ends when it is dropped.
pub struct Dialogue {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Dialogue {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("java starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    pub fn ask(&mut self, line: &str) -> serde_json::Value {
        writeln!(self.stdin, "{line}").expect("the program reads");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("text");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error} in the answer to {line}: {answer:?}"))
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
