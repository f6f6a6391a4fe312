//! The trainer's own file of a trained model, before it is exported: safetensors with every parameter and statistic of
//! the U-Net, and under the metadata key `maskcast` a JSON text that says how to build the network again.

use std::collections::HashMap;
use std::path::Path;

use maskcast::frame::{Label, Rgb};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::WeightsError;
use super::error::{Mismatch, Mismatches};
use super::read::{WeightsFile, read};
use crate::encoders::{Encoder, Flavour};
use crate::net::decoder::Decoder;
use crate::net::{Net, Normalise, Params};
use crate::size::Size;
use crate::tensor_file;

/// What is written; what cannot be read has a higher one.
const VERSION: u32 = 1;

/// Key of the description in the file's metadata.
const KEY: &str = "maskcast";

/// What a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDescription {
    pub encoder: Encoder,
    pub flavour: Flavour,
    pub decoder: Decoder,
    /// As the flavour says, unless the model was trained with other numbers.
    pub normalise: Normalise,
    /// In class order.
    pub labels: Vec<Label>,
    pub input: Size,
    /// How it was trained and how good it is; free.
    pub train: serde_json::Value,
}

impl ModelDescription {
    /// The network.
    ///
    /// # Errors
    /// If the decoder does not fit the encoder, or there are fewer than two labels.
    pub fn net(&self) -> Result<Net, String> {
        let net = self.encoder.flavoured(self.flavour).unet(&self.decoder, self.labels.len() as i64)?;
        Ok(Net { normalise: self.normalise, ..net })
    }
}

/// A model: what it is, and its numbers.
#[derive(Debug)]
pub struct ModelFile {
    pub about: ModelDescription,
    /// On the CPU, 32-bit floats.
    pub params: Params,
}

/// [`ModelDescription`] as it is written.
#[derive(Serialize, Deserialize)]
struct DescriptionJson {
    version: u32,
    encoder: Encoder,
    flavour: Flavour,
    decoder: Decoder,
    normalise: Normalise,
    labels: Vec<LabelJson>,
    input: Size,
    train: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct LabelJson {
    name: String,
    color: [u8; 3],
}

impl ModelFile {
    /// Writes the file, whole or not at all: a reader never sees half of it, and a full disk leaves the old one.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let tensors = self.params.0.iter().map(|(name, tensor)| (name.clone(), tensor));
        let texts = HashMap::from([(KEY.to_owned(), self.about.to_json())]);
        tensor_file::write(path, tensors, texts).map_err(WeightsError::io(path, "written"))
    }

    /// Whether a file of tensors is a whole model.
    pub fn contained_in(file: &WeightsFile) -> bool {
        file.metadata.contains_key(KEY)
    }

    /// Reads a model and checks that its numbers are those of its network.
    ///
    /// # Errors
    /// If the file is damaged, or was not written by [`ModelFile::write`].
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
        let about = ModelDescription::from_json(json)
            .map_err(|problem| foreign(problem, "read it with the version of `maskcast-train` that wrote it"))?;
        let net = about.net().map_err(|problem| foreign(problem, "the file was changed"))?;
        let mut problems = Vec::new();
        for shape in net.param_specs() {
            match file.tensors.get(&shape.name).map(Tensor::size) {
                None => problems.push(Mismatch::Missing { name: shape.name, shape: shape.shape }),
                Some(size) if size != shape.shape => {
                    problems.push(Mismatch::Shape { name: shape.name, network: shape.shape, file: size });
                }
                Some(_) => {}
            }
        }
        if !problems.is_empty() {
            return Err(WeightsError::Misfit {
                path: path.to_path_buf(),
                network: format!("the U-Net over {} that it describes", about.encoder),
                problems: Mismatches(problems),
                hint: String::new(),
            });
        }
        Ok(ModelFile { about, params: Params(file.tensors) })
    }
}

impl ModelDescription {
    /// As the file and checkpoints keep it.
    pub fn to_json(&self) -> String {
        let label = |label: &Label| {
            let Rgb(red, green, blue) = label.color;
            LabelJson { name: label.name.clone(), color: [red, green, blue] }
        };
        let record = DescriptionJson {
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

    /// Reads what [`ModelDescription::to_json`] wrote.
    ///
    /// # Errors
    /// What is missing, or that a later version wrote it.
    pub fn from_json(json: &str) -> Result<Self, String> {
        // The version first, so that a later format is not reported as a broken one.
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|error| format!("metadata {KEY}: {error}"))?;
        match value["version"].as_u64() {
            Some(version) if version > u64::from(VERSION) => {
                return Err(format!("it has version {version} of the format, this program reads up to {VERSION}"));
            }
            _ => {}
        }
        let record: DescriptionJson =
            serde_json::from_value(value).map_err(|error| format!("metadata {KEY}: {error}"))?;
        let label = |LabelJson { name, color: [red, green, blue] }| Label { name, color: Rgb(red, green, blue) };
        Ok(ModelDescription {
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
