//! `maskcast-train export`: writes the model of a run as ONNX.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use maskcast::commands::{Failure, class_weight};
use maskcast::frame::{Label, Weight};

use super::class_option::unknown_class;
use super::notes::print_notes;
use super::regions::RegionLimits;
use super::share::name_and_share;
use crate::augment;
use crate::data::{DataArgs, Dataset, LabelledImage, Pair};
use crate::evaluate::confusion;
use crate::export::{
    CalibrationMethod, CallerError, ExportError, ExportRequest, GraphOptions, LastSteps, MAX_MIOU_LOSS, Precision,
    RegionRejection, Rejection, Target, WeightBits, export as write_onnx, float, verify,
};
use crate::exported::ExportedModel;
use crate::fit::initial::trained_model;
use crate::loader::{LoadError, pack};
use crate::size::Size;
use crate::weights::{ModelFile, average};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train export runs/first/best.safetensors my-data -o street.onnx --int8\n  \
    maskcast-train export runs/first/best.safetensors my-data -o street-trt.onnx --int8 --target tensorrt --input \
    960x544")]
pub struct ExportArgs {
    /// The weights: `best.safetensors` of a run, or an ONNX file that maskcast-train exported
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Quantise to int8, calibrated with training images; fails if val mIoU falls by more than one point
    #[arg(long)]
    int8: bool,
    /// What runs the int8 model
    #[arg(long, value_enum, default_value_t = Target::Cpu)]
    target: Target,
    /// Range of the int8 weights
    #[arg(long, value_enum, default_value_t = WeightBits::Fitted)]
    weight_bits: WeightBits,
    /// Number of images for the calibration
    #[arg(long, default_value_t = CALIBRATION_IMAGES, value_name = "N")]
    calibration: usize,
    /// Input size [default: that of the training]
    #[arg(long, value_name = "WxH")]
    input: Option<Size>,
    /// Add the output `confidence`: the probability of the class of each pixel
    #[arg(long)]
    confidence: bool,
    /// Compute the mask at half the input size: faster, with coarser edges
    #[arg(long)]
    coarse: bool,
    /// Average the weights with those of another run of the same network, which gets this share: of the run that this one started
    /// from with --init, or of the same run at another epoch
    #[arg(long, value_name = "MODEL=SHARE", value_parser = name_and_share)]
    average: Option<(String, f64)>,
    /// Give pixels that are unlike the training images this class: those whose largest logit is low, as in the SHARE of the pixels of
    /// the validation images where it is lowest
    #[arg(long, value_name = "CLASS=SHARE", value_parser = name_and_share)]
    reject: Option<(String, f64)>,
    /// Give this class to regions (pixels of one class in a part of the image) whose mean probability is below LIMIT, 0 to 1. The first
    /// pair names the class and the limit for all classes; further pairs set limits of single classes, as in `other=0.5,person=0.4`
    #[arg(long, value_name = "CLASS=LIMIT[,...]")]
    reject_regions: Option<RegionLimits>,
    /// How strongly the service draws classes, as in `sky=0.1,person=1`: factors of the opacity from 0 (not drawn) to 1
    /// [default: by the names of the classes]
    #[arg(long, value_delimiter = ',', value_name = "CLASS=WEIGHT", value_parser = class_weight)]
    overlay_weights: Vec<(String, Weight)>,
}

/// Default number of images for the calibration; more do not change the ranges noticeably.
const CALIBRATION_IMAGES: usize = 32;

/// The calibrations of int8 that are tried at the end of a run, until one loses little.
const CALIBRATIONS: [CalibrationMethod; 3] =
    [CalibrationMethod::MinMax, CalibrationMethod::Mean, CalibrationMethod::Percentile(1e-4)];

/// Options of an export.
pub struct ExportPlan {
    pub int8: bool,
    pub target: Target,
    pub weight_bits: WeightBits,
    pub calibration: usize,
    pub input: Option<Size>,
    pub confidence: bool,
    pub coarse: bool,
    /// The class of rejected pixels, and their share of the pixels of the validation images.
    pub reject: Option<(String, f64)>,
    /// The limits of regions.
    pub reject_regions: Option<RegionLimits>,
    /// Weights of classes that replace those of the data set.
    pub overlay_weights: Vec<(String, Weight)>,
    /// The largest loss of validation mIoU (0 to 1) by int8.
    pub max_loss: f64,
    /// The steps of another model, instead of those of the fields above.
    pub steps: Option<LastSteps>,
}

