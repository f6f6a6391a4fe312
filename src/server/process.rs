//! Resources of this process, from `/proc/self`.
//!
//! The `process` feature of the prometheus crate is not used: it counts CPU time in whole seconds.

use std::time::Duration;

use cpu_time::ProcessTime;
use procfs::process::Process;

/// `None` where `/proc` does not have the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub resident_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub threads: Option<u64>,
    /// CPU time of all threads since the start.
    pub cpu: Duration,
}

pub(super) fn usage() -> Usage {
    let status = Process::myself().and_then(|process| process.status()).ok();
    // The listing itself is one of the open files while it is read.
    let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as u64);
    Usage {
        resident_bytes: status.as_ref().and_then(|status| status.vmrss).map(|kib| kib * 1024),
        open_fds,
        threads: status.map(|status| status.threads),
        cpu: ProcessTime::now().as_duration(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::own_process::ran_in_own_process;

    /// Runs in a process of its own: other tests of this one open files and start threads at the same time.
    #[test]
    fn usage_grows_with_the_memory_files_and_threads_of_the_process() {
        if ran_in_own_process(module_path!(), "usage_grows_with_the_memory_files_and_threads_of_the_process") {
            return;
        }
        let before = usage();
        let files: Vec<_> = (0..7).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let memory = vec![1_u8; 64 << 20];
        let (stop, stop_receiver) = crossbeam_channel::bounded::<()>(0);
        let (done, worked) = crossbeam_channel::bounded(5);
        let threads: Vec<_> = (0..5)
            .map(|_| {
                let (stopped, done) = (stop_receiver.clone(), done.clone());
                std::thread::spawn(move || {
                    // CPU time is that of all threads.
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
        // The descriptor of the listing is closed when its names are resolved.
        let names: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().map(|file| file.unwrap().path()).collect();
        let open = names.iter().filter(|name| name.read_link().is_ok()).count() as u64;
        assert_eq!(after.open_fds, Some(open), "{names:?}");
        std::hint::black_box((&memory, &files));
        drop(stop);
        threads.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_err(), "nothing is sent"));
    }
}
