//! Exchange of data sets with annotation programs: CVAT, programs that read and write COCO's JSON, and Label Studio.
//!
//! [`export`] writes images and masks in a format of such a program, [`import`] makes a data set of what comes back. The masks
//! are stored pixel by pixel, as run lengths or as images, never as polygons, so that both directions are exact. Void pixels are
//! exported as pixels without an annotation, and pixels without an annotation are imported as void.

use clap::ValueEnum;

mod brush;
mod brush_mask;
mod classes;
mod coco;
mod cvat;
mod error;
mod export;
mod finder;
mod found;
mod import;
mod item;
mod label_studio;
mod new_folder;
mod studio_reader;

pub use error::ExchangeError;
pub use export::{ExportSummary, export};
pub use import::{ImportOptions, ImportSummary, import};

/// A format of annotation programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExchangeFormat {
    /// CVAT's "Segmentation mask 1.1": masks as images, in the folders of Pascal VOC
    Cvat,
    /// COCO's JSON with a mask in run lengths for each class of an image
    Coco,
    /// Label Studio's JSON with brush masks, as predictions to correct
    LabelStudio,
}
