//! Why a recording could not be written.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use crate::gst::GstError;

/// A failure to write a recording. Displayed as `PATH: REASON`, on one line.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", .path.display())]
pub struct RecordingError {
    /// The file, or the folder of the recordings.
    pub path: PathBuf,
    #[source]
    pub kind: RecordingErrorKind,
}

/// The reason of a [`RecordingError`].
#[derive(Debug, thiserror::Error)]
pub enum RecordingErrorKind {
    /// The folder or the file cannot be created or read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The pipeline that writes the file failed.
    #[error(transparent)]
    Gst(#[from] GstError),
    /// The recorder was stopped, and the disk did not accept the queued frames in time.
    #[error("the disk did not accept the last frames in time")]
    Stalled,
    /// Less than `min_free` is left although no recording of the stream can be removed; both in bytes.
    #[error(
        "{} is free, less than min_free ({}), and no older recording is left to remove",
        si(.free),
        si(.min_free)
    )]
    BelowMinFree { free: u64, min_free: u64 },
    /// The thread of the recorder could not be started.
    #[error("cannot start a thread for the recording: {0}")]
    Thread(#[source] std::io::Error),
    /// The recorder panicked; holds the text of the panic.
    #[error("the recorder panicked: {0}")]
    Panicked(String),
}

fn si(bytes: &u64) -> String {
    ByteSize::b(*bytes).display().si().to_string()
}

impl RecordingError {
    pub(super) fn new(path: &Path, kind: impl Into<RecordingErrorKind>) -> Self {
        RecordingError { path: path.to_owned(), kind: kind.into() }
    }
}
