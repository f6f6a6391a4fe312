//! Reads files of weights. The format is detected from the content, not from the name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use pytorch_reader::{DType, PytorchError, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::error::{Damage, FormatError, NotWeights, WeightsError};
use super::file::WeightsFile;
use super::keras;

/// Reads a file of weights: PyTorch (zip, legacy, tar), safetensors, or Keras HDF5. Tensors of other types, such as half
/// precision, are converted to 32-bit floats.
///
/// # Errors
/// The file cannot be read, is damaged, or has another format.
pub fn read(path: &Path) -> Result<WeightsFile, WeightsError> {
    let file = match detect_format(path)? {
        WeightsFormat::Safetensors => safetensors(path)?,
        WeightsFormat::Pytorch => pytorch(path)?,
        WeightsFormat::Hdf5 => keras::read(path)?,
    };
    if file.tensors.is_empty() {
        return Err(WeightsError::not_weights(path, NotWeights::NoTensors));
    }
    tracing::debug!(path = %path.display(), tensors = file.tensors.len(), "read weights");
    Ok(file)
}

/// The format of a file of weights.
enum WeightsFormat {
    Safetensors,
    Pytorch,
    Hdf5,
}

/// Detects the format from the first bytes of the file.
fn detect_format(path: &Path) -> Result<WeightsFormat, WeightsError> {
    let mut file = File::open(path).map_err(WeightsError::io(path, "opened"))?;
    let length = file.metadata().map_err(WeightsError::io(path, "opened"))?.len();
    let mut head = Vec::with_capacity(512);
    file.by_ref().take(512).read_to_end(&mut head).map_err(WeightsError::io(path, "read"))?;
    match head.as_slice() {
        [] => Err(WeightsError::not_weights(path, NotWeights::Empty)),
        [b'P', b'K', 3, 4, ..] => Ok(WeightsFormat::Pytorch),
        // The legacy format begins with a pickle of protocol 2 or later.
        [0x80, 2..=5, ..] => Ok(WeightsFormat::Pytorch),
        [0x89, b'H', b'D', b'F', ..] => Ok(WeightsFormat::Hdf5),
        [.., _] if head.get(257..262) == Some(b"ustar") => Ok(WeightsFormat::Pytorch),
        [a, b, c, d, e, f, g, h, b'{', ..] => {
            let header = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            file.seek(SeekFrom::Start(0)).map_err(WeightsError::io(path, "read"))?;
            if header.saturating_add(8) > length {
                return Err(WeightsError::damaged(path, Damage::Truncated));
            }
            Ok(WeightsFormat::Safetensors)
        }
        // The first field of an ONNX file is the version of its format.
        [8, 1..=20, ..] => Err(WeightsError::not_weights(path, NotWeights::Onnx)),
        [b'<', ..] => Err(WeightsError::not_weights(path, NotWeights::Xml)),
        _ => Err(WeightsError::not_weights(path, NotWeights::UnknownFormat)),
    }
}

fn safetensors(path: &Path) -> Result<WeightsFile, WeightsError> {
    let bytes = std::fs::read(path).map_err(WeightsError::io(path, "read"))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad_format(path, error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| bad_format(path, error))?;
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
            other => return Err(bad_type(path, name, &other)),
        };
        tensors.insert(name.to_string(), tensor(path, name, view.data(), view.shape(), kind)?);
    }
    let metadata: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let flavour = metadata.get("flavour").and_then(|name| clap::ValueEnum::from_str(name, true).ok());
    let (tensors, other_names) = without_prefixes(tensors);
    Ok(WeightsFile { path: path.to_path_buf(), tensors, metadata, flavour, other_names })
}

fn pytorch(path: &Path) -> Result<WeightsFile, WeightsError> {
    let reader = PytorchReader::new(path).map_err(|error| match error {
        PytorchError::Io(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            WeightsError::Io { path: path.to_path_buf(), action: "read", source }
        }
        PytorchError::InvalidFormat(message) => WeightsError::not_weights(path, NotWeights::Pytorch(message)),
        error => bad_format(path, error),
    })?;
    let (stored, other_names) = without_prefixes(reader.into_tensors().into_iter().collect());
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
            other => return Err(bad_type(path, &name, &other)),
        };
        let bytes = stored.read().map_err(|error| bad_format(path, error))?;
        let tensor = tensor(path, &name, &bytes, stored.shape(), kind)?;
        tensors.insert(name, tensor);
    }
    Ok(WeightsFile { path: path.to_path_buf(), tensors, metadata: BTreeMap::new(), flavour: None, other_names })
}

