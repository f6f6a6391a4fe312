//! `maskcast-train lr`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use maskcast::commands::Failure;

use crate::data::DataArgs;
use crate::fit::config::{FitOptions, RunConfig};
use crate::fit::lr_find::{self, LearningRateSweep};
use crate::fit::session::Session;

/// The subcommands of `maskcast-train lr`.
#[derive(Debug, Subcommand)]
pub enum LrCommand {
    /// Raise the learning rate with each batch, and suggest the rate at which the loss falls fastest
    Find(Box<FindArgs>),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: maskcast-train lr find my-data -o runs/lr --strategy finetune\n\n\
    The folder then contains the curve (lr.svg) and its values (lr.csv).")]
pub struct FindArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the curve
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    options: FitOptions,
    /// Smallest learning rate of the new layers
    #[arg(long, default_value_t = 1e-6, value_name = "RATE", help_heading = "Learning rate test")]
    from: f64,
    /// Largest learning rate of the new layers
    #[arg(long, default_value_t = 1.0, value_name = "RATE", help_heading = "Learning rate test")]
    to: f64,
    /// Number of batches
    #[arg(long, default_value_t = 80, value_name = "N", help_heading = "Learning rate test")]
    batches: u64,
}

/// Runs the test, writes the curve and prints the suggested rates.
///
/// # Errors
/// If the run cannot start, or the loss falls at no rate.
pub fn find(args: FindArgs) -> Result<(), Failure> {
    let ordered = args.from > 0.0 && args.to > args.from && args.to.is_finite();
    if !ordered || args.batches < 10 {
        return Err(Failure::usage("--from, --to, --batches: must be 0 < from < to, and at least 10 batches"));
    }
    let config = RunConfig::new(args.data, args.options);
    let mut session = Session::start(config, &args.output)?;
    let sweep = LearningRateSweep { from: args.from, to: args.to, batches: args.batches };
    let found = lr_find::find(&mut session, sweep)?;
    let written = found.write(&args.output).map_err(Failure::runtime)?;
    eprintln!("{}", written.display());
    match found.suggestion() {
        Some(rate) => {
            let options = &session.config.fit;
            let share = options.encoder_lr / options.lr;
            println!("--lr {rate:.1e} --encoder-lr {:.1e}", rate * share);
            Ok(())
        }
        None => Err(Failure::runtime("the loss did not fall at any learning rate; see the curve")),
    }
}
