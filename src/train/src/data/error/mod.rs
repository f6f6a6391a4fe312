//! Errors of data sets, with their location.
//!
//! [`DataError`] has the path; the problem is a type of its own for each kind of file.

use std::fmt;
use std::path::{Path, PathBuf};

use maskcast::frame::Rgb;

mod classes;
mod dataset;
mod image;
mod label;
mod line;

pub use classes::{ClassFileError, CodingError};
pub use dataset::DatasetProblem;
pub use image::ImageError;
pub use label::{AmbiguousImage, LabelError, LabelImageError, OtherFile, RunLengthsError, ShapeError};
pub use line::LineError;

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
    /// The data set as a whole, or a file that describes it.
    #[error("{}: {problem} (help: {})", path.display(), problem.help())]
    Dataset { path: PathBuf, problem: DatasetProblem },
    /// A line of a class file, of a list or of an annotation file.
    #[error("{}:{line}: {source}", path.display())]
    Line { path: PathBuf, line: usize, source: LineError },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: cannot read this image: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    #[error("{}: cannot read this label: {source}", path.display())]
    Label { path: PathBuf, source: LabelError },
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
    pub(super) fn dataset(path: &Path, problem: impl Into<DatasetProblem>) -> Self {
        DataError::Dataset { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(super) fn line(path: &Path, line: usize, source: impl Into<LineError>) -> Self {
        DataError::Line { path: path.to_path_buf(), line, source: source.into() }
    }

    pub(super) fn image(path: &Path, source: ImageError) -> Self {
        DataError::Image { path: path.to_path_buf(), source }
    }

    pub(super) fn label(path: &Path, source: impl Into<LabelError>) -> Self {
        DataError::Label { path: path.to_path_buf(), source: source.into() }
    }

    /// Returns a function for `map_err` that adds the path.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| DataError::Io { path, source }
    }
}
