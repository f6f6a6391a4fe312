//! What can fail in a queue on the disk.

use std::path::PathBuf;

/// Why the file of a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its folder cannot be created.
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    /// It cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    /// It was written by a newer version of Maskcast.
    #[error("{}: has the version {version}, which this version of Maskcast does not know", path.display())]
    Version { path: PathBuf, version: i64 },
}
