//! Replaces a file in one step: readers see the complete old file or the complete new one, also after a power failure.
//!
//! The new content is written to a temporary file in the same folder, flushed to the disk and renamed; then the folder is
//! flushed, so that the rename is on the disk as well.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A new file that has not replaced the one at its path yet. When it is dropped before [`AtomicFile::commit`], it is deleted
/// and the file at the path is unchanged.
pub struct AtomicFile {
    temporary: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates the temporary file in the folder of `path`, with the permissions `mode` without the bits of the process's
    /// umask. A symbolic link at `path` is replaced, not followed.
    ///
    /// # Errors
    /// When the folder of `path` does not exist or cannot be written.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix(".maskcast-")
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder_of(path))?;
        Ok(AtomicFile { temporary, path: path.to_path_buf() })
    }

    /// The temporary file, to change its owner or permissions or to flush it early.
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// The path of the temporary file, for a check that reads the new content before it replaces the old one.
    pub fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Flushes the file to the disk and renames it to its path.
    ///
    /// # Errors
    /// When the file cannot be flushed or renamed; the file at the path is unchanged then. When only the last step fails, the
    /// flush of the folder, the file at the path is the new one.
    pub fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary.persist(&self.path).map_err(|error| error.error)?;
        sync_folder(&self.path)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.temporary.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

/// Replaces `to` by the finished file `from`, which another library has written. Both must be in the same file system.
///
/// # Errors
/// When `from` cannot be opened or flushed, or the folder of `to` cannot be written.
pub fn put_in_place(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    std::fs::rename(from, to)?;
    sync_folder(to)
}

/// Gives a new file the owner and mode of the file that it replaces, without any permission for others. When it replaces
/// no file and root creates it in a folder that a group may read, it gets that group and 0o640. Any other file is unchanged.
///
/// Owner and mode are changed by file descriptor, not by name: root writes into folders of the service's user, who could
/// replace the name by a link to another file.
///
/// # Errors
/// When this process may not change the owner or the mode.
pub fn inherit_owner(file: &File, before: Option<&Metadata>, folder: &Metadata) -> io::Result<()> {
    let created = Ownership::of(&file.metadata()?);
    let Some(new) = created.inherited(before.map(Ownership::of), Ownership::of(folder)) else { return Ok(()) };
    if (new.user, new.group) != (created.user, created.group) {
        fchown(file, Some(new.user), Some(new.group))?;
    }
    file.set_permissions(Permissions::from_mode(new.mode))
}

/// The owner and the permissions of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ownership {
    user: u32,
    group: u32,
    mode: u32,
}

impl Ownership {
    fn of(metadata: &Metadata) -> Self {
        Ownership { user: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o777 }
    }

    /// The ownership that replaces this one of a new file, by the rules of [`inherit_owner`]. `None`: it is unchanged.
    fn inherited(self, before: Option<Ownership>, folder: Ownership) -> Option<Ownership> {
        match before {
            Some(before) => Some(Ownership { mode: before.mode & 0o770, ..before }),
            None if self.user == 0 && folder.group != 0 && folder.mode & 0o050 != 0 => {
                Some(Ownership { user: 0, group: folder.group, mode: 0o640 })
            }
            None => None,
        }
    }
}

/// The folder of a file; the working folder if the path is a name alone.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_changes_only_when_it_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "old").unwrap();
        let mut dropped = AtomicFile::create(&path, 0o600).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut new = AtomicFile::create(&path, 0o640).unwrap();
        new.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read(new.temporary_path()).unwrap(), b"new");
        new.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().mode() & 0o727, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn a_finished_file_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        put_in_place(&from, &to).unwrap();
        assert_eq!((std::fs::read(&to).unwrap(), from.exists()), (b"new".to_vec(), false));
        assert!(put_in_place(&from, &to).is_err(), "the file has been renamed already");
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
    }

    #[test]
    fn a_new_file_gets_the_mode_of_the_old_one_without_others() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::write(&old, "").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o664)).unwrap();
        let file = File::create(&new).unwrap();
        inherit_owner(&file, Some(&old.metadata().unwrap()), &folder.path().metadata().unwrap()).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o660);
    }

    /// `sudo maskcast user add` in /etc/maskcast, which belongs to root and the service's group.
    #[test]
    fn root_creates_a_file_that_the_group_of_the_service_can_read() {
        let ownership = |user, group, mode| Ownership { user, group, mode };
        let (root, anna) = (ownership(0, 0, 0o600), ownership(1000, 1000, 0o600));
        let shared = ownership(0, 4711, 0o750);
        assert_eq!(root.inherited(None, shared), Some(ownership(0, 4711, 0o640)));
        for (created, folder, why) in [
            (anna, shared, "only root can change the group"),
            (root, ownership(0, 0, 0o755), "the folder has root's group"),
            (root, ownership(0, 4711, 0o700), "the group may not read the folder"),
        ] {
            assert_eq!(created.inherited(None, folder), None, "{why}");
        }
        // An existing file keeps its ownership, without permissions for others.
        for before in [ownership(1000, 4711, 0o664), ownership(0, 4711, 0o660)] {
            let kept = Some(Ownership { mode: 0o660, ..before });
            assert_eq!(root.inherited(Some(before), shared), kept);
        }
    }
}
