//! Writes a configuration file in one piece: whoever reads it, at whatever moment, and after a power cut as well, sees the
//! whole old text or the whole new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

/// Why a file was not written; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} has been changed by somebody else meanwhile")]
    Changed(String),
    #[error("{0} cannot be written: {1}")]
    Write(String, io::Error),
}

/// Replaces the file's text, if it still is `before`. Owner, group and mode stay; a link stays a link.
///
/// # Errors
/// When the text is another one by now, or the folder or the disk does not take the new one.
pub fn replace(path: &Path, before: &str, after: &str) -> Result<(), StoreError> {
    let name = || path.display().to_string();
    write(path, before, after)
        .map_err(|error| StoreError::Write(name(), error))?
        .then_some(())
        .ok_or_else(|| StoreError::Changed(name()))
}

/// False when the text is another one by now.
fn write(path: &Path, before: &str, after: &str) -> io::Result<bool> {
    let path = path.canonicalize()?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let facts = fs::metadata(&path)?;
    // A file that its owner has made read-only is not to be replaced, although its folder would allow it.
    fs::OpenOptions::new().append(true).open(&path)?;
    let mut new = tempfile::Builder::new().prefix(".maskcast-").suffix(".toml").tempfile_in(folder)?;
    let own = new.as_file().metadata()?;
    if (own.uid(), own.gid()) != (facts.uid(), facts.gid()) {
        fchown(new.as_file(), Some(facts.uid()), Some(facts.gid()))?;
    }
    new.as_file().set_permissions(facts.permissions())?;
    new.write_all(after.as_bytes())?;
    new.as_file().sync_all()?;
    if fs::read(&path)? != before.as_bytes() {
        return Ok(false);
    }
    new.persist(&path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

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
    fn what_somebody_else_wrote_meanwhile_is_not_lost() {
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
