//! `maskcast-train eval`: measures a model on labelled images.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use maskcast::commands::Failure;
use tch::{Device, Kind};

use super::finish::{dataset_facts, environment, file_name, score_table, size_table};
use super::leak::{Clips, leak_table, leaks};
use super::notes::print_notes;
use crate::assess::{Assessment, assess};
use crate::data::{DataArgs, Dataset, Pair, Part};
use crate::device::set_threads;
use crate::evaluate::{LibtorchPredictor, Predictor};
use crate::exported::ExportedModel;
use crate::fit::progress::ProgressMeter;
use crate::report::{Report, Speed};
use crate::size::Size;
use crate::weights::ModelFile;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train eval models/street.onnx camvid --part test\n  \
    maskcast-train eval runs/first/best.safetensors my-data -o runs/first/val\n  \
    maskcast-train eval models/street.onnx street-photos --part all --sizes pedestrian,car\n  \
    maskcast-train eval models/everyday.onnx my-clips --part all --redact person --fps 25\n  \
    maskcast-train eval models/everyday.onnx my-data --part all --redact person --pan 20")]
pub struct EvalArgs {
    /// The model: an ONNX file, or `best.safetensors` of a run
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Part of the data set [default: test, or val if there are no test images]
    #[arg(long, value_enum)]
    part: Option<EvalPart>,
    /// The same as --part all
    #[arg(long, conflicts_with = "part")]
    all: bool,
    /// Measure the recall of objects of these classes by their height in the model's input
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    sizes: Vec<String>,
    /// Measure which share of the pixels of these classes stays visible when `[stream.redact]` hides them, instead of the accuracy
    #[arg(long, value_name = "CLASS", value_delimiter = ',', conflicts_with_all = ["sizes", "output", "json"])]
    redact: Vec<String>,
    /// With --redact: frames a second of clips. Images whose names differ in the number at their end only are frames of one clip
    #[arg(long, default_value_t = 25.0, value_name = "N", value_parser = frame_rate)]
    fps: f64,
    /// With --redact: turn each image into a clip of N frames, in which the camera moves over the image
    #[arg(long, default_value_t = 0, value_name = "N", requires = "redact")]
    pan: usize,
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

/// The images to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EvalPart {
    Train,
    Val,
    Test,
    /// All images of the data set, whatever its split
    All,
}

impl EvalPart {
    fn name(self) -> &'static str {
        self.part().map_or("all", Part::name)
    }

    /// The part of the data set; `None` for all.
    fn part(self) -> Option<Part> {
        match self {
            EvalPart::Train => Some(Part::Train),
            EvalPart::Val => Some(Part::Val),
            EvalPart::Test => Some(Part::Test),
            EvalPart::All => None,
        }
    }
}

/// Measures the model, prints the scores, and writes the report.
///
/// # Errors
/// The first failure.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    print_notes(&dataset.notes);
    let sized = classes_named("--sizes", &args.sizes, &dataset).map_err(Failure::usage)?;
    let (pairs, part) = choose_pairs(args, &dataset);
    if pairs.is_empty() {
        let root = args.data.data.display();
        let problem = format!("{root}: the part {part} has no images; choose another with --part, or --part all");
        return Err(Failure::usage(problem));
    }
    let threads = set_threads(args.threads);
    if !args.redact.is_empty() {
        return redaction(args, &dataset, &pairs, threads);
    }
    let Measured { assessment, input, speed } = measure(args, &dataset, &pairs, threads, &sized)?;
    if args.json {
        let loss = assessment.loss;
        let mut scores =
            serde_json::json!({ "part": part, "pictures": pairs.len(), "loss": loss, "scores": assessment.scores });
        if !assessment.sizes.is_empty() {
            scores["sizes"] = serde_json::json!(assessment.sizes);
        }
        println!("{scores:#}");
    } else {
        println!("{} on {} images ({part}) of {}", args.model.display(), pairs.len(), args.data.data.display());
        print!("{}", score_table(&assessment.scores));
        for scores in &assessment.sizes {
            print!("\n{}", size_table(scores, &input.to_string()));
        }
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
        sizes: assessment.sizes,
        history: Default::default(),
        images: assessment.images,
        speed: speed.into_iter().collect(),
    };
    let written = report.write(folder).map_err(Failure::runtime)?;
    eprintln!("{}", written.html.display());
    Ok(())
}

