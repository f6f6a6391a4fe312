//! What annotation files contain, before it is assigned to the images and classes of a data set.

use std::path::PathBuf;

use maskcast::frame::Rgb;

use super::super::drawing::LabelDrawing;
use super::super::pair::Part;
use super::brush_mask::BrushMask;

/// The largest number of classes: in a mask, 255 is void.
pub const MAX_CLASSES: usize = 254;

/// A class of an annotation file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundClass {
    pub name: String,
    pub color: Option<Rgb>,
}

/// An image of an annotation file.
pub struct AnnotatedImage {
    /// The path of the image as the file has it, with forward slashes.
    pub wanted: String,
    /// Whether `wanted` has no extension.
    pub is_stem: bool,
    pub part: Option<Part>,
    /// The file that has the annotation, for messages.
    pub source: PathBuf,
    pub mask: FoundMask,
}

/// A mask that is not drawn yet. In the drawn mask, 0 is a pixel without an annotation, and n the class n - 1 of
/// [`Annotations::classes`].
pub enum FoundMask {
    /// The image has no annotation.
    Missing,
    /// A label image of CVAT.
    Image(PathBuf),
    Drawing(LabelDrawing),
    Brush(BrushMask),
}

/// The content of annotation files.
pub struct Annotations {
    pub classes: Vec<FoundClass>,
    pub images: Vec<AnnotatedImage>,
    /// Folders that may contain the images.
    pub image_folders: Vec<PathBuf>,
    pub notes: Vec<String>,
}
