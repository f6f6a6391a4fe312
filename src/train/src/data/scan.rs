//! Lists the files and folders of a data set and pairs images with labels.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::Pair;
use super::error::DataError;
use super::image;

/// Extensions of labels that are paired with images. Some cannot be read (JPEG, NumPy); reading them returns an error
/// that explains why.
const LABEL_EXTENSIONS: [&str; 9] = ["png", "bmp", "tif", "tiff", "gif", "jpg", "jpeg", "npy", "webp"];
/// Suffixes that a label's name may have in addition to its image's name.
const LABEL_SUFFIXES: [&str; 18] = [
    "",
    "_L",
    "_mask",
    "_label",
    "_labels",
    "_seg",
    "_gt",
    "_annotation",
    "_annot",
    "-mask",
    "-label",
    ".mask",
    "mask",
    "_matte",
    "_labelTrainIds",
    "_gtFine_labelTrainIds",
    "_labelIds",
    "_segmentation",
];
/// Suffixes that an image's name may have in addition to the common part.
const IMAGE_SUFFIXES: [&str; 6] = ["", "_image", "_img", "_rgb", "_sat", "_leftImg8bit"];
/// Extensions of lossy formats: such a file is never a label.
const LOSSY: [&str; 5] = ["jpg", "jpeg", "jpe", "jfif", "webp"];
/// Extensions that both images and labels may have.
const LOSSLESS: [&str; 8] = ["png", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pnm"];

/// Files by their path relative to a folder, without extension.
pub type Files = BTreeMap<String, PathBuf>;

/// Images without a label and labels without an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpaired {
    pub images: Vec<PathBuf>,
    pub labels: Vec<PathBuf>,
}

impl Unpaired {
    pub fn extend(&mut self, other: Unpaired) {
        self.images.extend(other.images);
        self.labels.extend(other.labels);
    }
}

/// Returns the folders directly in `dir` by name, without hidden ones.
pub fn folders(dir: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(DataError::io(dir))? {
        let path = entry.map_err(DataError::io(dir))?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && !hidden(name)
            && path.is_dir()
        {
            found.insert(to_nfc(name), path);
        }
    }
    Ok(found)
}

/// Normalises text to Unicode NFC (composed characters). File names in archives from macOS are in NFD: `ä` is stored as
/// `a` and a combining diaeresis, and differs in its bytes from the name on other systems.
pub fn to_nfc(text: &str) -> String {
    text.nfc().collect()
}

/// Normalises text to Unicode NFD (decomposed characters).
pub fn to_nfd(text: &str) -> String {
    text.nfd().collect()
}

/// Returns the first folder in `dir` that has one of `names`, compared without case.
pub fn folder(dir: &Path, names: &[&str]) -> Result<Option<PathBuf>, DataError> {
    let found = folders(dir)?;
    let named = |wanted: &str| found.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, path)| path);
    Ok(names.iter().find_map(|name| named(name)).cloned())
}

/// Returns the images in a folder and its subfolders.
pub fn images(dir: &Path) -> Result<Files, DataError> {
    files(dir, &image::EXTENSIONS)
}

/// Returns the label images in a folder and its subfolders.
pub fn labels(dir: &Path) -> Result<Files, DataError> {
    files(dir, &LABEL_EXTENSIONS)
}

/// Returns all images in a folder and its subfolders, sorted; images whose names differ only in the extension are all
/// included.
pub fn all_images(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    files_to_depth(dir, &image::EXTENSIONS, usize::MAX)
}

/// Returns the files with one of the extensions in a folder and its subfolders down to `depth` levels, sorted.
pub fn files_to_depth(dir: &Path, extensions: &[&str], depth: usize) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    walk(dir, depth, |path| {
        if has_extension(&path, extensions) {
            found.push(path);
        }
    })?;
    found.sort();
    Ok(found)
}

fn files(dir: &Path, extensions: &[&str]) -> Result<Files, DataError> {
    let mut found = Files::new();
    walk(dir, usize::MAX, |path| {
        if has_extension(&path, extensions) {
            let stem = stem(dir, &path);
            // A PNG has precedence: other files of the same name are previews of the label.
            if !found.contains_key(&stem) || has_extension(&path, &["png"]) {
                found.insert(stem, path);
            }
        }
    })?;
    Ok(found)
}

