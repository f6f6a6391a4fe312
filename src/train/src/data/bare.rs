//! Images without labels, and the classes that they shall get.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use maskcast::frame::Label;

use super::error::{DataError, DatasetProblem};
use super::format::is_labelled_folder;
use super::image::{self, Rgb8};
use super::orientation::Orientation;
use super::{appearance, class_file, colors, scan};

/// An image file without a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareImage {
    /// The path below the folder, with its extension and forward slashes.
    pub name: String,
    pub path: PathBuf,
}

impl BareImage {
    /// The name without its extension.
    pub fn stem(&self) -> &str {
        match self.name.rsplit_once('.') {
            Some((stem, _)) => stem,
            None => &self.name,
        }
    }

    /// Whether the image is rotated or mirrored by its EXIF data.
    pub fn is_rotated(&self) -> bool {
        Orientation::of_file(&self.path) != Orientation::Upright
    }

    /// Reads the image, rotated as its EXIF data says.
    ///
    /// # Errors
    /// If the file cannot be read, is truncated, or is not an image.
    pub fn read(&self) -> Result<Rgb8, DataError> {
        image::read(&self.path)
    }
}

/// The images in a folder and its subfolders, sorted by name.
///
/// # Errors
/// If the folder cannot be read, has no images, has two images whose labels would have the same name, or is a data set with
/// labels, whose label images would be taken for images.
pub fn bare_images(folder: &Path) -> Result<Vec<BareImage>, DataError> {
    let error = |problem| DataError::dataset(folder, problem);
    if !folder.is_dir() {
        return Err(error(if folder.exists() { DatasetProblem::NotAFolder } else { DatasetProblem::NotFound }));
    }
    if let Some(images) = is_labelled_folder(folder)? {
        return Err(error(DatasetProblem::HasLabels(images)));
    }
    let found = scan::all_images(folder)?;
    let images: Vec<BareImage> =
        found.into_iter().map(|path| BareImage { name: scan::under(folder, &path), path }).collect();
    if images.is_empty() {
        return Err(error(DatasetProblem::NoImages));
    }
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for image in &images {
        if let Some(other) = seen.insert(image.stem(), &image.name) {
            let (first, second) = (other.to_owned(), image.name.clone());
            return Err(error(DatasetProblem::SameStem { first, second }));
        }
    }
    Ok(images)
}

/// The classes in a class file, in the order of their numbers. Classes without a colour get one.
///
/// # Errors
/// If the file cannot be read, its numbers are not 0, 1, 2, …, or it has merges.
pub fn class_list(path: &Path) -> Result<Vec<Label>, DataError> {
    let file = class_file::read(path)?;
    let error = |problem| DataError::dataset(path, problem);
    if let Some((from, to)) = file.merges.first() {
        return Err(error(DatasetProblem::MergeWithoutLabels { from: from.clone(), to: to.clone() }));
    }
    let mut classes = file.classes;
    classes.sort_by_key(|class| class.values.first().copied());
    if let Some((place, class)) = classes.iter().enumerate().find(|(n, class)| class.values != [*n as u8]) {
        let number = class.values.first().copied().unwrap_or_default();
        return Err(error(DatasetProblem::ClassOrder { name: class.name.clone(), number, place }));
    }
    if !(2..=254).contains(&classes.len()) {
        return Err(error(DatasetProblem::ClassCount(classes.len())));
    }
    let given: Vec<_> = classes.into_iter().map(|class| (class.name, class.color)).collect();
    let colors = colors::complete(&given);
    let label = |((name, _), color): ((String, _), _)| Label { weight: appearance::weight(&name), name, color };
    Ok(given.into_iter().zip(colors).map(label).collect())
}

/// The content of a class file for these classes, with their colours.
///
/// # Errors
/// A name that such a file cannot contain.
pub fn class_lines(classes: &[Label]) -> Result<String, DatasetProblem> {
    let mut text = String::new();
    for (number, Label { name, color, .. }) in classes.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{number} {} {} {} {name}", color.0, color.1, color.2);
    }
    let same = |(number, label): (usize, &Label)| {
        let read = class_file::parse(text.lines().nth(number).unwrap_or_default()).ok();
        read.is_some_and(|file| file.classes.len() == 1 && file.classes[0].name == label.name)
    };
    match classes.iter().enumerate().find(|(number, label)| !same((*number, label))) {
        Some((_, label)) => Err(DatasetProblem::ClassName(label.name.clone())),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;

    use super::super::testing::{gray, noise_image, write};
    use super::*;

    #[test]
    fn images_are_found_in_subfolders() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.png", "sub/a.v1.PNG"] {
            noise_image(&dir.path().join(name), 1);
        }
        write(&dir.path().join("readme.txt"), "");
        let images = bare_images(dir.path()).unwrap();
        let names: Vec<_> = images.iter().map(|image| (image.name.as_str(), image.stem())).collect();
        assert_eq!(names, [("b.png", "b"), ("sub/a.v1.PNG", "sub/a.v1")]);
        assert_eq!((images[0].read().unwrap().width, images[0].is_rotated()), (16, false));
    }

    #[test]
    fn folders_that_cannot_be_labelled_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let problem = |folder: &Path| match bare_images(folder).unwrap_err() {
            DataError::Dataset { problem, .. } => problem,
            other => panic!("{other}"),
        };
        assert!(matches!(problem(dir.path()), DatasetProblem::NoImages));
        assert!(matches!(problem(&dir.path().join("x")), DatasetProblem::NotFound));
        noise_image(&dir.path().join("a.png"), 1);
        noise_image(&dir.path().join("a.bmp"), 1);
        assert!(matches!(problem(dir.path()), DatasetProblem::SameStem { .. }));
        let labelled = tempfile::tempdir().unwrap();
        noise_image(&labelled.path().join("images/a.png"), 1);
        gray(&labelled.path().join("masks/a.png"), &[0, 1]);
        let found = problem(labelled.path());
        assert!(matches!(&found, DatasetProblem::HasLabels(images) if images.ends_with("images")), "{found}");
    }

    #[test]
    fn classes_are_the_same_after_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        let list = |text: &str| {
            write(&path, text);
            class_list(&path)
        };
        let classes = list("1 traffic light\n0 road").unwrap();
        assert_eq!(classes.iter().map(|label| label.name.as_str()).collect::<Vec<_>>(), ["road", "traffic light"]);
        assert_eq!(list(&class_lines(&classes).unwrap()).unwrap(), classes);
        for text in ["a\nb\na=b", "0 a\n2 b", "a", "0 a\n255 void"] {
            assert!(matches!(list(text), Err(DataError::Dataset { .. })), "{text}");
        }
        for name in ["a,b", "2 wheels", "a=b", ""] {
            let label = Label::new(name, Rgb(1, 2, 3));
            assert!(matches!(class_lines(&[label]), Err(DatasetProblem::ClassName(_))), "{name}");
        }
    }
}
