//! `maskcast-train`: arguments, logging, exit codes; nothing else.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use maskcast::commands::{exit, logging};
use maskcast::train::commands::{self, Cli};

/// What libraries read from the environment before `main` begins, so that it has to be there when the program starts.
const ENVIRONMENT: [(&str, &str); 2] = [
    // What OpenMP's threads do between two operations. The default is to spin, which on a busy machine takes ten times
    // as long: a spinning thread holds the core that the other one waits for.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // glibc gives large blocks back to the kernel at once, and the kernel clears them anew for the next tensor: a
    // quarter of a training step's time. This way they are kept for the next step.
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    let missing: Vec<_> = ENVIRONMENT.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if !missing.is_empty() {
        // The program starts once more. It only comes back when that fails, and then goes on without.
        let program = std::env::current_exe().unwrap_or_else(|_| "maskcast-train".into());
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    }
    if let Err(problem) = logging::init(cli.log_format) {
        eprintln!("maskcast-train: {problem}");
        return ExitCode::from(exit::USAGE);
    }
    match commands::dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                eprintln!("maskcast-train: {line}");
            }
            ExitCode::from(failure.code)
        }
    }
}
