//! `maskcast-train`: arguments, logging, exit codes; nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::base::output;
use maskcast::commands::{ended, environment, exit, logging};
use maskcast_train::commands::{self, Cli};

/// See [`environment::ensure`].
const ENVIRONMENT: [(&str, &str); 3] = [
    environment::NO_TELEMETRY,
    // What OpenMP's threads do between two operations. The default is to spin, which on a busy machine takes ten times
    // as long: a spinning thread holds the core that the other one waits for.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // glibc gives large blocks back to the kernel at once, and the kernel clears them anew for the next tensor: a
    // quarter of a training step's time. This way they are kept for the next step.
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    environment::ensure(&ENVIRONMENT);
    if let Err(problem) = logging::init(cli.log_format) {
        output::write_error(format_args!("maskcast-train: {problem}\n"));
        return ExitCode::from(exit::USAGE);
    }
    match ended(commands::dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                output::write_error(format_args!("maskcast-train: {line}\n"));
            }
            ExitCode::from(failure.code)
        }
    }
}
