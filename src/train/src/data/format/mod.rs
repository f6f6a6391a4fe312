//! How data sets lie on disk.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use maskcast::frame::Rgb;
use serde::{Deserialize, Serialize};

use super::Pair;
use super::class_file::{self, SourceClass};
use super::drawn::Labels;
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
    /// labelme's JSON files, one for each picture
    Labelme,
    /// `images/` and `labels/` with text files of polygons, `data.yaml`
    Yolo,
    /// A folder of pictures and one of labels with the same names; or both in one folder, as Roboflow's "Semantic
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
            Format::Plain => "folders of pictures and labels",
        })
    }
}

/// What a subset is for, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Train,
    Val,
    Test,
    /// Not said: CVAT's `default`, or a data set of one piece.
    Open,
}

impl Role {
    pub fn of(name: &str) -> Role {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Role::Train,
            "val" | "valid" | "validation" => Role::Val,
            "test" | "testing" => Role::Test,
            _ => Role::Open,
        }
    }
}

/// Pictures that the data set itself keeps together.
#[derive(Clone, Debug)]
pub struct Subset {
    pub name: String,
    pub pairs: Vec<Pair>,
}

/// What was found in a folder.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub subsets: Vec<Subset>,
    pub unpaired: Unpaired,
    /// The data set's own class files; more than one where each subset has its own.
    pub class_files: Vec<PathBuf>,
    /// The layout's classes where there is no class file.
    pub classes: Option<Vec<SourceClass>>,
    /// How the labels are had.
    pub labels: Labels,
    /// What was assumed or left out, a sentence each, for people.
    pub notes: Vec<String>,
    /// A colour that is void beside the classes.
    pub void_color: Option<Rgb>,
}

impl Found {
    fn in_root(root: &Path) -> Found {
        Found { class_files: class_file::find(root).into_iter().collect(), ..Found::default() }
    }

    /// Adds a subset, of pairs that no other subset has.
    fn add(&mut self, name: &str, pairs: Vec<Pair>, unpaired: Unpaired) {
        self.unpaired.extend(unpaired);
        self.subsets.push(Subset { name: name.to_string(), pairs });
    }

    /// Number of pairs.
    pub fn count(&self) -> usize {
        self.subsets.iter().map(|subset| subset.pairs.len()).sum()
    }
}

/// Finds the layout of `root` and its pairs. An unpacked archive often has one folder around all: then that is the root.
///
/// # Errors
/// When there is no data set of the wanted layout, or of any.
pub fn find(root: &Path, wanted: Option<Format>) -> Result<(PathBuf, Format, Found), DataError> {
    if !root.is_dir() {
        let (problem, help) = if !root.exists() {
            ("there is no such folder", "give the data set's folder")
        } else if scan::has_extension(root, &["zip", "tar", "gz", "tgz", "7z"]) {
            ("this is an archive", "unpack it and give the folder")
        } else {
            ("this is a file", "give the data set's folder")
        };
        return Err(DataError::set(root, problem, help));
    }
    let mut roots = vec![root.to_path_buf()];
    while let [only] = &scan::folders(&roots[roots.len() - 1])?.into_values().collect::<Vec<_>>()[..]
        && roots.len() <= AROUND
    {
        roots.push(only.clone());
    }
    for (at, inner) in roots.iter().enumerate() {
        let detected = match wanted {
            Some(format) => read(format, inner)?.map(|found| (format, found)),
            None => detect(inner)?,
        };
        if let Some((format, mut found)) = detected {
            // The class file may lie in a folder around.
            if found.class_files.is_empty() && !found.labels.are_drawn() {
                found.class_files.extend(roots[..at].iter().rev().find_map(|root| class_file::find(root)));
            }
            return Ok((inner.clone(), format, found));
        }
    }
    let names: Vec<String> = scan::folders(root)?.into_keys().take(12).collect();
    let seen = if names.is_empty() { "it has no folders".to_string() } else { format!("it has {}", names.join(", ")) };
    let what = wanted
        .map_or("no data set that is known here".to_string(), |format| format!("no data set of the layout {format}"));
    Err(DataError::set(root, format!("this is {what}: {seen}{}", unread(root)?), WANTED))
}

/// Folders around a data set, as archives have them.
const AROUND: usize = 3;

const WANTED: &str = "wanted are images/ and masks/, train/ and trainannot/, JPEGImages/ and SegmentationClass/, \
    leftImg8bit/ and gtFine/, COCO's or labelme's JSON, or YOLO's images/ and labels/; names inside must be the same. Of \
    other annotations export \"COCO\" or \"Segmentation mask\"";

/// What annotation files there are, for a message.
fn unread(root: &Path) -> Result<String, DataError> {
    let files = scan::shallow(root, &["json", "xml", "txt", "csv", "npy"], 2)?;
    Ok(match &files[..] {
        [] => String::new(),
        [first, rest @ ..] => {
            format!(
                "; {} and {} other annotation files are of no kind that is read",
                scan::under(root, first),
                rest.len()
            )
        }
    })
}

/// Reads a layout; `None` where it is not this one.
fn read(format: Format, root: &Path) -> Result<Option<Found>, DataError> {
    Ok(match format {
        Format::Camvid => camvid::is(root)?.then(|| camvid::read(root)).transpose()?,
        Format::Voc => voc::is(root)?.then(|| voc::read(root)).transpose()?,
        Format::Cityscapes => cityscapes::is(root)?.then(|| cityscapes::read(root)).transpose()?,
        Format::Plain => plain::is(root)?.then(|| plain::read(root)).transpose()?,
        Format::Coco => coco::read(root)?,
        Format::Labelme => labelme::read(root)?,
        Format::Yolo => yolo::read(root)?,
    })
}

fn detect(root: &Path) -> Result<Option<(Format, Found)>, DataError> {
    // The most special first: a VOC folder is also one of pictures and labels.
    for format in [Format::Cityscapes, Format::Voc, Format::Camvid] {
        if let Some(found) = read(format, root)? {
            return Ok(Some((format, found)));
        }
    }
    // Masks are exact where annotations lie beside them; folders called so may also hold text files alone.
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
