//! `maskcast-train lr`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use maskcast::commands::Failure;

use crate::data::DataArgs;
use crate::fit::config::FitOptions;
use crate::fit::lr_find::{self, LearningRateSweep};
use crate::fit::run::RunConfig;
use crate::fit::session::Session;

/// What to do about learning rates.
#[derive(Debug, Subcommand)]
pub enum LrCommand {
    /// Raise the rate from tiny to huge over a few batches, and suggest one from where the loss falls fastest
    Find(Box<FindArgs>),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: maskcast-train lr find my-data -o runs/lr --strategy finetune\n\n\
    The folder then holds lr.svg, the curve, and lr.csv, its numbers.")]
pub struct FindArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the curve
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    options: FitOptions,
    /// Smallest rate of the new layers
    #[arg(long, default_value_t = 1e-6, value_name = "RATE", help_heading = "LearningRateSweep")]
    from: f64,
    /// Largest rate
    #[arg(long, default_value_t = 1.0, value_name = "RATE", help_heading = "LearningRateSweep")]
    to: f64,
    /// BatchSpec
    #[arg(long, default_value_t = 80, value_name = "N", help_heading = "LearningRateSweep")]
    batches: u64,
}

/// # Errors
/// If the run cannot begin, or no rate makes the loss fall.
pub fn find(args: FindArgs) -> Result<(), Failure> {
    let ordered = args.from > 0.0 && args.to > args.from && args.to.is_finite();
    if !ordered || args.batches < 10 {
        return Err(Failure::usage("--from, --to, --batches: wanted 0 < from < to, and at least 10 batches"));
    }
    let config = RunConfig { data: args.data, fit: args.options, command: std::env::args().collect() };
    let mut session = Session::begin(config, &args.output)?;
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
        None => Err(Failure::runtime("the loss did not fall at any rate; look at the curve")),
    }
}
