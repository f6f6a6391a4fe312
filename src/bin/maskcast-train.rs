//! `maskcast-train`: arguments, logging, exit codes; nothing else.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use maskcast::commands::{exit, logging};
use maskcast::train::commands::{self, Cli};

/// What OpenMP's threads do between two operations. The default is to spin, which on a busy machine takes ten times as
/// long: a spinning thread holds the core that the other one waits for.
const WAIT_POLICY: (&str, &str) = ("OMP_WAIT_POLICY", "PASSIVE");

fn main() -> ExitCode {
    let cli = Cli::parse();
    if std::env::var_os(WAIT_POLICY.0).is_none() {
        // OpenMP has read its environment before `main` began, so the program starts once more. It only comes back when
        // that fails, and then goes on with the default.
        let program = std::env::current_exe().unwrap_or_else(|_| "maskcast-train".into());
        let _ = Command::new(program).args(std::env::args_os().skip(1)).env(WAIT_POLICY.0, WAIT_POLICY.1).exec();
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
