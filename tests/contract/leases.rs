//! The `leases` command as an operator runs it: leases on DynamoDB Local, their stream on the stand-in.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::Client;
use pulsar_io_dynamodb::{
    dynamodb::lease_table::LeaseTable,
    ports::{Checkpoint, Claim, Lease, LeaseTable as _, SequenceNumber, ShardId},
};
use serde_json::Value;

use super::item_table::client;
use crate::support::stand_in::{StandIn, record::sequence};

/// A lease table and its stream of four shards, with a configuration file that names both.
struct Scene {
    table: LeaseTable,
    stream: StandIn,
    name: String,
    config: PathBuf,
}

/// Exit code and both outputs.
type Ran = (i32, String, String);

impl Scene {
    async fn new(test: &str) -> Option<Self> {
        let client: Client = client(test)?;
        let name = format!("leases-command-{:016x}", fastrand::u64(..));
        let table = LeaseTable::new(client, name.clone());
        table.ensure().await.expect("created");
        let stream = StandIn::start(4, 1_000);
        let config = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        let text = format!(
            "name: orders\ntopicName: orders\nconfigs:\n  awsRegion: us-east-1\n  awsDynamodbStreamArn: {}\n  awsEndpoint: {}\n  dynamoEndpoint: {}\n  \
             applicationName: {name}\n",
            stream.stream_arn(),
            stream.endpoint(),
            std::env::var("DYNAMODB_ENDPOINT").expect("client() checked"),
        );
        fs::write(&config, text).expect("target is writable");
        Some(Self { table, stream, name, config })
    }

    /// A free lease of a shard of the stream.
    fn lease(&self, shard: usize, checkpoint: Checkpoint) -> Lease {
        Lease::new(ShardId::new(self.shard(shard)), checkpoint)
    }

    fn shard(&self, shard: usize) -> String {
        self.stream.state().stream().shards[shard].id.clone()
    }

    async fn create(&self, lease: Lease) -> Lease {
        assert!(self.table.create(&lease).await.expect("a call"));
        lease
    }

    async fn owned(&self, shard: usize, checkpoint: Checkpoint, owner: &str) -> Lease {
        let free = self.create(self.lease(shard, checkpoint)).await;
        held(self.table.take(&free, owner, "nonce").await.expect("a call"))
    }

    async fn row(&self, shard: usize) -> Lease {
        let id = self.shard(shard);
        self.table.list().await.expect("rows").into_iter().find(|lease| lease.shard.as_str() == id).expect("a row")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-io-dynamodb"));
        command.env_clear().arg("leases").args(arguments).arg("--config").arg(&self.config);
        command.envs([("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local"), ("AWS_EC2_METADATA_DISABLED", "true")]);
        command.stdin(Stdio::null());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        // Living owners go on meanwhile.
        let output = tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("no panic");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
    }

