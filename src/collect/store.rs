//! Reads and writes the collection of one stream.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::class_map::ClassMap;
use super::error::{CollectionError, SaveError};
use super::files::{self, Files, StoredFrame};
use super::label_png;
use super::record::{CollectedModel, FrameId, FrameRecord, FrameState, Reason};
use crate::frame::{ClassId, Label, Labels};

pub use super::class_map::{VOID, VOID_COLOR};
pub use super::files::{FileProblem, Picture};

/// How long the record of a discarded frame is kept.
const KEEP_DISCARDED: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Frames that are captured in the same millisecond.
const MOST_OF_A_MILLISECOND: u32 = 999;

/// The frames that one stream has collected. It may be used by several threads; another process must not write to the folder at the
/// same time.
#[derive(Debug)]
pub struct Collection {
    files: Files,
    content: Mutex<Content>,
    /// Kept apart, so that readers of metrics do not wait for the disk.
    size: Mutex<CollectionSize>,
}

#[derive(Debug)]
struct Content {
    frames: BTreeMap<FrameId, StoredFrame>,
    classes: ClassMap,
    problems: Vec<FileProblem>,
}

/// A frame to be added.
pub struct NewFrame<'a> {
    pub stream: &'a str,
    pub captured: Timestamp,
    pub model: CollectedModel,
    pub reason: Reason,
    /// See [`FrameRecord::uncertainty`].
    pub uncertainty: f32,
    /// See [`FrameRecord::novelty`].
    pub novelty: f32,
    /// See [`FrameRecord::confidence`].
    pub confidence: Option<f32>,
    /// Width of image and mask.
    pub width: u32,
    /// Height of image and mask.
    pub height: u32,
    /// See [`FrameRecord::hash`].
    pub hash: String,
    /// A small image with which other frames are compared.
    pub thumbnail: Vec<u8>,
    /// The image as a JPEG file.
    pub jpeg: &'a [u8],
    /// The mask of the model, `[height × width]`.
    pub mask: &'a [ClassId],
    /// The classes of `mask`.
    pub labels: &'a [Label],
}

/// The number of frames of a collection in each state, and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionSize {
    /// State [`FrameState::New`].
    pub new: usize,
    /// State [`FrameState::Later`].
    pub later: usize,
    /// State [`FrameState::Accepted`].
    pub accepted: usize,
    /// State [`FrameState::Discarded`], not counting those that were deleted for space.
    pub discarded: usize,
    /// The size of all files in bytes.
    pub bytes: u64,
}

impl CollectionSize {
    /// Frames that await review.
    pub fn waiting(&self) -> usize {
        self.new + self.later
    }
}

impl Collection {
    /// Opens the collection in `folder`, which is created if it does not exist. Files that a killed process has left incomplete are
    /// deleted; damaged and foreign files are left alone and reported by [`Collection::problems`].
    ///
    /// # Errors
    /// The folder has other content, cannot be read or written, or its class file is damaged.
    pub fn open(folder: &Path) -> Result<Self, CollectionError> {
        let files = Files { folder: folder.to_path_buf() };
        files.create()?;
        let (frames, problems) = files.read()?;
        let classes = read_classes(&files, frames.values().any(|frame| frame.record.has_pictures()))?;
        let collection =
            Collection { files, content: Mutex::new(Content { frames, classes, problems }), size: Mutex::default() };
        collection.forget_old(Timestamp::now());
        let content = collection.content.lock();
        collection.files.write_lists(&content.frames)?;
        collection.measure(&content);
        drop(content);
        Ok(collection)
    }

    /// The folder of the collection.
    pub fn folder(&self) -> &Path {
        &self.files.folder
    }

    /// What was wrong with the files when the collection was opened.
    pub fn problems(&self) -> Vec<FileProblem> {
        self.content.lock().problems.clone()
    }

    /// The records of all frames, the newest first; also those of discarded frames.
    pub fn frames(&self) -> Vec<FrameRecord> {
        self.content.lock().frames.values().rev().map(|frame| frame.record.clone()).collect()
    }

