//! CVAT's "Segmentation mask 1.1" (<https://docs.cvat.ai/docs/dataset_management/formats/format-smask>), in the folders of Pascal
//! VOC.
//!
//! | file | content |
//! | --- | --- |
//! | `labelmap.txt` | a line `name:r,g,b::` for each class |
//! | `JPEGImages/` | the images |
//! | `SegmentationClass/STEM.png` | the classes, in these colours; the palette's index is the index of the line |
//! | `SegmentationObject/STEM.png` | the objects; CVAT makes a mask of each, and none of 0. Here: one object for each class |
//! | `ImageSets/Segmentation/SUBSET.txt` | the images, without extension |
//! | `labels.json` | the labels, for CVAT's constructor ("Raw"), which must exist before annotations are uploaded |
//!
//! In its exports, CVAT fills pixels without an annotation with the colour of the label `background`, which it puts first if there
//! is no such label, or else with the colour of the first label. So void pixels have no object, unless the data set has a class
//! `background`: then void is a label of its own, and background is the first of `labels.json`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use maskcast::frame::{Label, Rgb};
use serde_json::json;

use super::super::error::DatasetProblem;
use super::super::format::SubsetRole;
use super::super::pair::VOID;
use super::super::raw::{self, RawPixels};
use super::super::{DataError, class_file, colors, scan};
use super::error::ExchangeError;
use super::found::{AnnotatedImage, Annotations, FoundClass, FoundMask};
use super::item::{AnnotationWriter, ExportItem};
use super::new_folder::write_file;

pub const IMAGES: &str = "JPEGImages";
const CLASSES: &str = "SegmentationClass";
const OBJECTS: &str = "SegmentationObject";
const LISTS: &str = "ImageSets/Segmentation";
const LABEL_MAP: &str = "labelmap.txt";
/// The name that CVAT gives to pixels without an annotation.
const BACKGROUND: &str = "background";
/// The colour of pixels without an annotation: Datumaro, which CVAT uses, takes the black label for the background.
const BLACK: Rgb = Rgb(0, 0, 0);

/// A line of the label map.
struct Entry {
    name: String,
    color: Rgb,
}

/// Writes the files.
pub struct Writer {
    folder: PathBuf,
    /// By index in masks of classes.
    palette: Vec<Rgb>,
    /// Index in masks of classes, by label; the last is that of void.
    indices: Vec<u8>,
    /// Whether void pixels are an object.
    void_object: bool,
    lists: BTreeMap<&'static str, String>,
}

