//! Export: a trained network to one ONNX file after the model contract, checked before it is written.
//!
//! ```text
//! network ─▶ fold batch norms ─▶ float graph ─▶ compare with libtorch ─┬─────▶ metadata ─▶ load as the service ─▶ FILE
//!                                                                      └─▶ int8 graph ─▶ compare mIoU ─┘
//! ```

mod graph;
mod ops;
mod pixels;
mod sizes;

pub mod float;
pub mod fold;
pub mod int8;
pub mod proto;
pub mod ranges;
pub mod verify;
pub mod weights;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use maskcast::config::{ModelConfig, Provider};
use maskcast::frame::Label;
use maskcast::segment::golden::Golden;
use maskcast::segment::onnx;
use tch::Tensor;

pub use int8::Target;
pub use ops::GraphOptions;
pub use ranges::CalibrationMethod;
pub use verify::Agreement;
pub use weights::WeightBits;

use crate::net::{Net, Op, Params};
use proto::ModelProto;

/// What val mIoU may lose by quantisation: one point.
pub const MAX_MIOU_LOSS: f64 = 0.01;

/// The precision of an exported model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Precision {
    /// 32-bit floats.
    Float,
    /// Bytes: see [`int8`].
    Int8 { target: Target, weights: WeightBits, calibration: CalibrationMethod },
}

/// What to export. Parameters may be on any device; everything here runs on the CPU.
pub struct ExportRequest<'a> {
    /// The network as it was trained, with its batch norms.
    pub net: &'a Net,
    pub params: &'a Params,
    /// In class order; one a class of the network.
    pub labels: &'a [Label],
    /// `maskcast.train`: encoder, strategy, data set, epochs, metrics.
    pub train: &'a serde_json::Value,
    /// The file's input and outputs.
    pub shape: GraphOptions,
    pub precision: Precision,
    /// An RGB image of the input's size, bytes `[H, W, 3]`, that goes into the file as its golden frame.
    pub golden: &'a [u8],
    /// RGB images of the input's size, bytes `[N, H, W, 3]`, that int8 takes its ranges from: 30 and more, out of the
    /// training images.
    pub calibration: &'a mut dyn Iterator<Item = Tensor>,
    /// The val mIoU (0 to 1) of a model file. Called for int8 with the float file and then with the int8 one.
    pub evaluate: Option<Evaluate<'a>>,
    /// Where the file goes; one that is there is replaced, and only by one that passed every check.
    pub path: &'a Path,
}

/// Gives a model file's val mIoU, or why it cannot.
pub type Evaluate<'a> = &'a mut dyn FnMut(&Path) -> Result<f64, String>;

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// The float graph against libtorch on the golden image.
    pub agreement: Agreement,
    /// The loss by quantisation, for int8 files.
    pub int8: Option<Int8Loss>,
}

/// What quantisation changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int8Loss {
    /// Share of the golden image's pixels with the same class as in float.
    pub masks: f64,
    /// Val mIoU in float and in int8, where it was asked for.
    pub miou: Option<(f64, f64)>,
}

/// Why an export failed; no file was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("export: {0}")]
    Request(String),
    #[error("export: ONNX Runtime: {0}")]
    Runtime(String),
    #[error(
        "export: the file does not compute the same as the trained network: logits differ by up to {:.2e} (allowed \
         {tolerance:.2e}, largest logit {largest:.3}), {:.3} % of the mask agree; nothing was written",
        agreement.logits, agreement.masks * 100.0
    )]
    Different { agreement: Agreement, tolerance: f64, largest: f64 },
    #[error(
        "export: int8 loses too much: val mIoU {int8:.4} against {float:.4} in float, and at most {MAX_MIOU_LOSS} less is \
         allowed; use more calibration images or another calibration, or export in float; nothing was written"
    )]
    AccuracyLoss { float: f64, int8: f64 },
    #[error("export: val mIoU of the exported file: {0}")]
    Evaluate(String),
    #[error("export: the service cannot load the file: {0}")]
    Refused(String),
    #[error("export: {}: {error}; check that the folder exists, is writable and not full", path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

