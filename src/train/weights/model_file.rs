//! The trainer's own file of a trained model, before it is exported: safetensors with every parameter and statistic of the
//! U-Net, and under the metadata key `maskcast` a JSON text that says how to build the network again.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::WeightsError;
use super::error::{Problem, Problems};
use super::read::read;
use crate::frame::{Label, Rgb};
use crate::train::encoders::{Encoder, Flavour};
use crate::train::net::decoder::Decoder;
use crate::train::net::{Net, Normalise, Params};

/// What is written; what cannot be read has a higher one.
const VERSION: u32 = 1;

/// Key of the description in the file's metadata.
const KEY: &str = "maskcast";

/// Size of the pictures that a model is meant for, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSize {
    pub width: i64,
    pub height: i64,
}

/// What a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub encoder: Encoder,
    pub flavour: Flavour,
    pub decoder: Decoder,
    /// As the flavour says, unless the model was trained with other numbers.
    pub normalise: Normalise,
    /// In class order.
    pub labels: Vec<Label>,
    pub input: InputSize,
    /// How it was trained and how good it is; free.
    pub train: serde_json::Value,
}

impl About {
    /// The network.
    ///
    /// # Errors
    /// When the decoder does not fit the encoder, or there are fewer than two labels.
    pub fn net(&self) -> Result<Net, String> {
        let net = self.encoder.flavoured(self.flavour).unet(&self.decoder, self.labels.len() as i64)?;
        Ok(Net { normalise: self.normalise, ..net })
    }
}

/// A model: what it is, and its numbers.
#[derive(Debug)]
pub struct ModelFile {
    pub about: About,
    /// On the CPU, 32-bit floats.
    pub params: Params,
}

/// [`About`] as it is written.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    encoder: Encoder,
    flavour: Flavour,
    decoder: Decoder,
    normalise: Normalise,
    labels: Vec<LabelRecord>,
    input: InputSize,
    train: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct LabelRecord {
    name: String,
    color: [u8; 3],
}

impl ModelFile {
    /// Writes the file, whole or not at all: a reader never sees half of it, and a full disk leaves the old one.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let tensors: BTreeMap<&str, (Vec<usize>, Vec<u8>)> =
            self.params.0.iter().map(|(name, tensor)| (name.as_str(), stored(tensor))).collect();
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (*name, view.expect("as many bytes as the shape says"))
        });
        let metadata = HashMap::from([(KEY.to_string(), self.about.to_json())]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| WeightsError::Io {
            path: path.to_path_buf(),
            action: "written",
            source: std::io::Error::other(error),
        })?;
        write_atomically(path, &bytes)
    }

    /// Reads a model and checks that its numbers are those of its network.
    ///
    /// # Errors
    /// When the file is damaged, or was not written by [`ModelFile::write`].
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let file = read(path).map_err(|error| match error {
            WeightsError::NotWeights { path, what } => {
                let hint = if what.contains("ONNX") {
                    "an exported model has its batch norms folded and may be quantised, so that training cannot go on \
                     from it; give the .safetensors file that the trainer wrote beside it"
                } else {
                    "give the .safetensors file of a training run"
                };
                WeightsError::NotModel { path, problem: what, hint: hint.to_string() }
            }
            error => error,
        })?;
        let foreign = |problem: String, hint: &str| WeightsError::NotModel {
            path: path.to_path_buf(),
            problem,
            hint: hint.to_string(),
        };
        let json = file.metadata.get(KEY).ok_or_else(|| {
            foreign(format!("it has no metadata {KEY}"), "weights of a classifier go into an encoder: `--weights FILE`")
        })?;
        let about = About::from_json(json)
            .map_err(|problem| foreign(problem, "read it with the version of `maskcast-train` that wrote it"))?;
        let net = about.net().map_err(|problem| foreign(problem, "the file was changed"))?;
        let mut problems = Vec::new();
        for shape in net.shapes() {
            match file.tensors.get(&shape.name).map(Tensor::size) {
                None => problems.push(Problem::Missing { name: shape.name, shape: shape.shape }),
                Some(size) if size != shape.shape => {
                    problems.push(Problem::Shape { name: shape.name, network: shape.shape, file: size });
                }
                Some(_) => {}
            }
        }
        if !problems.is_empty() {
            return Err(WeightsError::Misfit {
                path: path.to_path_buf(),
                network: format!("the U-Net over {} that it describes", about.encoder),
                problems: Problems(problems),
                hint: String::new(),
            });
        }
        Ok(ModelFile { about, params: Params(file.tensors) })
    }
}

impl About {
    fn to_json(&self) -> String {
        let label = |label: &Label| {
            let Rgb(red, green, blue) = label.color;
            LabelRecord { name: label.name.clone(), color: [red, green, blue] }
        };
        let record = Record {
            version: VERSION,
            encoder: self.encoder,
            flavour: self.flavour,
            decoder: self.decoder.clone(),
            normalise: self.normalise,
            labels: self.labels.iter().map(label).collect(),
            input: self.input,
            train: self.train.clone(),
        };
        serde_json::to_string(&record).expect("names, numbers and JSON values are JSON")
    }

    fn from_json(json: &str) -> Result<Self, String> {
        // The version first, so that a later format is not reported as a broken one.
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| format!("metadata {KEY}: {error}"))?;
        match value["version"].as_u64() {
            Some(version) if version > u64::from(VERSION) => {
                return Err(format!("it has version {version} of the format, this program reads up to {VERSION}"));
            }
            _ => {}
        }
        let record: Record = serde_json::from_value(value).map_err(|error| format!("metadata {KEY}: {error}"))?;
        let label = |LabelRecord { name, color: [red, green, blue] }| Label { name, color: Rgb(red, green, blue) };
        Ok(About {
            encoder: record.encoder,
            flavour: record.flavour,
            decoder: record.decoder,
            normalise: record.normalise,
            labels: record.labels.into_iter().map(label).collect(),
            input: record.input,
            train: record.train,
        })
    }
}

/// Shape and bytes, row by row in whatever order libtorch keeps them.
fn stored(tensor: &Tensor) -> (Vec<usize>, Vec<u8>) {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0f32; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    let shape = tensor.size().into_iter().map(|size| size as usize).collect();
    (shape, values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// A file beside the wanted one, made durable, then renamed over it.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = || WeightsError::io(path, "written");
    let mut file = tempfile::Builder::new()
        .prefix(".model-")
        // What the umask leaves of it, as for any other file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(failed())?;
    file.write_all(bytes).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(path).map_err(|error| failed()(error.error))?;
    // The rename is durable once the folder is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed())
}
