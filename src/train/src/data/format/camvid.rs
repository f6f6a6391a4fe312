//! The layout of CamVid (<http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/>), and CVAT's export "CamVid 1.0"
//! (Datumaro's `camvid`).
//!
//! `NAME/` contains images, `NAMEannot/` their labels, `NAME.txt` lists both, `label_colors.txt` has the classes. Names
//! are arbitrary. Other copies have `train_labels/`; the original has `701_StillsRaw_full/` and
//! `LabeledApproved_full/`, with the suffix `_L` on the labels' names. SegNet's lists contain paths of another machine.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::super::error::{DataError, LineError};
use super::super::{lists, scan};
use super::found::{FoundDataset, SubsetRole};

/// Suffixes of the folder of labels, after the name of the folder of images.
const ENDINGS: [&str; 7] = ["annot", "_annot", "_labels", "_label", "_masks", "_mask", "_annotations"];
const ORIGINAL: (&str, &str) = ("701_StillsRaw_full", "LabeledApproved_full");

/// Returns subset name, folder of images and folder of labels.
fn folder_pairs(root: &Path) -> Result<Vec<(String, PathBuf, PathBuf)>, DataError> {
    let folders = scan::folders(root)?;
    let mut folder_pairs = Vec::new();
    for (name, images) in &folders {
        let labels = ENDINGS.iter().find_map(|ending| folders.get(&format!("{name}{ending}")));
        let original = (name == ORIGINAL.0).then(|| folders.get(ORIGINAL.1)).flatten();
        if let Some(labels) = labels.or(original) {
            folder_pairs.push((name.clone(), images.clone(), labels.clone()));
        }
    }
    Ok(folder_pairs)
}

/// Returns lists with two columns, by subset.
fn two_column_lists(root: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).map_err(DataError::io(root))? {
        let path = entry.map_err(DataError::io(root))?.path();
        if path.is_file() && scan::has_extension(&path, &["txt", "lst"]) {
            let first = lists::read(&path)?.into_iter().find(|line| line.label.is_some());
            if first.is_some_and(|line| lists::resolve(root, &line.image).is_some()) {
                found.insert(scan::stem(root, &path), path);
            }
        }
    }
    Ok(found)
}

pub fn matches(root: &Path) -> Result<bool, DataError> {
    Ok(!folder_pairs(root)?.is_empty() || !two_column_lists(root)?.is_empty())
}

pub fn read(root: &Path) -> Result<FoundDataset, DataError> {
    let mut found = FoundDataset::in_root(root);
    let lists = two_column_lists(root)?;
    let mut order: Vec<_> = lists.iter().collect();
    order.sort_by_key(|(name, _)| SubsetRole::of(name) == SubsetRole::Unspecified);
    let folder_pairs = folder_pairs(root)?;
    let mut listed = HashSet::new();
    for (name, path) in order {
        let (mut pairs, mut unpaired) = (Vec::new(), scan::Unpaired::default());
        for line in lists::read(path)? {
            let image = lists::resolve(root, &line.image);
            let label = line.label.as_ref().and_then(|label| lists::resolve(root, label));
            let Some(image) = image else {
                return Err(DataError::line(path, line.number, LineError::NoImage(line.image)));
            };
            match (label, line.label) {
                (Some(label), _) => {
                    // `trainval.txt` repeats other lists. An image in both `train.txt` and `val.txt` is kept in both;
                    // the check reports it.
                    if listed.insert(image.clone()) || SubsetRole::of(name) != SubsetRole::Unspecified {
                        pairs.push(scan::pair(root, &image, &label));
                    }
                }
                (None, Some(label)) => {
                    return Err(DataError::line(path, line.number, LineError::NoLabelImage(label)));
                }
                // CVAT also lists images without annotations, without a label.
                (None, None) => unpaired.images.push(image),
            }
        }
        found.add(name, pairs, unpaired);
    }
    for (name, images, labels) in folder_pairs {
        if !lists.contains_key(&name) && (lists.is_empty() || !listed.iter().any(|image| image.starts_with(&images))) {
            let (pairs, unpaired) = scan::pair_up(root, &scan::images(&images)?, scan::labels(&labels)?);
            found.add(&name, pairs, unpaired);
        }
    }
    Ok(found)
}
