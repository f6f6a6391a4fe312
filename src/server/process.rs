//! What the process uses of the machine, from `/proc/self`.

use std::time::Duration;

use cpu_time::ProcessTime;

/// `None` where the system does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub threads: Option<u64>,
    /// CPU time of all threads since the start.
    pub cpu: Duration,
}

pub(super) fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The listing itself is one of the open files while it is read.
    let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as u64);
    Usage {
        resident_bytes: field(&status, "VmRSS").map(|kib| kib * 1024),
        open_fds,
        threads: field(&status, "Threads"),
        cpu: ProcessTime::now().as_duration(),
    }
}

/// The number after `name:` in the text of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_of_proc_status() {
        let text = "Name:\tmaskcast\nVmRSS:\t  186420 kB\nRssAnon:\t 1 kB\nThreads:\t17\n";
        assert_eq!((field(text, "VmRSS"), field(text, "Threads"), field(text, "Vm")), (Some(186_420), Some(17), None));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage();
        assert!(usage.resident_bytes.unwrap() > 1 << 20, "{usage:?}");
        assert!(usage.open_fds.unwrap() >= 3 && usage.threads.unwrap() >= 2, "{usage:?}");
    }
}
