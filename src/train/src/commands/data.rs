//! `maskcast-train data`.

use clap::Subcommand;
use maskcast::commands::Failure;

use crate::data::cli::CheckArgs;

/// The subcommands of `maskcast-train data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Check a data set before training: sizes, class shares, images without a label, unknown colours, damaged files,
    /// images in both train and val
    #[command(after_help = "Example: maskcast-train data check my-data --json > check.json\n\n\
        Exit code 1: the data set has errors and cannot be used for training.")]
    Check(CheckArgs),
}

/// Runs the subcommand.
///
/// # Errors
/// If the data set cannot be opened, or has errors.
pub fn data(command: &DataCommand) -> Result<(), Failure> {
    let DataCommand::Check(args) = command;
    let report = args.run().map_err(Failure::runtime)?;
    match report.errors {
        0 => Ok(()),
        1 => Err(Failure::runtime("the data set cannot be used for training: 1 error, listed above")),
        errors => {
            Err(Failure::runtime(format!("the data set cannot be used for training: {errors} errors, listed above")))
        }
    }
}
