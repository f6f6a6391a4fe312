//! Exports a trained network as an ONNX file for the service. The file is checked before it is written.
//!
//! ```text
//! network ─▶ fold batch norms ─▶ float graph ─▶ compare with libtorch ─┬─────▶ regions, metadata ─▶ load as the service ─▶ FILE
//!                                                                      └─▶ int8 graph ─▶ compare mIoU ─┘
//! ```

mod error;
mod existing;
mod graph;
mod ops;
mod pixels;
mod sizes;

pub mod float;
pub mod fold;
pub mod head;
pub mod int8;
pub mod proto;
pub mod ranges;
pub mod regions;
pub mod stored;
pub mod verify;
pub mod weights;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use maskcast::base::atomic_file::AtomicFile;
use maskcast::config::{ModelConfig, Provider};
use maskcast::frame::{Label, Rgb};
use maskcast::segment::golden::Golden;
use maskcast::segment::head::METADATA;
use maskcast::segment::onnx;
use tch::Tensor;

pub use error::{CallerError, ExportError, MAX_MIOU_LOSS};
pub use existing::{ExistingError, ExistingModel};
pub use head::HeadError;
pub use int8::Target;
pub use ops::{GraphOptions, Rejection};
pub use ranges::CalibrationMethod;
pub use regions::{RegionRejection, RegionsError};
pub use stored::{LastSteps, StoredError, StoredModel};
pub use verify::{Agreement, VerifyError};
pub use weights::WeightBits;

use crate::net::{Net, Op, Params};
use proto::ModelProto;

/// The metadata with the golden frame.
const GOLDEN: &str = "maskcast.golden";

/// The number format of an exported model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Precision {
    /// 32-bit floats.
    Float,
    /// Quantised to bytes: see [`int8`].
    Int8 { target: Target, weights: WeightBits, calibration: CalibrationMethod },
}

/// What to export, and where to. The parameters may be on any device; the export runs on the CPU.
pub struct ExportRequest<'a> {
    /// The trained network, with its batch norms.
    pub net: &'a Net,
    pub params: &'a Params,
    /// One for each class of the network, in the order of the classes.
    pub labels: &'a [Label],
    /// The metadata `maskcast.train`: encoder, strategy, data set, epochs, metrics.
    pub train: &'a serde_json::Value,
    /// The size of the input and the outputs of the file.
    pub graph: GraphOptions,
    /// Which regions are rejected. It needs the output `scores`.
    pub regions: Option<&'a RegionRejection>,
    pub precision: Precision,
    /// The RGB image of the golden frame, bytes `[H, W, 3]` of the input size.
    pub golden: &'a [u8],
    /// Batches of RGB images, bytes `[N, H, W, 3]` of the input size, for the calibration of int8: 30 or more training
    /// images.
    pub calibration: &'a mut dyn Iterator<Item = Tensor>,
    /// Measures a model file, to limit the loss by int8. It is called with the float file, then with the int8 file.
    pub evaluate: Option<Evaluate<'a>>,
    /// The largest loss of mIoU (0 to 1) by int8 that is accepted, usually [`MAX_MIOU_LOSS`].
    pub max_loss: f64,
    /// The file to write. An existing file is replaced when the new one has passed all checks.
    pub path: &'a Path,
}

/// Returns the validation mIoU (0 to 1) of a model file.
pub type Evaluate<'a> = &'a mut dyn FnMut(&Path) -> Result<f64, CallerError>;

/// A written file.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// The float graph compared with libtorch on the golden image.
    pub agreement: Agreement,
    /// The loss by quantisation; `None` for a float file.
    pub int8: Option<Int8Loss>,
}

/// The effect of quantisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int8Loss {
    /// Share of the golden image's pixels with the same class as in float, 0 to 1.
    pub masks: f64,
    /// Validation mIoU (0 to 1) in float and in int8; `None` without [`ExportRequest::evaluate`].
    pub miou: Option<(f64, f64)>,
}

/// Exports a network.
///
/// The mask of the golden frame is computed with the exported graph, after the comparison with libtorch. The service
/// therefore finds a provider that rounds or saturates in another way, and the loss by quantisation is not part of that
/// comparison.
///
/// # Errors
/// The request is wrong, a check failed, or the file cannot be written. A file at the path is unchanged then.
pub fn export(request: ExportRequest<'_>) -> Result<Exported, ExportError> {
    let ExportRequest {
        net,
        params,
        labels,
        train,
        graph,
        regions,
        precision,
        golden,
        calibration,
        evaluate,
        max_loss,
        path,
    } = request;
    check(net, labels, &graph, golden)?;
    let image = Tensor::from_slice(golden).reshape([1, graph.height, graph.width, 3]);
    let params = params.to_device(tch::Device::Cpu);
    let (folded, folded_params) = fold::fold(net, &params);

    // A class decision at half the size and a rejection change the mask on purpose; that of regions is added below.
    let full_size = GraphOptions { logits: true, argmax_stride2: false, rejection: None, ..graph };
    let compared = float::model(&folded, &folded_params, &full_size);
    let agreement = verify::same(&compared.to_bytes(), net, &params, &image)?;
    tracing::info!(
        logits = agreement.logits,
        masks = agreement.masks,
        "the exported graph agrees with the trained network"
    );

    let describe = |mut model: ModelProto| {
        if let Some(regions) = regions {
            regions::add(&mut model, regions)?;
        }
        with_metadata(model, labels, train, &graph, golden, &image)
    };
    let float = float::model(&folded, &folded_params, &graph);
    let Precision::Int8 { target, weights, calibration: method } = precision else {
        let (bytes, _) = describe(float)?;
        let file = TemporaryModel::write(path, &bytes)?;
        file.load()?;
        let bytes = file.commit()?;
        return Ok(Exported { path: path.into(), bytes, agreement, int8: None });
    };

    let mut wrong = None;
    let batches = calibration.take_while(|batch| {
        wrong = check_batch(batch, &graph).err();
        wrong.is_none()
    });
    let ranges = ranges::calibrate(&folded, &folded_params, batches, method);
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let ranges = ranges.ok_or(ExportError::NoCalibration)?;
    let (float_bytes, float_mask) = describe(float)?;
    let quantised = int8::model(&folded, &folded_params, &ranges, &graph, target, weights);
    let (bytes, mask) = describe(quantised)?;
    let masks = verify::share_equal(&mask, &float_mask);
    let file = TemporaryModel::write(path, &bytes)?;
    file.load()?;
    let miou = match evaluate {
        Some(evaluate) => {
            let reference = TemporaryModel::write(path, &float_bytes)?;
            let float = evaluate(reference.path()).map_err(ExportError::Evaluate)?;
            let int8 = evaluate(file.path()).map_err(ExportError::Evaluate)?;
            tracing::info!(float, int8, masks, "val mIoU before and after quantisation");
            if (float - int8).is_nan() || float - int8 > max_loss {
                return Err(ExportError::AccuracyLoss { float, int8, allowed: max_loss });
            }
            Some((float, int8))
        }
        None => None,
    };
    let bytes = file.commit()?;
    Ok(Exported { path: path.into(), bytes, agreement, int8: Some(Int8Loss { masks, miou }) })
}

