//! What the reader of a format returns: subsets of pairs, and what is known about their classes.

use std::path::{Path, PathBuf};

use maskcast::frame::Rgb;

use super::super::class_file;
use super::super::drawing::LabelSource;
use super::super::pair::{Pair, Part};
use super::super::scan::Unpaired;
use super::super::source_class::SourceClass;

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

    pub fn part(self) -> Option<Part> {
        match self {
            SubsetRole::Train => Some(Part::Train),
            SubsetRole::Val => Some(Part::Val),
            SubsetRole::Test => Some(Part::Test),
            SubsetRole::Unspecified => None,
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
    pub(super) fn in_root(root: &Path) -> FoundDataset {
        FoundDataset { class_files: class_file::find(root).into_iter().collect(), ..FoundDataset::default() }
    }

    /// Adds a subset, whose pairs are in no other subset.
    pub(super) fn add(&mut self, name: &str, pairs: Vec<Pair>, unpaired: Unpaired) {
        self.unpaired.extend(unpaired);
        self.subsets.push(Subset { name: name.to_string(), pairs });
    }

    /// Number of pairs.
    pub fn count(&self) -> usize {
        self.subsets.iter().map(|subset| subset.pairs.len()).sum()
    }
}
