//! The program `maskcast-train`: arguments, logging and exit codes.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::base::output;
use maskcast::commands::{ended, environment, exit, logging};
use maskcast_train::commands::{self, Cli};

/// Environment variables that must be set before libraries are loaded; see [`environment::ensure`].
const ENVIRONMENT: [(&str, &str); 3] = [
    environment::NO_TELEMETRY,
    // Threads of OpenMP sleep between two operations. By default they spin, which occupies cores that other threads need:
    // on a busy machine, training then takes ten times as long.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // glibc returns large blocks to the kernel when they are freed, and the kernel clears them when they are allocated
    // again, which takes a quarter of the time of a training step. With these settings, the process keeps the blocks.
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
