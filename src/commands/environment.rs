//! What libraries read from the environment before `main` begins, so that it has to be there when the program starts.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// ONNX Runtime tells its makers how it is used, and keeps a file for that in the home folder. What is asked of its API
/// comes after it has begun with that, so it has to be told before. Nothing of a camera's machine is anybody's business.
pub const NO_TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// Starts the program once more with those of `variables` that are not set; who sets one decides. It only comes back when
/// there is none, or when that fails, and then things go on without.
pub fn ensure(variables: &[(&str, &str)]) {
    let missing: Vec<_> = variables.iter().filter(|(name, _)| std::env::var_os(name).is_none()).copied().collect();
    if !missing.is_empty() {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    }
}
