//! `maskcast-train fit` and `resume`.

use std::path::{Path, PathBuf};

use clap::Args;
use maskcast::commands::Failure;
use maskcast::commands::run::stop_on_signals;

use super::adapted::{blend, print_adapted};
use super::finish::{FinishedRun, print_results};
use super::notes::print_notes;
use crate::data::DataArgs;
use crate::fit::config::{FitOptions, RunConfig};
use crate::fit::run::RunEnd;
use crate::fit::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train fit my-data -o runs/first\n  \
    maskcast-train fit my-data -o runs/quick --input 256x160 --epochs 10\n  \
    maskcast-train fit my-data -o runs/second --init runs/first/best.safetensors --strategy finetune --epochs 20\n\n\
    The folder then contains model.onnx (int8, for CPUs), model-fp32.onnx (for GPUs), report.html, report.json, \
    best.safetensors (for --init) and event files for TensorBoard.")]
pub struct FitArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the checkpoint, the model and the report
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    options: FitOptions,
}

/// Starts a run and trains to its end.
///
/// # Errors
/// The first failure.
pub fn fit(args: FitArgs) -> Result<(), Failure> {
    load_runtime()?;
    let config = RunConfig::new(args.data, args.options);
    run(Session::start(config, &args.output)?)
}

/// Resumes a run, or with `restart` trains its epochs again.
///
/// # Errors
/// The first failure.
pub fn resume(folder: &Path, restart: bool) -> Result<(), Failure> {
    load_runtime()?;
    run(Session::resume(folder, restart)?)
}

/// Loads ONNX Runtime, which the end of the run needs, so that a missing library is an error at the start.
pub fn load_runtime() -> Result<(), Failure> {
    maskcast::segment::runtime::load(None).map(|_| ()).map_err(Failure::runtime)
}

/// Trains to the end, exports the model and prints the results.
///
/// # Errors
/// The first failure, or that the run was stopped.
pub fn run(mut session: Session) -> Result<(), Failure> {
    print_summary(&session);
    let stop = stop_on_signals()?;
    match session.train(&stop)? {
        RunEnd::Stopped => {
            let folder = session.folder.display();
            // A failure, so that a script does not continue without a model.
            Err(Failure::runtime(format!("stopped; continue with `maskcast-train resume {folder}`")))
        }
        RunEnd::Finished => {
            blend(&mut session)?;
            let finished = FinishedRun::of(&session)?;
            print_results(&finished, &session.folder);
            print_adapted(&session);
            Ok(())
        }
    }
}

/// Prints the data set, the network and the weights of the run.
fn print_summary(session: &Session) {
    let (dataset, options) = (&session.dataset, &session.config.fit);
    let (train, val) = (dataset.train.len(), dataset.val.len());
    let names: Vec<&str> = dataset.classes.iter().map(|label| label.name.as_str()).collect();
    eprintln!(
        "{}: {train} training and {val} validation images, {} classes: {}",
        dataset.root.display(),
        names.len(),
        names.join(", ")
    );
    let net = &session.net;
    let (width, height) = (options.net.input.width as i64, options.net.input.height as i64);
    eprintln!(
        "U-Net with {}: {:.1} M parameters, {:.2} G multiply-adds per image of {}",
        session.about.encoder,
        session.state.params.count(net) as f64 / 1e6,
        net.multiply_adds(height, width) as f64 / 1e9,
        options.net.input,
    );
    let progress = &session.state.progress;
    eprintln!("weights: {}", progress.origin);
    if progress.step > 0 {
        eprintln!(
            "resumed at batch {} ({} of {} epochs done)",
            progress.step,
            progress.history.0.len(),
            options.epochs
        );
    }
    print_notes(&session.notes);
}
