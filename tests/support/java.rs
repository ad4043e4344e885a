//! Small Java programs (`tests/java/`, one file each) that do something with the Java connector's own classes: KCL, the Streams adapter, the AWS
//! SDK, Jackson, in the versions it bundles. A new program is a new file there with a `main`, started by its name.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
};

/// A command that runs the program `name` of `tests/java/`; `None` (said loudly) where `./test --fast` left the classes out.
pub fn program(test: &str, name: &str) -> Option<Command> {
    let Ok(connector) = env::var("JAVA_CONNECTOR") else {
        assert!(env::var("LAB").as_deref() != Ok("required"), "{test}: JAVA_CONNECTOR is not set; run ./test");
        eprintln!("SKIPPED: {test} needs the Java connector's classes; ./test fetches them");
        return None;
    };
    let libraries = format!("{connector}/lib/*");
    static CLASSES: LazyLock<PathBuf> = LazyLock::new(compile);
    let mut command = Command::new(tool("java"));
    // The smallest heap and fewest threads that do: several of these share a small machine with the other parts.
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dslf4j.internal.verbosity=ERROR", "-cp"]);
    command.arg(format!("{}:{libraries}", CLASSES.display())).arg(name);
    Some(command)
}

/// All programs at once, once for each run of the tests.
fn compile() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java");
    let files = sources.read_dir().expect("tests/java is there").map(|file| file.expect("readable").path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|extension| extension == "java")).collect();
    // Comes before the connector's own class of that name.
    files.push(sources.join("../../benches/source/java-peer/src/org/apache/pulsar/io/dynamodb/DynamoDBSourceConfig.java"));
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("java-classes");
    let libraries = format!("{}/lib/*", env::var("JAVA_CONNECTOR").expect("checked"));
    let mut javac = Command::new(tool("javac"));
    javac.args([
        "--release",
        "17",
        "-Xlint:all,-deprecation,-processing,-classfile,-path",
        "-Werror",
        "-proc:none",
        "-cp",
        &libraries,
        "-d",
    ]);
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
