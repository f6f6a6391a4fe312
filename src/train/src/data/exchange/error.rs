//! Errors of the exchange with annotation programs.

use std::io;
use std::path::{Path, PathBuf};

use super::super::error::DataError;

/// Why a data set cannot be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("{}: this folder is not empty (it has {found}); pass a new folder with -o", folder.display())]
    NotEmpty { folder: PathBuf, found: String },
    #[error("{}: this is a file; pass a new folder with -o", .0.display())]
    OutputIsFile(PathBuf),
    #[error("{}: the output folder must not be in {}; pass another folder with -o", output.display(), input.display())]
    Inside { output: PathBuf, input: PathBuf },
    #[error("cannot write {}: {source}; is the disk full, or the folder read-only?", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: the mask cannot be encoded as PNG: {source}", path.display())]
    Png { path: PathBuf, source: png::EncodingError },
    #[error("{first} and {second} would have masks of the same name; rename one of them")]
    SameStem { first: String, second: String },
    #[error("class {name:?} cannot be written in CVAT's labelmap.txt; rename it, without : = # and spaces at its ends")]
    LabelMapName { name: String },
    #[error("the data set has {0} classes; with this format, at most 254 are possible")]
    TooManyClasses(usize),
    #[error("{}: {problem}; export the annotations again, or correct the file", path.display())]
    Format { path: PathBuf, problem: String },
    #[error("{}: {problem}", path.display())]
    Unsuitable { path: PathBuf, problem: String },
    #[error(
        "{}: the mask has {}x{} pixels, but the image {} has {}x{}; pass the images that were annotated",
        path.display(), mask.0, mask.1, image.display(), size.0, size.1
    )]
    Size { path: PathBuf, mask: (usize, usize), image: PathBuf, size: (usize, usize) },
    #[error(
        "{}: the image {image} is not in {}; pass the folder of the images with --images, or the data set that was exported \
         with --classes",
        path.display(), folders.join(", ")
    )]
    NoImage { path: PathBuf, image: String, folders: Vec<String> },
    #[error("{}: {image} may be {first} or {second}; pass one folder of images with --images", path.display())]
    AmbiguousImage { path: PathBuf, image: String, first: String, second: String },
    #[error("{}: {image} is annotated twice, in this file or in another; keep one annotation of each image", path.display())]
    AnnotatedTwice { path: PathBuf, image: String },
    #[error(
        "{}: {pixels} pixels of {image} (first at x {x}, y {y}) are of the class {class:?}, which the data set does not have; its \
         classes are {}. Rename the class in the annotation program, add it to the classes, or exclude its pixels with --void",
        path.display(), known.join(", ")
    )]
    UnknownClass { path: PathBuf, image: String, class: String, pixels: usize, x: usize, y: usize, known: Vec<String> },
    #[error(
        "{}: the pixel at x {x}, y {y} has {value}, which labelmap.txt does not have; export the annotations again, or add the \
         colour",
        path.display()
    )]
    UnknownColor { path: PathBuf, value: String, x: usize, y: usize },
    #[error("{option}: unknown class {name:?}; the classes are {}", known.join(", "))]
    NoClass { option: &'static str, name: String, known: Vec<String> },
    #[error("{}: no image has an annotation; annotate some of the {images} images, or export the annotations again", path.display())]
    Nothing { path: PathBuf, images: usize },
}

impl ExchangeError {
    /// Whether other options are needed.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::NotEmpty { .. } | Self::OutputIsFile(_) | Self::Inside { .. } | Self::NoClass { .. })
    }

    pub(super) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), problem: problem.into() }
    }

    pub(super) fn unsuitable(path: &Path, problem: impl Into<String>) -> Self {
        Self::Unsuitable { path: path.to_owned(), problem: problem.into() }
    }

    /// Returns a function for `map_err` that adds the path of a file that is written.
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    /// Returns a function for `map_err` that adds the path of a file that is read.
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}
