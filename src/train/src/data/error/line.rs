//! Errors in a line of a text file.

use std::path::PathBuf;

use super::classes::ClassFileError;

/// What is wrong in a line of a class file, a list or an annotation file.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error(transparent)]
    ClassFile(#[from] ClassFileError),
    #[error("this is not valid {format} JSON: {source}")]
    Json { format: &'static str, source: serde_json::Error },
    /// In a list; `names` are the names of the images that match.
    #[error("{name} is ambiguous; write one of {}", names.join(", "))]
    AmbiguousImage { name: String, names: Vec<String> },
    #[error("there is no image {0}")]
    NoImage(String),
    #[error("there is no image {image} in {}", folder.display())]
    NoImageIn { image: String, folder: PathBuf },
    #[error("there is no image {image} with a label in {}", folder.display())]
    NoLabelledImage { image: String, folder: PathBuf },
    #[error("there is no label image {0}")]
    NoLabelImage(String),
    #[error("{0:?} is not a class number")]
    ClassNumber(String),
    #[error("{0:?} is not a number")]
    Number(String),
    #[error("{0} is not a relative coordinate; coordinates are from 0 to 1")]
    Coordinate(f32),
    #[error("{0} numbers after the class; write x and y of at least three corners")]
    Corners(usize),
    #[error(
        "this line is a box, not a polygon ({boxes} of {lines} lines are boxes), and does not define the pixels of the \
         object. Export polygons (YOLO segmentation) or masks"
    )]
    Box { boxes: usize, lines: usize },
}
