//! Layouts of data sets on disk: detection and reading.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::error::{DataError, DatasetProblem};
use super::{class_file, scan};

mod annotated;
mod camvid;
mod cityscapes;
mod coco;
mod found;
mod labelme;
mod plain;
mod voc;
mod yolo;

pub use coco::{CocoAnnotations, drawings as coco_drawings};
pub use found::{FoundDataset, Subset, SubsetRole};

/// A layout of folders and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `train/` and `trainannot/` and so on: CamVid, and CVAT's export "CamVid 1.0"
    Camvid,
    /// `JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/`: CVAT's "Segmentation mask 1.1", Pascal VOC
    Voc,
    /// `leftImg8bit/` and `gtFine/`
    Cityscapes,
    /// COCO's JSON, with polygons or run lengths
    Coco,
    /// labelme's JSON files, one for each image
    Labelme,
    /// `images/` and `labels/` with text files of polygons, `data.yaml`
    Yolo,
    /// A folder of images and one of labels with the same names; or both in one folder, as Roboflow's "Semantic
    /// Segmentation Masks"
    Plain,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Camvid => "CamVid folders",
            Format::Voc => "Segmentation mask (Pascal VOC)",
            Format::Cityscapes => "Cityscapes",
            Format::Coco => "COCO",
            Format::Labelme => "labelme",
            Format::Yolo => "YOLO polygons",
            Format::Plain => "folders of images and labels",
        })
    }
}

/// The folder of images in `dir`, if there is a folder of labels beside it.
///
/// # Errors
/// If the folder cannot be read.
pub fn is_labelled_folder(dir: &Path) -> Result<Option<PathBuf>, DataError> {
    Ok(plain::folder_pair(dir)?.map(|(images, _)| images))
}

/// Detects the layout of `root` and reads its pairs. If `root` contains only one folder, as unpacked archives do, that
/// folder is the root.
///
/// # Errors
/// If there is no data set of the given layout, or of any layout.
pub fn find(root: &Path, wanted: Option<Format>) -> Result<(PathBuf, Format, FoundDataset), DataError> {
    if !root.is_dir() {
        let problem = if !root.exists() {
            DatasetProblem::NotFound
        } else if scan::has_extension(root, &["zip", "tar", "gz", "tgz", "7z"]) {
            DatasetProblem::Archive
        } else {
            DatasetProblem::NotAFolder
        };
        return Err(DataError::dataset(root, problem));
    }
    let mut roots = vec![root.to_path_buf()];
    while let [only] = &scan::folders(&roots[roots.len() - 1])?.into_values().collect::<Vec<_>>()[..]
        && roots.len() <= MAX_WRAPPERS
    {
        roots.push(only.clone());
    }
    for (at, inner) in roots.iter().enumerate() {
        let detected = match wanted {
            Some(format) => read(format, inner)?.map(|found| (format, found)),
            None => detect(inner)?,
        };
        if let Some((format, mut found)) = detected {
            // The class file may be in an outer folder.
            if found.class_files.is_empty() && !found.labels.are_drawn() {
                found.class_files.extend(roots[..at].iter().rev().find_map(|root| class_file::find(root)));
            }
            return Ok((inner.clone(), format, found));
        }
    }
    let names: Vec<String> = scan::folders(root)?.into_keys().take(12).collect();
    let folders =
        if names.is_empty() { "it has no folders".to_string() } else { format!("it has {}", names.join(", ")) };
    let found = folders + &list_unread_files(root)?;
    let wanted = wanted.map(|format| format.to_string());
    Err(DataError::dataset(root, DatasetProblem::UnknownLayout { wanted, found }))
}

/// Largest number of outer folders around a data set, as archives have them.
const MAX_WRAPPERS: usize = 3;

/// Lists annotation files that no format reads, for a message.
fn list_unread_files(root: &Path) -> Result<String, DataError> {
    let files = scan::files_to_depth(root, &["json", "xml", "txt", "csv", "npy"], 2)?;
    Ok(match &files[..] {
        [] => String::new(),
        [first, rest @ ..] => {
            format!(
                "; {} and {} other annotation files have an unsupported format",
                scan::under(root, first),
                rest.len()
            )
        }
    })
}

/// Reads a folder by one format; `None` if it has another layout.
fn read(format: Format, root: &Path) -> Result<Option<FoundDataset>, DataError> {
    Ok(match format {
        Format::Camvid => camvid::matches(root)?.then(|| camvid::read(root)).transpose()?,
        Format::Voc => voc::matches(root)?.then(|| voc::read(root)).transpose()?,
        Format::Cityscapes => cityscapes::matches(root)?.then(|| cityscapes::read(root)).transpose()?,
        Format::Plain => plain::matches(root)?.then(|| plain::read(root)).transpose()?,
        Format::Coco => coco::read(root)?,
        Format::Labelme => labelme::read(root)?,
        Format::Yolo => yolo::read(root)?,
    })
}

fn detect(root: &Path) -> Result<Option<(Format, FoundDataset)>, DataError> {
    // The most specific layouts first: a VOC folder also matches plain folders.
    for format in [Format::Cityscapes, Format::Voc, Format::Camvid] {
        if let Some(found) = read(format, root)? {
            return Ok(Some((format, found)));
        }
    }
    // Label images have precedence over annotations beside them. Folders of these names may also contain only text
    // files.
    let plain = read(Format::Plain, root)?;
    if let Some(found) = plain.as_ref().filter(|found| found.count() > 0) {
        return Ok(Some((Format::Plain, found.clone())));
    }
    for format in [Format::Coco, Format::Yolo, Format::Labelme] {
        if let Some(found) = read(format, root)? {
            return Ok(Some((format, found)));
        }
    }
    Ok(plain.map(|found| (Format::Plain, found)))
}
