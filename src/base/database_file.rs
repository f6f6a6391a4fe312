//! The file of an SQLite database that one process writes: its folder, its lock, its permissions, whether it is still the file
//! at its path, and what is done with a damaged one.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::ErrorCode;

/// The ends of the names of the files of a database; the database itself comes last.
const SUFFIXES: [&str; 3] = ["-wal", "-shm", ""];

/// Comes between the name of a database and the time at which it was found to be damaged.
const DAMAGED: &str = "-damaged-";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseFileError {
    /// It, its folder or its lock cannot be created or read.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Another process has locked it.
    #[error("{}: another process uses it", path.display())]
    InUse { path: PathBuf },
    /// It was removed or replaced while it was open.
    #[error("{}: the file was removed or replaced", path.display())]
    Replaced { path: PathBuf },
}

/// Which folders are created for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewFolders {
    /// Its folder and those above it.
    All,
    /// Its folder, if the one above it exists: for a file that was removed, perhaps with its disk.
    Last,
}

/// A file that this process has locked. SQLite's own locks permit several writers, which would mix their entries. The lock ends
/// with the process, also if it is killed.
#[derive(Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    _lock: File,
}

impl DatabaseFile {
    /// Locks `NAME.lock` beside the file `NAME.sqlite`, and creates what does not exist. Other users of the machine cannot read
    /// new files; SQLite gives those beside the database the same permissions.
    ///
    /// # Errors
    /// Another process has locked it, or something cannot be created.
    pub fn lock(path: &Path, folders: NewFolders) -> Result<Self, DatabaseFileError> {
        if let Some(folder) = path.parent() {
            create_folder(folder, folders)
                .map_err(|source| DatabaseFileError::File { path: folder.to_owned(), source })?;
        }
        let lock = lock(path)?;
        let identity = create(path)?;
        Ok(DatabaseFile { path: path.to_owned(), identity, _lock: lock })
    }

    /// The path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file at the path is still the one that was opened. SQLite continues to write to a file that was removed.
    ///
    /// # Errors
    /// [`DatabaseFileError::Replaced`] if not.
    pub fn check(&self) -> Result<(), DatabaseFileError> {
        match identity(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            _ => Err(DatabaseFileError::Replaced { path: self.path.clone() }),
        }
    }

    /// Renames a damaged database, which must be closed, and creates an empty file. Returns the new path of the damaged one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn move_aside(&mut self) -> Result<PathBuf, DatabaseFileError> {
        let moved =
            move_aside(&self.path).map_err(|source| DatabaseFileError::File { path: self.path.clone(), source })?;
        self.identity = create(&self.path)?;
        Ok(moved)
    }

    /// Deletes the database, which must be closed, the files beside it and the lock.
    pub fn delete(self) {
        // SQLite has removed those beside it, unless they are in use.
        for suffix in SUFFIXES {
            let _ = std::fs::remove_file(with_suffix(&self.path, suffix));
        }
        let _ = std::fs::remove_file(lock_path(&self.path));
    }
}

/// Renames a damaged database `NAME.sqlite`, which must be closed, to `NAME-damaged-TIME.sqlite`, with the files beside it.
/// Returns the new path.
///
/// # Errors
/// The folder cannot be written.
pub fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = (1..).map(|n| match n {
        1 => format!("{stem}{DAMAGED}{time}.sqlite"),
        n => format!("{stem}{DAMAGED}{time}-{n}.sqlite"),
    });
    let moved = name.map(|name| path.with_file_name(name)).find(|path| !path.exists()).unwrap_or_default();
    for suffix in SUFFIXES {
        match std::fs::rename(with_suffix(path, suffix), with_suffix(&moved, suffix)) {
            Err(error) if suffix.is_empty() || error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(moved)
}

/// Deletes the write-ahead log of a database that was removed or replaced, and is closed. SQLite would apply it to the new file.
pub fn remove_log(path: &Path) {
    for suffix in &SUFFIXES[..2] {
        let _ = std::fs::remove_file(with_suffix(path, suffix));
    }
}

/// Whether [`move_aside`] gave a file this name, without folder and `.sqlite`.
pub fn is_moved_aside(stem: &str) -> bool {
    let time = stem.rsplit_once(DAMAGED).map(|(_, time)| time.as_bytes());
    time.is_some_and(|time| time.len() >= 16 && time[8] == b'T' && time[..8].iter().all(u8::is_ascii_digit))
}

/// Whether an error means that the content of the database is damaged: a retry does not help, a new file does.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error.sqlite_error_code() {
        // An error in a statement: the tables are not those of the version that the file claims to have.
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown),
        None => matches!(error, Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..)),
    }
}

