//! Who writes a recording holds a lock on its file (`flock`), so that another Maskcast which has been given the same folder
//! neither removes nor mends it. The lock goes with the process that held it.
//!
//! Where a file system knows no locks, nothing is in use.

use std::fs::{File, TryLockError};
use std::path::Path;

/// Locks the file at `path`, for as long as what is given lives; `None` when somebody else has, or when it cannot be opened.
pub(super) fn claim(path: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    (!matches!(file.try_lock(), Err(TryLockError::WouldBlock))).then_some(file)
}

/// Whether somebody writes the file at `path`, or mends it.
pub(super) fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
