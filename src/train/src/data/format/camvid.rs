//! CamVid's folders, and CVAT's export "CamVid 1.0" (Datumaro's `camvid`).
//!
//! `NAME/` has pictures, `NAMEannot/` their labels, `NAME.txt` lists both, `label_colors.txt` has the classes. Names are
//! arbitrary. Other copies say `train_labels/`; the original has `701_StillsRaw_full/` and `LabeledApproved_full/`, with
//! `_L` behind the labels' names. SegNet's lists carry paths of the machine on which they were made.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::super::error::DataError;
use super::super::{lists, scan};
use super::{Found, Role};

/// What the folder of labels has behind the name of the folder of pictures.
const ENDINGS: [&str; 7] = ["annot", "_annot", "_labels", "_label", "_masks", "_mask", "_annotations"];
const ORIGINAL: (&str, &str) = ("701_StillsRaw_full", "LabeledApproved_full");

/// Subset, folder of pictures, folder of labels.
fn couples(root: &Path) -> Result<Vec<(String, PathBuf, PathBuf)>, DataError> {
    let folders = scan::folders(root)?;
    let mut couples = Vec::new();
    for (name, images) in &folders {
        let labels = ENDINGS.iter().find_map(|ending| folders.get(&format!("{name}{ending}")));
        let original = (name == ORIGINAL.0).then(|| folders.get(ORIGINAL.1)).flatten();
        if let Some(labels) = labels.or(original) {
            couples.push((name.clone(), images.clone(), labels.clone()));
        }
    }
    Ok(couples)
}

/// Lists of two columns, by subset.
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

pub fn is(root: &Path) -> Result<bool, DataError> {
    Ok(!couples(root)?.is_empty() || !two_column_lists(root)?.is_empty())
}

pub fn read(root: &Path) -> Result<Found, DataError> {
    let mut found = Found::in_root(root);
    let lists = two_column_lists(root)?;
    let mut order: Vec<_> = lists.iter().collect();
    order.sort_by_key(|(name, _)| Role::of(name) == Role::Open);
    let couples = couples(root)?;
    let mut listed = HashSet::new();
    for (name, path) in order {
        let (mut pairs, mut unpaired) = (Vec::new(), scan::Unpaired::default());
        for line in lists::read(path)? {
            let image = lists::resolve(root, &line.image);
            let label = line.label.as_ref().and_then(|label| lists::resolve(root, label));
            let Some(image) = image else {
                let problem = format!("there is no picture {}", line.image);
                return Err(DataError::line(path, line.number, problem));
            };
            match (label, line.label) {
                (Some(label), _) => {
                    // `trainval.txt` repeats others; a picture in both `train.txt` and `val.txt` is for the check to tell.
                    if listed.insert(image.clone()) || Role::of(name) != Role::Open {
                        pairs.push(scan::pair(root, &image, &label));
                    }
                }
                (None, Some(label)) => {
                    return Err(DataError::line(path, line.number, format!("there is no label picture {label}")));
                }
                // CVAT lists pictures without annotations too, without a label.
                (None, None) => unpaired.images.push(image),
            }
        }
        found.add(name, pairs, unpaired);
    }
    for (name, images, labels) in couples {
        if !lists.contains_key(&name) && (lists.is_empty() || !listed.iter().any(|image| image.starts_with(&images))) {
            let (pairs, unpaired) = scan::pair_up(root, &scan::images(&images)?, scan::labels(&labels)?);
            found.add(&name, pairs, unpaired);
        }
    }
    Ok(found)
}
