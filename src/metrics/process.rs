//! What the process takes of the machine. Linux only: elsewhere there is nothing to say.

use std::fs;

use metrics::{counter, gauge};

use super::names;

/// Linux counts CPU time in hundredths of a second for user space, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// Sets the metrics of the process.
pub fn report() {
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
        gauge!(names::PROCESS_MEMORY).set(bytes as f64);
    }
    if let Some(ticks) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_ticks) {
        counter!(names::PROCESS_CPU).absolute(ticks / TICKS_PER_SECOND);
    }
}

/// `VmRSS:    12345 kB`
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The 14th and 15th field. The second is the program's name in parentheses, which may have anything in it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_found_in_what_linux_says() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\nThreads:\t1\n"), Some(12_288));
        assert_eq!(cpu_ticks("7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 5 6 7"), Some(175));
        assert_eq!((resident("Name:\tx\n"), cpu_ticks("7 (a")), (None, None));
    }
}