fn create_folder(folder: &Path, folders: NewFolders) -> io::Result<()> {
    let is_all = folders == NewFolders::All;
    match DirBuilder::new().recursive(is_all).mode(0o750).create(folder) {
        Err(error) if !is_all && error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // A path without a folder.
        Err(_) if folder.as_os_str().is_empty() => Ok(()),
        created => created,
    }
}

/// Creates the database if it does not exist. Returns device and inode.
fn create(path: &Path) -> Result<(u64, u64), DatabaseFileError> {
    let created = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        opened => {
            if opened.is_ok() {
                remove_log(path);
            }
            identity(path)
        }
    };
    created.map_err(|source| DatabaseFileError::File { path: path.to_owned(), source })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

fn lock(path: &Path) -> Result<File, DatabaseFileError> {
    let lock_path = lock_path(path);
    let failed = |source| DatabaseFileError::File { path: lock_path.clone(), source };
    loop {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DatabaseFileError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The process that had the lock may have deleted the file since it was opened here.
        let locked = file.metadata().map_err(failed)?;
        if identity(&lock_path).is_ok_and(|found| found == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lock_at_a_time_is_given_and_deleted_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/queue.sqlite");
        let missing = DatabaseFile::lock(&path, NewFolders::Last).unwrap_err();
        assert!(matches!(missing, DatabaseFileError::File { .. }), "the folder a does not exist: {missing}");
        let file = DatabaseFile::lock(&path, NewFolders::All).unwrap();
        assert!(matches!(DatabaseFile::lock(&path, NewFolders::Last), Err(DatabaseFileError::InUse { .. })));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!([mode(&path), mode(&lock_path(&path))], [0o600; 2]);
        assert_eq!(mode(path.parent().unwrap()) & 0o027, 0, "the folder is not for other users");
        file.check().unwrap();
        file.delete();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        drop(DatabaseFile::lock(&path, NewFolders::Last).unwrap());
        DatabaseFile::lock(&path, NewFolders::Last).unwrap();
    }

    #[test]
    fn a_file_that_is_removed_or_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.sqlite");
        let file = DatabaseFile::lock(&path, NewFolders::Last).unwrap();
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert!(matches!(file.check(), Err(DatabaseFileError::Replaced { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(file.check(), Err(DatabaseFileError::Replaced { .. })));
        std::fs::rename(folder.path().join("elsewhere"), &path).unwrap();
        file.check().unwrap();
    }

    #[test]
    fn damaged_files_are_moved_with_those_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.sqlite");
        let mut file = DatabaseFile::lock(&path, NewFolders::Last).unwrap();
        std::fs::write(&path, "damaged").unwrap();
        std::fs::write(with_suffix(&path, "-wal"), "log").unwrap();
        let moved = [file.move_aside().unwrap(), file.move_aside().unwrap()];
        file.check().unwrap();
        assert_ne!(moved[0], moved[1]);
        assert_eq!(std::fs::read_to_string(with_suffix(&moved[0], "-wal")).unwrap(), "log");
        assert_eq!([&moved[0], &moved[1], &path].map(|path| std::fs::metadata(path).unwrap().len()), [7, 0, 0]);
        for path in &moved {
            assert!(is_moved_aside(path.file_stem().unwrap().to_str().unwrap()), "{}", path.display());
        }
        assert!(!["queue", "a-damaged-", "a-damaged-parcels-and-letters"].iter().any(|stem| is_moved_aside(stem)));
    }
}
