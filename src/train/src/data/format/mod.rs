//! Layouts of data sets on disk: detection and reading.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use maskcast::frame::Rgb;
use serde::{Deserialize, Serialize};

use super::Pair;
use super::class_file::{self, SourceClass};
use super::drawing::LabelSource;
use super::error::DataError;
use super::scan::{self, Unpaired};

mod annotated;
mod camvid;
mod cityscapes;
mod coco;
mod labelme;
mod plain;
mod voc;
mod yolo;

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

/// The part to which a subset belongs, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetRole {
    Train,
    Val,
    Test,
    /// The name does not say: CVAT's `default`, or a data set without subsets.
    Unspecified,
}

impl SubsetRole {
    pub fn of(name: &str) -> SubsetRole {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => SubsetRole::Train,
            "val" | "valid" | "validation" => SubsetRole::Val,
            "test" | "testing" => SubsetRole::Test,
            _ => SubsetRole::Unspecified,
        }
    }
}

/// A subset of the data set, as its layout defines it.
#[derive(Clone, Debug)]
pub struct Subset {
    pub name: String,
    pub pairs: Vec<Pair>,
}

/// The content of a folder, read by one format.
#[derive(Clone, Debug, Default)]
pub struct FoundDataset {
    pub subsets: Vec<Subset>,
    pub unpaired: Unpaired,
    /// The data set's class files; more than one if each subset has its own.
    pub class_files: Vec<PathBuf>,
    /// The classes, if the layout defines them and there is no class file.
    pub classes: Option<Vec<SourceClass>>,
    /// Where the labels come from.
    pub labels: LabelSource,
    /// What was assumed or ignored, one sentence each, for display.
    pub notes: Vec<String>,
    /// A colour that is void in addition to the void classes.
    pub void_color: Option<Rgb>,
}

impl FoundDataset {
    fn in_root(root: &Path) -> FoundDataset {
        FoundDataset { class_files: class_file::find(root).into_iter().collect(), ..FoundDataset::default() }
    }

    /// Adds a subset, whose pairs are in no other subset.
    fn add(&mut self, name: &str, pairs: Vec<Pair>, unpaired: Unpaired) {
        self.unpaired.extend(unpaired);
        self.subsets.push(Subset { name: name.to_string(), pairs });
    }

    /// Number of pairs.
    pub fn count(&self) -> usize {
        self.subsets.iter().map(|subset| subset.pairs.len()).sum()
    }
}

/// Detects the layout of `root` and reads its pairs. If `root` contains only one folder, as unpacked archives do, that
/// folder is the root.
///
/// # Errors
/// If there is no data set of the given layout, or of any layout.
pub fn find(root: &Path, wanted: Option<Format>) -> Result<(PathBuf, Format, FoundDataset), DataError> {
    if !root.is_dir() {
        let (problem, help) = if !root.exists() {
            ("this folder does not exist", "pass the data set's folder")
        } else if scan::has_extension(root, &["zip", "tar", "gz", "tgz", "7z"]) {
            ("this is an archive", "unpack it and pass the folder")
        } else {
            ("this is a file", "pass the data set's folder")
        };
        return Err(DataError::dataset(root, problem, help));
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
    let seen = if names.is_empty() { "it has no folders".to_string() } else { format!("it has {}", names.join(", ")) };
    let what = wanted.map_or("not a data set of a supported layout".to_string(), |format| {
        format!(
            "not a data set of the layout \
            {format}"
        )
    });
    Err(DataError::dataset(root, format!("this is {what}: {seen}{}", list_unread_files(root)?), SUPPORTED_LAYOUTS))
}

/// Largest number of outer folders around a data set, as archives have them.
const MAX_WRAPPERS: usize = 3;

const SUPPORTED_LAYOUTS: &str = "supported are images/ and masks/, train/ and trainannot/, JPEGImages/ and \
    SegmentationClass/, \
    leftImg8bit/ and gtFine/, COCO's or labelme's JSON, or YOLO's images/ and labels/; images and labels must have the \
    same names. Export other annotations as \"COCO\" or \"Segmentation mask\"";

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
