//! The systems under test as processes of their own, and what the kernel says of them.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

/// The kernel counts CPU in hundredths of a second, on every Linux of today.
const TICK_MICROS: u64 = 10_000;

pub struct Process {
    child: Child,
    /// The process that does the work, where the started one only starts it.
    worker: Option<u32>,
    worker_mark: Option<&'static str>,
    /// When it was started; where a process in between starts it, when that did.
    pub started: SystemTime,
}

impl Process {
    /// Starts it in a process group of its own. `worker_mark`: what the command line of the process has that does the work.
    pub fn start(command: &mut Command, log: &Path, worker_mark: Option<&'static str>) -> Self {
        let log = File::options().append(true).create(true).open(log).expect("target is writable");
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).process_group(0);
        let started = SystemTime::now();
        Self { child: command.spawn().expect("it starts"), worker: None, worker_mark, started }
    }

    /// The process that does the work, once it is there.
    fn worker(&mut self) -> Option<u32> {
        let Some(mark) = self.worker_mark else { return Some(self.child.id()) };
        if self.worker.is_none() {
            self.worker = processes().find(|&pid| group(pid) == Some(self.child.id()) && command_line(pid).contains(mark));
        }
        self.worker
    }

    /// CPU that the worker has used.
    pub fn cpu(&mut self) -> Duration {
        let fields = self.worker().map(stat_fields).unwrap_or_default();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_micros((ticks(11) + ticks(12)) * TICK_MICROS)
    }

    /// Resident memory of the worker in MB: now, and the most so far.
    pub fn memory(&mut self) -> (f64, f64) {
        let text = self.worker().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().map_or(0.0, |kib| kib * 1024.0 / 1e6)
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// SIGTERM to all its processes; SIGKILL to what is left after 20 s.
    pub fn stop(mut self) {
        self.signal("TERM");
        for _ in 0..2_000 {
            if !self.is_running() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.kill();
    }

    pub fn kill(mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args([&format!("-{name}"), "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` behind the command's name; the first is the state.
fn stat_fields(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").map(|(_, rest)| rest.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

fn group(pid: u32) -> Option<u32> {
    stat_fields(pid).get(2)?.parse().ok()
}

fn command_line(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline")).map(|text| String::from_utf8_lossy(&text).replace('\0', " ")).unwrap_or_default()
}
