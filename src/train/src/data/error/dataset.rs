//! Errors of a data set as a whole.

use std::path::PathBuf;

use super::classes::CodingError;
use super::label::{AmbiguousImage, ShapeError};

/// Why a folder cannot be opened as a data set.
#[derive(Debug, thiserror::Error)]
pub enum DatasetProblem {
    #[error("this folder does not exist")]
    NotFound,
    #[error("this is an archive")]
    Archive,
    #[error("this is a file")]
    NotAFolder,
    /// `wanted` is the layout of `--format`; `found` lists folders and files.
    #[error("this is not a data set of {}: {found}", wanted.as_ref().map_or("a supported layout".into(), |wanted| format!("the layout {wanted}")))]
    UnknownLayout { wanted: Option<String>, found: String },
    #[error("no image has a label: found {images} images and {labels} labels in the layout {format}")]
    NoPairs { images: usize, labels: usize, format: String },
    #[error("the validation share {0} is not between 0 and 1")]
    ValShare(f64),
    #[error("{0} is missing")]
    ListMissing(&'static str),
    #[error("the classes differ from those of {}", .0.display())]
    ClassFilesDiffer(PathBuf),
    #[error("the annotations name the classes; with this format, a --classes file may only merge them")]
    ClassesOfAnnotations,
    #[error(transparent)]
    Coding(#[from] CodingError),
    #[error(
        "{count} images are rotated or mirrored by their EXIF data (first {}: {orientation}); sizes and image content do \
         not show whether their labels are oriented as the images are displayed or as they are stored",
        first.display()
    )]
    LabelOrientation { count: usize, first: PathBuf, orientation: String },
    #[error("leftImg8bit/ or gtFine/ is missing")]
    CityscapesFolders,
    #[error("there is no SegmentationClass/")]
    VocLabels,
    #[error("there are labels, but no JPEGImages/ with their images")]
    VocImages,
    #[error("there are more than 254 classes")]
    TooManyClasses,
    #[error(transparent)]
    AmbiguousImage(#[from] AmbiguousImage),
    #[error("{0} is annotated twice, in this file or in another")]
    AnnotatedTwice(String),
    #[error("category {id} is {name}, but {other} in {}", file.display())]
    CategoryNames { id: i64, name: String, other: String, file: PathBuf },
    #[error("the {0} annotations have only boxes")]
    OnlyBoxes(usize),
    #[error("two images have the id {0}")]
    SameImageId(String),
    #[error("an annotation refers to image {0}, which does not exist")]
    UnknownImage(String),
    #[error("an annotation has category {0}, which does not exist")]
    UnknownCategory(i64),
    #[error("{image}: {source}")]
    Shape { image: String, source: ShapeError },
    #[error("the {0} labelme files contain no shape of a class: there is nothing to learn")]
    NoShapes(usize),
    #[error("shapes have the label {0:?}, which is not in this file")]
    UnknownLabel(String),
    #[error("`names` cannot be read: {0}")]
    YamlNames(String),
    #[error("it names {names} classes, but labels contain the number {highest}")]
    TooFewNames { names: usize, highest: u32 },
    #[error("two classes have the name {0}")]
    SameClassName(String),
    #[error("there are no images in this folder")]
    NoImages,
    /// In a folder whose images shall get labels. The folder of images.
    #[error("this folder has labels beside {}", .0.display())]
    HasLabels(PathBuf),
    #[error("the labels of {first} and {second} would have the same name")]
    SameStem { first: String, second: String },
    #[error("{from}={to} merges two classes, but there are no labels yet")]
    MergeWithoutLabels { from: String, to: String },
    #[error("class {name} has the number {number}, but its place is {place}")]
    ClassOrder { name: String, number: u8, place: usize },
    #[error("there are {0} classes; 2 to 254 are possible")]
    ClassCount(usize),
    #[error("{0:?} cannot be the name of a class in a class file")]
    ClassName(String),
}

impl DatasetProblem {
    /// What to do.
    pub fn help(&self) -> String {
        match self {
            DatasetProblem::Coding(error) => return error.help(),
            DatasetProblem::NotFound | DatasetProblem::NotAFolder => "pass the folder of the data set",
            DatasetProblem::Archive => "unpack it and pass the folder",
            DatasetProblem::UnknownLayout { .. } => SUPPORTED_LAYOUTS,
            DatasetProblem::NoPairs { .. } => "give each image and its label the same file name",
            DatasetProblem::ValShare(_) => "pass a share such as --val 0.2",
            DatasetProblem::ListMissing(_) => "--lists needs a folder with train.txt and val.txt",
            DatasetProblem::ClassFilesDiffer(_) => "remove one of the files, or pass the correct one with --classes",
            DatasetProblem::ClassesOfAnnotations => "write only lines such as truck=car",
            DatasetProblem::LabelOrientation { .. } => {
                "compare one image with its label, then pass --label-orientation upright (as displayed) or stored"
            }
            DatasetProblem::CityscapesFolders => "unpack both archives into one folder",
            DatasetProblem::VocLabels => "unpack the whole archive",
            DatasetProblem::VocImages => {
                "export again with \"Save images\", or put the images into JPEGImages/ under the names of the labels"
            }
            DatasetProblem::TooManyClasses => "merge or remove some",
            DatasetProblem::AmbiguousImage(_) => "write the path with its folder into `file_name`",
            DatasetProblem::AnnotatedTwice(_) => "keep one annotation file for each image",
            DatasetProblem::CategoryNames { .. } => "move files of different data sets into separate folders",
            DatasetProblem::OnlyBoxes(_) => {
                "this is a detection data set; export it for segmentation (polygons or masks)"
            }
            DatasetProblem::SameImageId(_)
            | DatasetProblem::UnknownImage(_)
            | DatasetProblem::UnknownCategory(_)
            | DatasetProblem::Shape { .. } => "export the annotations again",
            DatasetProblem::NoShapes(_) => "draw polygons in labelme, or pass the folder of the annotated files",
            DatasetProblem::UnknownLabel(_) => "add a line with the label, or correct the shapes",
            DatasetProblem::YamlNames(_) => "write `names: [a, b]`",
            DatasetProblem::TooFewNames { .. } => "add the missing classes to `names`",
            DatasetProblem::SameClassName(_) => "give each class a different name",
            DatasetProblem::NoImages => {
                "pass a folder with images; frames of a video: ffmpeg -i VIDEO -vf fps=1 FOLDER/%05d.jpg"
            }
            DatasetProblem::HasLabels(_) => "pass its folder of images, so that label images are not taken for images",
            DatasetProblem::SameStem { .. } => "rename one of them",
            DatasetProblem::MergeWithoutLabels { .. } => "remove the line, and write the names of the classes only",
            DatasetProblem::ClassOrder { .. } => {
                "number the classes 0, 1, 2 and so on, without a void class: void pixels have the number 255"
            }
            DatasetProblem::ClassCount(_) => "write one class per line",
            DatasetProblem::ClassName(_) => "use a name without = , ; that does not begin with a number",
        }
        .into()
    }
}

const SUPPORTED_LAYOUTS: &str = "supported are images/ and masks/, train/ and trainannot/, JPEGImages/ and \
    SegmentationClass/, leftImg8bit/ and gtFine/, the JSON of COCO or labelme, or images/ and labels/ of YOLO; images \
    and labels must have the same names. Export other annotations as \"COCO\" or \"Segmentation mask\"";