/// Measures what redaction leaves visible, and prints it.
fn redaction(args: &EvalArgs, dataset: &Arc<Dataset>, pairs: &[Pair], threads: usize) -> Result<(), Failure> {
    let classes: Vec<u8> = classes_named("--redact", &args.redact, dataset).map_err(Failure::usage)?;
    let classes: Vec<String> =
        classes.into_iter().map(|class| dataset.classes[usize::from(class)].name.clone()).collect();
    let mut model = ExportedModel::load(&args.model, &dataset.classes, threads).map_err(Failure::runtime)?;
    let mut meter = ProgressMeter::new("eval", 0, pairs.len() as u64);
    let mut done = 0;
    let tick = || {
        done += 1;
        meter.show(done, String::new);
    };
    let found = leaks(&mut model, dataset, pairs, &classes, Clips { fps: args.fps, pan: args.pan }, tick)
        .map_err(Failure::runtime)?;
    let panned = if args.pan > 0 { format!(", each panned over {} frames", args.pan) } else { String::new() };
    println!("{} on {} images of {}{panned}", args.model.display(), pairs.len(), args.data.data.display());
    print!("{}", leak_table(&classes, &found));
    Ok(())
}

fn frame_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number, for example 25".to_owned())?;
    if rate > 0.01 && rate <= 1000.0 { Ok(rate) } else { Err("must be more than 0.01 and at most 1000".into()) }
}

/// Returns the images to measure, and the name of their part.
fn choose_pairs(args: &EvalArgs, dataset: &Dataset) -> (Vec<Pair>, &'static str) {
    let default = if dataset.test.is_empty() { EvalPart::Val } else { EvalPart::Test };
    let chosen = if args.all { EvalPart::All } else { args.part.unwrap_or(default) };
    let Some(part) = chosen.part() else {
        let all = Part::ALL.iter().flat_map(|&part| dataset.part(part)).chain(&dataset.left_out).cloned();
        return (all.collect(), chosen.name());
    };
    if args.part.is_none() && dataset.split_here {
        eprintln!("note: the data set has no split; --part all measures on all images");
    }
    (dataset.part(part).to_vec(), chosen.name())
}

/// The classes with these names.
///
/// # Errors
/// A name that is not a class, with the classes.
fn classes_named(option: &str, names: &[String], dataset: &Dataset) -> Result<Vec<u8>, String> {
    let class = |name: &String| {
        let found = dataset.classes.iter().position(|label| label.name.eq_ignore_ascii_case(name.trim()));
        let known = || dataset.classes.iter().map(|label| label.name.as_str()).collect::<Vec<_>>().join(", ");
        found
            .map(|class| class as u8)
            .ok_or_else(|| format!("{option} {name}: there is no such class; the classes are {}", known()))
    };
    names.iter().map(class).collect()
}

/// The results of a model.
struct Measured {
    assessment: Assessment,
    /// The input size of the model.
    input: Size,
    /// `None` for weights, whose speed in the service is not known.
    speed: Option<Speed>,
}

/// Measures the model; for an ONNX file, also its speed.
fn measure(
    args: &EvalArgs,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
    sized: &[u8],
) -> Result<Measured, Failure> {
    let mut meter = ProgressMeter::new("eval", 0, pairs.len() as u64);
    let mut done = 0;
    let mut assess_with = |predictor: &mut dyn Predictor| {
        let tick = || {
            done += 1;
            meter.show(done, String::new);
        };
        assess(predictor, dataset, pairs, threads, sized, tick).map_err(Failure::runtime)
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
        let input = file.description.input;
        return Ok(Measured { assessment: assess_with(&mut predictor)?, input, speed: None });
    }
    let mut model = ExportedModel::load(&args.model, &dataset.classes, threads).map_err(Failure::runtime)?;
    let assessment = assess_with(&mut model)?;
    // The speed is measured with one thread, so that it can be compared between machines.
    let mut single = ExportedModel::load(&args.model, &dataset.classes, 1).map_err(Failure::runtime)?;
    let speed = single.speed("as exported", assessment.scores.miou).map_err(Failure::runtime)?;
    Ok(Measured { assessment, input: model.input(), speed: Some(speed) })
}
