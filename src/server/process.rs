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
        resident_bytes: resident_bytes(&status),
        open_fds,
        threads: field(&status, "Threads"),
        cpu: ProcessTime::now().as_duration(),
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    field(status, "VmRSS").map(|kib| kib * 1024)
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
        assert_eq!(resident_bytes(text), Some(190_894_080));
    }

    /// In a process of its own: here other tests open files and start threads at the same time.
    #[test]
    fn usage_grows_by_what_the_process_takes() {
        const ALONE: &str = "MASKCAST_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = concat!(module_path!(), "::usage_grows_by_what_the_process_takes");
            let name = name.split_once("::").unwrap().1;
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        let before = usage();
        let files: Vec<_> = (0..7).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let memory = vec![1_u8; 64 << 20];
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let (done, worked) = crossbeam_channel::bounded(5);
        let threads: Vec<_> = (0..5)
            .map(|_| {
                let (stopped, done) = (stopped.clone(), done.clone());
                std::thread::spawn(move || {
                    // The time of all threads counts.
                    let work = cpu_time::ThreadTime::now();
                    while work.elapsed() < Duration::from_millis(10) {}
                    done.send(()).unwrap();
                    stopped.recv()
                })
            })
            .collect();
        worked.iter().take(5).for_each(drop);
        let after = usage();
        let grown = |of: fn(&Usage) -> Option<u64>| of(&after).unwrap() - of(&before).unwrap();
        assert_eq!(grown(|usage| usage.open_fds), 7, "{before:?} {after:?}");
        assert_eq!(grown(|usage| usage.threads), 5, "{before:?} {after:?}");
        let resident = grown(|usage| usage.resident_bytes) >> 20;
        assert!((64..80).contains(&resident), "{resident} MiB: {before:?} {after:?}");
        assert!(after.cpu - before.cpu >= Duration::from_millis(50), "{before:?} {after:?}");
        // The listing's own descriptor is closed when the names are looked at.
        let names: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().map(|file| file.unwrap().path()).collect();
        let open = names.iter().filter(|name| name.read_link().is_ok()).count() as u64;
        assert_eq!(after.open_fds, Some(open), "{names:?}");
        std::hint::black_box((&memory, &files));
        drop(stop);
        threads.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_err(), "nothing is sent"));
    }
}
