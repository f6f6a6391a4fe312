//! Makes a data set of what annotation programs export.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use maskcast::frame::{Label, Rgb};
use maskcast::segment::golden::encode_png;
use serde_json::json;

use super::super::pair::{Part, VOID};
use super::super::{DataError, Dataset, OpenOptions, class_lines, class_list, image, lists};
use super::classes::ClassMap;
use super::error::ExchangeError;
use super::finder::ImageFinder;
use super::found::{AnnotatedImage, Annotations, FoundClass, FoundMask};
use super::item::common_folder;
use super::new_folder::{NewFolder, copy_image, image_name, write_file};
use super::{ExchangeFormat, coco, cvat, studio_reader};

/// How annotations are imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// A data set, or a class file: its classes, in its order. Images are also searched in the data set.
    pub classes: Option<PathBuf>,
    /// A folder with the images, if the export has none.
    pub images: Option<PathBuf>,
    /// Classes whose pixels are void.
    pub void: Vec<String>,
    /// The class of pixels without an annotation, instead of void.
    pub unlabelled: Option<String>,
    /// Leave out images of Label Studio that have only predictions.
    pub annotated_only: bool,
}

/// What was imported.
#[derive(Clone, Debug)]
pub struct ImportSummary {
    pub folder: PathBuf,
    pub images: usize,
    pub classes: Vec<Label>,
    /// Pixels by class.
    pub pixels: Vec<u64>,
    pub void: u64,
    /// What was left out or assumed, one sentence each.
    pub notes: Vec<String>,
}

/// Imports annotations into the new folder `output`, as a data set in the layout "plain".
///
/// # Errors
/// The annotations or images cannot be read or do not fit together, or a file cannot be written. Then nothing is left in `output`.
pub fn import(
    input: &Path,
    format: ExchangeFormat,
    output: &Path,
    options: &ImportOptions,
) -> Result<ImportSummary, ExchangeError> {
    let mut annotations = read(input, format, options.annotated_only)?;
    let mut finder = ImageFinder::default();
    for folder in annotations.image_folders.iter().chain(&options.images) {
        finder.add_folder(folder)?;
    }
    let known = options.classes.as_deref().map(|path| known_classes(path, &mut finder)).transpose()?;
    let classes = ClassMap::new(&annotations.classes, known.as_deref(), &options.void, options.unlabelled.as_deref())?;
    let mut inputs = vec![input];
    inputs.extend(options.images.as_deref());
    inputs.extend(options.classes.as_deref());
    let folder = NewFolder::create(output, &inputs)?;
    let mut output = Output {
        folder,
        seen: HashMap::new(),
        parts: BTreeMap::new(),
        pixels: vec![0; classes.classes.len()],
        void: 0,
    };
    let all = annotations.images.len();
    let mut left_out: Vec<String> = Vec::new();
    for mut image in annotations.images {
        if matches!(image.mask, FoundMask::Missing) && options.unlabelled.is_none() {
            left_out.push(image.wanted);
            continue;
        }
        let mask = std::mem::replace(&mut image.mask, FoundMask::Missing);
        output.add(&image, mask, &finder, &annotations.classes, &classes)?;
    }
    if output.seen.is_empty() {
        return Err(ExchangeError::Nothing { path: input.to_owned(), images: all });
    }
    if let Some(first) = left_out.first() {
        annotations.notes.push(format!(
            "left out: {} of {all} images, which have no annotation, such as {first} (--unlabelled CLASS gives all their pixels a \
             class)",
            left_out.len()
        ));
    }
    output.finish(classes.classes, annotations.notes)
}

fn read(input: &Path, format: ExchangeFormat, annotated_only: bool) -> Result<Annotations, ExchangeError> {
    if !input.exists() {
        return Err(ExchangeError::unsuitable(input, "this file or folder does not exist"));
    }
    match format {
        ExchangeFormat::Cvat => cvat::read(input),
        ExchangeFormat::Coco => coco::read(input),
        ExchangeFormat::LabelStudio => studio_reader::read(input, annotated_only),
    }
}

/// The classes of a data set or class file. The images of a data set are added to `finder`.
fn known_classes(path: &Path, finder: &mut ImageFinder) -> Result<Vec<Label>, ExchangeError> {
    if !path.is_dir() {
        return Ok(class_list(path)?);
    }
    let dataset = Dataset::open(path, &OpenOptions::default())?;
    // An image that the import or --images has is not searched in the data set as well.
    if finder.is_empty() {
        let pairs = [&dataset.train, &dataset.val, &dataset.test, &dataset.left_out];
        let mut images: Vec<PathBuf> = pairs.into_iter().flatten().map(|pair| pair.image.clone()).collect();
        images.sort();
        images.dedup();
        let folder = common_folder(images.iter().map(PathBuf::as_path));
        finder.add_images(&folder, images);
    }
    Ok(dataset.classes)
}