/// Calls `seen` with each file in a folder and its subfolders down to `depth` levels, without hidden ones.
fn walk(dir: &Path, depth: usize, mut seen: impl FnMut(PathBuf)) -> Result<(), DataError> {
    let mut open = vec![(dir.to_path_buf(), 0)];
    while let Some((current, level)) = open.pop() {
        for entry in fs::read_dir(&current).map_err(DataError::io(&current))? {
            let entry = entry.map_err(DataError::io(&current))?;
            let path = entry.path();
            if entry.file_name().to_str().is_none_or(hidden) {
                continue;
            }
            let kind = entry.file_type().map_err(DataError::io(&path))?;
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                // A link to a parent folder would be an endless loop.
                if level < depth
                    && (!kind.is_symlink() || !dir.starts_with(fs::canonicalize(&path).map_err(DataError::io(&path))?))
                {
                    open.push((path, level + 1));
                }
            } else {
                seen(path);
            }
        }
    }
    Ok(())
}

fn hidden(name: &str) -> bool {
    // Archives from macOS contain a folder of resource forks, whose names look like images.
    name.starts_with('.') || name == "__MACOSX"
}

pub fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    extensions.iter().any(|other| extension.eq_ignore_ascii_case(other))
}

/// Returns the path relative to `dir` without extension, with forward slashes, in NFC.
pub fn stem(dir: &Path, path: &Path) -> String {
    under(dir, &path.with_extension(""))
}

/// Returns the path relative to `dir` with forward slashes, in NFC.
pub fn under(dir: &Path, path: &Path) -> String {
    let under = path.strip_prefix(dir).unwrap_or(path);
    let parts: Vec<_> = under.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    to_nfc(&parts.join("/"))
}

/// Makes a [`Pair`]; its name is relative to `root`.
pub fn pair(root: &Path, image: &Path, label: &Path) -> Pair {
    Pair { name: stem(root, image), image: image.to_path_buf(), label: label.to_path_buf() }
}

/// Pairs images with labels of the same name, with or without a common suffix (`_mask`, `_L`, …); `a.jpg` also with
/// `a.jpg.png`.
pub fn pair_up(root: &Path, images: &Files, mut labels: Files) -> (Vec<Pair>, Unpaired) {
    let (mut pairs, mut unpaired) = (Vec::new(), Unpaired::default());
    for (name, image) in images {
        let extension = image.extension().map(|extension| extension.to_string_lossy()).unwrap_or_default();
        let whole = [extension.to_string(), extension.to_lowercase(), extension.to_uppercase()]
            .map(|extension| format!("{name}.{extension}"));
        let bases = IMAGE_SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix));
        let partner = bases.chain(whole.iter().map(String::as_str)).find_map(|base| {
            LABEL_SUFFIXES.iter().map(|suffix| format!("{base}{suffix}")).find(|name| labels.contains_key(name))
        });
        match partner.and_then(|partner| labels.remove(&partner)) {
            Some(label) => pairs.push(pair(root, image, &label)),
            None => unpaired.images.push(image.clone()),
        }
    }
    unpaired.labels.extend(labels.into_values());
    (pairs, unpaired)
}

/// Pairs the files of one folder that contains both images and labels: `a.jpg` with `a.png` or `a.jpg.png`, `a.png`
/// with `a_mask.png`, or `a.bmp` with `a.png`.
pub fn pair_mixed(root: &Path, dir: &Path) -> Result<(Vec<Pair>, Unpaired), DataError> {
    let (mut images, mut labels) = (Files::new(), Files::new());
    let mut either = Vec::new();
    for entry in fs::read_dir(dir).map_err(DataError::io(dir))? {
        let entry = entry.map_err(DataError::io(dir))?;
        let path = entry.path();
        if entry.file_name().to_str().is_none_or(hidden) || !path.is_file() {
            continue;
        }
        let name = stem(dir, &path);
        let marked =
            LABEL_SUFFIXES[1..].iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|base| !base.is_empty()));
        if marked && has_extension(&path, &LABEL_EXTENSIONS) {
            labels.insert(name, path);
        } else if has_extension(&path, &LOSSY) {
            images.insert(name, path);
        } else if has_extension(&path, &LOSSLESS) {
            either.push((name, path));
        }
    }
    if images.is_empty() {
        // A file without a label suffix is an image, except a PNG beside an image of the same name in another format.
        let others: HashSet<String> =
            either.iter().filter(|(_, path)| !has_extension(path, &["png"])).map(|(name, _)| name.clone()).collect();
        for (name, path) in either {
            let label = others.contains(&name) && has_extension(&path, &["png"]);
            if label { &mut labels } else { &mut images }.insert(name, path);
        }
    } else {
        labels.extend(either);
    }
    Ok(pair_up(root, &images, labels))
}

