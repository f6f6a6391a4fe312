//! Why the declared input, output and metadata of a model cannot be used.

use std::path::PathBuf;

use super::TensorSpec;
use crate::frame::NotAWeight;
use crate::segment::golden::GoldenError;
use crate::segment::manifest::{Layout, ManifestProblem};
use crate::segment::onnx_error::OnnxRuntimeError;

/// Why the declarations of a model cannot be used. Does not name the file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ContractError {
    #[error("its metadata cannot be read: {0}")]
    MetadataUnreadable(#[source] OnnxRuntimeError),
    #[error("metadata {key}: {problem}")]
    Metadata { key: &'static str, problem: MetadataProblem },
    #[error(
        "it does not name its classes, and {} has no labels; write that manifest ([[labels]] with name and color, and [input] for a float model)",
        .manifest.display()
    )]
    NoLabels { manifest: PathBuf },
    #[error(
        "only the label {0:?} is given, so every pixel would be {0:?}; give two: first one for the rest ([[labels]] name = \"background\" color = \"#000000\"), then {0:?}"
    )]
    SingleLabel(String),
    /// No input is called `image`, and the model has several or none.
    #[error(
        "it has {} inputs ({}) and none is called \"image\"; export the model with the image as its only input",
        .0.len(), .0.join(", ")
    )]
    NoImageInput(Vec<String>),
    /// `direction` is `input` or `output`.
    #[error("its {direction} {name} is {kind}, not a tensor")]
    NotATensor { direction: &'static str, name: String, kind: String },
    #[error("output.name: it has no output {name:?}, only {}", .outputs.join(", "))]
    NoSuchOutput { name: String, outputs: Vec<String> },
    #[error("none of its {} outputs can be read as a mask of {labels} classes: {}", .problems.len(), joined(.problems))]
    NoMaskOutput { labels: usize, problems: Vec<ContractError> },
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

fn joined(problems: &[ContractError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a value in the metadata of a model cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataProblem {
    /// The message of the JSON parser.
    #[error("{0}")]
    Json(String),
    #[error("{0} labels where 2 to 255 are possible")]
    LabelCount(usize),
    #[error("the weight of {label}: {error}")]
    Weight {
        label: String,
        #[source]
        error: NotAWeight,
    },
    #[error(transparent)]
    Output(#[from] ManifestProblem),
    #[error(transparent)]
    Golden(#[from] GoldenError),
}

/// An input that frames cannot be fed to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("its input {tensor}: {problem}")]
pub struct InputError {
    pub tensor: TensorSpec,
    pub problem: InputProblem,
}

/// Why frames cannot be fed to an input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InputProblem {
    #[error("the input must have four dimensions (batch, height, width, channels)")]
    Dimensions,
    #[error("live video cannot fill a fixed batch of {0}; export the model with a free batch or a batch of 1")]
    FixedBatch(i64),
    #[error("either 3 may be the colour channels; write layout = \"nchw\" or \"nhwc\" into [input] of a manifest")]
    AmbiguousLayout,
    #[error("three colour channels were expected (layout {})", .0.name())]
    Channels(Layout),
    /// `side` is `width` or `height`; `given` is in pixels.
    #[error("input.size of the manifest has the {side} {given}")]
    Size { side: &'static str, given: usize },
    #[error("the image is empty")]
    Empty,
    #[error("its {0} is free, so a manifest must give input.size")]
    NoSize(&'static str),
    #[error("a float model needs a manifest with [input] that gives mean and std")]
    NoManifest,
    #[error("bytes are not normalised; leave mean and std out of the manifest")]
    NormalisedBytes,
    #[error("this type is not supported, only uint8, float16 and float32")]
    Element,
}

/// An output that a mask cannot be read from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("its output {output}: {problem}")]
pub struct OutputError {
    /// The name, with type and shape where the problem is in the declaration.
    pub output: String,
    pub problem: OutputProblem,
}

/// Why a mask cannot be read from an output.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OutputProblem {
    #[error("only whole numbers, bool, float16, float32 and float64 can be read")]
    Element,
    #[error("{0} labels are given, and the axis of the classes does not have that size")]
    LabelCount(usize),
    #[error("neither class indices [N, h, w] nor scores [N, C, h, w] nor one value a pixel [N, 1, h, w]")]
    Dimensions,
    #[error(
        "it has one value a pixel, and activation = \"softmax\" needs one for each class; write \"sigmoid\" or \"none\""
    )]
    SoftmaxOfOneValue,
    #[error("one value a pixel distinguishes two classes, but {0} labels are given; give the background and the class")]
    NotBinary(usize),
    #[error("output.threshold and activation = \"sigmoid\" are for two labels, but {0} are given")]
    ThresholdLabels(usize),
    #[error(
        "output.threshold: there is a value for each of {0} labels, and the class with the largest score is used; leave the threshold out"
    )]
    ThresholdOfScores(usize),
    #[error("no value is a number (nan); export the model again")]
    OnlyNan,
    /// `reason`: why the values are taken to be probabilities.
    #[error("output.threshold: {threshold} is outside of its probabilities ({reason}); write one between 0 and 1")]
    ThresholdNotAProbability { threshold: f32, reason: String },
}
