//! `maskcast`: arguments, logging, exit codes; nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::base::output;
use maskcast::commands::{self, Cli, Command, environment};

/// See [`environment::ensure`].
const ENVIRONMENT: [(&str, &str); 1] = [environment::NO_TELEMETRY];

/// What the service needs beside that.
const SERVICE: [(&str, &str); 4] = [
    environment::NO_TELEMETRY,
    // Pictures are allocated by one thread and freed by another. With an arena for each of the dozens of threads, as is
    // glibc's habit, each keeps what it once had, and the service grows for hours.
    ("MALLOC_ARENA_MAX", "2"),
    // GLib's own allocator, which it gave up itself in 2.76, keeps pages that `heap` could else give back.
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
