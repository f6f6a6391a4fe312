//! The command line of `maskcast-train`.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use maskcast::commands::{Failure, LogFormat, completions};

use super::fit::session::SessionError;

mod adapt;
mod adapted;
mod class_option;
mod compare;
mod data;
mod eval;
mod export;
mod finish;
mod fit;
mod head;
mod label;
mod leak;
mod lr;
mod notes;
mod reference;
mod regions;
mod share;
mod weights;

/// Trains models for `maskcast`: U-Nets from a pretrained encoder and a folder of labelled images.
#[derive(Debug, Parser)]
#[command(
    name = "maskcast-train",
    args_override_self = true,
    version,
    after_help = "A first model, from a data set (for example an export of CVAT) to a video with masks:\n  \
    maskcast-train data check my-data\n  \
    maskcast-train fit my-data -o runs/first\n  \
    maskcast segment video.mp4 --model runs/first/model.onnx -o masks.mp4\n\n\
    Exit codes: 0 success, 1 failure at run time, 2 wrong use. MASKCAST_LOG filters the log."
)]
pub struct Cli {
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value = "auto", global = true)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, export it and write a report
    Fit(Box<fit::FitArgs>),
    /// Adapt a model to the images of a camera: fine-tune it with few labelled images, and export it
    Adapt(Box<adapt::AdaptArgs>),
    /// Continue a run that was stopped or killed; the result is the same
    #[command(after_help = "Example: maskcast-train resume runs/first")]
    Resume {
        /// The run's folder
        folder: PathBuf,
        /// Restart at epoch 1 with the current weights of the run; for a data set that has changed
        #[arg(long)]
        restart: bool,
    },
    /// Measure a model on labelled images: mIoU, IoU of each class, pixel accuracy, boundary F1
    Eval(eval::EvalArgs),
    /// Propose label masks of images by the votes of models, as a data set for training
    Label(Box<label::LabelArgs>),
    /// Export the model of a run as an ONNX file
    Export(export::ExportArgs),
    /// Add the rejection of regions, as `export --reject-regions` does, to a model file that was exported before
    Regions(regions::RegionsArgs),
    /// Describe the last steps of an int8 model file that was exported before, so that the service computes them itself
    Head(head::HeadArgs),
    /// Describe the training images in a model file that was exported before, so that the service finds cameras that are unlike them
    Reference(reference::ReferenceArgs),
    /// Train with several strategies and encoders, and compare the results
    Compare(Box<compare::CompareArgs>),
    /// Check data sets, and exchange them with annotation programs
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Fetch and inspect pretrained weights
    #[command(subcommand)]
    Weights(weights::WeightsCommand),
    /// Find a learning rate
    #[command(subcommand)]
    Lr(lr::LrCommand),
    /// Write shell completions to standard output
    Completions { shell: clap_complete::Shell },
}

/// Runs a command.
///
/// # Errors
/// The first failure, with its exit code.
pub fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Fit(args) => fit::fit(*args),
        Command::Adapt(args) => adapt::adapt(*args),
        Command::Resume { folder, restart } => fit::resume(&folder, restart),
        Command::Eval(args) => eval::eval(&args),
        Command::Label(args) => label::label(&args),
        Command::Export(args) => export::export(&args),
        Command::Regions(args) => regions::regions(&args),
        Command::Head(args) => head::head(&args),
        Command::Reference(args) => reference::reference(&args),
        Command::Compare(args) => compare::compare(*args),
        Command::Data(command) => data::data(&command),
        Command::Weights(command) => weights::weights(&command),
        Command::Lr(lr::LrCommand::Find(args)) => lr::find(*args),
        Command::Completions { shell } => {
            print!("{}", completions(shell, Cli::command(), "maskcast-train"));
            Ok(())
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(refused) => Failure::usage(refused),
            error => Failure::runtime(error),
        }
    }
}
