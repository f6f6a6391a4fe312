//! Environment variables that libraries read before `main` begins, so that they must be set when the program starts.

use std::os::unix::process::CommandExt;
use std::process::Command;

use maskcast::commands::environment::NO_TELEMETRY;

const VARIABLES: [(&str, &str); 3] = [
    NO_TELEMETRY,
    // What OpenMP's threads do between two operations. The default is to spin, which on a busy machine takes ten times
    // as long: a spinning thread holds the core that the other one waits for.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // glibc gives large blocks back to the kernel at once, and the kernel clears them anew for the next tensor: a
    // quarter of a training step's time. This way they are kept for the next step.
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
