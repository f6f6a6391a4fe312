//! Locks on recordings (`flock`): who writes or repairs a recording holds a lock on its file, so that another Maskcast
//! that records to the same folder neither removes nor repairs it. The system releases the lock when the process ends.
//!
//! On a file system without locks, no file counts as locked.

use std::fs::{File, TryLockError};
use std::path::Path;

/// Locks the file at `path` until the returned file is dropped; `None` when another process holds the lock, or when the
/// file cannot be opened.
pub(super) fn try_lock(path: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    (!matches!(file.try_lock(), Err(TryLockError::WouldBlock))).then_some(file)
}

/// Whether the file at `path` is being written or repaired.
pub(super) fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