impl Default for ExportPlan {
    fn default() -> Self {
        ExportPlan {
            int8: false,
            target: Target::Cpu,
            weight_bits: WeightBits::Fitted,
            calibration: CALIBRATION_IMAGES,
            input: None,
            confidence: false,
            coarse: false,
            reject: None,
            reject_regions: None,
            overlay_weights: Vec::new(),
            max_loss: MAX_MIOU_LOSS,
            steps: None,
        }
    }
}

/// A file that was written.
pub struct ExportedFile {
    pub path: PathBuf,
    /// `fp32` or `int8`.
    pub precision: &'static str,
    /// mIoU on the validation images, if it was measured.
    pub miou: Option<f64>,
}

/// The files of an export.
pub struct ExportedFiles {
    /// The file that the service should load.
    pub main: PathBuf,
    pub files: Vec<ExportedFile>,
    /// Why there is no int8 file, if one was requested.
    pub int8_refused: Option<String>,
}

/// Writes one ONNX file.
///
/// # Errors
/// The first failure; no file is written then.
pub fn export(args: &ExportArgs) -> Result<(), Failure> {
    let mut file = trained_model(&args.model).map_err(Failure::runtime)?;
    if let Some((other, share)) = &args.average {
        let path = Path::new(other);
        let other = trained_model(path).map_err(Failure::runtime)?;
        average(&mut file, &other, path, *share).map_err(|error| Failure::usage(format!("--average {error}")))?;
    }
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    print_notes(&dataset.notes);
    let plan = ExportPlan {
        int8: args.int8,
        target: args.target,
        weight_bits: args.weight_bits,
        calibration: args.calibration,
        input: args.input,
        confidence: args.confidence,
        coarse: args.coarse,
        reject: args.reject.clone(),
        reject_regions: args.reject_regions.clone(),
        overlay_weights: args.overlay_weights.clone(),
        max_loss: MAX_MIOU_LOSS,
        steps: None,
    };
    let shape = shape(&file, &dataset, &plan)?;
    let labels = labels(&file.description.labels, &dataset.classes, &plan.overlay_weights)?;
    let exported = write_file(
        &file,
        &labels,
        &dataset,
        &args.output,
        &shape,
        args.int8.then_some((&plan, CalibrationMethod::MinMax)),
    )
    .map_err(Failure::runtime)?;
    println!("{}: {} bytes", args.output.display(), exported.bytes);
    let agreement = exported.agreement;
    println!(
        "difference from the trainer: logits at most {:.1e}, masks equal in {:.3} % of the pixels",
        agreement.logits,
        100.0 * agreement.masks
    );
    if let Some((float, int8)) = exported.int8.and_then(|loss| loss.miou) {
        println!("val mIoU {float:.4} in fp32, {int8:.4} in int8");
    }
    Ok(())
}

/// Writes the fp32 file `NAME-fp32.onnx` and the int8 file `NAME.onnx`. If there is no int8 file, because it was not
/// requested or is not accurate enough, the fp32 file is `NAME.onnx`.
///
/// # Errors
/// The first failure.
pub fn export_files(
    file: &ModelFile,
    dataset: &Arc<Dataset>,
    main: &Path,
    plan: &ExportPlan,
) -> Result<ExportedFiles, Failure> {
    let stem = main.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let float = main.with_file_name(format!("{stem}-fp32.onnx"));
    let shape = shape(file, dataset, plan)?;
    let labels = labels(&file.description.labels, &dataset.classes, &plan.overlay_weights)?;
    write_file(file, &labels, dataset, &float, &shape, None).map_err(Failure::runtime)?;
    let mut exported_files = ExportedFiles { main: main.to_owned(), files: Vec::new(), int8_refused: None };
    let mut miou = None;
    // Calibration by the extremes is best for most models; a model of few images may have extremes that occur in one of them only.
    for calibration in if plan.int8 { CALIBRATIONS.as_slice() } else { &[] } {
        match write_file(file, &labels, dataset, main, &shape, Some((plan, *calibration))) {
            Ok(exported) => {
                miou = exported.int8.and_then(|loss| loss.miou);
                exported_files.int8_refused = None;
                break;
            }
            Err(ExportError::AccuracyLoss { float, int8, allowed }) => {
                let text = format!(
                    "val mIoU falls from {float:.4} to {int8:.4}, by more than {allowed:.4}, with each calibration; model.onnx \
                     has 32-bit floats and takes two to four times as long"
                );
                exported_files.int8_refused = Some(text);
            }
            Err(error) => return Err(Failure::runtime(error)),
        }
    }
    let int8 = plan.int8 && exported_files.int8_refused.is_none();
    if !int8 {
        std::fs::rename(&float, main).map_err(|error| Failure::runtime(format!("{}: {error}", main.display())))?;
    }
    let float = if int8 { float } else { main.to_owned() };
    exported_files.files.push(ExportedFile { path: float, precision: "fp32", miou: miou.map(|(float, _)| float) });
    if int8 {
        let miou = miou.map(|(_, int8)| int8);
        exported_files.files.push(ExportedFile { path: main.to_owned(), precision: "int8", miou });
    }
    Ok(exported_files)
}

