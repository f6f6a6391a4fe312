//! `maskcast-train data`.

use clap::Subcommand;
use maskcast::commands::Failure;

use crate::data::cli::CheckArgs;

/// What to do with a data set.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Find what is wrong before training does: sizes, class shares, images without a partner, unknown colours, corrupt
    /// files, images that are in both train and val
    #[command(after_help = "Example: maskcast-train data check my-data --json > check.json\n\n\
        Exit code 1: the data set has errors that keep it from being trained on.")]
    Check(CheckArgs),
}

/// # Errors
/// When the data set cannot be read, or is not fit for training.
pub fn data(command: &DataCommand) -> Result<(), Failure> {
    let DataCommand::Check(args) = command;
    let report = args.run().map_err(Failure::runtime)?;
    match report.errors {
        0 => Ok(()),
        1 => Err(Failure::runtime("1 error keeps this data set from being trained on")),
        errors => Err(Failure::runtime(format!("{errors} errors keep this data set from being trained on"))),
    }
}