/// Exports.
///
/// The golden frame's mask is what the file gives here, once it is known to compute what was trained: a provider that
/// rounds or cuts off otherwise is then found out, and what quantisation itself changes is not held against it.
///
/// # Errors
/// What is wrong with the request, which check failed and by how much, or what the file system said. Nothing is
/// written then.
pub fn export(request: ExportRequest<'_>) -> Result<Exported, ExportError> {
    let ExportRequest { net, params, labels, train, shape, precision, golden, calibration, evaluate, path } = request;
    check(net, labels, &shape, golden)?;
    let image = Tensor::from_slice(golden).reshape([1, shape.height, shape.width, 3]);
    let params = params.to_device(tch::Device::Cpu);
    let (folded, folded_params) = fold::fold(net, &params);

    // Compared at full size: deciding at half the size changes edges by design.
    let checked = GraphOptions { logits: true, argmax_stride2: false, ..shape };
    let agreement = verify::same(&float::model(&folded, &folded_params, &checked).to_bytes(), net, &params, &image)?;
    tracing::info!(
        logits = agreement.logits,
        masks = agreement.masks,
        "the exported graph agrees with the trained \
        network"
    );

    let describe = |model: ModelProto| described(model, labels, train, &shape, golden, &image);
    let float = float::model(&folded, &folded_params, &shape);
    let Precision::Int8 { target, weights, calibration: method } = precision else {
        let (bytes, _) = describe(float)?;
        let written = TemporaryModel::write(path, &bytes)?;
        written.load()?;
        let bytes = written.publish(path)?;
        return Ok(Exported { path: path.into(), bytes, agreement, int8: None });
    };

    let expected = [shape.height, shape.width, 3];
    let mut wrong = None;
    let batches = calibration.take_while(|batch| {
        let fits = batch.kind() == tch::Kind::Uint8 && batch.size().get(1..) == Some(&expected[..]);
        if !fits {
            wrong = Some(format!("{:?} {:?}", batch.kind(), batch.size()));
        }
        fits
    });
    let ranges = ranges::calibrate(&folded, &folded_params, batches, method);
    if let Some(wrong) = wrong {
        return Err(ExportError::Request(format!(
            "a calibration image is {wrong}, not bytes [N, {}, {}, 3]",
            shape.height, shape.width
        )));
    }
    let ranges = ranges.ok_or_else(|| {
        ExportError::Request(
            "int8 needs calibration images, but there are none; pass training images, or export in float".into(),
        )
    })?;
    let (float_bytes, float_mask) = describe(float)?;
    let quantised = int8::model(&folded, &folded_params, &ranges, &shape, target, weights);
    let (bytes, mask) = describe(quantised)?;
    let masks = verify::share_equal(&mask, &float_mask);
    let draft = TemporaryModel::write(path, &bytes)?;
    draft.load()?;
    let miou = match evaluate {
        Some(evaluate) => {
            let reference = TemporaryModel::write(path, &float_bytes)?;
            let float = evaluate(reference.path()).map_err(ExportError::Evaluate)?;
            let int8 = evaluate(draft.path()).map_err(ExportError::Evaluate)?;
            tracing::info!(float, int8, masks, "val mIoU before and after quantisation");
            // No number at all counts as a fall.
            if (float - int8).is_nan() || float - int8 > MAX_MIOU_LOSS {
                return Err(ExportError::AccuracyLoss { float, int8 });
            }
            Some((float, int8))
        }
        None => None,
    };
    let bytes = draft.publish(path)?;
    Ok(Exported { path: path.into(), bytes, agreement, int8: Some(Int8Loss { masks, miou }) })
}

fn check(net: &Net, labels: &[Label], shape: &GraphOptions, golden: &[u8]) -> Result<(), ExportError> {
    let wrong = |problem: String| Err(ExportError::Request(problem));
    let GraphOptions { width, height, .. } = *shape;
    let stride = stride(net);
    if width < 1 || height < 1 || width % stride != 0 || height % stride != 0 {
        return wrong(format!(
            "the input is {width}x{height}, and both have to be multiples of {stride} for this network"
        ));
    }
    if labels.len() as i64 != net.classes() || labels.len() > 255 {
        let labels = labels.len();
        return wrong(format!("{labels} labels for a network with {} classes (255 are possible)", net.classes()));
    }
    if golden.len() as i64 != width * height * 3 {
        return wrong(format!("the golden image has {} bytes, not those of {width}x{height} RGB", golden.len()));
    }
    Ok(())
}

/// How many pixels the deepest features' pixels cover.
fn stride(net: &Net) -> i64 {
    let mut strides: Vec<i64> = Vec::with_capacity(net.nodes.len());
    for node in &net.nodes {
        let before = node.inputs.first().map_or(1, |&input| strides[input]);
        strides.push(match node.op {
            Op::Conv(conv) => before * conv.stride,
            Op::MaxPool { stride, .. } => before * stride,
            Op::Nearest { factor } | Op::Bilinear { factor } => (before / factor).max(1),
            _ => before,
        });
    }
    strides.into_iter().max().unwrap_or(1)
}

/// The file with its metadata, and its mask of the golden image.
fn described(
    mut model: ModelProto,
    labels: &[Label],
    train: &serde_json::Value,
    shape: &GraphOptions,
    rgb: &[u8],
    image: &Tensor,
) -> Result<(Vec<u8>, Vec<u8>), ExportError> {
    let mask = verify::run(&model.to_bytes(), image)?.mask;
    let golden =
        Golden { width: shape.width as usize, height: shape.height as usize, rgb: rgb.to_vec(), mask: mask.clone() };
    let labels: Vec<serde_json::Value> = labels
        .iter()
        .map(|label| serde_json::json!({"name": label.name, "color": [label.color.0, label.color.1, label.color.2]}))
        .collect();
    model.put("maskcast.version", env!("CARGO_PKG_VERSION"));
    model.put("maskcast.labels", serde_json::Value::Array(labels).to_string());
    model.put("maskcast.train", train.to_string());
    model.put("maskcast.golden", golden.to_json().map_err(|error| ExportError::Request(error.to_string()))?);
    Ok((model.to_bytes(), mask))
}

/// A file beside the one it may become; gone unless it is published.
struct TemporaryModel {
    file: tempfile::NamedTempFile,
    /// Of the final file.
    target: PathBuf,
}

impl TemporaryModel {
    fn write(target: &Path, bytes: &[u8]) -> Result<Self, ExportError> {
        let failed = |error| ExportError::Write { path: target.into(), error };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".maskcast-").suffix(".onnx");
        // As any other file of the user's, less what the umask takes.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder(target)).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(TemporaryModel { file, target: target.into() })
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    /// Loads the file as the service does, golden frame and all.
    fn load(&self) -> Result<(), ExportError> {
        let mut config = ModelConfig::with_path(self.path());
        config.providers = vec![Provider::Cpu];
        onnx::Model::load(&config, 0).map(|_| ()).map_err(|error| ExportError::Refused(error.to_string()))
    }

    /// Gives the file its name; gives its size.
    fn publish(self, path: &Path) -> Result<u64, ExportError> {
        let target = self.target;
        let failed = |error| ExportError::Write { path: target.clone(), error };
        let file = self.file.persist(path).map_err(|error| failed(error.error))?;
        // The name lasts through a power cut only once the folder is on the disk too.
        std::fs::File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(file.metadata().map_err(failed)?.len())
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