/// Writes a model as a float file without rejection, for a teacher.
///
/// # Errors
/// The first failure.
pub fn export_float(file: &ModelFile, dataset: &Arc<Dataset>, path: &Path) -> Result<(), Failure> {
    let shape = shape(file, dataset, &ExportPlan::default())?;
    write_file(file, &file.description.labels, dataset, path, &shape, None).map_err(Failure::runtime)?;
    Ok(())
}

/// What the graph of a file computes.
struct Shape {
    graph: GraphOptions,
    regions: Option<RegionRejection>,
}

fn shape(file: &ModelFile, dataset: &Dataset, plan: &ExportPlan) -> Result<Shape, Failure> {
    let regions = plan.reject_regions.as_ref().map(|limits| limits.of(&file.description.labels)).transpose()?;
    let input = plan.input.unwrap_or(file.description.input);
    let shape = GraphOptions::new(input.width as i64, input.height as i64);
    if let Some(LastSteps { confidence, argmax_stride2, rejection, regions }) = plan.steps.clone() {
        return Ok(Shape {
            graph: GraphOptions { scores: true, confidence, argmax_stride2, rejection, ..shape },
            regions,
        });
    }
    let rejection = match &plan.reject {
        None => None,
        Some((name, share)) => {
            let labels = &file.description.labels;
            let Some(class) = labels.iter().position(|label| label.name == *name) else {
                return Err(unknown_class("--reject", name, labels));
            };
            let below = lowest_logits(file, dataset, input, *share).map_err(Failure::runtime)?;
            println!("--reject {name}={share}: pixels whose logits are all below {below:.3}");
            Some(Rejection { class, below })
        }
    };
    let graph =
        GraphOptions { scores: true, confidence: plan.confidence, argmax_stride2: plan.coarse, rejection, ..shape };
    Ok(Shape { graph, regions })
}

/// The limit below which the largest logit is in this share of the pixels of the validation images.
fn lowest_logits(file: &ModelFile, dataset: &Dataset, size: Size, share: f64) -> Result<f32, ExportError> {
    /// Every fourth pixel in both directions is counted.
    const STEP: i64 = 4;
    let net = file.description.net()?;
    let params = file.params.to_device(tch::Device::Cpu);
    let mut largest: Vec<f32> = Vec::new();
    for pair in if dataset.val.is_empty() { &dataset.train } else { &dataset.val } {
        let logits = verify::logits(&net, &params, &pack(&[image(dataset, pair, size)?], size).rgb);
        let sample = logits.amax([1i64].as_slice(), false).slice(1, None, None, STEP).slice(2, None, None, STEP);
        largest.extend(float::values(&sample));
    }
    let at = ((largest.len() as f64 * share) as usize).min(largest.len().saturating_sub(1));
    if largest.is_empty() {
        return Err(ExportError::NoGoldenImage);
    }
    Ok(*largest.select_nth_unstable_by(at, f32::total_cmp).1)
}

/// An image of the data set at the size of the model's input.
fn image(dataset: &Dataset, pair: &Pair, size: Size) -> Result<LabelledImage, ExportError> {
    let sample = dataset.read(pair).map_err(|error| ExportError::Image(error.into()))?;
    let failed = |error| LoadError::OpenCv { name: pair.name.clone(), error };
    augment::whole(&sample, size).map_err(|error| ExportError::Image(failed(error).into()))
}

