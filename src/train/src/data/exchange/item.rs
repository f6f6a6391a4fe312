//! What is exported: images with their masks.

use std::path::{Path, PathBuf};

use super::super::pair::Part;
use super::error::ExchangeError;

/// An image with its mask, to be written.
pub struct ExportItem<'a> {
    /// The path of the image below the folder of images, without extension, with forward slashes.
    pub stem: &'a str,
    /// `stem` with the extension of the written image.
    pub file: &'a str,
    /// The part that the data set has for the image; `None` if its parts are generated.
    pub part: Option<Part>,
    pub width: usize,
    pub height: usize,
    /// Class indices or [`VOID`](super::super::pair::VOID), `[height, width]`.
    pub labels: &'a [u8],
}

impl ExportItem<'_> {
    /// Name of the subset: `train`, `val`, `test`, or CVAT's `default`.
    pub fn subset(&self) -> &'static str {
        self.part.map_or("default", Part::name)
    }
}

/// Writes the annotations of one format.
pub trait AnnotationWriter {
    /// Writes the mask of an image.
    ///
    /// # Errors
    /// The mask cannot be written.
    fn add(&mut self, item: &ExportItem<'_>) -> Result<(), ExchangeError>;

    /// Writes what is left, after the last image.
    ///
    /// # Errors
    /// A file cannot be written.
    fn finish(self: Box<Self>) -> Result<(), ExchangeError>;
}

/// The innermost folder that all files are in.
pub fn common_folder<'a>(mut files: impl Iterator<Item = &'a Path>) -> PathBuf {
    let mut common = files.next().and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf();
    for file in files {
        while !file.starts_with(&common) && common.pop() {}
    }
    common
}
