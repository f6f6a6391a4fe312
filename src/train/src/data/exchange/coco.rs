//! COCO's JSON (<https://cocodataset.org/#format-data>).
//!
//! `annotations/instances_SUBSET.json` has one annotation for each class of an image: its pixels in run lengths, as a crowd
//! (`iscrowd`), because COCO stores only crowds in run lengths. Categories are numbered from 1; programs use 0 for "none".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use maskcast::frame::Label;
use serde::Serialize;
use serde_json::json;

use super::super::drawing::rle::RunLengths;
use super::super::format::{CocoAnnotations, SubsetRole, coco_drawings};
use super::super::scan;
use super::error::ExchangeError;
use super::found::{AnnotatedImage, Annotations, FoundClass, FoundMask};
use super::item::{AnnotationWriter, ExportItem};
use super::new_folder::create_parent;

pub const IMAGES: &str = "images";

#[derive(Serialize)]
struct Category<'a> {
    id: usize,
    name: &'a str,
    supercategory: &'static str,
}

/// Writes the files, one for each subset.
pub struct Writer {
    folder: PathBuf,
    classes: Vec<Label>,
    subsets: BTreeMap<&'static str, SubsetFile>,
    annotations: usize,
    images: usize,
}

/// The file of a subset. Annotations are written as they come, so that they need no memory; the images follow.
struct SubsetFile {
    path: PathBuf,
    file: BufWriter<File>,
    images: Vec<serde_json::Value>,
    annotations: usize,
}

impl SubsetFile {
    fn create(path: PathBuf, classes: &[Label]) -> Result<Self, ExchangeError> {
        create_parent(&path)?;
        let mut file = BufWriter::new(File::create(&path).map_err(ExchangeError::write(&path))?);
        let categories: Vec<Category<'_>> = classes
            .iter()
            .enumerate()
            .map(|(index, label)| Category { id: index + 1, name: &label.name, supercategory: "" })
            .collect();
        write!(file, "{{\"categories\":{},\"annotations\":[", json!(categories))
            .map_err(ExchangeError::write(&path))?;
        Ok(SubsetFile { path, file, images: Vec::new(), annotations: 0 })
    }
}

impl Writer {
    pub fn new(folder: &Path, classes: &[Label]) -> Self {
        let (folder, classes) = (folder.to_owned(), classes.to_vec());
        Writer { folder, classes, subsets: BTreeMap::new(), annotations: 0, images: 0 }
    }
}

impl AnnotationWriter for Writer {
    fn add(&mut self, item: &ExportItem<'_>) -> Result<(), ExchangeError> {
        let subset = item.subset();
        if !self.subsets.contains_key(subset) {
            let path = self.folder.join(format!("annotations/instances_{subset}.json"));
            self.subsets.insert(subset, SubsetFile::create(path, &self.classes)?);
        }
        let Some(subset) = self.subsets.get_mut(subset) else { return Ok(()) };
        self.images += 1;
        let (width, height) = (item.width, item.height);
        subset.images.push(json!({ "id": self.images, "file_name": item.file, "width": width, "height": height }));
        for class in 0..self.classes.len() {
            let Some(region) = Region::of(item, class as u8) else { continue };
            self.annotations += 1;
            let annotation = json!({
                "id": self.annotations,
                "image_id": self.images,
                "category_id": class + 1,
                "segmentation": { "size": [height, width], "counts": region.runs.counts },
                "area": region.area,
                "bbox": region.bbox,
                "iscrowd": 1,
            });
            let comma = if subset.annotations == 0 { "" } else { "," };
            subset.annotations += 1;
            write!(subset.file, "{comma}{annotation}").map_err(ExchangeError::write(&subset.path))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ExchangeError> {
        for SubsetFile { path, mut file, images, .. } in self.subsets.into_values() {
            write!(file, "],\"images\":{}}}", json!(images)).map_err(ExchangeError::write(&path))?;
            file.flush().map_err(ExchangeError::write(&path))?;
        }
        Ok(())
    }
}

/// The pixels of one class.
struct Region {
    runs: RunLengths,
    area: usize,
    /// Left, top, width, height.
    bbox: [usize; 4],
}

impl Region {
    /// `None` if the image has no pixel of the class.
    fn of(item: &ExportItem<'_>, class: u8) -> Option<Region> {
        let (width, height) = (item.width, item.height);
        let (mut left, mut top, mut right, mut bottom, mut area) = (width, height, 0, 0, 0);
        for (y, row) in item.labels.chunks_exact(width.max(1)).enumerate() {
            for (x, _) in row.iter().enumerate().filter(|(_, label)| **label == class) {
                (left, right, area) = (left.min(x), right.max(x), area + 1);
                (top, bottom) = (top.min(y), bottom.max(y));
            }
        }
        if area == 0 {
            return None;
        }
        let runs = RunLengths::of(width, height, |at| item.labels[at] == class);
        Some(Region { runs, area, bbox: [left, top, right + 1 - left, bottom + 1 - top] })
    }
}

/// Reads a JSON file, or all in a folder.
///
/// # Errors
/// A file is not COCO's JSON, or has masks that cannot be drawn.
pub fn read(input: &Path) -> Result<Annotations, ExchangeError> {
    let Some(CocoAnnotations { names, files }) = coco_drawings(input)? else {
        return Err(ExchangeError::unsuitable(input, "no JSON file of COCO found; pass the exported file or folder"));
    };
    let mut images = Vec::new();
    for file in files {
        let part = SubsetRole::of(&file.subset).part();
        for (name, drawing) in file.drawings {
            images.push(AnnotatedImage {
                wanted: scan::to_nfc(&name).replace('\\', "/"),
                is_stem: false,
                part,
                source: file.path.clone(),
                mask: if drawing.areas.is_empty() { FoundMask::Missing } else { FoundMask::Drawing(drawing) },
            });
        }
    }
    let folder = if input.is_dir() { input } else { input.parent().unwrap_or(Path::new(".")) };
    let classes = names.into_iter().map(|name| FoundClass { name: scan::to_nfc(&name), color: None }).collect();
    // The images are in `images/`, or in the folder itself.
    let inner = scan::folder(folder, &[IMAGES])?;
    Ok(Annotations { classes, images, image_folders: vec![inner.unwrap_or(folder.to_owned())], notes: Vec::new() })
}
