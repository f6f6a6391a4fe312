//! Finds the images that annotation files name.

use std::path::{Path, PathBuf};

use super::super::{DataError, scan};
use super::error::ExchangeError;
use super::found::AnnotatedImage;

/// The images of some folders.
#[derive(Default)]
pub struct ImageFinder {
    images: Vec<KnownImage>,
    folders: Vec<PathBuf>,
}

/// An image that can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownImage {
    pub path: PathBuf,
    /// The path below its folder without extension, in NFC, with forward slashes.
    pub stem: String,
}

/// How well an image matches a path. The greatest is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Number of equal parts of the paths, from the end.
    same: usize,
    /// Whether the whole path of the image below its folder is equal.
    whole: bool,
    extension: bool,
}

impl ImageFinder {
    /// Adds the images in a folder and its subfolders.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), DataError> {
        self.add_images(folder, scan::all_images(folder)?);
        Ok(())
    }

    /// Adds images that are in `folder` or its subfolders.
    pub fn add_images(&mut self, folder: &Path, images: impl IntoIterator<Item = PathBuf>) {
        self.folders.push(folder.to_owned());
        self.images.extend(images.into_iter().map(|path| KnownImage { stem: scan::stem(folder, &path), path }));
    }

    /// Whether it has no images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    pub fn folders(&self) -> Vec<String> {
        self.folders.iter().map(|folder| folder.display().to_string()).collect()
    }

    /// Finds an image by its path in an annotation file, which may be a path of another machine: of the images with the file name,
    /// the one with the most equal folders. `None` if no image has the file name.
    ///
    /// # Errors
    /// Several images match equally.
    pub fn find(&self, image: &AnnotatedImage) -> Result<Option<&KnownImage>, ExchangeError> {
        let (stem, extension) = if image.is_stem {
            (image.wanted.clone(), None)
        } else {
            let path = Path::new(&image.wanted);
            let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
            (path.with_extension("").to_string_lossy().into_owned(), extension)
        };
        let wanted: Vec<&str> = stem.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
        let rank = |known: &KnownImage| {
            let own: Vec<&str> = known.stem.split('/').collect();
            let same = own.iter().rev().zip(wanted.iter().rev()).take_while(|(a, b)| a == b).count();
            let same_extension = extension.as_ref().is_none_or(|extension| {
                known.path.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension.as_str()))
            });
            Rank { same, whole: same == own.len(), extension: same_extension }
        };
        let mut best: Option<(Rank, &KnownImage)> = None;
        let mut other = None;
        for known in &self.images {
            let rank = rank(known);
            if rank.same == 0 {
                continue;
            }
            match &best {
                Some((first, _)) if rank < *first => {}
                Some((first, _)) if rank == *first => other = Some(known),
                _ => (best, other) = (Some((rank, known)), None),
            }
        }
        match (best, other) {
            (Some((_, first)), Some(second)) => Err(ExchangeError::AmbiguousImage {
                path: image.source.clone(),
                image: image.wanted.clone(),
                first: first.path.display().to_string(),
                second: second.path.display().to_string(),
            }),
            (best, _) => Ok(best.map(|(_, known)| known)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::found::FoundMask;
    use super::*;

    fn found(files: &[&str], wanted: &str, is_stem: bool) -> Result<Option<String>, ExchangeError> {
        let mut finder = ImageFinder::default();
        finder.add_images(Path::new("/d"), files.iter().map(|file| Path::new("/d").join(file)));
        let (wanted, source) = (wanted.to_owned(), PathBuf::from("a.json"));
        let image = AnnotatedImage { wanted, is_stem, part: None, source, mask: FoundMask::Missing };
        Ok(finder.find(&image)?.map(|known| scan::under(Path::new("/d"), &known.path)))
    }

    #[test]
    fn images_of_the_same_name_are_told_apart_by_their_folders() {
        let files = ["a.png", "sub/a.png", "other/sub/a.png", "other/b.v1.jpg"];
        let image = |wanted: &str| found(&files, wanted, false).unwrap();
        assert_eq!(image("a.png").as_deref(), Some("a.png"));
        assert_eq!(image("sub/a.png").as_deref(), Some("sub/a.png"));
        assert_eq!(image("C:/data/other/sub/a.png").as_deref(), Some("other/sub/a.png"));
        assert_eq!(image("images/a.png").as_deref(), Some("a.png"));
        assert_eq!(image("b.v1.jpg").as_deref(), Some("other/b.v1.jpg"));
        assert_eq!(image("c.png"), None);
        assert_eq!(found(&files, "other/b.v1", true).unwrap().as_deref(), Some("other/b.v1.jpg"));
    }

    #[test]
    fn extensions_decide_between_equal_names() {
        let files = ["x/a.png", "x/a.jpg"];
        assert_eq!(found(&files, "x/a.JPG", false).unwrap().as_deref(), Some("x/a.jpg"));
        // The image may have been stored in another format.
        assert_eq!(found(&["x/a.png"], "x/a.jpg", false).unwrap().as_deref(), Some("x/a.png"));
        assert!(matches!(found(&files, "x/a", true), Err(ExchangeError::AmbiguousImage { .. })));
        assert!(matches!(found(&["x/a.png", "y/a.png"], "z/a.png", false), Err(ExchangeError::AmbiguousImage { .. })));
    }
}
