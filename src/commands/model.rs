//! `maskcast model show|verify|compare|use|rollback|build`

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Failure, ModelArgs, load_config};
use crate::config::{ModelConfig, Provider, hex};
use crate::frame::Weight;
use crate::segment::onnx::Model;
use crate::segment::tuning::{self, TuningGoal};

mod compare;
mod use_model;

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Compare two models on the same labelled images: IoU by class, time and flicker, and whether the new one is better. Writes a
    /// report with pictures.
    #[command(
        after_help = "Examples:\n  maskcast model compare models/everyday.onnx yard.onnx --data collected/yard\n  \
        maskcast model compare old.onnx new.onnx --data my-data --list held-out.txt --clip clip.mp4 -o report/\n\n\
        The last line says: better, worse, or not distinguishable. With --require, the exit code is 1 if the new model is not as required.\n\
        Images that the new model was trained on do not show how good it is on others: compare on images that were kept back (--list)."
    )]
    Compare(compare::CompareArgs),
    /// Switch a running service to another model. The service loads and checks it while the current model runs, and switches
    /// between two frames. If a check fails, the current model stays.
    #[command(after_help = "Example: maskcast model use /srv/models/yard.onnx\n\n\
        It is used until the service restarts, which loads `model.path` of the configuration; --save writes the path there. \
        --name selects one of several models.")]
    Use(use_model::UseArgs),
    /// Return to the file that a model of a running service had before. If the path of the current file was saved, that of the other
    /// one is saved.
    #[command(after_help = "Example: maskcast model rollback\n\nA second rollback returns to the newer file.")]
    Rollback(use_model::RollbackArgs),
    /// Build the TensorRT engines of the configured models ahead of time, into the cache that the service uses.
    #[command(after_help = "Example: sudo -u maskcast maskcast model build /etc/maskcast/maskcast.toml")]
    Build {
        /// The TOML configuration with the models.
        config: PathBuf,
    },
    /// Print the input, output, labels and origin of a model.
    #[command(after_help = "Example: maskcast model show models/everyday.onnx")]
    Show {
        /// The ONNX file.
        model: PathBuf,
    },
    /// Load a model as the service does, print how its output is read, check it with a test image and its golden frame, and
    /// measure its time.
    #[command(after_help = "Example: maskcast model verify models/everyday.onnx --providers cuda,cpu")]
    Verify {
        /// The ONNX file.
        model: PathBuf,
        #[command(flatten)]
        options: VerifyArgs,
    },
}

/// [`ModelArgs`] without the model, which is an argument here.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// Execution providers, tried in this order [default: tensorrt,cuda,cpu with an NVIDIA GPU, else cpu].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub providers: Vec<super::ProviderArg>,
    /// "gpu": refuse to run on the CPU.
    #[arg(long, value_enum, default_value = "any")]
    pub require: super::RequireArg,
}

/// Runs `maskcast model`.
///
/// # Errors
/// The model cannot be used, or the service refuses it.
pub fn model(command: &ModelCommand) -> Result<(), Failure> {
    match command {
        ModelCommand::Compare(args) => compare::compare(args),
        ModelCommand::Use(args) => use_model::use_model(args),
        ModelCommand::Rollback(args) => use_model::roll_back(args),
        ModelCommand::Build { config } => build(config),
        ModelCommand::Show { model } => show(model),
        ModelCommand::Verify { model, options } => verify(model, options),
    }
}