#[cfg(test)]
mod tests {
    use super::super::testing::write;
    use super::*;

    fn names(pairs: &[Pair]) -> Vec<&str> {
        pairs.iter().map(|pair| pair.name.as_str()).collect()
    }

    #[test]
    fn labels_are_found_by_name_and_by_suffix() {
        let dir = tempfile::tempdir().unwrap();
        for file in
            ["i/a.jpg", "i/sub/b.v1.PNG", "i/c.jpg", "i/.hidden.jpg", "l/a.png", "l/sub/b.v1_mask.png", "l/z.png"]
        {
            write(&dir.path().join(file), "");
        }
        let images = images(&dir.path().join("i")).unwrap();
        let (pairs, unpaired) = pair_up(dir.path(), &images, labels(&dir.path().join("l")).unwrap());
        assert_eq!(names(&pairs), ["i/a", "i/sub/b.v1"]);
        assert_eq!(unpaired.images, [dir.path().join("i/c.jpg")]);
        assert_eq!(unpaired.labels, [dir.path().join("l/z.png")]);
    }

    #[test]
    fn a_label_may_keep_the_extension_of_its_image() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["i/a.jpg", "i/b.JPG", "i/c.jpeg", "l/a.jpg.png", "l/b.jpg.PNG", "l/c.jpeg_mask.png"] {
            write(&dir.path().join(file), "");
        }
        let images = images(&dir.path().join("i")).unwrap();
        let (pairs, unpaired) = pair_up(dir.path(), &images, labels(&dir.path().join("l")).unwrap());
        assert_eq!((names(&pairs), unpaired), (vec!["i/a", "i/b", "i/c"], Unpaired::default()));
        for file in ["m/a.jpg", "m/a.jpg.png"] {
            write(&dir.path().join(file), "");
        }
        assert_eq!(names(&pair_mixed(dir.path(), &dir.path().join("m")).unwrap().0), ["m/a"]);
    }

    #[test]
    fn names_in_nfc_and_nfd_are_equal() {
        let dir = tempfile::tempdir().unwrap();
        let (composed, decomposed) = ("\u{e4} \u{f6}", "a\u{308} o\u{308}");
        write(&dir.path().join(format!("i/{composed}/{decomposed}.jpg")), "");
        write(&dir.path().join(format!("l/{decomposed}/{composed}.png")), "");
        let (images, labels) = (images(&dir.path().join("i")).unwrap(), labels(&dir.path().join("l")).unwrap());
        let (pairs, unpaired) = pair_up(dir.path(), &images, labels);
        assert_eq!(names(&pairs), [format!("i/{composed}/{composed}")]);
        assert!(pairs[0].image.is_file() && pairs[0].label.is_file());
        assert_eq!(unpaired, Unpaired::default());
    }

    #[test]
    fn one_folder_can_contain_images_and_labels() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.jpg", "a.png", "b.jpg", "b_mask.png"] {
            write(&dir.path().join(file), "");
        }
        assert_eq!(names(&pair_mixed(dir.path(), dir.path()).unwrap().0), ["a", "b"]);
        for files in [["a.png", "a_mask.png"], ["a.bmp", "a_mask.bmp"], ["a.BMP", "a.PNG"], ["a.tif", "a_mask.tiff"]] {
            let dir = tempfile::tempdir().unwrap();
            files.iter().for_each(|file| write(&dir.path().join(file), ""));
            assert_eq!(names(&pair_mixed(dir.path(), dir.path()).unwrap().0), ["a"], "{files:?}");
        }
    }
}
