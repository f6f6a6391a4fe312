//! The program `maskcast-train`: arguments, logging and exit codes.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::base::output;
use maskcast::commands::{ended, exit, logging};
use maskcast_train::commands::{self, Cli};
use maskcast_train::environment;

fn main() -> ExitCode {
    let cli = Cli::parse();
    environment::ensure();
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