fn bad_format(path: &Path, error: impl Into<FormatError>) -> WeightsError {
    WeightsError::damaged(path, Damage::Format(error.into()))
}

fn bad_type(path: &Path, tensor: &str, data_type: &dyn std::fmt::Debug) -> WeightsError {
    let problem = NotWeights::DataType { tensor: tensor.to_owned(), data_type: format!("{data_type:?}") };
    WeightsError::not_weights(path, problem)
}

/// A tensor of 32-bit floats, made of bytes of the type `kind`.
fn tensor(path: &Path, name: &str, bytes: &[u8], shape: &[usize], kind: Kind) -> Result<Tensor, WeightsError> {
    let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    // libtorch reads as many bytes as the shape says.
    if bytes.len() != shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes() {
        let problem = Damage::TensorSize { tensor: name.to_owned(), bytes: bytes.len(), shape };
        return Err(WeightsError::damaged(path, problem));
    }
    let tensor = Tensor::f_from_data_size(bytes, &shape, kind)
        .map_err(|error| WeightsError::damaged(path, Damage::Part { name: name.to_owned(), source: error.into() }))?;
    Ok(tensor.to_kind(Kind::Float))
}

/// Prefixes of the names of weights in checkpoints. Training on several GPUs adds `module`. If a checkpoint has several of
/// them, the first one counts: the moving average of the weights is meant for inference.
const PREFIXES: [&str; 6] =
    ["state_dict_ema.", "state_dict.", "model_state_dict.", "model_state.", "model.", "module."];

/// Removes prefixes, also nested ones, from the names. Returns the tensors, and the names without the prefix.
fn without_prefixes<T>(mut tensors: BTreeMap<String, T>) -> (BTreeMap<String, T>, Vec<String>) {
    let mut other_names = Vec::new();
    while let Some(prefix) = PREFIXES.iter().find(|prefix| tensors.keys().any(|name| name.starts_with(**prefix))) {
        let mut inside = BTreeMap::new();
        for (name, tensor) in tensors {
            match name.strip_prefix(prefix) {
                Some(rest) => {
                    inside.insert(rest.to_string(), tensor);
                }
                None => other_names.push(name),
            }
        }
        tensors = inside;
    }
    (tensors, other_names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let (inside, other_names) = without_prefixes(names.iter().map(|name| (name.to_string(), ())).collect());
        (inside.into_keys().collect(), other_names)
    }

    #[test]
    fn nested_prefixes_are_removed() {
        assert_eq!(stripped(&["conv1.weight"]).0, ["conv1.weight"]);
        assert_eq!(stripped(&["module.conv1.weight"]).0, ["conv1.weight"]);
        let (inside, other_names) = stripped(&["state_dict.module.conv1.weight", "optimizer.state.0.exp_avg"]);
        assert_eq!((inside, other_names), (vec!["conv1.weight".into()], vec!["optimizer.state.0.exp_avg".into()]));
    }

    #[test]
    fn files_of_other_formats_are_recognised_by_their_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.pth");
        let error_for = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err()
        };
        for (bytes, expected) in [
            (b"".as_slice(), NotWeights::Empty),
            (b"<html>", NotWeights::Xml),
            (&[8, 9, 18, 4, 116], NotWeights::Onnx),
            (b"hello, world", NotWeights::UnknownFormat),
        ] {
            let error = error_for(bytes);
            assert!(matches!(&error, WeightsError::NotWeights { problem, .. } if *problem == expected), "{error}");
        }
        for bytes in [b"PK\x03\x04 and no more".as_slice(), &[0x80, 2, 0x8a, 10]] {
            let error = error_for(bytes);
            assert!(matches!(error, WeightsError::Damaged { problem: Damage::Format(_), .. }), "{error}");
        }
        let error = error_for(b"\xff\x00\x00\x00\x00\x00\x00\x00{}");
        assert!(matches!(error, WeightsError::Damaged { problem: Damage::Truncated, .. }), "{error}");
        let error = read(&folder.path().join("none.pth")).unwrap_err();
        assert!(matches!(error, WeightsError::Io { action: "opened", .. }), "{error}");
    }
}
