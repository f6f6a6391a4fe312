//! Named tensors and a few texts in one file: safetensors, written so that a reader never sees half of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, View};
use tch::{Kind, Tensor};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    #[error("{path}: not a safetensors file, or a damaged one: {reason}")]
    Format { path: String, reason: String },
}

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

/// Writes 32-bit float tensors and texts: to a file beside `path` first, then to the disk, then under its name. A crash or a
/// full disk leaves what was there before.
///
/// # Errors
/// The system's.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    texts: HashMap<String, String>,
) -> Result<(), TensorFileError> {
    let tensors: BTreeMap<String, Bytes> = tensors.into_iter().map(|(name, tensor)| (name, bytes(tensor))).collect();
    let failed = |error| TensorFileError::Io { path: path.display().to_string(), error };
    let data = safetensors::serialize(tensors.iter().map(|(name, bytes)| (name.as_str(), bytes)), Some(texts))
        .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    write_atomically(path, &data).map_err(failed)
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// The system's.
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

/// Tensors as 32-bit floats on the CPU, and texts.
pub type Contents = (BTreeMap<String, Tensor>, HashMap<String, String>);

/// Reads a file; 16-bit floats become 32-bit ones, integer tensors are left out.
///
/// # Errors
/// When the file cannot be read or is none.
pub fn read(path: &Path) -> Result<Contents, TensorFileError> {
    let data =
        std::fs::read(path).map_err(|error| TensorFileError::Io { path: path.display().to_string(), error })?;
    let format = |reason: String| TensorFileError::Format { path: path.display().to_string(), reason };
    let (_, metadata) = SafeTensors::read_metadata(&data).map_err(|error| format(error.to_string()))?;
    let texts = metadata.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&data).map_err(|error| format(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            _ => continue,
        };
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|error| format(error.to_string()))?;
        tensors.insert(name.to_owned(), tensor.to_kind(Kind::Float));
    }
    Ok((tensors, texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = Tensor::from_slice(&[1f32, -2.5, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]);
        let texts = HashMap::from([("key".to_owned(), "text".to_owned())]);
        // A transposed view is written in its own order.
        write(&path, [("t".to_owned(), &tensor.transpose(0, 1))], texts.clone()).unwrap();
        let (tensors, read_texts) = read(&path).unwrap();
        assert_eq!(tensors["t"], tensor.transpose(0, 1));
        assert_eq!(read_texts, texts);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.safetensors");
        std::fs::write(&path, b"not a tensor in sight").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("b.safetensors") && error.contains("damaged"), "{error}");
    }
}
