//! The folder of proposals: a data set in the layout "plain" with a record of the settings and of each mask.
//!
//! | file | content |
//! | --- | --- |
//! | `images/` | the images |
//! | `masks/` | one PNG for each image: the index of the class of each pixel, 255 = void |
//! | `classes.txt` | the classes |
//! | `proposals.json` | the settings that the masks were made with |
//! | `masks.sha256` | the SHA-256 of each mask when it was written, in the format of `sha256sum` |
//!
//! Only masks that are still as they were written are ever replaced, so that corrections by people are kept.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use maskcast::base::atomic_file::AtomicFile;
use maskcast::frame::Label;
use maskcast::segment::golden::encode_png;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::teacher::hex;
use crate::data::{BareImage, DatasetProblem, Rgb8, class_lines};

const SETTINGS: &str = "proposals.json";
const JOURNAL: &str = "masks.sha256";
const IMAGES: &str = "images";
const MASKS: &str = "masks";

/// How images are put into the output folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ImageFiles {
    /// Copies
    #[default]
    Copy,
    /// Hard links: need no space, but must be on the same file system
    Hardlink,
    /// Symbolic links to the absolute paths: need no space, and break when the images are moved
    Symlink,
}

/// Why the folder cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("{}: this folder was not made by `maskcast-train label` (it has {found}); pass a new folder with -o", folder.display())]
    NotProposals { folder: PathBuf, found: String },
    #[error(
        "{}: the masks in this folder were made with other settings ({}); pass the same ones to continue, --redo to make \
         all masks again, or another folder",
        folder.display(), differing.join(", ")
    )]
    OtherSettings { folder: PathBuf, differing: Vec<String> },
    #[error("{}: the folder of the proposals must not be in that of the images", .0.display())]
    Inside(PathBuf),
    #[error("{}: this is not JSON: {source}; restore the file, or pass another folder", path.display())]
    Settings { path: PathBuf, source: serde_json::Error },
    #[error("the classes cannot be written: {0}")]
    Classes(DatasetProblem),
    #[error("cannot write {}: {source}; is the disk full, or the folder read-only?", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: the mask cannot be encoded as PNG: {source}", path.display())]
    Png { path: PathBuf, source: png::EncodingError },
}

impl OutputError {
    /// Whether another folder or other options are needed.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::NotProposals { .. } | Self::OtherSettings { .. } | Self::Inside(_) | Self::Classes(_))
    }
}

/// What exists for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskState {
    Missing,
    /// As it was written.
    Proposal,
    /// Changed since, or not written by this program.
    Changed,
}

/// The folder of proposals.
#[derive(Debug)]
pub struct OutputFolder {
    folder: PathBuf,
    files: ImageFiles,
    /// By the name of the mask, the hashes that were written.
    written: HashMap<String, HashSet<String>>,
    journal: Mutex<File>,
}