    /// The record of a frame.
    ///
    /// # Errors
    /// The collection has no such frame.
    pub fn frame(&self, id: &FrameId) -> Result<FrameRecord, CollectionError> {
        self.content.lock().frames.get(id).map(|frame| frame.record.clone()).ok_or_else(|| self.unknown(id))
    }

    /// Names and colours of the classes by their index in labels.
    pub fn classes(&self) -> Labels {
        self.content.lock().classes.labels()
    }

    /// Frames by state, and the size of the collection. Does not wait for the disk.
    pub fn size(&self) -> CollectionSize {
        *self.size.lock()
    }

    fn measure(&self, content: &Content) {
        let mut size = CollectionSize::default();
        for frame in content.frames.values() {
            size.bytes += frame.bytes;
            match frame.record.state {
                FrameState::New => size.new += 1,
                FrameState::Later => size.later += 1,
                FrameState::Accepted => size.accepted += 1,
                FrameState::Discarded if frame.record.evicted => {}
                FrameState::Discarded => size.discarded += 1,
            }
        }
        *self.size.lock() = size;
    }

    /// The number of frames that were captured at `since` or later, also those that were discarded since.
    pub fn collected_since(&self, since: Timestamp) -> usize {
        self.content.lock().frames.values().filter(|frame| frame.record.captured >= since).count()
    }

    /// The records with their small images, the oldest first.
    pub fn thumbnails(&self) -> Vec<(FrameRecord, Vec<u8>)> {
        let content = self.content.lock();
        content.frames.values().map(|frame| (frame.record.clone(), frame.thumbnail.clone())).collect()
    }

    /// The bytes of a picture of a frame: a JPEG file, or a palette PNG.
    ///
    /// # Errors
    /// The collection has no such frame, it was discarded, or the file cannot be read.
    pub fn picture(&self, id: &FrameId, picture: Picture) -> Result<Vec<u8>, CollectionError> {
        if !self.frame(id)?.has_pictures() {
            return Err(CollectionError::Discarded { id: id.clone() });
        }
        let path = self.files.picture(id, picture);
        fs::read(&path).map_err(CollectionError::file(&path))
    }

    /// The image of a frame, a JPEG file.
    ///
    /// # Errors
    /// As [`Collection::picture`].
    pub fn image(&self, id: &FrameId) -> Result<Vec<u8>, CollectionError> {
        self.picture(id, Picture::Image)
    }

    /// The label of a frame and the revision that it has: a palette PNG, index = class, 255 = void.
    ///
    /// # Errors
    /// As [`Collection::picture`].
    pub fn label(&self, id: &FrameId) -> Result<(Vec<u8>, u64), CollectionError> {
        // The label and its revision are changed under the lock.
        let content = self.content.lock();
        let record = &content.frames.get(id).ok_or_else(|| self.unknown(id))?.record;
        if !record.has_pictures() {
            return Err(CollectionError::Discarded { id: id.clone() });
        }
        let path = self.files.picture(id, Picture::Label);
        let bytes = fs::read(&path).map_err(CollectionError::file(&path))?;
        Ok((bytes, record.revision))
    }

    /// The mask of the model when the frame was collected, as [`Collection::label`] has it.
    ///
    /// # Errors
    /// As [`Collection::picture`].
    pub fn proposal(&self, id: &FrameId) -> Result<Vec<u8>, CollectionError> {
        self.picture(id, Picture::Proposal)
    }

