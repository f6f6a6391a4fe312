//! An image and its label: their paths ([`Pair`]), their pixels ([`LabelledImage`]) and the part of the data set that they
//! are in ([`Part`]).

use std::path::PathBuf;

/// The label of a pixel that is excluded from the loss and from the metrics. All void classes of a data set are mapped
/// to it.
pub const VOID: u8 = 255;

/// The paths of an image and of its label. Neither is read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image's path relative to the data set's folder, without its extension. Messages and reports use it.
    pub name: String,
    pub image: PathBuf,
    pub label: PathBuf,
}

/// A decoded image with a class for each pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledImage {
    pub width: usize,
    pub height: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// Class indices or [`VOID`], `[height, width]`.
    pub labels: Vec<u8>,
}

/// A part of a data set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Train,
    Val,
    Test,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::Train, Part::Val, Part::Test];

    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Val => "val",
            Part::Test => "test",
        }
    }
}
