//! The program `maskcast`: arguments, logging and exit codes.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::base::output;
use maskcast::commands::{self, Cli, Command, environment};

/// The environment variables that every command needs; see [`environment::ensure`].
const ENVIRONMENT: [(&str, &str); 1] = [environment::NO_TELEMETRY];

/// The environment variables that the service needs.
const SERVICE: [(&str, &str); 4] = [
    environment::NO_TELEMETRY,
    // Frames are allocated by one thread and freed by another. By default glibc creates an arena for each of the dozens of
    // threads, and each arena keeps its freed memory, so that the service grows for hours.
    ("MALLOC_ARENA_MAX", "2"),
    // The slice allocator of GLib (removed in 2.76) keeps pages that `heap` could otherwise return to the system.
    ("G_SLICE", "always-malloc"),
    environment::TLS_VERSIONS,
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Run { .. } => environment::ensure(&SERVICE),
        _ => environment::ensure(&ENVIRONMENT),
    }
    if let Err(problem) = commands::logging::init(cli.log_format) {
        output::write_error(format_args!("maskcast: {problem}\n"));
        return ExitCode::from(commands::exit::USAGE);
    }
    match commands::ended(commands::dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                output::write_error(format_args!("maskcast: {line}\n"));
            }
            ExitCode::from(failure.code)
        }
    }
}