fn check(net: &Net, labels: &[Label], graph: &GraphOptions, golden: &[u8]) -> Result<(), ExportError> {
    let GraphOptions { width, height, .. } = *graph;
    let stride = largest_stride(net);
    if width < 1 || height < 1 || width % stride != 0 || height % stride != 0 {
        return Err(ExportError::InputSize { width, height, stride });
    }
    if labels.len() as i64 != net.classes() || labels.len() > 255 {
        return Err(ExportError::Labels { labels: labels.len(), classes: net.classes() });
    }
    if golden.len() as i64 != width * height * 3 {
        return Err(ExportError::GoldenSize { bytes: golden.len(), width, height });
    }
    Ok(())
}

fn check_batch(batch: &Tensor, graph: &GraphOptions) -> Result<(), ExportError> {
    let GraphOptions { width, height, .. } = *graph;
    let (kind, shape) = (batch.kind(), batch.size());
    if kind == tch::Kind::Uint8 && shape.get(1..) == Some(&[height, width, 3]) {
        return Ok(());
    }
    Err(ExportError::CalibrationShape { kind, shape, width, height })
}

/// Pixels of the image, across or down, for one pixel of the smallest result.
fn largest_stride(net: &Net) -> i64 {
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

/// Adds the metadata to a model. Returns the bytes of the file, and its mask of the golden image.
fn with_metadata(
    mut model: ModelProto,
    labels: &[Label],
    train: &serde_json::Value,
    graph: &GraphOptions,
    rgb: &[u8],
    image: &Tensor,
) -> Result<(Vec<u8>, Vec<u8>), ExportError> {
    let mask = verify::run(&model.to_bytes(), image)?.mask;
    let (width, height) = (graph.width as usize, graph.height as usize);
    let golden = Golden { width, height, rgb: rgb.to_vec(), mask: mask.clone() };
    let labels: Vec<serde_json::Value> = labels
        .iter()
        .map(|label| {
            let Label { name, color: Rgb(r, g, b), weight } = label;
            serde_json::json!({"name": name, "color": [r, g, b], "weight": weight})
        })
        .collect();
    model.put("maskcast.version", env!("CARGO_PKG_VERSION"));
    model.put("maskcast.labels", serde_json::Value::Array(labels).to_string());
    model.put("maskcast.train", train.to_string());
    model.put(GOLDEN, golden.to_json()?);
    if let Err(reason) = head::describe(&mut model) {
        tracing::debug!("ONNX Runtime computes the last steps of the model: {reason}");
    }
    Ok((model.to_bytes(), mask))
}

/// Loads a file as the service does, including the check of the golden frame.
fn loaded(path: &Path) -> Result<onnx::Model, ExportError> {
    let mut config = ModelConfig::with_path(path);
    config.providers = vec![Provider::Cpu];
    onnx::Model::load(&config, 0).map_err(|error| ExportError::Load(error.into()))
}

/// A model file that has not replaced the one at its path yet.
struct TemporaryModel {
    file: AtomicFile,
    /// The path of the final file.
    path: PathBuf,
    bytes: u64,
}

impl TemporaryModel {
    fn write(path: &Path, bytes: &[u8]) -> Result<Self, ExportError> {
        let failed = |error| ExportError::Write { path: path.into(), error };
        let mut file = AtomicFile::create(path, 0o666).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        Ok(TemporaryModel { file, path: path.into(), bytes: bytes.len() as u64 })
    }

    /// The path of the temporary file.
    fn path(&self) -> &Path {
        self.file.temporary_path()
    }

    /// Loads the file as the service does, including the check of the golden frame.
    fn load(&self) -> Result<(), ExportError> {
        let model = loaded(self.path())?;
        let bytes =
            std::fs::read(self.path()).map_err(|error| ExportError::Write { path: self.path.clone(), error })?;
        if maskcast::segment::head::prune::metadata(&bytes, METADATA).is_some() && !model.has_own_head() {
            return Err(ExportError::Head);
        }
        Ok(())
    }

    /// Replaces the file at the path. Returns the size in bytes.
    fn commit(self) -> Result<u64, ExportError> {
        let TemporaryModel { file, path, bytes } = self;
        file.commit().map_err(|error| ExportError::Write { path, error })?;
        Ok(bytes)
    }
}
