//! What can be wrong with a data set, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use maskcast::frame::Rgb;

/// What a label picture says about a pixel, before it is translated into a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A number: grey level or position in the palette.
    Index(u16),
    Color(Rgb),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Index(index) => write!(f, "value {index}"),
            Value::Color(Rgb(r, g, b)) => write!(f, "colour {r},{g},{b}"),
        }
    }
}

/// Why a data set, or a file of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The folder as a whole.
    #[error("{}: {problem} (help: {help})", path.display())]
    Set { path: PathBuf, problem: String, help: String },
    /// A line of a class file or of a list.
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: this picture cannot be read: {problem}", path.display())]
    Picture { path: PathBuf, problem: String },
    #[error("{}: this label cannot be read: {problem}", path.display())]
    Label { path: PathBuf, problem: String },
    /// Not one label picture of the data set.
    #[error(
        "{}: none of the {count} label pictures can be read (help: `data check` lists them all); the first is {first}",
        path.display()
    )]
    NoLabels { path: PathBuf, count: usize, first: Box<DataError> },
    #[error("{}: {value} at x {x}, y {y} belongs to no class (help: {help})", path.display())]
    UnknownValue { path: PathBuf, value: Value, x: usize, y: usize, help: String },
    #[error(
        "{}: the label picture has {}x{} pixels, but {} has {}x{} (help: labels must fit their pictures pixel by pixel)",
        label.display(), label_size.0, label_size.1, image.display(), image_size.0, image_size.1
    )]
    SizeMismatch { image: PathBuf, label: PathBuf, image_size: (usize, usize), label_size: (usize, usize) },
}

impl DataError {
    pub(super) fn set(path: &Path, problem: impl Into<String>, help: impl Into<String>) -> Self {
        DataError::Set { path: path.to_path_buf(), problem: problem.into(), help: help.into() }
    }

    pub(super) fn line(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        DataError::Line { path: path.to_path_buf(), line, problem: problem.into() }
    }

    pub(super) fn picture(path: &Path, problem: impl Into<String>) -> Self {
        DataError::Picture { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(super) fn label(path: &Path, problem: impl Into<String>) -> Self {
        DataError::Label { path: path.to_path_buf(), problem: problem.into() }
    }

    /// For `map_err`.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| DataError::Io { path, error }
    }
}
