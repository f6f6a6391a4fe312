//! The layout of Cityscapes (<https://www.cityscapes-dataset.com/>): `leftImg8bit/SUBSET/CITY/NAME_leftImg8bit.png` and
//! `gtFine/SUBSET/CITY/NAME_gtFine_labelIds.png`, or `…_labelTrainIds.png`, as `cityscapesScripts` makes them. CVAT's
//! export has the images in `imgsFine/`.

use std::path::{Path, PathBuf};

use super::super::error::{DataError, DatasetProblem};
use super::super::{known, scan};
use super::found::FoundDataset;

const IMAGES: [&str; 3] = ["leftImg8bit", "imgsFine/leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit"];
const LABELS: [&str; 2] = ["gtFine", "gtFine_trainvaltest/gtFine"];

fn first(root: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| root.join(name)).find(|path| path.is_dir())
}

pub fn matches(root: &Path) -> Result<bool, DataError> {
    Ok(first(root, &IMAGES).is_some() && first(root, &LABELS).is_some())
}

pub fn read(root: &Path) -> Result<FoundDataset, DataError> {
    let (Some(images), Some(labels)) = (first(root, &IMAGES), first(root, &LABELS)) else {
        return Err(DataError::dataset(root, DatasetProblem::CityscapesFolders));
    };
    let mut found = FoundDataset::in_root(root);
    let mut subsets = Vec::new();
    let (mut with_ids, mut with_train_ids) = (0, 0);
    for (name, folder) in scan::folders(&images)? {
        let labels = labels.join(&name);
        let files = if labels.is_dir() { scan::labels(&labels)? } else { scan::Files::new() };
        with_ids += files.keys().filter(|stem| stem.ends_with("_gtFine_labelIds")).count();
        with_train_ids += files.keys().filter(|stem| stem.ends_with("_gtFine_labelTrainIds")).count();
        subsets.push((name, scan::images(&folder)?, files));
    }
    let train_ids = with_train_ids > 0 && with_train_ids >= with_ids;
    let ending = if train_ids { "_gtFine_labelTrainIds" } else { "_gtFine_labelIds" };
    for (name, images, mut labels) in subsets {
        let (mut pairs, mut unpaired) = (Vec::new(), scan::Unpaired::default());
        for (stem, image) in images {
            let base = stem.strip_suffix("_leftImg8bit").unwrap_or(&stem);
            match labels.remove(&format!("{base}{ending}")) {
                Some(label) => pairs.push(scan::pair(root, &image, &label)),
                None => unpaired.images.push(image),
            }
        }
        unpaired.labels.extend(labels.into_iter().filter(|(stem, _)| stem.ends_with(ending)).map(|(_, path)| path));
        found.add(&name, pairs, unpaired);
    }
    found.classes = Some(known::cityscapes(train_ids));
    Ok(found)
}