impl OutputFolder {
    /// Opens or creates the folder for images in `images`. `settings` are compared with those of the masks that are there,
    /// unless `redo` is set.
    ///
    /// # Errors
    /// The folder has other files, has masks of other settings, or cannot be written.
    pub fn open(
        folder: &Path,
        images: &Path,
        classes: &[Label],
        settings: &Value,
        files: ImageFiles,
        redo: bool,
    ) -> Result<Self, OutputError> {
        let lines = class_lines(classes).map_err(OutputError::Classes)?;
        let write_error = |path: &Path| write_error(path.to_owned());
        let record = folder.join(SETTINGS);
        if record.is_file() {
            let bytes = fs::read(&record).map_err(|source| OutputError::Read { path: record.clone(), source })?;
            let before: Value = serde_json::from_slice(&bytes)
                .map_err(|source| OutputError::Settings { path: record.clone(), source })?;
            let differing = differing(&before, settings);
            if !differing.is_empty() && !redo {
                return Err(OutputError::OtherSettings { folder: folder.to_owned(), differing });
            }
        } else if let Some(found) = first_entry(folder)? {
            return Err(OutputError::NotProposals { folder: folder.to_owned(), found });
        }
        fs::create_dir_all(folder).map_err(write_error(folder))?;
        let (inside, whole) = (folder.canonicalize(), images.canonicalize());
        if let (Ok(inside), Ok(whole)) = (inside, whole)
            && inside.starts_with(whole)
        {
            // Only an empty folder is removed.
            let _ = fs::remove_dir(folder);
            return Err(OutputError::Inside(folder.to_owned()));
        }
        for name in [IMAGES, MASKS] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(write_error(&path))?;
        }
        let path = folder.join(JOURNAL);
        let written = read_journal(&path)?;
        let journal = OpenOptions::new().create(true).append(true).open(&path).map_err(write_error(&path))?;
        let output = OutputFolder { folder: folder.to_owned(), files, written, journal: Mutex::new(journal) };
        if redo {
            output.remove_proposals()?;
        }
        let text = serde_json::to_string_pretty(settings).unwrap_or_default() + "\n";
        replace(&record, text.as_bytes()).map_err(write_error(&record))?;
        let path = folder.join("classes.txt");
        replace(&path, lines.as_bytes()).map_err(write_error(&path))?;
        Ok(output)
    }

    /// Removes all masks that are as they were written, so that they are made again, also if that is interrupted.
    fn remove_proposals(&self) -> Result<(), OutputError> {
        for name in self.written.keys() {
            let path = self.folder.join(MASKS).join(name);
            if self.state_of(name)? == MaskState::Proposal {
                fs::remove_file(&path).map_err(write_error(path))?;
            }
        }
        Ok(())
    }

    /// The path of the mask of an image.
    pub fn mask_path(&self, image: &BareImage) -> PathBuf {
        self.folder.join(MASKS).join(mask_name(image))
    }

    /// The path of the image in the folder. Images that are rotated by their EXIF data are stored upright, as PNG.
    pub fn image_path(&self, image: &BareImage) -> PathBuf {
        let images = self.folder.join(IMAGES);
        if image.is_rotated() { images.join(mask_name(image)) } else { images.join(&image.name) }
    }

    /// What exists for an image.
    ///
    /// # Errors
    /// The mask cannot be read.
    pub fn state(&self, image: &BareImage) -> Result<MaskState, OutputError> {
        self.state_of(&mask_name(image))
    }

    fn state_of(&self, name: &str) -> Result<MaskState, OutputError> {
        let path = self.folder.join(MASKS).join(name);
        match fs::read(&path) {
            Ok(bytes) => {
                let hash = hex(&Sha256::digest(bytes));
                let ours = self.written.get(name).is_some_and(|hashes| hashes.contains(&hash));
                Ok(if ours { MaskState::Proposal } else { MaskState::Changed })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(MaskState::Missing),
            Err(source) => Err(OutputError::Read { path, source }),
        }
    }

    /// Whether the image in the folder is another one than `image`, by its size in bytes.
    pub fn holds_another(&self, image: &BareImage) -> bool {
        let length = |path: &Path| fs::metadata(path).map(|facts| facts.len()).ok();
        let stored = length(&self.image_path(image));
        !image.is_rotated() && stored.is_some() && stored != length(&image.path)
    }

    /// Writes the image, then its mask `[height, width]`. A mask that exists has its image.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, image: &BareImage, pixels: &Rgb8, mask: &[u8]) -> Result<(), OutputError> {
        let (width, height) = (pixels.width as u32, pixels.height as u32);
        let encode = |data: &[u8], color, path: &Path| {
            encode_png(data, width, height, color).map_err(|source| OutputError::Png { path: path.to_owned(), source })
        };
        let to = self.image_path(image);
        create_parent(&to).map_err(write_error(to.clone()))?;
        if image.is_rotated() {
            let png = encode(&pixels.rgb, png::ColorType::Rgb, &to)?;
            replace(&to, &png).map_err(write_error(to.clone()))?;
        } else {
            self.put_image(&image.path, &to).map_err(write_error(to.clone()))?;
        }
        let path = self.mask_path(image);
        let png = encode(mask, png::ColorType::Grayscale, &path)?;
        create_parent(&path).map_err(write_error(path.clone()))?;
        // The hash is recorded first: a mask without a record counts as made by people.
        let line = format!("{}  {MASKS}/{}\n", hex(&Sha256::digest(&png)), mask_name(image));
        let journal = self.folder.join(JOURNAL);
        let mut file = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(write_error(journal))?;
        drop(file);
        replace(&path, &png).map_err(write_error(path))
    }

    fn put_image(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.files == ImageFiles::Copy {
            return replace(to, &fs::read(from)?);
        }
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match self.files {
            ImageFiles::Symlink => std::os::unix::fs::symlink(fs::canonicalize(from)?, to),
            _ => fs::hard_link(fs::canonicalize(from)?, to),
        }
    }
}

/// The path of the mask of an image below the folder of masks.
fn mask_name(image: &BareImage) -> String {
    format!("{}.png", image.stem())
}

fn write_error(path: PathBuf) -> impl FnOnce(io::Error) -> OutputError {
    |source| OutputError::Write { path, source }
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path, 0o666)?;
    file.write_all(bytes)?;
    file.commit()
}

/// The name of an entry of a folder; `None` if it is empty or does not exist.
fn first_entry(folder: &Path) -> Result<Option<String>, OutputError> {
    let error = |source| OutputError::Read { path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            Some(entry) => Ok(Some(entry.map_err(error)?.file_name().to_string_lossy().into_owned())),
            None => Ok(None),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error(source)),
    }
}

/// The keys whose values differ.
fn differing(before: &Value, now: &Value) -> Vec<String> {
    let (Some(before), Some(now)) = (before.as_object(), now.as_object()) else { return vec![SETTINGS.into()] };
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != now.get(*key)).cloned().collect()
}

