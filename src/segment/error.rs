//! Errors of this module, by what failed. Each displays as one line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::contract::ContractError;
use super::file::ModelFileProblem;
use super::manifest::{ManifestError, ManifestProblem};
use super::onnx_error::OnnxRuntimeError;
use super::placement::{PlacementMismatch, ProfileError};
use super::runtime::RuntimeError;
use super::session::SessionError;
use crate::config::{Provider, Require};

/// Why a batch has no masks. Cheap to clone: each frame of the batch gets a copy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SegmentError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A session cannot be opened that could be opened when the model was loaded.
    #[error("{}: {source}", .path.display())]
    Session { path: PathBuf, source: SessionError },
    #[error("the model cannot be run: {0}")]
    Run(#[source] OnnxRuntimeError),
    #[error("the model cannot be run: {0}")]
    Output(#[from] RunOutputError),
    #[error("the run cannot be profiled: {0}")]
    Profile(#[from] ProfileError),
    /// A frame cannot be scaled to the input of the model.
    #[error("OpenCV cannot scale the frame: {0}")]
    Scale(String),
    /// The text of a panic in [`super::Segmenter::segment`].
    #[error("the segmenter panicked: {0}")]
    Panic(String),
    /// The text of a panic in the creation of a segmenter.
    #[error("preparing the model panicked: {0}")]
    PreparationPanic(String),
    /// The text of a panic while thread plans were measured.
    #[error("a trial run panicked: {0}")]
    TrialPanic(String),
    #[error("the segmenter returned {masks} masks for {frames} frames")]
    MaskCount { masks: usize, frames: usize },
    #[error("cannot start a thread for a segmentation worker: {0}")]
    Thread(#[source] Arc<std::io::Error>),
    /// The overlay stage did not get a mask in this time.
    #[error("no mask within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Other(String),
}

impl SegmentError {
    /// An error of a segmenter outside of this module.
    pub fn new(message: impl Into<String>) -> Self {
        SegmentError::Other(message.into())
    }
}

/// Why no mask can be read from the outputs of a run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunOutputError {
    #[error("the model returned no output {0}")]
    Missing(String),
    #[error("its output {name} has the shape {shape:?}, which does not fit {frames} frames and {labels} labels")]
    Shape { name: String, shape: Vec<usize>, frames: usize, labels: usize },
    #[error("its output {0} is empty")]
    Empty(String),
    #[error("its output {name} is {element}, which cannot be read")]
    Element { name: String, element: String },
    #[error("its output {name} cannot be read: {reason}")]
    Extract { name: String, reason: String },
}

/// Why a model cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// The file, its manifest or its results are wrong: the next attempt fails too.
    #[error(transparent)]
    Model(#[from] UnusableModel),
    /// The machine lacks something: ONNX Runtime, a GPU.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// A model that no provider can run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct UnusableModel {
    /// The file with the problem: the model or its manifest.
    pub path: PathBuf,
    #[source]
    pub problem: ModelProblem,
}

impl UnusableModel {
    pub fn new(path: impl Into<PathBuf>, problem: impl Into<ModelProblem>) -> Self {
        UnusableModel { path: path.into(), problem: problem.into() }
    }
}

impl From<ManifestError> for UnusableModel {
    fn from(error: ManifestError) -> Self {
        UnusableModel { path: error.path, problem: error.problem.into() }
    }
}

/// Why no provider can run a model.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelProblem {
    #[error(transparent)]
    File(#[from] ModelFileProblem),
    #[error(transparent)]
    Manifest(#[from] ManifestProblem),
    #[error(transparent)]
    Contract(#[from] ContractError),
    #[error(transparent)]
    Output(#[from] RunOutputError),
    #[error("ONNX Runtime cannot load the model: {0}")]
    Load(String),
    /// Sizes are `(width, height)` in pixels.
    #[error("its golden frame is {}x{}, its input {}x{}", .golden.0, .golden.1, .input.0, .input.1)]
    GoldenSize { golden: (usize, usize), input: (usize, usize) },
    /// The CPU provider failed, which every machine has.
    #[error(transparent)]
    Provider(#[from] ProviderProblem),
}

/// Why one provider does not run a model. Does not name the file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderProblem {
    /// The provider is not installed, or does not support the model.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Run(#[from] SegmentError),
    #[error(transparent)]
    Placement(#[from] PlacementMismatch),
    /// `difference` is a share of pixels, 0 to 1.
    #[error(
        "on {} its golden frame differs in {:.1} % of pixels from the mask of its trainer (up to {:.0} % is rounding); {}",
        .provider.name(), .difference * 100.0, super::golden::TOLERANCE * 100.0, golden_help(.fitting_input.as_ref())
    )]
    GoldenFrame { provider: Provider, difference: f64, fitting_input: Option<FittingInput> },
}

/// Settings of `[input]` with which the golden frame has the right mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FittingInput {
    /// As written in TOML: `white = 255`.
    pub keys: String,
    pub manifest: PathBuf,
}

fn golden_help(fitting: Option<&FittingInput>) -> String {
    match fitting {
        Some(FittingInput { keys, manifest }) => {
            format!("it is right with {keys}: write that into [input] of {}", manifest.display())
        }
        None => "use another provider or export the model again".into(),
    }
}

/// What the machine lacks to run a model.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MachineError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(
        "{}: none of the providers can run the model ({}); {}", .path.display(), provider_problems(.refused),
        require_help(*.require)
    )]
    NoProvider { path: PathBuf, refused: Vec<(Provider, ProviderProblem)>, require: Require },
}

/// The providers and why each does not run the model, in one line.
pub(super) fn provider_problems(refused: &[(Provider, ProviderProblem)]) -> String {
    if refused.is_empty() {
        return "no provider is configured".into();
    }
    let problems: Vec<String> =
        refused.iter().map(|(provider, problem)| format!("{}: {problem}", provider.name())).collect();
    problems.join("; ")
}

fn require_help(require: Require) -> &'static str {
    match require {
        Require::Gpu => "model.require = \"gpu\" forbids the CPU",
        Require::Any => "add \"cpu\" to model.providers to run without a GPU",
    }
}