impl Writer {
    /// Writes the label map.
    ///
    /// # Errors
    /// A name cannot be in a label map, or a file cannot be written.
    pub fn new(folder: &Path, classes: &[Label]) -> Result<Self, ExchangeError> {
        let void_object = classes.iter().any(|label| label.name == BACKGROUND);
        let mut entries = colored(classes);
        let void = Entry { name: unused_name(classes), color: if void_object { void_color(&entries) } else { BLACK } };
        entries.insert(if void_object { entries.len() } else { 0 }, void);
        let mut text = String::from("# label:color_rgb:parts:actions\n");
        for Entry { name, color: Rgb(r, g, b) } in &entries {
            let line = format!("{name}:{r},{g},{b}::");
            let read = class_file::parse(&line).ok().filter(|file| file.classes.len() == 1);
            if name.contains(':') || read.is_none_or(|file| file.classes[0].name != *name) {
                return Err(ExchangeError::LabelMapName { name: name.clone() });
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        }
        write_file(&folder.join(LABEL_MAP), text.as_bytes())?;
        let mut labels: Vec<&Entry> = entries.iter().skip(usize::from(!void_object)).collect();
        labels.sort_by_key(|entry| entry.name != BACKGROUND);
        let labels: Vec<_> = labels
            .iter()
            .map(|Entry { name, color: Rgb(r, g, b) }| {
                json!({ "name": name, "color": format!("#{r:02x}{g:02x}{b:02x}"), "attributes": [] })
            })
            .collect();
        let labels = serde_json::to_string_pretty(&labels).unwrap_or_default() + "\n";
        write_file(&folder.join("labels.json"), labels.as_bytes())?;
        let first = u8::from(!void_object);
        let mut indices: Vec<u8> = (0..classes.len()).map(|index| index as u8 + first).collect();
        indices.push(if void_object { classes.len() as u8 } else { 0 });
        let palette = entries.iter().map(|entry| entry.color).collect();
        Ok(Writer { folder: folder.to_owned(), palette, indices, void_object, lists: BTreeMap::new() })
    }

    fn write_mask(
        &self,
        item: &ExportItem<'_>,
        folder: &str,
        palette: &[Rgb],
        indices: &[u8],
    ) -> Result<(), ExchangeError> {
        let path = self.folder.join(folder).join(format!("{}.png", item.stem));
        let void = indices.len() - 1;
        let index = |label: u8| indices[if label == VOID { void } else { usize::from(label) }];
        let pixels: Vec<u8> = item.labels.iter().map(|&label| index(label)).collect();
        let png = encode(&pixels, item.width, item.height, palette)
            .map_err(|source| ExchangeError::Png { path: path.clone(), source })?;
        write_file(&path, &png)
    }
}

impl AnnotationWriter for Writer {
    fn add(&mut self, item: &ExportItem<'_>) -> Result<(), ExchangeError> {
        self.write_mask(item, CLASSES, &self.palette, &self.indices)?;
        // One object for each class, numbered from 1.
        let objects: Vec<u8> = (0..self.indices.len() - 1).map(|index| index as u8 + 1).collect();
        let void = if self.void_object { self.indices.len() as u8 } else { 0 };
        let palette: Vec<Rgb> = (0..=self.indices.len()).map(|index| colors::voc(index as u8)).collect();
        self.write_mask(item, OBJECTS, &palette, &[objects, vec![void]].concat())?;
        let list = self.lists.entry(item.subset()).or_default();
        list.push_str(item.stem);
        list.push('\n');
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ExchangeError> {
        let write = |(subset, text): (&&str, &String)| {
            write_file(&self.folder.join(LISTS).join(format!("{subset}.txt")), text.as_bytes())
        };
        self.lists.iter().try_for_each(write)
    }
}

/// A name for void that no class has.
fn unused_name(classes: &[Label]) -> String {
    let used = |name: &str| classes.iter().any(|label| label.name.eq_ignore_ascii_case(name));
    ["void", "ignore", "unlabeled", "undefined"].into_iter().find(|name| !used(name)).unwrap_or("void").to_owned()
}

/// The first colour of Pascal VOC's map that no class has.
fn void_color(entries: &[Entry]) -> Rgb {
    let used = |color: &Rgb| entries.iter().any(|entry| entry.color == *color);
    (1..=255).map(colors::voc).find(|color| !used(color)).unwrap_or(BLACK)
}

/// The classes with their colours. A colour that another class has is replaced, because the colour is the class. Only background
/// is black.
fn colored(classes: &[Label]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for label in classes {
        let free = |color: &Rgb| *color != BLACK && !entries.iter().any(|entry| entry.color == *color);
        let unused = |color: &Rgb| free(color) && !classes.iter().any(|other| other.color == *color);
        let color = if label.name == BACKGROUND {
            BLACK
        } else {
            let other = || (1..=255).map(colors::voc).find(unused);
            Some(label.color).filter(free).or_else(other).unwrap_or(label.color)
        };
        entries.push(Entry { name: label.name.clone(), color });
    }
    entries
}

fn encode(pixels: &[u8], width: usize, height: usize, palette: &[Rgb]) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.iter().flat_map(|Rgb(r, g, b)| [*r, *g, *b]).collect::<Vec<u8>>());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(out)
}