    /// Adds a frame. Classes of its mask that the collection does not have are appended to its class file.
    ///
    /// # Errors
    /// A file cannot be written; nothing of the frame is left then.
    ///
    /// # Panics
    /// `mask` does not have `width × height` pixels.
    pub fn add(&self, frame: &NewFrame<'_>) -> Result<FrameRecord, CollectionError> {
        assert_eq!(frame.mask.len(), frame.width as usize * frame.height as usize, "one class for each pixel");
        let mut content = self.content.lock();
        let class_file = self.files.class_file();
        let mut classes = content.classes.clone();
        let indices =
            classes.add(frame.labels).ok_or_else(|| CollectionError::TooManyClasses { path: class_file.clone() })?;
        if classes != content.classes || !class_file.is_file() {
            files::replace(&class_file, classes.text().as_bytes())?;
            content.classes = classes;
        }
        let label: Vec<u8> = frame.mask.iter().map(|&class| indices[usize::from(class)]).collect();
        let mut ids = (1..=MOST_OF_A_MILLISECOND).map(|number| FrameId::new(frame.captured, number));
        let Some(id) = ids.find(|id| !content.frames.contains_key(id)) else {
            unreachable!("999 frames in a millisecond")
        };
        let png =
            label_png::encode(&label, frame.width, frame.height, &content.classes.palette()).map_err(|error| {
                CollectionError::Encode { path: self.files.picture(&id, Picture::Label), reason: error.to_string() }
            })?;
        let record = FrameRecord {
            id: id.clone(),
            stream: frame.stream.to_owned(),
            captured: frame.captured,
            model: frame.model.clone(),
            reason: frame.reason,
            uncertainty: frame.uncertainty,
            novelty: frame.novelty,
            confidence: frame.confidence,
            width: frame.width,
            height: frame.height,
            hash: frame.hash.clone(),
            state: FrameState::New,
            revision: 0,
            changed: Timestamp::now(),
            evicted: false,
        };
        let mut stored = StoredFrame { record: record.clone(), thumbnail: frame.thumbnail.clone(), bytes: 0 };
        self.files.add(&stored, [frame.jpeg, &png, &png])?;
        stored.bytes = self.files.size(&id);
        content.frames.insert(id.clone(), stored);
        if let Err(error) = self.files.write_lists(&content.frames) {
            // A frame that no list has would be used by the trainer without a review.
            content.frames.remove(&id);
            self.files.remove(&id);
            return Err(error);
        }
        self.measure(&content);
        Ok(record)
    }

    /// Saves a label that a person has drawn: a PNG of the size of the image, 8-bit greyscale or palette, index = class, 255 = void.
    /// It is stored as a palette PNG; its palette is ignored. The revision of the frame is one more after it.
    ///
    /// # Errors
    /// The revision of the frame is not `expected_revision`; the PNG is not a label of the frame; the frame is unknown or discarded;
    /// a file cannot be written. The label is the one before then.
    pub fn save_label(&self, id: &FrameId, png: &[u8], expected_revision: u64) -> Result<FrameRecord, SaveError> {
        let mut content = self.content.lock();
        let mut frame = self.frame_to_change(&content, id, expected_revision)?;
        let FrameRecord { width, height, .. } = frame.record;
        let label = label_png::decode(png, width, height, content.classes.len())?;
        let path = self.files.picture(id, Picture::Label);
        let encoded = label_png::encode(&label, width, height, &content.classes.palette())
            .map_err(|error| CollectionError::Encode { path: path.clone(), reason: error.to_string() })?;
        // First the label: after a crash in between, it has the revision before, with which the client saves it again.
        files::replace(&path, &encoded)?;
        (frame.record.revision, frame.record.changed) = (expected_revision + 1, Timestamp::now());
        self.change(&mut content, frame)
    }

    /// Sets what a person has decided about a frame. Pictures of a discarded frame are deleted. The revision stays, as the label
    /// does.
    ///
    /// # Errors
    /// As [`Collection::save_label`].
    pub fn set_state(&self, id: &FrameId, state: FrameState, expected_revision: u64) -> Result<FrameRecord, SaveError> {
        let mut content = self.content.lock();
        let mut frame = self.frame_to_change(&content, id, expected_revision)?;
        (frame.record.state, frame.record.changed) = (state, Timestamp::now());
        self.change(&mut content, frame)
    }

