//! The files of a collection: their paths, and how they are read and replaced.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::CollectionError;
use super::record::{FrameId, FrameRecord};
use crate::base::atomic_file::AtomicFile;

/// Folders of the layout.
const IMAGES: &str = "JPEGImages";
const LABELS: &str = "SegmentationClass";
const PROPOSALS: &str = "Proposals";
const LISTS: &str = "ImageSets/Segmentation";
const FRAMES: &str = "Frames";
/// The permissions of files before the umask: others get none, as the pictures show what a camera sees.
const MODE: u32 = 0o640;
/// The end of the name of the file that marks a frame whose files are being written.
const UNFINISHED: &str = ".unfinished";

/// A picture of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    Image,
    Label,
    Proposal,
}

impl Picture {
    pub(super) const ALL: [Picture; 3] = [Picture::Image, Picture::Label, Picture::Proposal];
}

/// A file or folder that does not belong to the collection or is damaged: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    pub path: PathBuf,
    /// As a sentence.
    pub problem: String,
}

/// The content of `Frames/ID.json`.
#[derive(Clone, Serialize, Deserialize)]
struct FrameFile {
    #[serde(flatten)]
    record: FrameRecord,
    /// The small image with which other frames are compared, in Base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    thumbnail: String,
}

/// A frame with what is not part of its record.
#[derive(Clone, Debug)]
pub(super) struct StoredFrame {
    pub record: FrameRecord,
    /// See [`super::record`]; empty for a frame of another version.
    pub thumbnail: Vec<u8>,
    /// The size of all of its files.
    pub bytes: u64,
}

/// The folder of a collection.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub folder: PathBuf,
}

impl Files {
    pub fn picture(&self, id: &FrameId, picture: Picture) -> PathBuf {
        let (folder, ending) = match picture {
            Picture::Image => (IMAGES, "jpg"),
            Picture::Label => (LABELS, "png"),
            Picture::Proposal => (PROPOSALS, "png"),
        };
        self.folder.join(folder).join(format!("{id}.{ending}"))
    }

    pub fn record(&self, id: &FrameId) -> PathBuf {
        self.folder.join(FRAMES).join(format!("{id}.json"))
    }

    fn unfinished(&self, id: &FrameId) -> PathBuf {
        self.folder.join(FRAMES).join(format!("{id}{UNFINISHED}"))
    }

    pub fn list(&self, name: &str) -> PathBuf {
        self.folder.join(LISTS).join(format!("{name}.txt"))
    }

    pub fn class_file(&self) -> PathBuf {
        self.folder.join("labelmap.txt")
    }

    /// Creates the folders that are missing.
    ///
    /// # Errors
    /// The folder has other content, or a folder cannot be created.
    pub fn create(&self) -> Result<(), CollectionError> {
        if !self.folder.join(FRAMES).is_dir()
            && let Some(found) = first_entry(&self.folder).map_err(CollectionError::file(&self.folder))?
        {
            return Err(CollectionError::Foreign { path: self.folder.clone(), found });
        }
        // `Frames` is first: a folder in which only it was created before the process was killed is a collection.
        for name in [FRAMES, IMAGES, LABELS, PROPOSALS, LISTS] {
            let folder = self.folder.join(name);
            fs::create_dir_all(&folder).map_err(CollectionError::file(&folder))?;
        }
        Ok(())
    }

    /// Writes all files of a new frame. The frame exists as soon as its record does; what a process leaves that is killed before is
    /// deleted by [`Files::read`].
    ///
    /// # Errors
    /// A file cannot be written; those that were written are deleted.
    pub fn add(&self, frame: &StoredFrame, pictures: [&[u8]; 3]) -> Result<(), CollectionError> {
        let id = &frame.record.id;
        let unfinished = self.unfinished(id);
        let written = fs::write(&unfinished, "").map_err(CollectionError::file(&unfinished)).and_then(|()| {
            for (picture, bytes) in Picture::ALL.into_iter().zip(pictures) {
                replace(&self.picture(id, picture), bytes)?;
            }
            self.write_record(frame)
        });
        if written.is_err() {
            self.remove(id);
        } else {
            remove_if_there(&unfinished);
        }
        written
    }

