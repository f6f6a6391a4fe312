//! Files of weights, told apart by what is in them and not by their names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, PytorchError, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::{WeightsError, keras};
use crate::encoders::{Encoder, Flavour, Variant};

/// The tensors of a file.
#[derive(Debug)]
pub struct WeightsFile {
    pub path: PathBuf,
    /// By name, on the CPU as 32-bit floats; without the names of what they were wrapped in.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text that a safetensors file carries.
    pub metadata: BTreeMap<String, String>,
    /// The flavour, where the file tells it: Keras' files by their layers, safetensors by metadata `flavour`.
    pub flavour: Option<Flavour>,
    /// What the file holds beside weights, such as an optimizer's state.
    pub beside: Vec<String>,
}

impl WeightsFile {
    /// `encoder` as these weights want it: of the `wanted` flavour, or else the one that the file tells, or else the
    /// usual one of that encoder's weights.
    pub fn variant(&self, encoder: Encoder, wanted: Option<Flavour>) -> Variant {
        encoder.flavoured(wanted.or(self.flavour).unwrap_or(encoder.usual_flavour()))
    }
}

/// Reads weights: PyTorch's zip, legacy and tar formats, safetensors (also in half precision), or Keras' HDF5.
///
/// # Errors
/// If the file cannot be read, is damaged, or is something else.
pub fn read(path: &Path) -> Result<WeightsFile, WeightsError> {
    let file = match sniff(path)? {
        WeightsFormat::Safetensors => safetensors(path)?,
        WeightsFormat::Pytorch => pytorch(path)?,
        WeightsFormat::Hdf5 => keras::read(path)?,
    };
    if file.tensors.is_empty() {
        return Err(WeightsError::not_weights(path, "it holds no tensors"));
    }
    tracing::debug!(path = %path.display(), tensors = file.tensors.len(), "read weights");
    Ok(file)
}

/// Formats, by their first bytes.
enum WeightsFormat {
    Safetensors,
    Pytorch,
    Hdf5,
}

fn sniff(path: &Path) -> Result<WeightsFormat, WeightsError> {
    let mut file = File::open(path).map_err(WeightsError::io(path, "opened"))?;
    let length = file.metadata().map_err(WeightsError::io(path, "opened"))?.len();
    let mut head = Vec::with_capacity(512);
    file.by_ref().take(512).read_to_end(&mut head).map_err(WeightsError::io(path, "read"))?;
    match head.as_slice() {
        [] => Err(WeightsError::not_weights(path, "it is empty")),
        [b'P', b'K', 3, 4, ..] => Ok(WeightsFormat::Pytorch),
        // A pickle of protocol 2 or later begins so, and with it the legacy format.
        [0x80, 2..=5, ..] => Ok(WeightsFormat::Pytorch),
        [0x89, b'H', b'D', b'F', ..] => Ok(WeightsFormat::Hdf5),
        [.., _] if head.get(257..262) == Some(b"ustar") => Ok(WeightsFormat::Pytorch),
        [a, b, c, d, e, f, g, h, b'{', ..] => {
            let header = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            file.seek(SeekFrom::Start(0)).map_err(WeightsError::io(path, "read"))?;
            if header.saturating_add(8) > length {
                return Err(WeightsError::damaged(path, "shorter than its own header says"));
            }
            Ok(WeightsFormat::Safetensors)
        }
        // An ONNX file's first field is its version of the format.
        [8, 1..=20, ..] => Err(WeightsError::not_weights(path, "it looks like an ONNX model")),
        [b'<', ..] => Err(WeightsError::not_weights(path, "it is a web page or XML")),
        _ => Err(WeightsError::not_weights(path, "it begins like no format of weights")),
    }
}

fn safetensors(path: &Path) -> Result<WeightsFile, WeightsError> {
    let bytes = std::fs::read(path).map_err(WeightsError::io(path, "read"))?;
    let damaged = |problem: &dyn std::fmt::Display| WeightsError::damaged(path, problem);
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            Dtype::I8 => Kind::Int8,
            other => {
                return Err(WeightsError::not_weights(path, format!("{name} is stored as {other:?}")));
            }
        };
        tensors.insert(name.to_string(), tensor(path, name, view.data(), view.shape(), kind)?);
    }
    let metadata: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let flavour = metadata.get("flavour").and_then(|name| clap::ValueEnum::from_str(name, true).ok());
    let (tensors, beside) = unwrap(tensors);
    Ok(WeightsFile { path: path.to_path_buf(), tensors, metadata, flavour, beside })
}