/// Reads an export of CVAT.
///
/// # Errors
/// Folders or the label map are missing, or a file cannot be read.
pub fn read(input: &Path) -> Result<Annotations, ExchangeError> {
    if !input.is_dir() {
        let archive = scan::has_extension(input, &["zip"]);
        let problem = if archive { DatasetProblem::Archive } else { DatasetProblem::NotAFolder };
        return Err(DataError::dataset(input, problem).into());
    }
    // An archive may be unpacked into a folder of its own.
    let root = match scan::folder(input, &[CLASSES])? {
        Some(_) => input.to_owned(),
        None => scan::folders(input)?
            .into_values()
            .find(|inner| inner.join(CLASSES).is_dir())
            .ok_or_else(|| DataError::dataset(input, DatasetProblem::VocLabels))?,
    };
    let label_map = root.join(LABEL_MAP);
    if !label_map.is_file() {
        let problem = "labelmap.txt is missing; export as \"Segmentation mask 1.1\", and unpack the whole archive";
        return Err(ExchangeError::unsuitable(&root, problem));
    }
    let classes = class_file::read(&label_map)?.classes;
    let classes: Vec<FoundClass> =
        classes.into_iter().map(|class| FoundClass { name: class.name, color: class.color }).collect();
    if classes.len() > usize::from(VOID) {
        return Err(ExchangeError::TooManyClasses(classes.len()));
    }
    let masks = scan::labels(&root.join(CLASSES))?;
    let mut images = Vec::new();
    let image = |stem: &str, part, source: &Path| AnnotatedImage {
        wanted: stem.to_owned(),
        is_stem: true,
        part,
        source: masks.get(stem).map_or_else(|| source.to_owned(), PathBuf::clone),
        mask: masks.get(stem).map_or(FoundMask::Missing, |path| FoundMask::Image(path.clone())),
    };
    let lists = root.join(LISTS);
    let lists = if lists.is_dir() { scan::files_to_depth(&lists, &["txt"], 0)? } else { Vec::new() };
    let mut listed: HashMap<String, usize> = HashMap::new();
    for path in &lists {
        let part = SubsetRole::of(&scan::stem(path.parent().unwrap_or(&root), path)).part();
        let text = fs::read_to_string(path).map_err(ExchangeError::read(path))?;
        for line in text.trim_start_matches('\u{FEFF}').lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The whole line is the name, also with spaces.
            let stem = scan::to_nfc(&line.replace('\\', "/"));
            match listed.get(&stem) {
                // `trainval.txt` repeats the images of other lists.
                Some(&at) => {
                    let known: &mut AnnotatedImage = &mut images[at];
                    known.part = known.part.or(part);
                }
                None => {
                    listed.insert(stem.clone(), images.len());
                    images.push(image(&stem, part, path));
                }
            }
        }
    }
    let unlisted = masks.keys().filter(|stem| !listed.contains_key(*stem));
    images.extend(unlisted.map(|stem| image(stem, None, &label_map)).collect::<Vec<_>>());
    let image_folders = scan::folder(&root, &[IMAGES])?.into_iter().collect();
    Ok(Annotations { classes, images, image_folders, notes: Vec::new() })
}

