//! Pascal VOC's layout (<http://host.robots.ox.ac.uk/pascal/VOC/>), and CVAT's export "Segmentation mask 1.1", which
//! adds a class file (Datumaro's `voc_segmentation`).
//!
//! `JPEGImages/` contains images, `SegmentationClass/` their labels (colours, or numbers by line of the class file),
//! `ImageSets/Segmentation/NAME.txt` names without extension, `labelmap.txt` the classes.

use std::path::{Path, PathBuf};

use maskcast::frame::Rgb;

use super::super::error::{DataError, DatasetProblem, LineError};
use super::super::{class_file, lists, scan};
use super::found::{FoundDataset, SubsetRole};

const LABELS: [&str; 2] = ["SegmentationClass", "SegmentationClassPNG"];
/// Pascal VOC draws the borders of objects in this colour, index 255 of its palette, which is void.
const BORDER: Rgb = Rgb(224, 224, 192);

pub fn matches(root: &Path) -> Result<bool, DataError> {
    Ok(scan::folder(root, &LABELS)?.is_some())
}

pub fn read(root: &Path) -> Result<FoundDataset, DataError> {
    let Some(labels) = scan::folder(root, &LABELS)? else {
        return Err(DataError::dataset(root, DatasetProblem::VocLabels));
    };
    let Some(images) = scan::folder(root, &["JPEGImages", "images"])? else {
        return Err(DataError::dataset(root, DatasetProblem::VocImages));
    };
    let mut found = FoundDataset::in_root(root);
    found.void_color = Some(BORDER);
    // labelme writes `class_names.txt` beside the folders; other programs write it into one of them.
    found.class_files.extend([&labels, &images].into_iter().filter_map(|dir| class_file::find(dir)));
    let (pairs, unpaired) = scan::pair_up(root, &scan::images(&images)?, scan::labels(&labels)?);
    let mut subsets = subset_lists(&root.join("ImageSets/Segmentation"))?;
    // Subsets that may repeat others, such as `trainval`, are last.
    subsets.sort_by_key(|(name, _)| SubsetRole::of(name) == SubsetRole::Unspecified);
    if subsets.is_empty() {
        found.add("default", pairs, unpaired);
        return Ok(found);
    }
    found.unpaired = unpaired;
    let known: std::collections::HashMap<String, _> =
        pairs.iter().map(|pair| (scan::stem(&images, &pair.image), pair)).collect();
    let mut taken = std::collections::HashSet::new();
    for (name, path) in subsets {
        let mut chosen = Vec::new();
        for line in lists::read(&path)? {
            let wanted = scan::to_nfc(line.image.trim_start_matches('/'));
            match known.get(&wanted).or_else(|| known.get(&scan::stem(Path::new(""), Path::new(&wanted)))) {
                Some(pair) => {
                    // An image in both `train` and `val` is kept in both; the check reports it.
                    if taken.insert(&pair.name) || SubsetRole::of(&name) != SubsetRole::Unspecified {
                        chosen.push((*pair).clone());
                    }
                }
                // CVAT also lists images without annotations, which are in `unpaired`.
                None if found.unpaired.images.iter().any(|image| scan::stem(&images, image) == wanted) => {}
                None => {
                    let error = LineError::NoImageIn { image: wanted, folder: images };
                    return Err(DataError::line(&path, line.number, error));
                }
            }
        }
        found.add(&name, chosen, scan::Unpaired::default());
    }
    Ok(found)
}

fn subset_lists(dir: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(DataError::io(dir))? {
        let path = entry.map_err(DataError::io(dir))?.path();
        if scan::has_extension(&path, &["txt"]) {
            found.push((scan::stem(dir, &path), path));
        }
    }
    found.sort();
    Ok(found)
}
