//! Errors of a collection.

use std::io;
use std::path::{Path, PathBuf};

use super::record::{FrameId, FrameRecord};

/// Why a collection cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The folder belongs to something else.
    #[error(
        "{}: contains {found}, but no folder Frames, so it is not a collection of frames; name another folder in collect.folder, or move its content away",
        path.display()
    )]
    Foreign { path: PathBuf, found: String },
    /// The class file cannot be used: without it, nobody knows what the labels mean.
    #[error("{}: {problem}; restore the file, or move the folder away to begin a new collection", path.display())]
    Classes { path: PathBuf, problem: String },
    /// The collection has no such frame.
    #[error("the collection {} has no frame {id}", folder.display())]
    Unknown { folder: PathBuf, id: String },
    /// The pictures of the frame were deleted, because somebody discarded it or because the disk limit was reached.
    #[error("the frame {id} was discarded: its image and its label are deleted")]
    Discarded { id: FrameId },
    /// More classes than a PNG of 8 bits can have beside void.
    #[error("{}: the models of the stream had more than 255 different classes together; move the folder away to begin a new collection", path.display())]
    TooManyClasses { path: PathBuf },
    /// A picture cannot be encoded.
    #[error("{}: cannot be encoded: {reason}", path.display())]
    Encode { path: PathBuf, reason: String },
}

impl CollectionError {
    /// Adds the path to an error of the system.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| CollectionError::File { path, source }
    }

    /// Whether the disk is full or the user's quota is used up.
    pub fn is_full_disk(&self) -> bool {
        let CollectionError::File { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Why a label or a state was not saved. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Somebody has saved the frame since the client read it.
    #[error("the frame {} was saved by somebody else since it was read: its revision is {}", current.id, current.revision)]
    Conflict { current: Box<FrameRecord> },
    /// The file is not a label of this frame.
    #[error("not a label of the frame: {0}")]
    Label(#[from] LabelError),
    #[error(transparent)]
    Collection(#[from] CollectionError),
}

/// Why the bytes of a PNG are not a label of a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The message of the decoder.
    #[error("the PNG cannot be read: {0}")]
    Png(String),
    #[error(
        "the PNG has {found}; write 8-bit greyscale or palette, in which the value of a pixel is the index of its class"
    )]
    Format { found: String },
    #[error("the PNG has {} × {} pixels and the image {} × {}; both must have the same size", found.0, found.1, expected.0, expected.1)]
    Size { found: (u32, u32), expected: (u32, u32) },
    #[error("the pixel at column {x}, row {y} has the value {value}, but the collection has the classes 0 to {}, and 255 for void", classes.saturating_sub(1))]
    Class { x: usize, y: usize, value: u8, classes: usize },
}
