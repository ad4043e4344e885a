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
    /// What the command lines have of the processes that do the work, where the started one only starts them.
    marks: &'static [&'static str],
    pub started: SystemTime,
}

impl Process {
    /// Starts it in a process group of its own. `marks`: see there; none where it does the work itself.
    pub fn start(command: &mut Command, log: &Path, marks: &'static [&'static str]) -> Self {
        let log = File::options().append(true).create(true).open(log).expect("target is writable");
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).process_group(0);
        let started = SystemTime::now();
        Self { child: command.spawn().expect("it starts"), marks, started }
    }

    /// The processes that do the work, as far as they are there.
    fn workers(&self) -> Vec<u32> {
        let child = self.child.id();
        if self.marks.is_empty() {
            return vec![child];
        }
        let works = |pid: &u32| {
            let line = command_line(*pid);
            group(*pid) == Some(child) && self.marks.iter().any(|mark| line.contains(mark))
        };
        processes().filter(works).collect()
    }

    /// CPU that the workers have used.
    pub fn cpu(&mut self) -> Duration {
        let ticks = |pid: u32| {
            let fields = stat_fields(pid);
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            field(11) + field(12)
        };
        Duration::from_micros(self.workers().into_iter().map(ticks).sum::<u64>() * TICK_MICROS)
    }

    /// Resident memory of the workers in MB: now, and the most so far.
    pub fn memory(&mut self) -> (f64, f64) {
        let texts: Vec<String> =
            self.workers().iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()).collect();
        let field = |text: &String, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().map_or(0.0, |kib| kib * 1024.0 / 1e6)
        };
        let sum = |name: &str| texts.iter().map(|text| field(text, name)).sum();
        (sum("VmRSS:"), sum("VmHWM:"))
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
