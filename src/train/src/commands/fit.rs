//! `maskcast-train fit` and `resume`.

use std::path::{Path, PathBuf};

use clap::Args;
use maskcast::commands::Failure;
use maskcast::commands::run::stop_on_signals;

use super::finish::{self, Finish};
use crate::data::DataArgs;
use crate::fit::config::FitOptions;
use crate::fit::run::{Ended, RunConfig};
use crate::fit::session::Session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train fit my-data -o runs/first\n  \
    maskcast-train fit my-data -o runs/quick --input 256x160 --epochs 10\n  \
    maskcast-train fit my-data -o runs/second --init runs/first/best.safetensors --strategy finetune --epochs 20\n\n\
    The folder then holds model.onnx (int8 for CPUs), model-fp32.onnx (for GPUs), report.html, report.json, \
    best.safetensors \
    (to go on from with --init) and TensorBoard's event files.")]
pub struct FitArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the checkpoint, the model and the report
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    options: FitOptions,
}

/// Begins a run and brings it to its end.
///
/// # Errors
/// The first failure.
pub fn fit(args: FitArgs) -> Result<(), Failure> {
    exporter()?;
    let config = RunConfig { data: args.data, fit: args.options, command: std::env::args().collect() };
    run(Session::begin(config, &args.output)?)
}

/// Goes on with a run, or with `restart` begins its epochs again.
///
/// # Errors
/// The first failure.
pub fn resume(folder: &Path, restart: bool) -> Result<(), Failure> {
    exporter()?;
    run(Session::resume(folder, restart)?)
}

/// What the end of a run needs is asked for before its beginning.
fn exporter() -> Result<(), Failure> {
    maskcast::segment::runtime::load(None).map(|_| ()).map_err(Failure::runtime)
}

fn run(mut session: Session) -> Result<(), Failure> {
    say(&session);
    let stop = stop_on_signals()?;
    match session.fit(&stop)? {
        Ended::Stopped => {
            let folder = session.folder.display();
            // Not a success: what follows in a script would look for a model.
            Err(Failure::runtime(format!("stopped; `maskcast-train resume {folder}` goes on from here")))
        }
        Ended::Done => {
            let done = Finish::of(&session)?;
            finish::show(&done, &session.folder);
            Ok(())
        }
    }
}

/// What is about to be trained, in a few lines.
fn say(session: &Session) {
    let (dataset, options) = (&session.dataset, &session.config.fit);
    let (train, val) = (dataset.train.len(), dataset.val.len());
    let names: Vec<&str> = dataset.classes.iter().map(|label| label.name.as_str()).collect();
    eprintln!(
        "{}: {train} images to train, {val} to validate, {} classes: {}",
        dataset.root.display(),
        names.len(),
        names.join(", ")
    );
    let net = &session.net;
    let (width, height) = (options.net.input.width as i64, options.net.input.height as i64);
    eprintln!(
        "U-Net over {}: {:.1} M parameters, {:.2} G multiply-adds an image of {}",
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
    super::tell(&session.notes);
}