/// The data set that is written.
struct Output {
    folder: NewFolder,
    /// The images that were written, by stem.
    seen: HashMap<String, PathBuf>,
    parts: BTreeMap<Part, Vec<String>>,
    pixels: Vec<u64>,
    void: u64,
}

impl Output {
    fn add(
        &mut self,
        image: &AnnotatedImage,
        mask: FoundMask,
        finder: &ImageFinder,
        found: &[FoundClass],
        classes: &ClassMap,
    ) -> Result<(), ExchangeError> {
        let Some(known) = finder.find(image)? else {
            let mut folders = finder.folders();
            if folders.is_empty() {
                folders.push("the export, which has no images".to_owned());
            }
            return Err(ExchangeError::NoImage { path: image.source.clone(), image: image.wanted.clone(), folders });
        };
        if let Some(other) = self.seen.insert(known.stem.clone(), known.path.clone()) {
            return Err(if other == known.path {
                ExchangeError::AnnotatedTwice { path: image.source.clone(), image: image.wanted.clone() }
            } else {
                ExchangeError::SameStem { first: other.display().to_string(), second: known.path.display().to_string() }
            });
        }
        let size = image::size(&known.path)?;
        let (width, height, mut labels) = drawn(mask, &image.source, &image.wanted, found, size)?;
        if (width, height) != size {
            let (path, image) = (image.source.clone(), known.path.clone());
            return Err(ExchangeError::Size { path, mask: (width, height), image, size });
        }
        classes.map(&mut labels).map_err(|unknown| ExchangeError::UnknownClass {
            path: image.source.clone(),
            image: image.wanted.clone(),
            class: unknown.name,
            pixels: unknown.pixels,
            x: unknown.at % width.max(1),
            y: unknown.at / width.max(1),
            known: classes.classes.iter().map(|label| label.name.clone()).collect(),
        })?;
        for &label in &labels {
            match label {
                VOID => self.void += 1,
                label => self.pixels[usize::from(label)] += 1,
            }
        }
        let root = self.folder.path();
        copy_image(&known.path, &root.join("images").join(image_name(&known.stem, &known.path)))?;
        let path = root.join("masks").join(format!("{}.png", known.stem));
        let png = encode_png(&labels, width as u32, height as u32, png::ColorType::Grayscale)
            .map_err(|source| ExchangeError::Png { path: path.clone(), source })?;
        write_file(&path, &png)?;
        if let Some(part) = image.part {
            self.parts.entry(part).or_default().push(format!("images/{}", known.stem));
        }
        Ok(())
    }

    fn finish(self, classes: Vec<Label>, notes: Vec<String>) -> Result<ImportSummary, ExchangeError> {
        let root = self.folder.path();
        // `classes.txt` cannot have each name; JSON can.
        match class_lines(&classes) {
            Ok(lines) => write_file(&root.join("classes.txt"), lines.as_bytes())?,
            Err(_) => write_file(&root.join("classes.json"), class_json(&classes).as_bytes())?,
        }
        for (part, names) in &self.parts {
            let text: String = names.iter().map(|name| lists::line(name) + "\n").collect();
            write_file(&root.join(format!("{}.txt", part.name())), text.as_bytes())?;
        }
        Ok(ImportSummary {
            images: self.seen.len(),
            classes,
            pixels: self.pixels,
            void: self.void,
            notes,
            folder: self.folder.finish()?,
        })
    }
}

fn class_json(classes: &[Label]) -> String {
    let class = |(id, Label { name, color: Rgb(r, g, b), .. }): (usize, &Label)| json!({ "id": id, "name": name, "color": [r, g, b] });
    let classes: Vec<_> = classes.iter().enumerate().map(class).collect();
    serde_json::to_string_pretty(&classes).unwrap_or_default() + "\n"
}

/// Draws a mask: width, height, and n for the class n - 1 of `found`. `size` is that of the image.
fn drawn(
    mask: FoundMask,
    source: &Path,
    image: &str,
    found: &[FoundClass],
    size: (usize, usize),
) -> Result<(usize, usize, Vec<u8>), ExchangeError> {
    match mask {
        FoundMask::Missing => Ok((size.0, size.1, vec![0; size.0 * size.1])),
        FoundMask::Image(path) => cvat::read_mask(&path, found),
        FoundMask::Drawing(drawing) => {
            let (width, height) = drawing.size.unwrap_or(size);
            let raw = drawing.draw(width, height).map_err(|problem| DataError::label(source, problem))?;
            Ok((width, height, raw.into_numbers()))
        }
        FoundMask::Brush(mask) => mask.draw(source, image),
    }
}
