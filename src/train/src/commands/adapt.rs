//! `maskcast-train adapt`: fine-tunes a model with few labelled images of a camera.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use maskcast::commands::Failure;
use sha2::{Digest, Sha256};

use super::export::export_float;
use super::finish::{duration, file_name};
use super::fit::{load_runtime, run};
use crate::data::{DataArgs, Dataset};
use crate::export::{LastSteps, StoredModel, stored};
use crate::fit::adapt::{self, START};
use crate::fit::checkpoint;
use crate::fit::config::{AdaptedModel, MachineOptions, RunConfig, Strategy};
use crate::fit::session::{RunRefused, Session, SessionError};
use crate::label::TeacherSpec;
use crate::replay::ReplayOptions;
use crate::weights::ModelFile;

/// Name of the model that is adapted, in the folder of a run. It is the teacher of the run.
const PARENT: &str = "parent.onnx";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train adapt collection/yard --from models/everyday.onnx -o runs/yard\n  \
    maskcast-train adapt my-camera --from models/everyday.onnx --replay photos -o runs/yard\n  \
    maskcast-train adapt my-camera --from runs/yard/best.safetensors --minutes 60 -o runs/yard-2\n\n\
    40 labelled frames are enough for a camera that does not move. The folder then contains model.onnx, with the outputs and the \
    rejection of the old model, and report.html; `maskcast-train resume FOLDER` continues a run that was stopped.")]
pub struct AdaptArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The model to adapt: an ONNX file that maskcast-train exported, or `best.safetensors` of a run
    #[arg(long, value_name = "MODEL")]
    from: PathBuf,
    /// Folder for the checkpoint, the model and the report
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Time that the run may take on this machine
    #[arg(long, value_name = "N", default_value_t = 25.0, value_parser = minutes)]
    minutes: f64,
    #[command(flatten)]
    replay: ReplayOptions,
    /// Peak learning rate of the decoder, instead of the chosen one
    #[arg(long, value_name = "RATE", help_heading = "Learning")]
    lr: Option<f64>,
    /// Peak learning rate of the encoder, instead of the chosen one
    #[arg(long, value_name = "RATE", help_heading = "Learning")]
    encoder_lr: Option<f64>,
    /// Number of epochs, each of one pass over the images, instead of the chosen length
    #[arg(long, value_name = "N", help_heading = "Learning")]
    epochs: Option<u64>,
    /// Weight of the distillation from the old model in the loss: on pixels without a label or where the
    /// old model is right, and on images of --replay
    #[arg(long, value_name = "WEIGHT", default_value_t = 1.0, help_heading = "Learning")]
    distil: f64,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Learning")]
    seed: u64,
    #[command(flatten)]
    machine: MachineOptions,
}

fn minutes(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number >= 0.1 && *number <= 10_000.0);
    number.ok_or_else(|| "pass a number of minutes, 0.1 or more".into())
}

/// The model that is adapted.
struct Parent {
    file: ModelFile,
    steps: LastSteps,
    sha256: String,
}

impl Parent {
    fn read(args: &AdaptArgs) -> Result<Self, Failure> {
        if stored::is_onnx(&args.from) {
            let StoredModel { file, steps, sha256, agreement } =
                StoredModel::read(&args.from).map_err(Failure::runtime)?;
            eprintln!(
                "{}: its network was read from the file; it gives {:.1} % of the pixels of the golden frame the class that the \
                 file gives them",
                args.from.display(),
                100.0 * agreement
            );
            return Ok(Parent { file, steps, sha256 });
        }
        let file = ModelFile::read(&args.from).map_err(Failure::runtime)?;
        let bytes =
            std::fs::read(&args.from).map_err(|error| Failure::runtime(format!("{}: {error}", args.from.display())))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Parent { file, steps: LastSteps::default(), sha256 })
    }
}

