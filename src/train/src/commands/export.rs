//! `maskcast-train export`: a run's model as ONNX.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use maskcast::commands::Failure;

use crate::augment;
use crate::data::{DataArgs, Dataset, Pair};
use crate::evaluate::confusion;
use crate::export::{
    Calibration, ExportError, MAX_FALL, Precision, Request, Shape, Target, WeightBits, export as write,
};
use crate::exported::ExportedModel;
use crate::loader::pack;
use crate::size::Size;
use crate::weights::ModelFile;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train export runs/first/best.safetensors my-data -o street.onnx --int8\n  \
    maskcast-train export runs/first/best.safetensors my-data -o street-trt.onnx --int8 --target tensorrt --input \
    960x544")]
pub struct ExportArgs {
    /// The `.safetensors` of a run
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Quantise, calibrated on training images; refused when val mIoU falls by more than one point
    #[arg(long)]
    int8: bool,
    /// Who runs the int8 model
    #[arg(long, value_enum, default_value_t = Target::Cpu)]
    target: Target,
    /// How much of a signed byte the weights use
    #[arg(long, value_enum, default_value_t = WeightBits::Fitted)]
    weight_bits: WeightBits,
    /// Images to calibrate with
    #[arg(long, default_value_t = CALIBRATION, value_name = "N")]
    calibration: usize,
    /// What the model sees, when not what it was trained for
    #[arg(long, value_name = "WxH")]
    input: Option<Size>,
    /// Add the output `confidence`
    #[arg(long)]
    confidence: bool,
    /// Decide for a class at half the size: faster, with coarser edges
    #[arg(long)]
    coarse: bool,
}

/// Images that show the range of values well enough; more change nothing.
const CALIBRATION: usize = 32;

/// What to make of a model.
pub struct ExportPlan {
    pub int8: bool,
    pub target: Target,
    pub weight_bits: WeightBits,
    pub calibration: usize,
    pub input: Option<Size>,
    pub confidence: bool,
    pub coarse: bool,
}

impl Default for ExportPlan {
    fn default() -> Self {
        ExportPlan {
            int8: false,
            target: Target::Cpu,
            weight_bits: WeightBits::Fitted,
            calibration: CALIBRATION,
            input: None,
            confidence: false,
            coarse: false,
        }
    }
}

/// A file that was written.
pub struct ExportedFile {
    pub path: PathBuf,
    /// `fp32` or `int8`.
    pub precision: &'static str,
    /// Measured on the validation images.
    pub miou: Option<f64>,
}

/// What was written.
pub struct ExportedFiles {
    /// The file that the service should load.
    pub main: PathBuf,
    pub files: Vec<ExportedFile>,
    /// Why there is no int8 file, if one was wanted.
    pub refused: Option<String>,
}

/// # Errors
/// The first failure; nothing is written then.
pub fn export(args: &ExportArgs) -> Result<(), Failure> {
    let file = ModelFile::read(&args.model).map_err(Failure::runtime)?;
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    super::tell(&dataset.notes);
    let wanted = ExportPlan {
        int8: args.int8,
        target: args.target,
        weight_bits: args.weight_bits,
        calibration: args.calibration,
        input: args.input,
        confidence: args.confidence,
        coarse: args.coarse,
    };
    let shape = shape(&file, &wanted);
    let exported =
        one(&file, &dataset, &args.output, &shape, args.int8.then_some(&wanted)).map_err(Failure::runtime)?;
    println!("{}: {} bytes", args.output.display(), exported.bytes);
    let agreement = exported.agreement;
    println!(
        "logits within {:.1e} of the trainer's, {:.3} % of the mask equal",
        agreement.logits,
        100.0 * agreement.masks
    );
    if let Some((float, int8)) = exported.int8.and_then(|loss| loss.miou) {
        println!("val mIoU {float:.4} in fp32, {int8:.4} in int8");
    }
    Ok(())
}

