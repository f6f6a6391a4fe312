//! An output folder that appears when it is complete.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use maskcast::segment::golden::encode_png;
use tempfile::TempDir;

use super::super::image;
use super::super::orientation::Orientation;
use super::error::ExchangeError;

/// A folder that is written under a temporary name beside its final place. Nothing that exists is overwritten.
pub struct NewFolder {
    written: TempDir,
    place: PathBuf,
}

impl NewFolder {
    /// Creates the folder; `place` must not exist or must be empty, and must not be in one of `inputs`.
    ///
    /// # Errors
    /// The place has other files, or the folder cannot be created.
    pub fn create(place: &Path, inputs: &[&Path]) -> Result<Self, ExchangeError> {
        if let Some(found) = first_entry(place)? {
            return Err(ExchangeError::NotEmpty { folder: place.to_owned(), found });
        }
        // Not canonicalize: the folder does not exist yet.
        let place = std::path::absolute(place).map_err(ExchangeError::write(place))?;
        let parent = place.parent().unwrap_or(Path::new("/"));
        let existing = parent.ancestors().find(|folder| folder.is_dir()).unwrap_or(parent);
        let inside = |input: &Path| {
            let (Ok(input), Ok(existing)) = (input.canonicalize(), existing.canonicalize()) else { return false };
            let same = place.canonicalize().is_ok_and(|place| place == input);
            input.is_dir() && (existing.starts_with(&input) || same)
        };
        if let Some(input) = inputs.iter().find(|input| inside(input)) {
            return Err(ExchangeError::Inside { output: place, input: input.to_path_buf() });
        }
        fs::create_dir_all(parent).map_err(ExchangeError::write(parent))?;
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let written = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(ExchangeError::write(parent))?;
        Ok(NewFolder { written, place })
    }

    /// The folder while it is written.
    pub fn path(&self) -> &Path {
        self.written.path()
    }

    /// Moves the folder to its place.
    ///
    /// # Errors
    /// Something was written there in the meantime, or the move fails.
    pub fn finish(self) -> Result<PathBuf, ExchangeError> {
        // Replaces an empty folder, and fails for one that is not.
        fs::rename(self.written.path(), &self.place).map_err(ExchangeError::write(&self.place))?;
        // The temporary name is gone, so that there is nothing to remove.
        let _ = self.written.keep();
        Ok(self.place)
    }
}

/// The name of an entry of a folder; `None` if it is empty or does not exist.
fn first_entry(folder: &Path) -> Result<Option<String>, ExchangeError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            Some(entry) => {
                let entry = entry.map_err(ExchangeError::read(folder))?;
                Ok(Some(entry.file_name().to_string_lossy().into_owned()))
            }
            None => Ok(None),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(ExchangeError::OutputIsFile(folder.to_owned()))
        }
        Err(source) => Err(ExchangeError::Read { path: folder.to_owned(), source }),
    }
}

/// Writes a file and creates its folders.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ExchangeError> {
    create_parent(path)?;
    fs::write(path, bytes).map_err(ExchangeError::write(path))
}

pub fn create_parent(path: &Path) -> Result<(), ExchangeError> {
    path.parent().map_or(Ok(()), |parent| fs::create_dir_all(parent).map_err(ExchangeError::write(parent)))
}

/// The name of an image in the output: `stem` with the extension that [`copy_image`] gives it.
pub fn image_name(stem: &str, from: &Path) -> String {
    let extension = from.extension().and_then(|extension| extension.to_str()).unwrap_or("png");
    if Orientation::of_file(from) == Orientation::Upright {
        format!("{stem}.{extension}")
    } else {
        format!("{stem}.png")
    }
}

/// Copies an image. One that is rotated by its EXIF data is stored upright, as PNG, because annotation programs do not agree
/// about the rotation.
///
/// # Errors
/// The image cannot be read, or the copy cannot be written.
pub fn copy_image(from: &Path, to: &Path) -> Result<(), ExchangeError> {
    create_parent(to)?;
    if Orientation::of_file(from) == Orientation::Upright {
        let bytes = fs::read(from).map_err(ExchangeError::read(from))?;
        return fs::write(to, bytes).map_err(ExchangeError::write(to));
    }
    let image = image::read(from)?;
    let png = encode_png(&image.rgb, image.width as u32, image.height as u32, png::ColorType::Rgb)
        .map_err(|source| ExchangeError::Png { path: to.to_owned(), source })?;
    fs::write(to, png).map_err(ExchangeError::write(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("deep/out");
        let folder = NewFolder::create(&place, &[]).unwrap();
        write_file(&folder.path().join("a/b.txt"), b"1").unwrap();
        assert!(!place.exists());
        assert_eq!(folder.finish().unwrap(), place);
        assert_eq!(fs::read(place.join("a/b.txt")).unwrap(), b"1");
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1, "no temporary folder remains");
        assert!(matches!(NewFolder::create(&place, &[]), Err(ExchangeError::NotEmpty { found, .. }) if found == "a"));
        drop(NewFolder::create(&dir.path().join("given-up"), &[]).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a folder that is not finished is removed");
    }

    #[test]
    fn existing_files_and_folders_of_the_input_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(NewFolder::create(&file, &[]), Err(ExchangeError::OutputIsFile(_))));
        for place in ["out", "deep/out"] {
            let inside = NewFolder::create(&dir.path().join(place), &[dir.path()]);
            assert!(matches!(inside, Err(ExchangeError::Inside { .. })), "{place}");
        }
        // Filled by another program while it was written.
        let place = dir.path().join("taken");
        let folder = NewFolder::create(&place, &[]).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join("x"), "").unwrap();
        assert!(matches!(folder.finish(), Err(ExchangeError::Write { .. })));
        assert!(place.join("x").is_file());
    }
}