    /// Writes the record of a frame.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_record(&self, frame: &StoredFrame) -> Result<(), CollectionError> {
        let path = self.record(&frame.record.id);
        let file = FrameFile { record: frame.record.clone(), thumbnail: STANDARD.encode(&frame.thumbnail) };
        let text = serde_json::to_string(&file)
            .map_err(|error| CollectionError::Encode { path: path.clone(), reason: error.to_string() })?;
        replace(&path, format!("{text}\n").as_bytes())
    }

    /// Deletes the pictures of a frame, as far as possible.
    pub fn remove_pictures(&self, id: &FrameId) {
        Picture::ALL.into_iter().for_each(|picture| remove_if_there(&self.picture(id, picture)));
    }

    /// Deletes all files of a frame, as far as possible: first its record, so that no record without pictures is left.
    pub fn remove(&self, id: &FrameId) {
        remove_if_there(&self.record(id));
        self.remove_pictures(id);
        remove_if_there(&self.unfinished(id));
    }

    /// Writes a list of frames.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_list<'a>(&self, name: &str, ids: impl Iterator<Item = &'a FrameId>) -> Result<(), CollectionError> {
        let text: String = ids.map(|id| format!("{id}\n")).collect();
        let path = self.list(name);
        if fs::read(&path).is_ok_and(|current| current == text.as_bytes()) {
            return Ok(());
        }
        replace(&path, text.as_bytes())
    }

    /// The size of the files of a frame in bytes.
    pub fn size(&self, id: &FrameId) -> u64 {
        let pictures = Picture::ALL.into_iter().map(|picture| self.picture(id, picture));
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        pictures.chain([self.record(id)]).map(size).sum()
    }

    /// Reads all records, and deletes what was left by a process that was killed while it wrote.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn read(&self) -> Result<(BTreeMap<FrameId, StoredFrame>, Vec<FileProblem>), CollectionError> {
        let folder = self.folder.join(FRAMES);
        let (mut frames, mut problems) = (BTreeMap::new(), Vec::new());
        for name in names(&folder)? {
            let path = folder.join(&name);
            if let Some(id) = name.strip_suffix(UNFINISHED).and_then(|id| id.parse::<FrameId>().ok()) {
                // With a record, only the mark was left.
                if self.record(&id).is_file() {
                    remove_if_there(&path)
                } else {
                    self.remove(&id)
                }
                continue;
            }
            if is_temporary(&name) {
                remove_if_there(&path);
                continue;
            }
            let Some(id) = name.strip_suffix(".json").and_then(|id| id.parse::<FrameId>().ok()) else {
                problems.push(foreign(path));
                continue;
            };
            match self.read_frame(&id) {
                Ok(frame) => drop(frames.insert(id, frame)),
                Err(problem) => problems.push(FileProblem { path, problem }),
            }
        }
        for picture in Picture::ALL {
            self.check_pictures(picture, &mut frames, &mut problems)?;
        }
        Ok((frames, problems))
    }

    fn read_frame(&self, id: &FrameId) -> Result<StoredFrame, String> {
        let help = "restore the file, or delete it and the pictures of the frame";
        let text = fs::read(self.record(id)).map_err(|error| format!("cannot be read: {error}"))?;
        let file: FrameFile =
            serde_json::from_slice(&text).map_err(|error| format!("not the record of a frame: {error}; {help}"))?;
        if file.record.id != *id {
            return Err(format!("the record is that of the frame {}; rename the file, or delete it", file.record.id));
        }
        let thumbnail = STANDARD.decode(&file.thumbnail).unwrap_or_default();
        Ok(StoredFrame { thumbnail, bytes: self.size(id), record: file.record })
    }

    /// Reports pictures without a record, and takes frames whose pictures are missing out of `frames`. Pictures of discarded frames,
    /// which a killed process has left, are deleted.
    fn check_pictures(
        &self,
        picture: Picture,
        frames: &mut BTreeMap<FrameId, StoredFrame>,
        problems: &mut Vec<FileProblem>,
    ) -> Result<(), CollectionError> {
        for id in frames.keys().cloned().collect::<Vec<_>>() {
            let path = self.picture(&id, picture);
            if frames[&id].record.has_pictures() && !path.is_file() {
                let problem = "the file of a collected frame is missing, so the frame is left out; restore it, or delete the other files of the frame";
                problems.push(FileProblem { path, problem: problem.into() });
                frames.remove(&id);
            }
        }
        let sample = FrameId::new(jiff::Timestamp::UNIX_EPOCH, 1);
        let path = self.picture(&sample, picture);
        let (folder, ending) = (crate::base::atomic_file::folder_of(&path), path.extension().unwrap_or_default());
        for name in names(folder)? {
            let path = folder.join(&name);
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let id = stem.parse::<FrameId>().ok().filter(|_| path.extension() == Some(ending));
            let record = id.as_ref().and_then(|id| frames.get(id)).map(|frame| &frame.record);
            match record {
                Some(record) if record.has_pictures() => {}
                Some(_) => remove_if_there(&path),
                None if is_temporary(&name) => remove_if_there(&path),
                // Its record is damaged or its other picture is missing, which is reported above.
                None if id.is_some_and(|id| self.record(&id).is_file()) => {}
                None => problems.push(foreign(path)),
            }
        }
        Ok(())
    }
}

fn foreign(path: PathBuf) -> FileProblem {
    let problem = "does not belong to a frame of the collection; move the file away";
    FileProblem { path, problem: problem.into() }
}

/// A temporary file of [`AtomicFile`].
fn is_temporary(name: &str) -> bool {
    name.starts_with(".maskcast-") && name.ends_with(".part")
}

fn names(folder: &Path) -> Result<Vec<String>, CollectionError> {
    let entries = fs::read_dir(folder).map_err(CollectionError::file(folder))?;
    let names: io::Result<Vec<String>> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(CollectionError::file(folder))?;
    names.sort();
    Ok(names)
}

/// The first entry of a folder that has some; `None` as well for a folder that does not exist.
fn first_entry(folder: &Path) -> io::Result<Option<String>> {
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            entries.next().transpose().map(|entry| Some(entry?.file_name().to_string_lossy().into_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file in one step.
///
/// # Errors
/// The file cannot be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CollectionError> {
    let write = || {
        let mut file = AtomicFile::create(path, MODE)?;
        file.write_all(bytes)?;
        file.commit()
    };
    write().map_err(CollectionError::file(path))
}

fn remove_if_there(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot delete {}: {error}", path.display());
        }
        _ => {}
    }
}
