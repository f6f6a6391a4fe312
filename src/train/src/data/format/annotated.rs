//! Shared code of the formats with annotation files (COCO, labelme, YOLO).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::super::error::{AmbiguousImage, DataError, DatasetProblem};
use super::super::source_class::SourceClass;
use super::super::{colors, scan};
use super::found::SubsetRole;

/// The numbers of classes in drawn labels: 0 is the background, then `names` in order. A name that means background has
/// the number 0.
pub struct ClassNumbers {
    pub classes: Vec<SourceClass>,
    values: HashMap<String, u8>,
}

impl ClassNumbers {
    /// Numbers the classes.
    ///
    /// # Errors
    /// [`DatasetProblem::TooManyClasses`] if there are more than 254 classes.
    pub fn of(names: &[String]) -> Result<Self, DatasetProblem> {
        let class = |name: &str, value| SourceClass { name: name.to_string(), color: None, values: vec![value] };
        let background = names.iter().find(|name| colors::is_background(name));
        let mut classes = vec![class(background.map_or("background", String::as_str), 0)];
        let mut values: HashMap<String, u8> = background.map(|name| (name.clone(), 0)).into_iter().collect();
        for name in names.iter().filter(|name| Some(*name) != background) {
            if values.contains_key(name) {
                continue;
            }
            let value = u8::try_from(classes.len()).ok().filter(|&value| value < 255);
            let value = value.ok_or(DatasetProblem::TooManyClasses)?;
            values.insert(name.clone(), value);
            classes.push(class(name, value));
        }
        Ok(ClassNumbers { classes, values })
    }

    /// Numbers the classes from 1, also one that is named background: 0 is a pixel without an annotation.
    ///
    /// # Errors
    /// As [`ClassNumbers::of`].
    pub fn from_one(names: &[String]) -> Result<Self, DatasetProblem> {
        let mut numbers = ClassNumbers { classes: Vec::new(), values: HashMap::new() };
        for (index, name) in names.iter().enumerate() {
            let value = u8::try_from(index + 1).ok().filter(|&value| value < 255);
            let value = value.ok_or(DatasetProblem::TooManyClasses)?;
            // Of several categories with this name, the first gives the number.
            numbers.values.entry(name.clone()).or_insert(value);
            numbers.classes.push(SourceClass { name: name.clone(), color: None, values: vec![value] });
        }
        Ok(numbers)
    }

    /// Returns the number of a class.
    pub fn value(&self, name: &str) -> Option<u8> {
        self.values.get(name).copied()
    }
}

/// An index of all images in a folder, to find those that annotations name.
pub struct ImageIndex {
    /// By file name in lower case.
    by_name: HashMap<String, Vec<PathBuf>>,
    pub all: Vec<PathBuf>,
}

impl ImageIndex {
    pub fn under(root: &Path) -> Result<Self, DataError> {
        let all = scan::all_images(root)?;
        let mut by_name: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for path in &all {
            let name = path.file_name().map(|name| scan::to_nfc(&name.to_string_lossy()).to_lowercase());
            by_name.entry(name.unwrap_or_default()).or_default().push(path.clone());
        }
        Ok(ImageIndex { by_name, all })
    }

    /// Finds the image that the annotation file `by` names by the path `text`, which may be of another machine. Of
    /// several images with that file name, it returns the one with the most matching folders, then one in the folder of
    /// `by` or below it.
    ///
    /// # Errors
    /// If several images match equally.
    pub fn find(&self, text: &str, by: &Path, subset: &str) -> Result<Option<&PathBuf>, AmbiguousImage> {
        let text = scan::to_nfc(text).to_lowercase();
        let wanted: Vec<&str> = text.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
        let Some(name) = wanted.last() else { return Ok(None) };
        let Some(found) = self.by_name.get(*name) else { return Ok(None) };
        let near = by.parent();
        let rank = |path: &PathBuf| {
            let own: Vec<String> =
                path.iter().map(|part| scan::to_nfc(&part.to_string_lossy()).to_lowercase()).collect();
            let same = own.iter().rev().zip(wanted.iter().rev()).take_while(|(a, b)| a == *b).count();
            let beside = path.parent() == near;
            let below = near.is_some_and(|near| path.starts_with(near));
            let part = own.iter().rev().skip(1).any(|folder| !subset.is_empty() && folder == &subset.to_lowercase());
            (same, beside, part, below)
        };
        let best = found.iter().map(rank).max();
        let mut best = found.iter().filter(|path| Some(rank(path)) == best);
        let first = best.next();
        match (first, best.next()) {
            (Some(first), Some(second)) => {
                Err(AmbiguousImage { path: text, first: first.clone(), second: second.clone() })
            }
            (first, _) => Ok(first),
        }
    }
}

/// Returns the name of a file's subset, from its own name (`instances_train2017`, `train_coco`) or its folders.
pub fn subset_of(root: &Path, file: &Path) -> String {
    let under = scan::stem(root, file);
    let words = under.rsplit('/').flat_map(|part| part.split(|c: char| !c.is_alphabetic()));
    words
        .filter(|word| SubsetRole::of(word) != SubsetRole::Unspecified)
        .map(str::to_lowercase)
        .next()
        .unwrap_or_else(|| "default".into())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::write;
    use super::*;

    #[test]
    fn a_class_named_background_has_the_number_0() {
        let names = ["disc".to_string(), "_background_".to_string(), "box".to_string()];
        let numbers = ClassNumbers::of(&names).unwrap();
        let listed: Vec<_> = numbers.classes.iter().map(|class| (class.name.as_str(), class.values[0])).collect();
        assert_eq!(listed, [("_background_", 0), ("disc", 1), ("box", 2)]);
        assert_eq!((numbers.value("_background_"), numbers.value("box"), numbers.value("x")), (Some(0), Some(2), None));
        let many: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        assert!(matches!(ClassNumbers::of(&many), Err(DatasetProblem::TooManyClasses)));
    }

    #[test]
    fn images_are_found_by_paths_of_other_machines() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["train/images/A.jpg", "val/images/a.jpg", "train/b.JPG"] {
            write(&dir.path().join(file), "");
        }
        let images = ImageIndex::under(dir.path()).unwrap();
        let json = dir.path().join("annotations/instances_val.json");
        let find = |text: &str, subset: &str| images.find(text, &json, subset).map(|found| found.cloned());
        assert_eq!(find("C:\\data\\b.jpg", "train"), Ok(Some(dir.path().join("train/b.JPG"))));
        assert_eq!(find("a.jpg", "val"), Ok(Some(dir.path().join("val/images/a.jpg"))));
        assert_eq!(find("x/train/images/a.jpg", "val"), Ok(Some(dir.path().join("train/images/A.jpg"))));
        assert_eq!(find("a.jpg", "default").unwrap_err().path, "a.jpg");
        assert_eq!(find("c.jpg", "val"), Ok(None));
    }

    #[test]
    fn subsets_are_named_by_files_or_folders() {
        let root = Path::new("/d");
        for (file, subset) in [
            ("/d/annotations/instances_train2017.json", "train"),
            ("/d/valid/_annotations.coco.json", "valid"),
            ("/d/annotations/instances_default.json", "default"),
            ("/d/labels/test/a.txt", "test"),
        ] {
            assert_eq!(subset_of(root, Path::new(file)), subset);
        }
    }
}
