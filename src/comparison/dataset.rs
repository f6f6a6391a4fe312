//! Reads labelled images in the two layouts that need no conversion: that of a collection (Pascal VOC's), and `images/`, `masks/`,
//! `classes.txt`. `maskcast-train` reads more layouts, and converts them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::frame::Rgb;

use super::score::VOID;

/// Folders and files of a collection.
const VOC: [&str; 3] = ["JPEGImages", "SegmentationClass", "labelmap.txt"];
/// Folders and files of the plain layout.
const PLAIN: [&str; 3] = ["images", "masks", "classes.txt"];
const LISTS: &str = "ImageSets/Segmentation";
/// The images of a collection that a person has accepted.
const ACCEPTED: &str = "accepted.txt";
/// The images of a collection that await review: their labels are proposals of a model.
const PROPOSED: &str = "proposed.txt";
/// Names of classes in a `labelmap.txt` that stand for pixels without a label.
const VOID_NAMES: [&str; 4] = ["void", "ignore", "unlabeled", "undefined"];
/// Extensions of images.
const IMAGE_EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// Why a data set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error(
        "{}: neither the folder of a collection (JPEGImages, SegmentationClass, labelmap.txt) nor images, masks and classes.txt; \
         convert it with `maskcast-train data export --format cvat`{}", .0.display(), inner(.1)
    )]
    Layout(PathBuf, Vec<String>),
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {problem}; convert the data set with `maskcast-train data export --format cvat`", .path.display())]
    Classes { path: PathBuf, line: usize, problem: &'static str },
    #[error("{}: no image is accepted; accept some of its images on the page of the service, or list images with --list", .0.display())]
    NothingAccepted(PathBuf),
    #[error("{}: the data set has no image with a label", .0.display())]
    Empty(PathBuf),
    #[error("{}:{line}: there is no image {name:?} with a label in {}", .list.display(), .root.display())]
    Unlisted { list: PathBuf, line: usize, name: String, root: PathBuf },
    #[error("{}: {problem}", .path.display())]
    Label { path: PathBuf, problem: LabelProblem },
}

/// The help for a folder whose inner folders are data sets.
fn inner(folders: &[String]) -> String {
    if folders.is_empty() { String::new() } else { format!(", or give one of its folders: {}", folders.join(", ")) }
}

/// Why a label image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LabelProblem {
    #[error("{0}")]
    Png(#[from] png::DecodingError),
    #[error(
        "the label is not a palette or grey PNG of 8 bits; convert the data set with `maskcast-train data export --format cvat`"
    )]
    Format,
    #[error("a pixel has the value {value}, but the data set has {classes} classes (0 to {}; 255 is void)", .classes - 1)]
    Value { value: u8, classes: usize },
    #[error(
        "the palette has another colour for class {class} than the class file; convert the data set with `maskcast-train data export \
         --format cvat`"
    )]
    Palette { class: String },
}

/// A class of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataClass {
    pub name: String,
    /// In a `labelmap.txt`.
    pub color: Option<Rgb>,
    /// Stands for pixels without a label.
    pub is_void: bool,
}

/// An image and its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledFile {
    /// Without extension.
    pub name: String,
    pub image: PathBuf,
    pub label: PathBuf,
}

/// A data set: its classes, and its images that have a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// By value in labels.
    pub classes: Vec<DataClass>,
    /// By name.
    pub files: Vec<LabelledFile>,
    /// The list of images that was used; `None`: all images.
    pub list: Option<PathBuf>,
}

/// The label of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelImage {
    pub width: usize,
    pub height: usize,
    /// `[height × width]`, values of the data set, [`VOID`] without a label.
    pub values: Vec<u8>,
}

