//! `maskcast-train eval`: any model on any labelled images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use maskcast::commands::Failure;
use tch::{Device, Kind};

use super::finish::{dataset_facts, environment, table};
use crate::assess::{Assessment, assess};
use crate::data::{DataArgs, Dataset, Pair, Part};
use crate::device::set_threads;
use crate::evaluate::{LibtorchPredictor, Predictor};
use crate::exported::ExportedModel;
use crate::fit::progress::Meter;
use crate::report::{Report, Speed};
use crate::weights::ModelFile;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train eval models/street.onnx camvid --part test\n  \
    maskcast-train eval runs/first/best.safetensors my-data -o runs/first/val")]
pub struct EvalArgs {
    /// An ONNX file, or the `.safetensors` of a run
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Which images; without it the test images where the data set has some, else those for validation
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Measure on all images, whatever part they are of
    #[arg(long, conflicts_with = "part")]
    all: bool,
    /// Write report.html and report.json into this folder
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
    /// Threads; 0 = one a core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Measures, prints, and writes the report.
///
/// # Errors
/// The first failure.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    super::tell(&dataset.notes);
    let (pairs, part) = chosen(args, &dataset);
    if pairs.is_empty() {
        let problem = format!(
            "{}: no images in its part \"{part}\"; choose another by --part, or --all",
            args.data.data.display()
        );
        return Err(Failure::usage(problem));
    }
    let threads = set_threads(args.threads);
    let (assessment, speed) = run(args, &dataset, &pairs, threads)?;
    if args.json {
        let loss = assessment.loss;
        let scores =
            serde_json::json!({ "part": part, "pictures": pairs.len(), "loss": loss, "scores": assessment.scores });
        println!("{scores:#}");
    } else {
        println!("{} on {} images ({part}) of {}", args.model.display(), pairs.len(), args.data.data.display());
        print!("{}", table(&assessment.scores));
    }
    let Some(folder) = &args.output else { return Ok(()) };
    let words: Vec<String> = std::env::args().collect();
    let report = Report {
        title: format!("{}, measured on {}", file_name(&args.model), file_name(&args.data.data)),
        model: Some(file_name(&args.model)),
        training: None,
        dataset: dataset_facts(&dataset, &assessment, None),
        environment: environment(&words, 0.0),
        scores: assessment.scores,
        confusion: assessment.confusion,
        calibration: assessment.calibration,
        history: Default::default(),
        images: assessment.images,
        speed: speed.into_iter().collect(),
    };
    let written = report.write(folder).map_err(Failure::runtime)?;
    eprintln!("{}", written.html.display());
    Ok(())
}

fn chosen(args: &EvalArgs, dataset: &Dataset) -> (Vec<Pair>, &'static str) {
    if args.all {
        let all = Part::ALL.iter().flat_map(|&part| dataset.part(part)).chain(&dataset.left_out).cloned();
        return (all.collect(), "all");
    }
    let part = args.part.unwrap_or(if dataset.test.is_empty() { Part::Val } else { Part::Test });
    (dataset.part(part).to_vec(), part.name())
}

fn run(
    args: &EvalArgs,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
) -> Result<(Assessment, Option<Speed>), Failure> {
    let mut meter = Meter::new("eval", 0, pairs.len() as u64);
    let mut done = 0;
    let mut measure = |predictor: &mut dyn Predictor| {
        let tick = || {
            done += 1;
            meter.show(done, String::new);
        };
        assess(predictor, dataset, pairs, threads, tick).map_err(Failure::runtime)
    };
    if args.model.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
        let file = ModelFile::read(&args.model).map_err(Failure::runtime)?;
        let net = file.about.net().map_err(Failure::runtime)?;
        if file.about.labels.len() != dataset.classes.len() {
            let (model, data) = (file.about.labels.len(), dataset.classes.len());
            return Err(Failure::runtime(format!(
                "the model has {model} classes, the data set has {data}; evaluate on a \
                data set with the model's classes"
            )));
        }
        let mut predictor = LibtorchPredictor {
            net: &net,
            params: &file.params,
            input: file.about.input,
            device: Device::Cpu,
            precision: Kind::Float,
            confidence: true,
        };
        return Ok((measure(&mut predictor)?, None));
    }
    let mut model = ExportedModel::load(&args.model, &dataset.classes, threads).map_err(Failure::runtime)?;
    let assessment = measure(&mut model)?;
    // A second session, for one thread is what figures of different machines are compared by.
    let mut single = ExportedModel::load(&args.model, &dataset.classes, 1).map_err(Failure::runtime)?;
    let speed = single.speed("as exported", assessment.scores.miou).map_err(Failure::runtime)?;
    Ok((assessment, Some(speed)))
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
