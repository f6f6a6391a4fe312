//! Errors of data sets, with their location.

use std::fmt;
use std::path::{Path, PathBuf};

use maskcast::frame::Rgb;

/// The value of a pixel in a label image, before it is mapped to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelValue {
    /// A number: grey level or palette index.
    Index(u16),
    Color(Rgb),
}

impl fmt::Display for PixelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PixelValue::Index(index) => write!(f, "value {index}"),
            PixelValue::Color(Rgb(r, g, b)) => write!(f, "colour {r},{g},{b}"),
        }
    }
}

/// An error of a data set or of one of its files.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The data set as a whole.
    #[error("{}: {problem} (help: {help})", path.display())]
    Dataset { path: PathBuf, problem: String, help: String },
    /// A line of a class file or of a list.
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: cannot read this image: {problem}", path.display())]
    Image { path: PathBuf, problem: String },
    #[error("{}: cannot read this label: {problem}", path.display())]
    Label { path: PathBuf, problem: String },
    /// No label of the data set can be read.
    #[error(
        "{}: none of the {count} label images can be read (help: `maskcast-train data check` lists all errors); the \
         first error: {first}",
        path.display()
    )]
    NoLabels { path: PathBuf, count: usize, first: Box<DataError> },
    #[error("{}: {value} at x {x}, y {y} belongs to no class (help: {help})", path.display())]
    UnknownValue { path: PathBuf, value: PixelValue, x: usize, y: usize, help: String },
    #[error(
        "{}: the label image has {}x{} pixels, but {} has {}x{} (help: export the label in the size of its image)",
        label.display(), label_size.0, label_size.1, image.display(), image_size.0, image_size.1
    )]
    SizeMismatch { image: PathBuf, label: PathBuf, image_size: (usize, usize), label_size: (usize, usize) },
}

impl DataError {
    pub(super) fn dataset(path: &Path, problem: impl Into<String>, help: impl Into<String>) -> Self {
        DataError::Dataset { path: path.to_path_buf(), problem: problem.into(), help: help.into() }
    }

    pub(super) fn line(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        DataError::Line { path: path.to_path_buf(), line, problem: problem.into() }
    }

    pub(super) fn noise_image(path: &Path, problem: impl Into<String>) -> Self {
        DataError::Image { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(super) fn label(path: &Path, problem: impl Into<String>) -> Self {
        DataError::Label { path: path.to_path_buf(), problem: problem.into() }
    }

    /// Returns a function for `map_err` that adds the path.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| DataError::Io { path, error }
    }
}
