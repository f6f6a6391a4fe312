//! Writes a data set for an annotation program.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use maskcast::frame::Label;

use super::super::image;
use super::super::{DataError, Dataset, Pair, Part, scan};
use super::error::ExchangeError;
use super::found::MAX_CLASSES;
use super::item::{AnnotationWriter, ExportItem, common_folder};
use super::new_folder::{NewFolder, copy_image, image_name};
use super::{ExchangeFormat, coco, cvat, label_studio};

/// What was written.
#[derive(Clone, Debug)]
pub struct ExportSummary {
    pub folder: PathBuf,
    pub images: usize,
    pub classes: Vec<Label>,
    /// Share of the pixels that are void, 0 to 1.
    pub void_share: f64,
}

/// Exports a data set into the new folder `output`: the images, upright, and all masks, exactly.
///
/// # Errors
/// A label cannot be read, a class name or the number of classes is not possible in the format, or a file cannot be written. Then
/// nothing is left in `output`.
pub fn export(dataset: &Dataset, format: ExchangeFormat, output: &Path) -> Result<ExportSummary, ExchangeError> {
    if dataset.classes.len() > MAX_CLASSES {
        return Err(ExchangeError::TooManyClasses(dataset.classes.len()));
    }
    let images = images(dataset)?;
    let folder = NewFolder::create(output, &[&dataset.root])?;
    let (mut writer, image_folder): (Box<dyn AnnotationWriter>, _) = match format {
        ExchangeFormat::Cvat => (Box::new(cvat::Writer::new(folder.path(), &dataset.classes)?), cvat::IMAGES),
        ExchangeFormat::Coco => (Box::new(coco::Writer::new(folder.path(), &dataset.classes)), coco::IMAGES),
        ExchangeFormat::LabelStudio => {
            (Box::new(label_studio::Writer::new(folder.path(), &dataset.classes)?), label_studio::IMAGES)
        }
    };
    let (mut void, mut pixels) = (0usize, 0usize);
    for (stem, (pair, part)) in &images {
        let (width, height, labels) = dataset.read_labels(pair)?;
        let image_size = image::size(&pair.image)?;
        if image_size != (width, height) {
            let (image, label) = (pair.image.clone(), pair.label.clone());
            return Err(DataError::SizeMismatch { image, label, image_size, label_size: (width, height) }.into());
        }
        let file = image_name(stem, &pair.image);
        copy_image(&pair.image, &folder.path().join(image_folder).join(&file))?;
        writer.add(&ExportItem { stem, file: &file, part: *part, width, height, labels: &labels })?;
        void += labels.iter().filter(|&&label| label == super::super::VOID).count();
        pixels += labels.len();
    }
    writer.finish()?;
    Ok(ExportSummary {
        images: images.len(),
        classes: dataset.classes.clone(),
        void_share: void as f64 / pixels.max(1) as f64,
        folder: folder.finish()?,
    })
}

/// The images by their path below the folder that all of them are in, without extension.
fn images(dataset: &Dataset) -> Result<BTreeMap<String, (&Pair, Option<Part>)>, ExchangeError> {
    let parts = Part::ALL.into_iter().map(|part| (Some(part).filter(|_| !dataset.split_here), dataset.part(part)));
    let mut listed = Vec::new();
    let mut seen = HashSet::new();
    for (part, pairs) in parts.chain([(None, &dataset.left_out[..])]) {
        // An image in several parts is exported once.
        listed.extend(pairs.iter().filter(|pair| seen.insert(&pair.image)).map(|pair| (pair, part)));
    }
    let base = common_folder(listed.iter().map(|(pair, _)| pair.image.as_path()));
    let mut by_stem: BTreeMap<String, (&Pair, Option<Part>)> = BTreeMap::new();
    for (pair, part) in listed {
        let stem = scan::stem(&base, &pair.image);
        if let Some((other, _)) = by_stem.get(&stem) {
            let name = |pair: &Pair| scan::under(&dataset.root, &pair.image);
            return Err(ExchangeError::SameStem { first: name(other), second: name(pair) });
        }
        by_stem.insert(stem, (pair, part));
    }
    Ok(by_stem)
}