    /// An owner that lives: it renews its lease every so often, until it is lost.
    fn renew(&self, mut lease: Lease) -> Living {
        let (table, stop) = (self.table.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            loop {
                let last = stopped.load(Relaxed);
                match table.renew(&lease).await.expect("an answer") {
                    Claim::Held(_) | Claim::Landed(_) if last => return false,
                    Claim::Held(row) | Claim::Landed(row) => lease = row,
                    Claim::Lost(_) => return true,
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Living { task, stop }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.config);
    }
}

struct Living {
    task: tokio::task::JoinHandle<bool>,
    stop: Arc<AtomicBool>,
}

impl Living {
    /// Ends it after one more renewal. Whether it has lost its lease.
    async fn had_lost(self) -> bool {
        self.stop.store(true, Relaxed);
        self.task.await.expect("no panic")
    }
}

fn held(claim: Claim) -> Lease {
    match claim {
        Claim::Held(lease) => lease,
        lost => panic!("{lost:?}"),
    }
}

fn at(number: u64) -> Checkpoint {
    Checkpoint::At(SequenceNumber::parse(&sequence(number)).expect("digits"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_tells_state_owner_checkpoint_age_lag_and_parents() {
    let Some(scene) = Scene::new("leases shows").await else { return };
    for shard in 0..4 {
        scene.stream.state().stream().write(shard, 10);
    }
    scene.stream.state().stream().trim(3, 6);
    let running = scene.renew(scene.owned(0, at(4), "ns/living-0").await);
    let dead = scene.owned(1, at(9), "ns/dead-0").await;
    scene.create(scene.lease(2, Checkpoint::ShardEnd)).await;
    scene.create(Lease { parents: vec![dead.shard.clone()], ..scene.lease(3, at(2)) }).await;

    let (code, json, error) = scene.run(&["--json", "--wait", "2"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{json}");
    let shown: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&shown["table"], &shown["stream"]), (&scene.name.as_str().into(), &scene.stream.stream_arn().into()));
    let lines = shown["leases"].as_array().expect("leases");
    let states: Vec<&str> = lines.iter().map(|line| line["state"].as_str().expect("text")).collect();
    assert_eq!(states, ["running", "silent", "finished", "waiting"]);
    assert_eq!((&lines[0]["owner"], &lines[0]["checkpoint"]), (&"ns/living-0".into(), &sequence(4).into()));
    let recent = 0..60_000;
    assert!(
        recent.contains(&lines[0]["ageMillis"].as_i64().expect("known"))
            && recent.contains(&lines[0]["lagMillis"].as_i64().expect("known"))
    );
    assert_eq!(lines[1]["lagMillis"], 0, "nothing comes after its checkpoint");
    assert_eq!((&lines[2]["lagMillis"], &lines[2]["ageMillis"]), (&Value::Null, &Value::Null));
    assert_eq!((&lines[3]["trimmed"], &lines[3]["lagMillis"]), (&true.into(), &Value::Null));
    assert_eq!(lines[3]["parents"][0], dead.shard.as_str());

    let (code, text, error) = scene.run(&["--wait", "0"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    for expected in ["SHARD", "LAG", "records gone", "ns/dead-0", "owned", &sequence(9), "4 leases", "nobody knows which owners are alive"]
    {
        assert!(text.contains(expected), "{expected} is not in:\n{text}");
    }
    assert!(!running.had_lost().await, "looking changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_the_leases_are_shown_and_the_rest_is_said_to_be_unknown() {
    let Some(scene) = Scene::new("leases without a stream").await else { return };
    scene.create(scene.lease(0, at(4))).await;
    scene.stream.state().fail("GetShardIterator", crate::support::stand_in::Fault::Error("AccessDeniedException"), 1);
    let (code, text, _) = scene.run(&["--wait", "0"]).await;
    assert_eq!(code, 0);
    assert!(text.contains("Not known: ") && text.contains("dynamodb:GetShardIterator"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_owners_lease_is_released_by_force_only_l1() {
    let Some(scene) = Scene::new("leases release").await else { return };
    let lease = scene.owned(0, at(4), "ns/living-0").await;
    let living = scene.renew(lease.clone());
    let (code, _, error) = scene.run(&["release", lease.shard.as_str(), "--yes"]).await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("ns/living-0 is alive") && error.contains("--force"), "{error}");
    assert_eq!(scene.row(0).await.owner.as_deref(), Some("ns/living-0"));

    let (code, text, error) = scene.run(&["release", "--all", "--yes", "--force"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert!(text.contains(&format!("{}: released", lease.shard)), "{text}");
    let row = scene.row(0).await;
    assert_eq!((&row.owner, &row.nonce, &row.checkpoint), (&None, &None, &at(4)));
    assert!(living.had_lost().await, "the owner finds out at its next renewal");
    let (code, text, _) = scene.run(&["release", "--all", "--yes"]).await;
    assert!(code == 0 && text.contains("Nothing to do"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_owners_lease_is_released_after_the_failover_time_and_nothing_without_a_yes() {
    let Some(scene) = Scene::new("leases of the dead").await else { return };
    let lease = scene.owned(0, at(4), "ns/dead-0").await;
    let began = Instant::now();
    let (code, text, error) = scene.run(&["release", lease.shard.as_str()]).await;
    assert!(code == 64 && error.contains("--yes"), "{code}: {error}");
    assert!(text.contains("owner ns/dead-0") && text.contains("published again"), "it says what would happen: {text}");
    assert!(began.elapsed() > Duration::from_secs(10), "it was not sure of the owner's death after {:?}", began.elapsed());
    assert_eq!(scene.row(0).await, lease);
    let (code, _, error) = scene.run(&["release", lease.shard.as_str(), "--yes"]).await;
    assert_eq!(code, 0, "{error}");
    assert_eq!(scene.row(0).await.owner, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_writes_positions_that_java_reads_too() {
    let Some(scene) = Scene::new("leases reset").await else { return };
    for shard in 0..3 {
        scene.create(Lease { start_at: Some(7), ..scene.lease(shard, at(4)) }).await;
    }
    let first = scene.shard(0);
    let (code, text, error) = scene.run(&["reset", &first, "--to", "TRIM_HORIZON", "--yes"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    let row = scene.row(0).await;
    assert_eq!((row.checkpoint, row.start_at, row.counter), (Checkpoint::TrimHorizon, None, 1));
    assert_eq!(scene.row(1).await.checkpoint, at(4), "the others stay");

    let second = scene.shard(1);
    let (code, text, _) = scene.run(&["reset", &second, "--to", "2026-11-21T08:00:00Z", "--yes"]).await;
    assert!(code == 0 && text.contains("SKIPPED"), "{text}");
    let row = scene.row(1).await;
    assert_eq!((row.checkpoint, row.start_at), (Checkpoint::TrimHorizon, Some(1_795_248_000_000)));

    let (code, ..) = scene.run(&["reset", &scene.shard(2), "--to", "LATEST", "--yes"]).await;
    assert_eq!(code, 0);
    let row = scene.row(2).await;
    assert_eq!(row.checkpoint, Checkpoint::Latest);
    assert!(row.start_at > Some(1_795_000_000_000), "{row:?}");

    for wrong in [["reset", "shardId-x", "--to", "LATEST"], ["reset", &first, "--to", "yesterday"], ["reset", &first, "--all", "--yes"]] {
        let (code, _, error) = scene.run(&wrong).await;
        assert_eq!(code, 64, "{wrong:?}: {error}");
    }
}

/// Shards whose leases were deleted when they were finished are read again as well, before their children (S1).
#[tokio::test(flavor = "multi_thread")]
async fn s1_a_reset_of_all_brings_finished_shards_back() {
    let Some(scene) = Scene::new("leases reset all").await else { return };
    let child = {
        let mut state = scene.stream.state();
        state.stream().write(0, 5);
        state.stream().split(0, 1, Duration::ZERO)[0]
    };
    scene.create(Lease { parents: vec![ShardId::new(scene.shard(0))], ..scene.lease(child, at(7)) }).await;
    scene.create(scene.lease(1, Checkpoint::ShardEnd)).await;
    let (code, text, error) = scene.run(&["reset", "--all", "--to", "TRIM_HORIZON", "--yes"]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    for shard in [0, 1, 2, 3, child] {
        assert_eq!(scene.row(shard).await.checkpoint, Checkpoint::TrimHorizon, "shard {shard}");
    }
    let created = text.find(&format!("{}: created", scene.shard(0))).expect("the finished parent gets a lease");
    let reset = text.find(&format!("{}: reset", scene.shard(child))).expect("the child is reset");
    assert!(created < reset, "the child could have begun before its parent:\n{text}");

    let (code, ..) = scene.run(&["reset", "--all", "--to", "LATEST", "--yes"]).await;
    assert_eq!(code, 0);
    assert_eq!(scene.row(child).await.checkpoint, Checkpoint::Latest);
}

/// On a terminal it asks; anything but yes changes nothing.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks() {
    let Some(scene) = Scene::new("leases asks").await else { return };
    scene.create(scene.lease(0, at(4))).await;
    let ask = |answer: &str| {
        let asked = scene.command(&["reset", "--all", "--to", "LATEST"]);
        let quoted: Vec<String> = asked.get_args().map(|argument| format!("'{}'", argument.to_str().expect("text"))).collect();
        // `script` (util-linux, on every Debian) gives it a terminal.
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &format!("'{}' {}", asked.get_program().to_str().expect("text"), quoted.join(" ")), "/dev/null"]);
        terminal.envs([("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")]);
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script starts");
        child.stdin.take().expect("piped").write_all(answer.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code().expect("no signal"), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, text) = ask("no\n");
    assert!(code == 1 && text.contains("Type yes") && text.contains("Nothing was changed"), "{code}: {text}");
    assert_eq!(scene.row(0).await.checkpoint, at(4));
    let (code, text) = ask("yes\n");
    assert_eq!(code, 0, "{text}");
    assert_eq!(scene.row(0).await.checkpoint, Checkpoint::Latest);
}