fn show(path: &Path) -> Result<(), Failure> {
    // The CPU provider can load every model. Nothing is measured here.
    let mut config = ModelConfig::with_path(path);
    config.providers = vec![Provider::Cpu];
    let model = Model::load(&config, 0)?;
    let contract = &model.contract;
    let input = &contract.input;
    println!("{}", path.display());
    let batch = if input.dynamic_batch { "any batch" } else { "one frame a run" };
    println!("  input     {} {}x{}, {}, {batch}", input.name, input.width, input.height, input.describe());
    print_output(&model);
    if !contract.others.is_empty() {
        println!("  unused    {}", contract.others.join(", "));
    }
    println!("  labels    {}", contract.labels.len());
    for (index, label) in contract.labels.iter().enumerate() {
        let weight = if label.weight == Weight::FULL { String::new() } else { format!("  weight {}", label.weight) };
        println!("    {index:3}  {}  {}{weight}", hex(label.color), label.name);
    }
    let described_by = if contract.describes_itself() { "its metadata" } else { "its manifest" };
    println!("  described by {described_by}");
    if let Some(version) = &contract.version {
        println!("  contract {version}");
    }
    match &contract.train {
        Some(serde_json::Value::Object(fields)) => {
            println!("  training");
            for (key, value) in fields {
                println!("    {key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_string));
            }
        }
        Some(other) => println!("  training {other}"),
        None => {}
    }
    println!("  golden frame: {}", if contract.golden.is_some() { "yes" } else { "none" });
    if let Some(manifest) = &contract.manifest {
        for (key, text) in [
            ("title", &manifest.title),
            ("about", &manifest.description),
            ("origin", &manifest.origin),
            ("licence", &manifest.licence),
        ] {
            if !text.is_empty() {
                println!("  {key:8} {}", text.trim().replace('\n', "\n           "));
            }
        }
    }
    Ok(())
}

/// Prints the output that the mask is read from, and how it is read.
fn print_output(model: &Model) {
    let output = &model.contract.output;
    println!("  output    {}: {}", output.name, output.describe(&model.contract.labels));
    if let Some(reason) = &output.choice_reason {
        println!("            {reason}");
    }
}

fn verify(path: &Path, options: &VerifyArgs) -> Result<(), Failure> {
    let args = ModelArgs {
        model: Some(path.to_path_buf()),
        providers: options.providers.clone(),
        require: options.require,
        threads: 0,
        workers: 0,
    };
    let model = Model::load(&args.config()?, 0)?;
    println!("{}", path.display());
    for (provider, reason) in &model.refused {
        println!("  {:9} refused: {reason}", provider.name());
    }
    println!("  {:9} runs it: {}", model.provider.name(), model.placement);
    let steps = match (model.has_own_stem(), model.has_own_head()) {
        (true, true) => Some("the windows of the first convolution and the last steps"),
        (false, true) => Some("the last steps"),
        (_, false) => None,
    };
    if let Some(steps) = steps {
        println!("            Maskcast itself computes {steps}, which takes less time than in ONNX Runtime");
    }
    let input = &model.contract.input;
    println!("  input     {} {}x{}, {}", input.name, input.width, input.height, input.describe());
    print_output(&model);
    println!("  test      the mask of a test image has {}", model.inspection.describe(&model.contract.labels));
    for warning in &model.warnings {
        println!("  warning   {warning}");
    }
    match model.golden_difference {
        Some(difference) => println!("  golden    {:.3} % of pixels differ: passed", difference * 100.0),
        None => println!("  golden    none: the results of the model cannot be checked"),
    }
    println!(
        "  time      {:.1} ms for one frame on all cores",
        model.time(0).map_err(Failure::runtime)?.as_secs_f64() * 1e3
    );
    let (_, trials) = tuning::tune(&model, TuningGoal::Throughput).map_err(Failure::runtime)?;
    for trial in trials {
        println!(
            "            {} parallel sessions with {} threads each: {:.1} frames a second, {:.1} ms for one frame",
            trial.plan.workers,
            trial.plan.threads,
            trial.fps,
            trial.latency.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

/// Loads each configured model on TensorRT alone, which builds its engine and writes it to the cache.
fn build(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    // All keys are checked before the first engine, which takes minutes.
    let folders = config.models.iter().map(|model| {
        let missing = || no_cache(path, &config.model_key(&model.name));
        Ok((model, model.cache_dir.as_ref().ok_or_else(missing)?))
    });
    let folders: Vec<(&ModelConfig, &PathBuf)> = folders.collect::<Result<_, Failure>>()?;
    folders.into_iter().try_for_each(|(model, folder)| build_engines(model, folder))
}

fn no_cache(path: &Path, key: &str) -> Failure {
    Failure::config(format!(
        "{}: {key}.cache_dir is not set, so the engine cannot be kept; set it, or set $CACHE_DIRECTORY as the unit of the service does",
        path.display()
    ))
}

/// Builds the engine of a model for each of its GPUs.
fn build_engines(model: &ModelConfig, folder: &Path) -> Result<(), Failure> {
    for &device in model.device.numbers() {
        let settings = ModelConfig { providers: vec![Provider::TensorRt], device: device.into(), ..model.clone() };
        eprintln!("building the TensorRT engine of {} for GPU {device}; this takes minutes", settings.path.display());
        let started = std::time::Instant::now();
        let model = Model::load(&settings, settings.threads)?;
        println!(
            "{}: engine built in {:.0} s, kept in {}, {:.1} ms for one frame",
            model.name(),
            started.elapsed().as_secs_f64(),
            folder.display(),
            model.time(settings.threads).map_err(Failure::runtime)?.as_secs_f64() * 1e3
        );
    }
    Ok(())
}
