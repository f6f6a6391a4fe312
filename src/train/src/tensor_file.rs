//! Writes tensors and metadata as a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use maskcast::base::atomic_file::AtomicFile;
use safetensors::tensor::{Dtype, View};
use tch::{Kind, Tensor};

/// The content of a tensor of 32-bit floats.
struct TensorBytes {
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &TensorBytes {
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

/// Writes tensors, converted to 32-bit floats, and metadata. An existing file is replaced in one step.
///
/// # Errors
/// The file cannot be written, for example because the disk is full. An existing file is unchanged then.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> std::io::Result<()> {
    let tensors: BTreeMap<String, TensorBytes> =
        tensors.into_iter().map(|(name, tensor)| (name, bytes(tensor))).collect();
    let data = safetensors::serialize(tensors.iter().map(|(name, bytes)| (name.as_str(), bytes)), Some(metadata))
        .map_err(std::io::Error::other)?;
    let mut file = AtomicFile::create(path, 0o666)?;
    file.write_all(&data)?;
    file.commit()
}

fn bytes(tensor: &Tensor) -> TensorBytes {
    let flat = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let shape = flat.size().iter().map(|&side| side as usize).collect();
    let count = flat.numel();
    let mut values = vec![0f32; count];
    flat.copy_data(&mut values, count);
    TensorBytes { shape, data: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights;

    #[test]
    fn a_written_file_has_the_tensors_and_the_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = Tensor::from_slice(&[1f32, -2.5, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]);
        let metadata = HashMap::from([("key".to_owned(), "text".to_owned())]);
        // The transposed tensor is not contiguous.
        write(&path, [("t".to_owned(), &tensor.transpose(0, 1))], metadata).unwrap();
        let file = weights::read(&path).unwrap();
        assert_eq!(file.tensors["t"], tensor.transpose(0, 1));
        assert_eq!(file.metadata["key"], "text");
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        // A file cannot replace a folder.
        let blocked = folder.path().join("folder");
        std::fs::create_dir(&blocked).unwrap();
        assert!(write(&blocked, [("t".to_owned(), &Tensor::from_slice(&[1f32]))], HashMap::new()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
