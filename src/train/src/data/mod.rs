//! Data sets on disk: images with a class for each pixel.
//!
//! [`Dataset::open`] detects the layout of a folder ([`Format`]), its classes, how its label images encode them, and
//! the split into training and validation images. It reads only a sample of the label images, so that opening a large
//! data set is fast; [`check::check`] reads all of them.

mod appearance;
mod bare;
mod cache;
pub mod check;
mod class_file;
mod class_json;
pub mod cli;
mod coding;
mod colors;
mod dataset;
mod drawing;
mod error;
pub mod exchange;
mod fingerprint;
mod format;
mod hash;
mod image;
mod known;
mod label_orientation;
mod lists;
mod orientation;
mod pair;
mod raw;
mod sample;
mod scan;
mod sequence;
mod signature;
mod source_class;
mod split;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use bare::{BareImage, bare_images, class_lines, class_list};
pub use cli::DataArgs;
pub use dataset::{Dataset, OpenOptions};
pub use error::{DataError, DatasetProblem, PixelValue};
pub use format::Format;
pub use hash::SimilarityIndex;
pub use image::Rgb8;
pub use label_orientation::LabelOrientation;
pub use pair::{LabelledImage, Pair, Part, VOID};
pub use scan::Unpaired;
pub use split::{BySequence, SplitOptions};