/// The labels of an exported file: the classes of the model, with the colours and weights of the data set's classes of the same
/// name, and with `weights`.
///
/// # Errors
/// A class in `weights` that the model does not have.
fn labels(model: &[Label], dataset: &[Label], weights: &[(String, Weight)]) -> Result<Vec<Label>, Failure> {
    let mut labels = model.to_vec();
    for label in &mut labels {
        if let Some(class) = dataset.iter().find(|class| class.name.eq_ignore_ascii_case(&label.name)) {
            (label.color, label.weight) = (class.color, class.weight);
        }
    }
    for (name, weight) in weights {
        let Some(label) = labels.iter_mut().find(|label| label.name == *name) else {
            return Err(unknown_class("--overlay-weights", name, model));
        };
        label.weight = *weight;
    }
    Ok(labels)
}

/// Writes one file: int8 if `int8` has options and a calibration.
fn write_file(
    file: &ModelFile,
    labels: &[Label],
    dataset: &Arc<Dataset>,
    path: &Path,
    shape: &Shape,
    int8: Option<(&ExportPlan, CalibrationMethod)>,
) -> Result<crate::export::Exported, ExportError> {
    let net = file.description.net()?;
    let size = Size::new(shape.graph.width as usize, shape.graph.height as usize);
    let image = |pair: &Pair| image(dataset, pair, size);
    let golden = dataset.val.first().or(dataset.train.first());
    let golden = image(golden.ok_or(ExportError::NoGoldenImage)?)?;
    // Evenly spread over the data set: neighbouring images are often frames of one recording.
    let count = int8.map_or(0, |(plan, _)| plan.calibration.clamp(1, dataset.train.len().max(1)));
    let chosen = (0..count).filter_map(|index| dataset.train.get(index * dataset.train.len() / count));
    let mut calibration = Vec::new();
    for pair in chosen {
        calibration.push(pack(&[image(pair)?], size).rgb);
    }
    let mut evaluate = |path: &Path| -> Result<f64, CallerError> {
        let mut model = ExportedModel::load(path, &dataset.classes, 0)?;
        let (confusion, _) = confusion(&mut model, dataset, &dataset.val, 1)?;
        confusion.miou().ok_or_else(|| "the validation images have no labelled pixel".into())
    };
    let precision = match int8 {
        None => Precision::Float,
        Some((plan, calibration)) => Precision::Int8 { target: plan.target, weights: plan.weight_bits, calibration },
    };
    // A model for TensorRT is not evaluated: on a CPU, its results differ from those of TensorRT.
    let evaluated = int8.is_some_and(|(plan, _)| plan.target == Target::Cpu) && !dataset.val.is_empty();
    write_onnx(ExportRequest {
        net: &net,
        params: &file.params,
        labels,
        train: &file.description.train,
        graph: shape.graph,
        regions: shape.regions.as_ref(),
        precision,
        golden: &golden.rgb,
        calibration: &mut calibration.into_iter(),
        evaluate: if evaluated { Some(&mut evaluate) } else { None },
        max_loss: int8.map_or(MAX_MIOU_LOSS, |(plan, _)| plan.max_loss),
        path,
    })
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;

    use super::*;

    #[test]
    fn labels_have_the_appearance_of_the_data_set_and_the_weights_of_the_caller() {
        let weight = |number: f64| Weight::try_from(number).unwrap();
        let model = ["sky", "car", "x"].map(|name| Label::new(name, Rgb(1, 1, 1)));
        let sky = Label { weight: weight(0.2), ..Label::new("Sky", Rgb(2, 2, 2)) };
        let car = Label { weight: weight(0.9), ..Label::new("car", Rgb(3, 3, 3)) };
        let given = [class_weight("car=0.5").unwrap()];
        let labels = labels(&model, &[car.clone(), sky], &given).unwrap();
        let found: Vec<_> = labels.iter().map(|label| (&*label.name, label.color, label.weight.get())).collect();
        assert_eq!(found, [("sky", Rgb(2, 2, 2), 0.2), ("car", Rgb(3, 3, 3), 0.5), ("x", Rgb(1, 1, 1), 1.0)]);
        let error = super::labels(&model, &[car], &[class_weight("cars=1").unwrap()]).unwrap_err();
        assert!(error.message.contains("no class \"cars\"; its classes are sky, car, x"), "{}", error.message);
    }
}