/// Starts a run and trains to its end.
///
/// # Errors
/// The first failure.
pub fn adapt(args: AdaptArgs) -> Result<(), Failure> {
    load_runtime()?;
    if args.output.join(checkpoint::FILE).exists() {
        return Err(SessionError::from(RunRefused::FolderHasRun(args.output)).into());
    }
    let parent = Parent::read(&args)?;
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    let from = std::path::absolute(&args.from).unwrap_or_else(|_| args.from.clone());
    let added = print_classes(&parent.file, &dataset);
    let mut options = adapt::options(&parent.file.description, &from, dataset.train.len(), added);
    options.machine = args.machine.clone();
    options.seed = args.seed;
    options.lr = args.lr.unwrap_or(options.lr);
    options.encoder_lr = args.encoder_lr.unwrap_or(options.encoder_lr);
    options.distil.distil = args.distil;
    options.replay = args.replay.clone();
    // The images of the camera in a batch stay as many.
    let own = options.batch;
    if options.replay.replay.is_some() {
        let share = options.replay.replay_share.clamp(0.05, 0.8);
        options.batch = (own as f64 / (1.0 - share)).round() as usize;
    }
    if args.distil > 0.0 {
        let teacher = args.output.join(PARENT);
        write_teacher(&args, &parent.file, &dataset, &teacher)?;
        options.distil.teachers = vec![TeacherSpec { model: teacher, map: None, weight: 1.0 }];
    }
    let steps = parent.steps.for_classes(&parent.file.description.labels, &dataset.classes);
    let mut config = RunConfig::new(args.data.clone(), options);
    config.adapt = Some(AdaptedModel { name: file_name(&args.from), sha256: parent.sha256, steps });
    let mut session = Session::start(config, &args.output)?;
    choose_length(&mut session, &args, added)?;
    let start =
        ModelFile { description: session.about.clone(), params: session.state.params.to_device(tch::Device::Cpu) };
    start.write(&args.output.join(START)).map_err(Failure::runtime)?;
    run(session)
}

/// Copies the old model into the folder of the run, as its teacher.
fn write_teacher(
    args: &AdaptArgs,
    parent: &ModelFile,
    dataset: &Arc<Dataset>,
    path: &std::path::Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::runtime(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(&args.output).map_err(failed)?;
    if stored::is_onnx(&args.from) {
        std::fs::copy(&args.from, path).map_err(failed)?;
        return Ok(());
    }
    export_float(parent, dataset, path)
}

/// Prints which classes the new model has in common with the old one. Returns whether there are new ones.
fn print_classes(parent: &ModelFile, dataset: &Dataset) -> bool {
    let old: Vec<&str> = parent.description.labels.iter().map(|label| label.name.as_str()).collect();
    let new: Vec<&str> = dataset.classes.iter().map(|label| label.name.as_str()).collect();
    let has = |names: &[&str], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    let added: Vec<&str> = new.iter().copied().filter(|name| !has(&old, name)).collect();
    let dropped: Vec<&str> = old.iter().copied().filter(|name| !has(&new, name)).collect();
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    eprintln!(
        "classes: {} kept; new: {}; dropped, because the data set does not have them: {}",
        new.len() - added.len(),
        list(&added),
        list(&dropped)
    );
    !added.is_empty()
}

/// Measures the speed, and chooses and prints the length of the run.
fn choose_length(session: &mut Session, args: &AdaptArgs, adds_classes: bool) -> Result<(), Failure> {
    let images = session.dataset.train.len();
    if let Some(epochs) = args.epochs {
        session.config.fit.epochs = epochs.max(1);
        return Ok(());
    }
    let seconds = adapt::seconds_of_batch(session)?;
    let batches = session.config.fit.batches();
    let length = adapt::length(images, batches.batch, seconds, 60.0 * args.minutes, adds_classes);
    let fit = &mut session.config.fit;
    (fit.epochs, fit.repeat, fit.strategy) = (length.epochs, length.repeat, length.strategy);
    let layers = match length.strategy {
        Strategy::Frozen => "only the decoder is trained, because the machine is slow",
        _ => "all layers but the first of the encoder are trained",
    };
    eprintln!(
        "{images} training images, {} of them in a batch with {} replayed ones: {seconds:.2} s per batch on {} threads. {} \
         batches in {} epochs, at most {}; {layers}, the encoder at {:.0e}, the decoder at {:.0e}; ends after {} epochs without \
         an improvement",
        batches.batch,
        batches.replayed,
        fit.machine.threads,
        length.batches,
        length.epochs,
        duration(length.seconds),
        fit.encoder_lr,
        fit.lr,
        fit.patience,
    );
    if length.is_short {
        eprintln!("note: with more time (--minutes) the model would be better: {images} images are worth more batches");
    }
    Ok(())
}