/// Writes the fp32 file and, where it is good enough, the int8 one: `NAME-fp32.onnx` and `NAME.onnx`; without an int8
/// one the fp32 file takes the main name.
///
/// # Errors
/// The first failure.
pub fn export_files(
    file: &ModelFile,
    dataset: &Arc<Dataset>,
    main: &Path,
    wanted: &ExportPlan,
) -> Result<ExportedFiles, Failure> {
    let stem = main.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let float = main.with_file_name(format!("{stem}-fp32.onnx"));
    let shape = shape(file, wanted);
    one(file, dataset, &float, &shape, None).map_err(Failure::runtime)?;
    let mut exported_files = ExportedFiles { main: main.to_owned(), files: Vec::new(), refused: None };
    let mut miou = None;
    if wanted.int8 {
        match one(file, dataset, main, &shape, Some(wanted)) {
            Ok(exported) => miou = exported.int8.and_then(|loss| loss.miou),
            Err(ExportError::Fall { float, int8 }) => {
                let allowed = 100.0 * MAX_FALL;
                let text = format!("val mIoU falls from {float:.4} to {int8:.4}, more than {allowed:.0} point");
                exported_files.refused = Some(text);
            }
            Err(error) => return Err(Failure::runtime(error)),
        }
    }
    let int8 = wanted.int8 && exported_files.refused.is_none();
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

fn shape(file: &ModelFile, wanted: &ExportPlan) -> Shape {
    let input = wanted.input.unwrap_or(file.about.input);
    let shape = Shape::new(input.width as i64, input.height as i64);
    Shape { confidence: wanted.confidence, argmax_stride2: wanted.coarse, ..shape }
}

/// One file.
fn one(
    file: &ModelFile,
    dataset: &Arc<Dataset>,
    path: &Path,
    shape: &Shape,
    int8: Option<&ExportPlan>,
) -> Result<crate::export::Exported, ExportError> {
    let net = file.about.net().map_err(ExportError::Request)?;
    let size = Size::new(shape.width as usize, shape.height as usize);
    let image = |pair: &Pair| {
        let sample = dataset.read(pair).map_err(|error| ExportError::Request(error.to_string()))?;
        augment::whole(&sample, size).map_err(|error| ExportError::Request(format!("{}: {error}", pair.name)))
    };
    let golden = dataset.val.first().or(dataset.train.first());
    let golden = golden.ok_or_else(|| ExportError::Request("the data set has no image for the golden frame".into()))?;
    let golden = image(golden)?;
    // Spread over the whole set: neighbours are frames of one recording.
    let count = int8.map_or(0, |wanted| wanted.calibration.clamp(1, dataset.train.len().max(1)));
    let chosen = (0..count).filter_map(|index| dataset.train.get(index * dataset.train.len() / count));
    let mut calibration = Vec::new();
    for pair in chosen {
        calibration.push(pack(&[image(pair)?], size).rgb);
    }
    let mut evaluate = |path: &Path| -> Result<f64, String> {
        let mut model = ExportedModel::load(path, &dataset.classes, 0).map_err(|error| error.to_string())?;
        let (confusion, _) = confusion(&mut model, dataset, &dataset.val, 1).map_err(|error| error.to_string())?;
        confusion.miou().ok_or_else(|| "no labelled pixel in the validation images".into())
    };
    let precision = match int8 {
        None => Precision::Float,
        Some(wanted) => {
            Precision::Int8 { target: wanted.target, weights: wanted.weight_bits, calibration: Calibration::MinMax }
        }
    };
    // A symmetric model is TensorRT's: the CPU runs it, but its figures would not be TensorRT's.
    let evaluated = int8.is_some_and(|wanted| wanted.target == Target::Cpu) && !dataset.val.is_empty();
    write(Request {
        net: &net,
        params: &file.params,
        labels: &file.about.labels,
        train: &file.about.train,
        shape: *shape,
        precision,
        golden: &golden.rgb,
        calibration: &mut calibration.into_iter(),
        evaluate: if evaluated { Some(&mut evaluate) } else { None },
        path,
    })
}
