//! Named tensors and a few texts in one file: safetensors, written so that a reader never sees half of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use tch::{Kind, Tensor};

/// A tensor's bytes, taken when it is written.
struct Bytes {
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes 32-bit float tensors and texts: to a file beside `path` first, then to the disk, then under its name. A crash
/// or a full disk leaves what was there before.
///
/// # Errors
/// Errors of the file system.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    texts: HashMap<String, String>,
) -> std::io::Result<()> {
    let tensors: BTreeMap<String, Bytes> = tensors.into_iter().map(|(name, tensor)| (name, bytes(tensor))).collect();
    let data = safetensors::serialize(tensors.iter().map(|(name, bytes)| (name.as_str(), bytes)), Some(texts))
        .map_err(std::io::Error::other)?;
    write_atomically(path, &data)
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// Errors of the file system.
pub fn write_atomically(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
    file.write_all(data)?;
    file.as_file().sync_all()?;
    let file = file.persist(path).map_err(|error| error.error)?;
    // What a umask would have given; a temporary file is private.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    drop(file);
    // The name itself is on the disk only when the folder is.
    std::fs::File::open(folder)?.sync_all()
}

fn bytes(tensor: &Tensor) -> Bytes {
    let flat = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let shape = flat.size().iter().map(|&side| side as usize).collect();
    let count = flat.numel();
    let mut values = vec![0f32; count];
    flat.copy_data(&mut values, count);
    Bytes { shape, data: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = Tensor::from_slice(&[1f32, -2.5, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]);
        // A transposed view is written in its own order.
        let texts = HashMap::from([("key".to_owned(), "text".to_owned())]);
        write(&path, [("t".to_owned(), &tensor.transpose(0, 1))], texts).unwrap();
        let file = weights::read(&path).unwrap();
        assert_eq!(file.tensors["t"], tensor.transpose(0, 1));
        assert_eq!(file.metadata["key"], "text");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        // A folder in the way: the last step, the renaming, fails.
        let blocked = folder.path().join("folder");
        std::fs::create_dir(&blocked).unwrap();
        assert!(write_atomically(&blocked, b"new").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half written stays behind");
    }
}
