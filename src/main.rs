//! `maskcast`: arguments, logging, exit codes; nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use maskcast::commands::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(problem) = commands::logging::init(cli.log_format) {
        eprintln!("maskcast: {problem}");
        return ExitCode::from(commands::exit::USAGE);
    }
    match commands::dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                eprintln!("maskcast: {line}");
            }
            ExitCode::from(failure.code)
        }
    }
}