fn pytorch(path: &Path) -> Result<WeightsFile, WeightsError> {
    let reader = PytorchReader::new(path).map_err(|error| match error {
        PytorchError::Io(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            WeightsError::Io { path: path.to_path_buf(), action: "read", source }
        }
        PytorchError::InvalidFormat(what) => WeightsError::not_weights(path, what),
        error => WeightsError::damaged(path, error),
    })?;
    let (stored, beside) = unwrap(reader.into_tensors().into_iter().collect());
    let mut tensors = BTreeMap::new();
    for (name, stored) in stored {
        let kind = match stored.dtype() {
            DType::F32 => Kind::Float,
            DType::F16 => Kind::Half,
            DType::BF16 => Kind::BFloat16,
            DType::F64 => Kind::Double,
            DType::I64 => Kind::Int64,
            DType::I32 => Kind::Int,
            DType::U8 => Kind::Uint8,
            DType::I8 => Kind::Int8,
            DType::Bool => Kind::Bool,
            other => {
                return Err(WeightsError::not_weights(path, format!("{name} is stored as {other:?}")));
            }
        };
        let bytes = stored.read().map_err(|error| WeightsError::damaged(path, error))?;
        let tensor = tensor(path, &name, &bytes, stored.shape(), kind)?;
        tensors.insert(name, tensor);
    }
    Ok(WeightsFile { path: path.to_path_buf(), tensors, metadata: BTreeMap::new(), flavour: None, beside })
}

/// A 32-bit float tensor from bytes of any kind.
fn tensor(path: &Path, name: &str, bytes: &[u8], shape: &[usize], kind: Kind) -> Result<Tensor, WeightsError> {
    let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    // libtorch reads as many bytes as the shape says.
    if bytes.len() != shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes() {
        return Err(WeightsError::damaged(path, format!("{name} has {} bytes, not those of {shape:?}", bytes.len())));
    }
    let tensor = Tensor::f_from_data_size(bytes, &shape, kind)
        .map_err(|error| WeightsError::damaged(path, format!("{name}: {error}")))?;
    Ok(tensor.to_kind(Kind::Float))
}

/// Checkpoints put the weights under one of these, and those of several GPUs were trained under `module`. The order
/// matters: an average of the weights is what was meant for use.
const WRAPPERS: [&str; 6] =
    ["state_dict_ema.", "state_dict.", "model_state_dict.", "model_state.", "model.", "module."];

/// Takes the wrappers' names off; names outside of them come second.
fn unwrap<T>(mut tensors: BTreeMap<String, T>) -> (BTreeMap<String, T>, Vec<String>) {
    let mut beside = Vec::new();
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| tensors.keys().any(|name| name.starts_with(**wrapper))) {
        let mut inside = BTreeMap::new();
        for (name, tensor) in tensors {
            match name.strip_prefix(wrapper) {
                Some(rest) => {
                    inside.insert(rest.to_string(), tensor);
                }
                None => beside.push(name),
            }
        }
        tensors = inside;
    }
    (tensors, beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrapped(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let (inside, beside) = unwrap(names.iter().map(|name| (name.to_string(), ())).collect());
        (inside.into_keys().collect(), beside)
    }

    #[test]
    fn wrappers_are_taken_off_in_any_depth() {
        assert_eq!(unwrapped(&["conv1.weight"]).0, ["conv1.weight"]);
        assert_eq!(unwrapped(&["module.conv1.weight"]).0, ["conv1.weight"]);
        let (inside, beside) = unwrapped(&["state_dict.module.conv1.weight", "optimizer.state.0.exp_avg"]);
        assert_eq!((inside, beside), (vec!["conv1.weight".into()], vec!["optimizer.state.0.exp_avg".into()]));
    }

    #[test]
    fn other_files_are_told_by_their_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights.pth");
        let error_for = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(error_for(b"").contains("it is empty"));
        assert!(error_for(b"<html>").contains("web page"));
        assert!(error_for(&[8, 9, 18, 4, 116]).contains("looks like an ONNX model"));
        assert!(error_for(b"hello, world").contains("begins like no format of weights"));
        assert!(error_for(b"PK\x03\x04 and no more").contains("damaged or incomplete"));
        assert!(error_for(&[0x80, 2, 0x8a, 10]).contains("damaged or incomplete"));
        assert!(error_for(b"\xff\x00\x00\x00\x00\x00\x00\x00{}").contains("shorter than its own header says"));
        let missing = read(&directory.path().join("none.pth")).unwrap_err().to_string();
        assert!(missing.contains("cannot be opened"), "{missing}");
    }
}
