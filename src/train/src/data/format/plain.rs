//! Folders of pictures and labels: `images/` and `masks/`, with subsets inside or around, or all files in one folder.
//!
//! OpenMMLab's `img_dir/` and `ann_dir/` are such; Roboflow's "Semantic Segmentation Masks" has `train/`, `valid/` and
//! `test/`, in each pictures, labels (`NAME_mask.png`) and `_classes.csv`.

use std::path::{Path, PathBuf};

use super::super::error::DataError;
use super::super::{Pair, class_file, lists, scan};
use super::{Found, Role};

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

/// The folders of pictures and of labels directly in `dir`.
fn couple(dir: &Path) -> Result<Option<(PathBuf, PathBuf)>, DataError> {
    Ok(scan::folder(dir, &IMAGES)?.zip(scan::folder(dir, &LABELS)?))
}

/// Folders of subsets that each have both.
fn subsets(root: &Path) -> Result<Vec<(String, PathBuf, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for (name, path) in scan::folders(root)? {
        if let Some((images, labels)) = couple(&path)? {
            found.push((name, images, labels));
        }
    }
    // A single folder that is no part is the data set itself, unpacked with its folder.
    if let [(name, ..)] = &found[..]
        && Role::of(name) == Role::Open
    {
        found.clear();
    }
    Ok(found)
}

/// Folders of subsets that each have pictures and labels side by side.
fn mixed_subsets(root: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let named = scan::folders(root)?.into_iter().filter(|(name, _)| Role::of(name) != Role::Open);
    let mut found = Vec::new();
    for (name, path) in named {
        if !scan::pair_mixed(root, &path)?.0.is_empty() {
            found.push((name, path));
        }
    }
    Ok(found)
}

pub fn is(root: &Path) -> Result<bool, DataError> {
    Ok(couple(root)?.is_some()
        || !subsets(root)?.is_empty()
        || !scan::pair_mixed(root, root)?.0.is_empty()
        || !mixed_subsets(root)?.is_empty())
}

pub fn read(root: &Path) -> Result<Found, DataError> {
    let mut found = Found::in_root(root);
    if let Some((images, labels)) = couple(root)? {
        found.class_files.extend([&labels, &images].into_iter().filter_map(|dir| class_file::find(dir)));
        let (pairs, unpaired) = scan::pair_up(root, &scan::images(&images)?, scan::labels(&labels)?);
        // `images/train/` and `labels/train/`: the folder says what they are for.
        let inner = |pair: &Pair| {
            let under = scan::stem(&images, &pair.image);
            under.split_once('/').map(|(first, _)| first.to_string()).filter(|first| Role::of(first) != Role::Open)
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

/// Where all is one piece and lists of names lie beside it, they are the subsets.
fn by_lists(root: &Path, mut found: Found) -> Result<Found, DataError> {
    if found.subsets.iter().any(|subset| Role::of(&subset.name) != Role::Open) {
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
