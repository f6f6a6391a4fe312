//! `maskcast-train eval`: measures a model on labelled images.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use maskcast::commands::Failure;
use tch::{Device, Kind};

use super::finish::{dataset_facts, environment, file_name, score_table};
use super::notes::print_notes;
use crate::assess::{Assessment, assess};
use crate::data::{DataArgs, Dataset, Pair, Part};
use crate::device::set_threads;
use crate::evaluate::{LibtorchPredictor, Predictor};
use crate::exported::ExportedModel;
use crate::fit::progress::ProgressMeter;
use crate::report::{Report, Speed};
use crate::weights::ModelFile;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train eval models/street.onnx camvid --part test\n  \
    maskcast-train eval runs/first/best.safetensors my-data -o runs/first/val")]
pub struct EvalArgs {
    /// The model: an ONNX file, or `best.safetensors` of a run
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Part of the data set [default: test, or val if there are no test images]
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Measure on all images of the data set
    #[arg(long, conflicts_with = "part")]
    all: bool,
    /// Write report.html and report.json into this folder
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
    /// Number of threads; 0: one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Measures the model, prints the scores, and writes the report.
///
/// # Errors
/// The first failure.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    print_notes(&dataset.notes);
    let (pairs, part) = choose_pairs(args, &dataset);
    if pairs.is_empty() {
        let root = args.data.data.display();
        let problem = format!("{root}: the part {part} has no images; choose another with --part, or pass --all");
        return Err(Failure::usage(problem));
    }
    let threads = set_threads(args.threads);
    let (assessment, speed) = measure(args, &dataset, &pairs, threads)?;
    if args.json {
        let loss = assessment.loss;
        let scores =
            serde_json::json!({ "part": part, "pictures": pairs.len(), "loss": loss, "scores": assessment.scores });
        println!("{scores:#}");
    } else {
        println!("{} on {} images ({part}) of {}", args.model.display(), pairs.len(), args.data.data.display());
        print!("{}", score_table(&assessment.scores));
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

/// Returns the images to measure, and the name of their part.
fn choose_pairs(args: &EvalArgs, dataset: &Dataset) -> (Vec<Pair>, &'static str) {
    if args.all {
        let all = Part::ALL.iter().flat_map(|&part| dataset.part(part)).chain(&dataset.left_out).cloned();
        return (all.collect(), "all");
    }
    let part = args.part.unwrap_or(if dataset.test.is_empty() { Part::Val } else { Part::Test });
    (dataset.part(part).to_vec(), part.name())
}

/// Measures the model; for an ONNX file, also its speed.
fn measure(
    args: &EvalArgs,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
) -> Result<(Assessment, Option<Speed>), Failure> {
    let mut meter = ProgressMeter::new("eval", 0, pairs.len() as u64);
    let mut done = 0;
    let mut assess_with = |predictor: &mut dyn Predictor| {
        let tick = || {
            done += 1;
            meter.show(done, String::new);
        };
        assess(predictor, dataset, pairs, threads, tick).map_err(Failure::runtime)
    };
    if args.model.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
        let file = ModelFile::read(&args.model).map_err(Failure::runtime)?;
        let net = file.description.net().map_err(Failure::runtime)?;
        if file.description.labels.len() != dataset.classes.len() {
            let (model, data) = (file.description.labels.len(), dataset.classes.len());
            return Err(Failure::runtime(format!(
                "the model has {model} classes, the data set has {data}; evaluate on a data set with the classes of the model"
            )));
        }
        let mut predictor = LibtorchPredictor {
            net: &net,
            params: &file.params,
            input: file.description.input,
            device: Device::Cpu,
            precision: Kind::Float,
            confidence: true,
        };
        return Ok((assess_with(&mut predictor)?, None));
    }
    let mut model = ExportedModel::load(&args.model, &dataset.classes, threads).map_err(Failure::runtime)?;
    let assessment = assess_with(&mut model)?;
    // The speed is measured with one thread, so that it can be compared between machines.
    let mut single = ExportedModel::load(&args.model, &dataset.classes, 1).map_err(Failure::runtime)?;
    let speed = single.speed("as exported", assessment.scores.miou).map_err(Failure::runtime)?;
    Ok((assessment, Some(speed)))
}