impl Dataset {
    /// Reads the classes and the names of the images. `list` is a file with the names of the images to use, one a line.
    ///
    /// # Errors
    /// The folder has another layout, or a file cannot be read.
    pub fn open(root: &Path, list: Option<&Path>) -> Result<Dataset, DatasetError> {
        let has = |layout: &[&str; 3]| layout.iter().all(|name| root.join(name).exists());
        let (layout, is_collection) = if has(&VOC) {
            (VOC, true)
        } else if has(&PLAIN) {
            (PLAIN, false)
        } else {
            return Err(other_layout(root));
        };
        let [images, labels, class_file] = layout.map(|name| root.join(name));
        let text = fs::read_to_string(&class_file).map_err(located(&class_file))?;
        let classes = if is_collection { label_map(&text) } else { class_names(&text) }
            .map_err(|(line, problem)| DatasetError::Classes { path: class_file.clone(), line, problem })?;
        let paired = pair(&images, &labels)?;
        let list = match list {
            Some(list) => Some(list.to_path_buf()),
            None if is_collection => collection_list(root)?,
            None => None,
        };
        let files = match &list {
            Some(list) => listed(list, root, paired)?,
            None => paired.into_values().collect(),
        };
        if files.is_empty() {
            return Err(DatasetError::Empty(root.to_path_buf()));
        }
        Ok(Dataset { classes, files, list })
    }

    /// Reads the label of an image.
    ///
    /// # Errors
    /// The file is not a PNG of class numbers.
    pub fn label(&self, file: &LabelledFile) -> Result<LabelImage, DatasetError> {
        let path = &file.label;
        let read = fs::File::open(path).map_err(located(path))?;
        self.decode(io::BufReader::new(read)).map_err(|problem| DatasetError::Label { path: path.clone(), problem })
    }

    fn decode(&self, file: impl io::BufRead + io::Seek) -> Result<LabelImage, LabelProblem> {
        let mut reader = png::Decoder::new(file).read_info()?;
        let info = reader.info();
        let (width, height) = (info.width as usize, info.height as usize);
        let is_index = matches!(info.color_type, png::ColorType::Indexed | png::ColorType::Grayscale);
        if !is_index || info.bit_depth != png::BitDepth::Eight {
            return Err(LabelProblem::Format);
        }
        let palette = info.palette.as_ref().map(|palette| palette.to_vec());
        let mut values = vec![0; width * height];
        reader.next_frame(&mut values)?;
        let mut used = [false; 256];
        values.iter().for_each(|&value| used[usize::from(value)] = true);
        for value in (0..=u8::MAX).filter(|&value| used[usize::from(value)] && value != VOID) {
            let classes = self.classes.len();
            let class = self.classes.get(usize::from(value)).ok_or(LabelProblem::Value { value, classes })?;
            let drawn = palette.as_ref().and_then(|palette| palette.get(3 * usize::from(value)..)?.get(..3));
            if let (Some(&[r, g, b]), Some(color)) = (drawn, class.color)
                && Rgb(r, g, b) != color
            {
                return Err(LabelProblem::Palette { class: class.name.clone() });
            }
        }
        for value in &mut values {
            if self.classes.get(usize::from(*value)).is_some_and(|class| class.is_void) {
                *value = VOID;
            }
        }
        Ok(LabelImage { width, height, values })
    }
}

fn located(path: &Path) -> impl FnOnce(io::Error) -> DatasetError + '_ {
    move |source| DatasetError::File { path: path.to_path_buf(), source }
}

/// The error about a folder with another layout, which names inner folders that have one of the two.
fn other_layout(root: &Path) -> DatasetError {
    let is_data = |path: &Path| [VOC, PLAIN].iter().any(|layout| layout.iter().all(|name| path.join(name).exists()));
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(source) => return DatasetError::File { path: root.to_path_buf(), source },
    };
    let mut folders: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_data(path))
        .map(|path| path.display().to_string())
        .collect();
    folders.sort();
    DatasetError::Layout(root.to_path_buf(), folders)
}

