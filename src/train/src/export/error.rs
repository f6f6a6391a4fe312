//! Errors of an export.

use std::path::PathBuf;

use maskcast::segment::ModelError;
use maskcast::segment::golden::GoldenError;

use super::regions::RegionsError;
use super::verify::VerifyError;
use crate::net::decoder::NetError;

/// The largest loss of validation mIoU (0 to 1) by quantisation that is accepted: one percentage point.
pub const MAX_MIOU_LOSS: f64 = 0.01;

/// An error of the caller of the export: of its data set or its evaluation.
pub type CallerError = Box<dyn std::error::Error + Send + Sync>;

/// Why an export failed. No file was written, and a file that was at the path is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("export: {0}")]
    Net(#[from] NetError),
    #[error("export: the input size is {width}x{height}, but this network needs multiples of {stride}")]
    InputSize { width: i64, height: i64, stride: i64 },
    #[error(
        "export: {labels} labels for a network with {classes} classes; there must be one for each class, at most 255"
    )]
    Labels { labels: usize, classes: i64 },
    #[error("export: an image of the data set cannot be read: {0}")]
    Image(#[source] CallerError),
    #[error("export: the data set has no image for the golden frame")]
    NoGoldenImage,
    #[error("export: the golden image has {bytes} bytes, but an RGB image of {width}x{height} has {}", width * height * 3)]
    GoldenSize { bytes: usize, width: i64, height: i64 },
    #[error("export: the golden frame cannot be encoded: {0}")]
    Golden(#[from] GoldenError),
    #[error("export: a calibration batch is {kind:?} {shape:?}, but bytes [N, {height}, {width}, 3] are needed")]
    CalibrationShape { kind: tch::Kind, shape: Vec<i64>, width: i64, height: i64 },
    #[error("export: int8 needs calibration images, and there are none; pass training images, or export in float")]
    NoCalibration,
    #[error("export: the rejection of regions: {0}")]
    Regions(#[from] RegionsError),
    #[error("export: {0}")]
    Verify(#[from] VerifyError),
    #[error(
        "export: int8 loses too much: val mIoU {int8:.4} against {float:.4} in float, at most {allowed:.4} less is \
         allowed; use more calibration images or another calibration method, or export in float; nothing was written"
    )]
    AccuracyLoss { float: f64, int8: f64, allowed: f64 },
    #[error("export: the val mIoU of the exported file cannot be measured: {0}")]
    Evaluate(#[source] CallerError),
    #[error("export: the service cannot load the exported file: {0}")]
    Load(#[source] Box<ModelError>),
    #[error(
        "export: the mask that the service computes with the described last steps differs from the golden frame; see its log"
    )]
    Head,
    #[error("export: {}: {error}; check that the folder exists, is writable and not full", path.display())]
    Write { path: PathBuf, error: std::io::Error },
}
