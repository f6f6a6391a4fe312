//! Folders of images and labels: `images/` and `masks/`, with subsets as inner or outer folders, or all files in one
//! folder.
//!
//! OpenMMLab's `img_dir/` and `ann_dir/` have this layout. Roboflow's "Semantic Segmentation Masks" has `train/`,
//! `valid/` and `test/`, each with images, labels (`NAME_mask.png`) and `_classes.csv`.

use std::path::{Path, PathBuf};

use super::super::error::DataError;
use super::super::{Pair, class_file, lists, scan};
use super::found::{FoundDataset, SubsetRole};

const IMAGES: [&str; 16] = [
    "images",
    "image",
    "imgs",
    "img",
    "img_dir",
    "image_dir",
    "images_dir",
    "JPEGImages",
    "rgb",
    "pictures",
    "photos",
    "frames",
    "inputs",
    "input",
    "original",
    "leftImg8bit",
];
const LABELS: [&str; 21] = [
    "labels",
    "label",
    "masks",
    "mask",
    "ann_dir",
    "anno_dir",
    "mask_dir",
    "masks_dir",
    "label_dir",
    "labels_dir",
    "annotations",
    "annotation",
    "annots",
    "annot",
    "gt",
    "groundtruth",
    "ground_truth",
    "segmentation",
    "segmentations",
    "SegmentationClass",
    "targets",
];

/// Returns the folders of images and of labels directly in `dir`.
pub fn folder_pair(dir: &Path) -> Result<Option<(PathBuf, PathBuf)>, DataError> {
    Ok(scan::folder(dir, &IMAGES)?.zip(scan::folder(dir, &LABELS)?))
}

/// Returns subsets with a folder of images and a folder of labels.
fn subsets(root: &Path) -> Result<Vec<(String, PathBuf, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for (name, path) in scan::folders(root)? {
        if let Some((images, labels)) = folder_pair(&path)? {
            found.push((name, images, labels));
        }
    }
    // A single folder that is not named after a part is the data set itself, unpacked with its folder.
    if let [(name, ..)] = &found[..]
        && SubsetRole::of(name) == SubsetRole::Unspecified
    {
        found.clear();
    }
    Ok(found)
}

/// Returns subsets with images and labels in one folder.
fn mixed_subsets(root: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let named = scan::folders(root)?.into_iter().filter(|(name, _)| SubsetRole::of(name) != SubsetRole::Unspecified);
    let mut found = Vec::new();
    for (name, path) in named {
        if !scan::pair_mixed(root, &path)?.0.is_empty() {
            found.push((name, path));
        }
    }
    Ok(found)
}

pub fn matches(root: &Path) -> Result<bool, DataError> {
    Ok(folder_pair(root)?.is_some()
        || !subsets(root)?.is_empty()
        || !scan::pair_mixed(root, root)?.0.is_empty()
        || !mixed_subsets(root)?.is_empty())
}

pub fn read(root: &Path) -> Result<FoundDataset, DataError> {
    let mut found = FoundDataset::in_root(root);
    if let Some((images, labels)) = folder_pair(root)? {
        found.class_files.extend([&labels, &images].into_iter().filter_map(|dir| class_file::find(dir)));
        let (pairs, unpaired) = scan::pair_up(root, &scan::images(&images)?, scan::labels(&labels)?);
        // `images/train/` and `labels/train/`: the inner folder is the subset.
        let inner = |pair: &Pair| {
            let under = scan::stem(&images, &pair.image);
            under
                .split_once('/')
                .map(|(first, _)| first.to_string())
                .filter(|first| SubsetRole::of(first) != SubsetRole::Unspecified)
        };
        let mut by_subset = std::collections::BTreeMap::<String, Vec<Pair>>::new();
        for pair in pairs {
            by_subset.entry(inner(&pair).unwrap_or_else(|| "default".into())).or_default().push(pair);
        }
        found.unpaired = unpaired;
        for (name, pairs) in by_subset {
            found.add(&name, pairs, scan::Unpaired::default());
        }
    } else {
        let subsets = subsets(root)?;
        for (name, images, labels) in &subsets {
            let around = images.parent().unwrap_or(root);
            found.class_files.extend([around, labels].into_iter().filter_map(class_file::find));
            let (pairs, unpaired) = scan::pair_up(root, &scan::images(images)?, scan::labels(labels)?);
            found.add(name, pairs, unpaired);
        }
        let mixed = if subsets.is_empty() { mixed_subsets(root)? } else { Vec::new() };
        for (name, folder) in &mixed {
            found.class_files.extend(class_file::find(folder));
            let (pairs, unpaired) = scan::pair_mixed(root, folder)?;
            found.add(name, pairs, unpaired);
        }
        if subsets.is_empty() && mixed.is_empty() {
            let (pairs, unpaired) = scan::pair_mixed(root, root)?;
            found.add("default", pairs, unpaired);
        }
    }
    by_lists(root, found)
}

/// Makes subsets from list files, if the data set has no subsets.
fn by_lists(root: &Path, mut found: FoundDataset) -> Result<FoundDataset, DataError> {
    if found.subsets.iter().any(|subset| SubsetRole::of(&subset.name) != SubsetRole::Unspecified) {
        return Ok(found);
    }
    let list = |names: &[&'static str]| {
        let folders = ["", "splits", "split", "lists", "ImageSets/Segmentation"];
        let places = folders.iter().flat_map(|dir| names.iter().map(move |name| (dir, *name)));
        places.map(|(dir, name)| (name, root.join(dir).join(format!("{name}.txt")))).find(|(_, path)| path.is_file())
    };
    let named = [list(&["train", "training"]), list(&["val", "valid", "validation"]), list(&["test"])];
    if named[0].is_none() || named[1].is_none() {
        return Ok(found);
    }
    let all: Vec<Pair> = found.subsets.drain(..).flat_map(|subset| subset.pairs).collect();
    for (name, path) in named.into_iter().flatten() {
        let pairs = lists::select(&path, root, &all)?;
        found.add(name, pairs, scan::Unpaired::default());
    }
    Ok(found)
}