/// Lines of `name:r,g,b:parts:actions`.
fn label_map(text: &str) -> Result<Vec<DataClass>, (usize, &'static str)> {
    let mut classes = Vec::new();
    for (line, text) in numbered(text) {
        let fields: Vec<&str> = text.split(':').collect();
        let [name, color, ..] = fields[..] else { return Err((line, "the line is not `name:r,g,b:parts:actions`")) };
        let channels: Result<Vec<u8>, _> = color.split(',').map(|channel| channel.trim().parse()).collect();
        let color = match channels.as_deref() {
            Ok(&[r, g, b]) => Some(Rgb(r, g, b)),
            _ if color.trim().is_empty() => None,
            _ => return Err((line, "the colour is not three numbers from 0 to 255")),
        };
        let name = name.trim().to_owned();
        let is_void = VOID_NAMES.iter().any(|void| name.eq_ignore_ascii_case(void));
        classes.push(DataClass { name, color, is_void });
    }
    checked(classes)
}

/// Lines with a name each.
fn class_names(text: &str) -> Result<Vec<DataClass>, (usize, &'static str)> {
    let mut classes = Vec::new();
    for (line, name) in numbered(text) {
        if name.contains([',', ';', '=', '\t']) {
            return Err((line, "the line is not the name of a class"));
        }
        classes.push(DataClass { name: name.to_owned(), color: None, is_void: false });
    }
    checked(classes)
}

fn checked(classes: Vec<DataClass>) -> Result<Vec<DataClass>, (usize, &'static str)> {
    match classes.len() {
        0 => Err((1, "the file has no class")),
        1..=255 => Ok(classes),
        _ => Err((256, "the file has more than 255 classes")),
    }
}

/// The lines that are not empty and no comments, with their numbers.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    lines.map(|(index, line)| (index + 1, line.trim())).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The images that have a label, by name.
fn pair(images: &Path, labels: &Path) -> Result<BTreeMap<String, LabelledFile>, DatasetError> {
    let mut paired = BTreeMap::new();
    for entry in fs::read_dir(images).map_err(located(images))? {
        let image = entry.map_err(located(images))?.path();
        let extension = image.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let Some(name) = image.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else { continue };
        let label = labels.join(format!("{name}.png"));
        if IMAGE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)) && label.is_file() {
            paired.insert(name.clone(), LabelledFile { name, image, label });
        }
    }
    Ok(paired)
}

/// The list of a collection's accepted images; `None` for a folder without lists, all of whose images have labels by people.
fn collection_list(root: &Path) -> Result<Option<PathBuf>, DatasetError> {
    let lists = root.join(LISTS);
    let accepted = lists.join(ACCEPTED);
    let is_empty = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.trim().is_empty());
    match (accepted.is_file(), lists.join(PROPOSED).is_file()) {
        (true, _) if is_empty(&accepted) => Err(DatasetError::NothingAccepted(root.to_path_buf())),
        (true, _) => Ok(Some(accepted)),
        (false, true) => Err(DatasetError::NothingAccepted(root.to_path_buf())),
        (false, false) => Ok(None),
    }
}

/// The images that a list names.
fn listed(
    list: &Path,
    root: &Path,
    mut paired: BTreeMap<String, LabelledFile>,
) -> Result<Vec<LabelledFile>, DatasetError> {
    let text = fs::read_to_string(list).map_err(located(list))?;
    let mut files: Vec<LabelledFile> = Vec::new();
    for (line, written) in numbered(&text) {
        // Lists of the trainer have the paths of the images.
        let stem = Path::new(written).file_stem().and_then(|stem| stem.to_str()).unwrap_or(written);
        match paired.remove(written).or_else(|| paired.remove(stem)) {
            Some(file) => files.push(file),
            // A name twice is one image.
            None if files.iter().any(|file| file.name == written || file.name == stem) => {}
            None => {
                let (list, root) = (list.to_path_buf(), root.to_path_buf());
                return Err(DatasetError::Unlisted { list, line, name: written.to_owned(), root });
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