/// Reads a mask of classes: width, height, and n for the class n - 1. Grey levels are indices of lines in the label map; in images
/// with a palette, the colour decides.
///
/// # Errors
/// The image cannot be read, or has a colour that is not in the label map.
pub fn read_mask(path: &Path, classes: &[FoundClass]) -> Result<(usize, usize, Vec<u8>), ExchangeError> {
    let raw = raw::read(path)?;
    let by_color: HashMap<Rgb, u8> =
        classes.iter().enumerate().filter_map(|(index, class)| Some((class.color?, index as u8 + 1))).collect();
    let by_index = |value: u8| (usize::from(value) < classes.len()).then(|| value + 1);
    let values: Vec<Option<u8>> = match &raw.pixels {
        RawPixels::Gray(values) => values.iter().map(|&value| by_index(value)).collect(),
        RawPixels::Indexed(values, palette) => {
            let color = |value: u8| palette.get(usize::from(value)).and_then(|color| by_color.get(color).copied());
            let table: Vec<Option<u8>> = (0..=255).map(color).collect();
            values.iter().map(|&value| table[usize::from(value)]).collect()
        }
        RawPixels::Colors(pixels) => pixels.iter().map(|color| by_color.get(color).copied()).collect(),
    };
    if let Some(at) = values.iter().position(Option::is_none) {
        let value = match &raw.pixels {
            RawPixels::Indexed(values, palette) => palette
                .get(usize::from(values[at]))
                .map_or_else(|| raw.value(at).to_string(), |Rgb(r, g, b)| format!("the colour {r},{g},{b}")),
            _ => format!("the {}", raw.value(at)),
        };
        let (x, y) = (at % raw.width, at / raw.width);
        return Err(ExchangeError::UnknownColor { path: path.to_owned(), value, x, y });
    }
    Ok((raw.width, raw.height, values.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use png::{BitDepth, ColorType};

    use super::super::super::testing::png_bytes;
    use super::*;

    fn label_map(names: &[&str], color: Rgb) -> Vec<FoundClass> {
        let dir = tempfile::tempdir().unwrap();
        let classes: Vec<Label> = names.iter().map(|name| Label::new(*name, color)).collect();
        Writer::new(dir.path(), &classes).unwrap();
        let read = class_file::read(&dir.path().join(LABEL_MAP)).unwrap().classes;
        read.into_iter().map(|class| FoundClass { name: class.name, color: class.color }).collect()
    }

    #[test]
    fn only_pixels_without_an_annotation_are_black() {
        for (names, wanted) in [
            (&["road", "car"][..], &["void", "road", "car"][..]),
            (&["road", "background"], &["road", "background", "void"]),
            (&["Background", "void"], &["ignore", "Background", "void"]),
        ] {
            // All classes are black in the data set.
            let map = label_map(names, BLACK);
            let found: Vec<&str> = map.iter().map(|class| class.name.as_str()).collect();
            assert_eq!(found, wanted);
            let black: Vec<bool> = map.iter().map(|class| class.color == Some(BLACK)).collect();
            let expected = if names.contains(&BACKGROUND) { "background" } else { wanted[0] };
            assert_eq!(black, found.iter().map(|name| *name == expected).collect::<Vec<_>>());
            let colors: std::collections::HashSet<_> = map.iter().map(|class| class.color).collect();
            assert_eq!(colors.len(), map.len(), "each class has its own colour");
        }
    }

    #[test]
    fn names_that_a_label_map_cannot_have_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a:b", "#a", "a=b", " a", "a\nb", ""] {
            let written = Writer::new(dir.path(), &[Label::new(name, BLACK)]);
            assert!(matches!(written, Err(ExchangeError::LabelMapName { .. })), "{name:?}");
        }
    }

    #[test]
    fn masks_are_read_by_colour_and_grey_ones_by_index() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let class = |name: &str, color| FoundClass { name: name.into(), color: Some(color) };
        let classes = [class("a", Rgb(0, 0, 0)), class("b", Rgb(9, 8, 7))];
        let read = |color, palette: Option<&[u8]>, data: &[u8]| {
            fs::write(&path, png_bytes(2, 1, color, BitDepth::Eight, palette, data)).unwrap();
            read_mask(&path, &classes)
        };
        assert_eq!(read(ColorType::Rgb, None, &[9, 8, 7, 0, 0, 0]).unwrap(), (2, 1, vec![2, 1]));
        // The palette has another order than the label map.
        assert_eq!(read(ColorType::Indexed, Some(&[9, 8, 7, 0, 0, 0]), &[0, 1]).unwrap().2, [2, 1]);
        assert_eq!(read(ColorType::Grayscale, None, &[0, 1]).unwrap().2, [1, 2]);
        for wrong in [
            read(ColorType::Rgb, None, &[9, 8, 7, 9, 9, 9]),
            read(ColorType::Indexed, Some(&[9, 8, 7, 9, 9, 9]), &[0, 1]),
            read(ColorType::Grayscale, None, &[0, 2]),
        ] {
            assert!(matches!(wrong, Err(ExchangeError::UnknownColor { x: 1, y: 0, .. })), "{wrong:?}");
        }
    }
}
