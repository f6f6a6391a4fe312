//! Environment variables that libraries read before `main` begins, so that they must be set when the program starts.

use std::os::unix::process::CommandExt;
use std::process::Command;

use maskcast::commands::environment::NO_TELEMETRY;

const VARIABLES: [(&str, &str); 3] = [
    NO_TELEMETRY,
    // Threads of OpenMP sleep between two operations. By default they spin, which occupies cores that other threads need:
    // on a busy machine, training then takes ten times as long.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // glibc returns large blocks to the kernel when they are freed, and the kernel clears them when they are allocated
    // again, which takes a quarter of the time of a training step. With these settings, the process keeps the blocks.
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"),
];

/// Executes the program again with those variables that are not set; variables that the user has set keep their values.
/// Returns if all are set, or if the execution fails; then the program continues without them.
pub fn ensure() {
    let missing: Vec<_> = VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if !missing.is_empty() {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    }
}
