//! Files and folders of a data set, and which label belongs to which picture.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::Pair;
use super::error::DataError;
use super::picture;

/// Label formats that are paired with their pictures, also those that are not read: reading them says what is wrong.
const LABEL_EXTENSIONS: [&str; 9] = ["png", "bmp", "tif", "tiff", "gif", "jpg", "jpeg", "npy", "webp"];
/// What a label's name may have behind its picture's name.
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
/// What a picture's name may have behind the common part.
const IMAGE_SUFFIXES: [&str; 6] = ["", "_image", "_img", "_rgb", "_sat", "_leftImg8bit"];
/// Endings of pictures that do not keep numbers exactly: such a file is no label.
const LOSSY: [&str; 5] = ["jpg", "jpeg", "jpe", "jfif", "webp"];
/// Endings that pictures and labels may have.
const LOSSLESS: [&str; 8] = ["png", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pnm"];

/// Path under a folder without extension → file, by name.
pub type Files = BTreeMap<String, PathBuf>;

/// Pictures and labels that have no partner.
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

/// Folders directly in `dir`, by name; hidden ones are left out.
pub fn folders(dir: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(DataError::io(dir))? {
        let path = entry.map_err(DataError::io(dir))?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && !hidden(name)
            && path.is_dir()
        {
            found.insert(composed(name), path);
        }
    }
    Ok(found)
}

/// Text with letters and their marks in one (NFC). Archives of macOS have names in which `ä` is an `a` and two dots: they
/// look like those of other machines and are not equal to them.
pub fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// The opposite: marks apart from their letters (NFD).
pub fn decomposed(text: &str) -> String {
    text.nfd().collect()
}

/// The folder of that name in whatever case, the first of `names` that is there.
pub fn folder(dir: &Path, names: &[&str]) -> Result<Option<PathBuf>, DataError> {
    let found = folders(dir)?;
    let named = |wanted: &str| found.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, path)| path);
    Ok(names.iter().find_map(|name| named(name)).cloned())
}

/// The pictures under a folder and its subfolders.
pub fn images(dir: &Path) -> Result<Files, DataError> {
    files(dir, &picture::EXTENSIONS)
}

/// The label pictures under a folder and its subfolders.
pub fn labels(dir: &Path) -> Result<Files, DataError> {
    files(dir, &LABEL_EXTENSIONS)
}

/// All pictures under a folder, also those whose names differ in their endings only; in order.
pub fn all_images(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    shallow(dir, &picture::EXTENSIONS, usize::MAX)
}

/// The files with one of these endings under a folder and its subfolders, `depth` deep; in order.
pub fn shallow(dir: &Path, extensions: &[&str], depth: usize) -> Result<Vec<PathBuf>, DataError> {
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
            // PNG wins where a label lies beside a preview of it.
            if !found.contains_key(&stem) || has_extension(&path, &["png"]) {
                found.insert(stem, path);
            }
        }
    })?;
    Ok(found)
}

/// Each file under a folder and its subfolders, `depth` deep; hidden ones are left out.
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
                // A link to a folder above would never end.
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
    // macOS archives carry a folder of resource forks that look like pictures.
    name.starts_with('.') || name == "__MACOSX"
}

pub fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    extensions.iter().any(|other| extension.eq_ignore_ascii_case(other))
}

/// The path under `dir` without extension, with forward slashes, [`composed`].
pub fn stem(dir: &Path, path: &Path) -> String {
    under(dir, &path.with_extension(""))
}

/// The path under `dir` with forward slashes, [`composed`].
pub fn under(dir: &Path, path: &Path) -> String {
    let under = path.strip_prefix(dir).unwrap_or(path);
    let parts: Vec<_> = under.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    composed(&parts.join("/"))
}

/// The pair of a picture and its label.
pub fn pair(root: &Path, image: &Path, label: &Path) -> Pair {
    Pair { name: stem(root, image), image: image.to_path_buf(), label: label.to_path_buf() }
}

/// Pairs pictures with labels of the same name, or of the same name with a customary ending; `a.jpg` also with `a.jpg.png`.
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

/// Pairs the files of one folder that holds both: `a.jpg` with `a.png` or `a.jpg.png`, `a.png` with `a_mask.png`, or
/// `a.bmp` with `a.png`.
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
        // What is not marked is a picture, but for a PNG beside a picture of the same name in another format.
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
    fn partners_are_found_by_name_and_by_ending() {
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
    fn a_label_may_keep_the_ending_of_its_picture() {
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
    fn letters_with_marks_are_the_same_in_either_spelling() {
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
    fn one_folder_can_hold_both() {
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
