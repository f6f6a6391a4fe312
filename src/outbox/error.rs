//! What can fail in a queue on the disk.

use std::path::PathBuf;

use crate::base::database_file::{self, DatabaseFileError};

/// Why the file of a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It, its folder or its lock cannot be used, or it was removed or replaced.
    #[error(transparent)]
    File(DatabaseFileError),
    /// Another process writes it.
    #[error(
        "{}: another process uses it; each service needs its own state directory (STATE_DIRECTORY), or its own \
         mqtt.queue_dir for the queue of MQTT",
        path.display()
    )]
    InUse { path: PathBuf },
    /// It cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    /// It was written by a newer version of Maskcast.
    #[error("{}: has the version {version}, which this version of Maskcast does not know", path.display())]
    Version { path: PathBuf, version: i64 },
}

impl QueueError {
    /// Whether the content of the file is damaged: a retry does not help, a new file does.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, QueueError::Database { source, .. } if database_file::is_damage(source))
    }
}

impl From<DatabaseFileError> for QueueError {
    fn from(error: DatabaseFileError) -> Self {
        match error {
            DatabaseFileError::InUse { path } => QueueError::InUse { path },
            other => QueueError::File(other),
        }
    }
}