    /// Deletes the pictures of a frame for space. Its record is kept for a while, as that of a discarded frame. False: a person has
    /// accepted it or saved its label, it was discarded, or there is no such frame.
    ///
    /// # Errors
    /// Its record cannot be written.
    pub fn evict(&self, id: &FrameId) -> Result<bool, CollectionError> {
        let mut content = self.content.lock();
        let Some(frame) = content.frames.get(id) else { return Ok(false) };
        if frame.record.is_kept() || !frame.record.has_pictures() {
            return Ok(false);
        }
        let mut frame = frame.clone();
        (frame.record.state, frame.record.evicted) = (FrameState::Discarded, true);
        frame.record.changed = Timestamp::now();
        match self.change(&mut content, frame) {
            Ok(_) => Ok(true),
            // A full disk has no room for the new record: the frame is deleted as a whole.
            Err(SaveError::Collection(error)) if error.is_full_disk() => {
                content.frames.remove(id);
                self.files.remove(id);
                self.measure(&content);
                Ok(true)
            }
            Err(SaveError::Collection(error)) => Err(error),
            Err(SaveError::Conflict { .. } | SaveError::Label(_)) => Ok(false),
        }
    }

    /// Deletes the records of frames that were discarded more than 30 days before `now`.
    pub fn forget_old(&self, now: Timestamp) {
        let mut content = self.content.lock();
        content.frames.retain(|id, frame| {
            let is_old = !frame.record.has_pictures() && now.duration_since(frame.record.changed) > KEEP_DISCARDED;
            if is_old {
                self.files.remove(id);
            }
            !is_old
        });
        self.measure(&content);
    }

    fn unknown(&self, id: &FrameId) -> CollectionError {
        CollectionError::Unknown { folder: self.files.folder.clone(), id: id.to_string() }
    }

    fn frame_to_change(&self, content: &Content, id: &FrameId, expected: u64) -> Result<StoredFrame, SaveError> {
        let frame = content.frames.get(id).ok_or_else(|| self.unknown(id))?;
        if !frame.record.has_pictures() {
            return Err(CollectionError::Discarded { id: id.clone() }.into());
        }
        if frame.record.revision != expected {
            return Err(SaveError::Conflict { current: Box::new(frame.record.clone()) });
        }
        Ok(frame.clone())
    }

    /// Writes the changed record of a frame, then the lists, and deletes the pictures of a discarded frame.
    fn change(&self, content: &mut Content, mut frame: StoredFrame) -> Result<FrameRecord, SaveError> {
        self.files.write_record(&frame)?;
        let (id, record) = (frame.record.id.clone(), frame.record.clone());
        // The lists are written before pictures are deleted, so that they never name an image that is gone.
        let before = content.frames.insert(id.clone(), frame.clone());
        let written = self.files.write_lists(&content.frames);
        if let (Err(error), Some(before)) = (written, before) {
            // As it was before, also for the next start; if that fails as well, the next start writes the lists.
            if let Err(again) = self.files.write_record(&before) {
                tracing::warn!("{again}");
            }
            content.frames.insert(id, before);
            return Err(error.into());
        }
        if !record.has_pictures() {
            self.files.remove_pictures(&id);
        }
        frame.bytes = self.files.size(&id);
        content.frames.insert(id, frame);
        self.measure(content);
        Ok(record)
    }
}

impl Files {
    /// Writes the lists of the trainer.
    fn write_lists(&self, frames: &BTreeMap<FrameId, StoredFrame>) -> Result<(), CollectionError> {
        let of = |states: &'static [FrameState]| {
            frames.values().map(|frame| &frame.record).filter(|record| states.contains(&record.state)).map(|r| &r.id)
        };
        self.write_list("accepted", of(&[FrameState::Accepted]))?;
        self.write_list("proposed", of(&[FrameState::New, FrameState::Later]))
    }
}

/// Reads the class file. `has_frames`: it must exist.
fn read_classes(files: &Files, has_frames: bool) -> Result<ClassMap, CollectionError> {
    let path: PathBuf = files.class_file();
    match fs::read_to_string(&path) {
        Ok(text) => ClassMap::parse(&text).map_err(|problem| CollectionError::Classes { path, problem }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !has_frames => Ok(ClassMap::default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(CollectionError::Classes { path, problem: "is missing, but the collection has frames".into() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(CollectionError::Classes { path, problem: "is not UTF-8 text".into() })
        }
        Err(error) => Err(CollectionError::file(&path)(error)),
    }
}

#[cfg(test)]
mod tests;