/// The hashes of a journal by the name of the mask. A line that was cut off by a crash is not used.
fn read_journal(path: &Path) -> Result<HashMap<String, HashSet<String>>, OutputError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(source) => return Err(OutputError::Read { path: path.to_owned(), source }),
    };
    let mut written: HashMap<String, HashSet<String>> = HashMap::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        if let Some((hash, file)) = line.split_once("  ")
            && let Some(name) = file.strip_prefix(MASKS).and_then(|name| name.strip_prefix('/'))
        {
            written.entry(name.to_owned()).or_default().insert(hash.to_owned());
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;
    use serde_json::json;

    use super::*;

    fn classes() -> Vec<Label> {
        ["sky", "road"].map(|name| Label::new(name, Rgb(1, 2, 3))).into()
    }

    fn open(folder: &Path, settings: &Value, redo: bool) -> Result<OutputFolder, OutputError> {
        OutputFolder::open(folder, Path::new("elsewhere"), &classes(), settings, ImageFiles::Copy, redo)
    }

    /// An image in `folder` whose mask is all `class`.
    fn image(folder: &Path) -> (BareImage, Rgb8) {
        let path = folder.join("a.png");
        let pixels = Rgb8 { width: 2, height: 1, rgb: vec![9; 6] };
        fs::write(&path, encode_png(&pixels.rgb, 2, 1, png::ColorType::Rgb).unwrap()).unwrap();
        (BareImage { name: "a.png".into(), path }, pixels)
    }

    #[test]
    fn only_unchanged_masks_are_made_again() {
        let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (folder, settings) = (dir.path().join("out"), json!({ "agree": 0.7 }));
        let (image, pixels) = image(source.path());
        let output = open(&folder, &settings, false).unwrap();
        assert_eq!(output.state(&image).unwrap(), MaskState::Missing);
        output.write(&image, &pixels, &[0, 1]).unwrap();
        let state = |redo| open(&folder, &settings, redo).unwrap().state(&image).unwrap();
        assert_eq!(state(false), MaskState::Proposal);
        assert_eq!(state(true), MaskState::Missing, "removed to be made again");
        output.write(&image, &pixels, &[1, 1]).unwrap();
        // A person corrects the mask.
        fs::write(output.mask_path(&image), encode_png(&[0, 0], 2, 1, png::ColorType::Grayscale).unwrap()).unwrap();
        assert_eq!((state(false), state(true)), (MaskState::Changed, MaskState::Changed));
        let sums = std::process::Command::new("sha256sum").args(["-c", JOURNAL]).current_dir(&folder).output().unwrap();
        assert!(!sums.status.success(), "the changed mask is found by sha256sum");
    }

    #[test]
    fn other_settings_and_other_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        open(&folder, &json!({ "agree": 0.7, "flip": true }), false).unwrap();
        let other = json!({ "agree": 0.8, "scales": [1.0], "flip": true });
        match open(&folder, &other, false).unwrap_err() {
            OutputError::OtherSettings { differing, .. } => assert_eq!(differing, ["agree", "scales"]),
            error => panic!("{error}"),
        }
        open(&folder, &other, true).unwrap();
        open(&folder, &other, false).unwrap();

        let human = dir.path().join("human");
        fs::create_dir_all(human.join("masks")).unwrap();
        for redo in [false, true] {
            let error = open(&human, &other, redo).unwrap_err();
            assert!(matches!(&error, OutputError::NotProposals { found, .. } if found == "masks"), "{error}");
        }
        let inside = dir.path().join("inside");
        let opened = OutputFolder::open(&inside, dir.path(), &classes(), &other, ImageFiles::Copy, false);
        assert!(matches!(opened, Err(OutputError::Inside(_))));
        assert!(!inside.exists());
    }

    #[test]
    fn images_are_copied_or_linked() {
        for files in [ImageFiles::Copy, ImageFiles::Hardlink, ImageFiles::Symlink] {
            let dir = tempfile::tempdir().unwrap();
            let (image, pixels) = image(dir.path());
            let folder = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
            let open = || OutputFolder::open(folder.path(), dir.path(), &classes(), &json!({}), files, false).unwrap();
            // Twice: an image that is there is replaced.
            open().write(&image, &pixels, &[0, 1]).unwrap();
            open().write(&image, &pixels, &[0, 1]).unwrap();
            let stored = open().image_path(&image);
            assert_eq!(fs::read(&stored).unwrap(), fs::read(&image.path).unwrap());
            assert_eq!(stored.is_symlink(), files == ImageFiles::Symlink);
            assert!(!open().holds_another(&image));
            fs::write(&image.path, "another image").unwrap();
            assert_eq!(open().holds_another(&image), files == ImageFiles::Copy, "links follow the file");
        }
    }
}
