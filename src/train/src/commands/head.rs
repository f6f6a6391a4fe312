//! `maskcast-train head`.

use std::path::PathBuf;

use clap::Args;
use maskcast::commands::Failure;

use crate::export::ExistingModel;

#[derive(Debug, Args)]
#[command(after_help = "Example: maskcast-train head model.onnx -o model-fast.onnx")]
pub struct HeadArgs {
    /// A model file that maskcast-train exported
    model: PathBuf,
    /// The ONNX file to write; it may be the same
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Adds the description of the last steps to a model file.
///
/// # Errors
/// The file cannot be read or written, or is not an int8 model for CPUs of the trainer.
pub fn head(args: &HeadArgs) -> Result<(), Failure> {
    let mut model = ExistingModel::read(&args.model).map_err(Failure::runtime)?;
    model.describe_head().map_err(Failure::runtime)?;
    let bytes = model.write(&args.output).map_err(Failure::runtime)?;
    println!("{}: {bytes} bytes", args.output.display());
    Ok(())
}
