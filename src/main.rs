//! The program `maskcast`: arguments, logging and exit codes.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::base::{heap, output};
use maskcast::commands::{self, Cli, Command, environment};

fn main() -> ExitCode {
    let cli = Cli::parse();
    environment::set_default(environment::NO_TELEMETRY);
    if matches!(cli.command, Command::Run { .. }) {
        environment::set_default(environment::TLS_VERSIONS);
        heap::limit_arenas();
        heap::map_large_blocks();
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
