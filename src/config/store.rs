//! Writes a configuration file atomically: a reader sees the whole old text or the whole new one, also after a power cut.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use super::plain_passwords::{gains_passwords, is_open};
use crate::base::atomic_file::AtomicFile;

/// Why a file was not written; it is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} was changed by another program in the meantime")]
    Changed(String),
    #[error("{0} cannot be written: {1}")]
    Write(String, io::Error),
}

/// How a file was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Owner, group and mode are as they were.
    AsBefore,
    /// It holds a password that it did not hold, and every user of the machine could read it: now only its owner and group can.
    Closed,
}

/// Replaces the file's text, if it still is `before`. Owner and group stay, and so does the mode, unless a password that the
/// text gains could be read by every user of the machine; a link stays a link.
///
/// # Errors
/// When the text was changed in the meantime, or the new one cannot be written.
pub fn replace(path: &Path, before: &str, after: &str) -> Result<Replaced, StoreError> {
    let name = || path.display().to_string();
    write(path, before, after)
        .map_err(|error| StoreError::Write(name(), error))?
        .ok_or_else(|| StoreError::Changed(name()))
}

/// `None` when the text was changed in the meantime.
fn write(path: &Path, before: &str, after: &str) -> io::Result<Option<Replaced>> {
    let path = path.canonicalize()?;
    let facts = fs::metadata(&path)?;
    // A file that its owner made read-only is not replaced, although its folder would allow it.
    fs::OpenOptions::new().append(true).open(&path)?;
    let mut new = AtomicFile::create(&path, 0o600)?;
    let own = new.file().metadata()?;
    if (own.uid(), own.gid()) != (facts.uid(), facts.gid()) {
        fchown(new.file(), Some(facts.uid()), Some(facts.gid()))?;
    }
    let closes = is_open(&path) && gains_passwords(before, after);
    let mode = if closes { facts.mode() & 0o770 } else { facts.mode() & 0o7777 };
    new.file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.write_all(after.as_bytes())?;
    new.file().sync_all()?;
    if fs::read(&path)? != before.as_bytes() {
        return Ok(None);
    }
    new.commit()?;
    Ok(Some(if closes { Replaced::Closed } else { Replaced::AsBefore }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_text_is_replaced_and_mode_and_link_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.toml"), folder.path().join("maskcast.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real.toml", &link).unwrap();
        replace(&link, "old", "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left in the folder");
    }

    #[test]
    fn a_file_that_gains_a_password_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("maskcast.toml");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
        set(folder.path(), 0o755);
        let text = |source: &str| format!("[[stream]]\nname = \"a\"\nsource = \"rtsp://{source}10.0.0.7/x\"\n");
        let (none, one) = (text(""), text("admin:hunter2@"));
        fs::write(&file, &none).unwrap();
        set(&file, 0o644);
        assert_eq!(replace(&file, &none, &one).unwrap(), Replaced::Closed);
        assert_eq!(mode(), 0o640);
        assert_eq!(replace(&file, &one, &none).unwrap(), Replaced::AsBefore);
        assert_eq!(mode(), 0o640, "what was taken away is not given back");
        // A password that every user could read before has been warned of.
        set(&file, 0o644);
        fs::write(&file, &one).unwrap();
        assert_eq!(replace(&file, &one, &(one.clone() + "# more\n")).unwrap(), Replaced::AsBefore);
        assert_eq!(mode(), 0o644);
    }

    #[test]
    fn a_change_by_another_program_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("maskcast.toml");
        fs::write(&file, "theirs").unwrap();
        let error = replace(&file, "old", "ours").unwrap_err();
        assert!(matches!(error, StoreError::Changed(_)), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(&file).unwrap();
        assert!(matches!(replace(&file, "", "ours"), Err(StoreError::Write(..))));
        assert!(!file.exists(), "no file is made where there is none");
    }
}
