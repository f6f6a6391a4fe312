//! How data sets lie on disk.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Pair;
use super::class_file::{self, SourceClass};
use super::error::DataError;
use super::scan::{self, Unpaired};
use crate::frame::Rgb;

mod camvid;
mod cityscapes;
mod plain;
mod voc;

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
    /// A folder of pictures and one of labels with the same names
    Plain,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Camvid => "CamVid folders",
            Format::Voc => "Segmentation mask (Pascal VOC)",
            Format::Cityscapes => "Cityscapes",
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
    /// The data set's own class file.
    pub class_file: Option<PathBuf>,
    /// The layout's classes where there is no class file.
    pub classes: Option<Vec<SourceClass>>,
    /// A colour that is void beside the classes.
    pub void_color: Option<Rgb>,
}

impl Found {
    fn in_root(root: &Path) -> Found {
        Found { class_file: class_file::find(root), ..Found::default() }
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
    let inner = scan::folders(root)?.into_values().collect::<Vec<_>>();
    let mut roots = vec![root.to_path_buf()];
    if let [only] = &inner[..] {
        roots.push(only.clone());
    }
    for root in &roots {
        if let Some(format) = wanted
            .filter(|format| is(*format, root).unwrap_or(false))
            .map_or_else(|| if wanted.is_some() { Ok(None) } else { detect(root) }, |format| Ok(Some(format)))?
        {
            let found = match format {
                Format::Camvid => camvid::read(root),
                Format::Voc => voc::read(root),
                Format::Cityscapes => cityscapes::read(root),
                Format::Plain => plain::read(root),
            }?;
            return Ok((root.clone(), format, found));
        }
    }
    let names: Vec<String> = scan::folders(root)?.into_keys().take(12).collect();
    let seen = if names.is_empty() { "it has no folders".to_string() } else { format!("it has {}", names.join(", ")) };
    let what = wanted
        .map_or("no data set that is known here".to_string(), |format| format!("no data set of the layout {format}"));
    Err(DataError::set(
        root,
        format!("this is {what}: {seen}"),
        "wanted are images/ and masks/, train/ and trainannot/, JPEGImages/ and SegmentationClass/, or leftImg8bit/ and \
         gtFine/; names inside must be the same",
    ))
}

fn is(format: Format, root: &Path) -> Result<bool, DataError> {
    match format {
        Format::Camvid => camvid::is(root),
        Format::Voc => voc::is(root),
        Format::Cityscapes => cityscapes::is(root),
        Format::Plain => plain::is(root),
    }
}

fn detect(root: &Path) -> Result<Option<Format>, DataError> {
    // The most special first: a VOC folder is also one of pictures and labels.
    for format in [Format::Cityscapes, Format::Voc, Format::Camvid, Format::Plain] {
        if is(format, root)? {
            return Ok(Some(format));
        }
    }
    Ok(None)
}
