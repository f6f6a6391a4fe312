//! The file of a trained model before its export: safetensors with all parameters and running statistics of the U-Net, and
//! its [`ModelDescription`] as JSON under the metadata key `maskcast`.

use std::collections::HashMap;
use std::path::Path;

use tch::Tensor;

use super::description::ModelDescription;
use super::error::{MisfitHint, Mismatch, Mismatches, NotModel, WeightsError};
use super::file::WeightsFile;
use super::read::read;
use crate::net::Params;
use crate::tensor_file;

/// The metadata key of the description.
const KEY: &str = "maskcast";

/// A trained model.
#[derive(Debug)]
pub struct ModelFile {
    pub description: ModelDescription,
    /// 32-bit floats on the CPU.
    pub params: Params,
}

impl ModelFile {
    /// Writes the file. An existing file is replaced in one step.
    ///
    /// # Errors
    /// The file cannot be written. An existing file is unchanged then.
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let tensors = self.params.0.iter().map(|(name, tensor)| (name.clone(), tensor));
        let metadata = HashMap::from([(KEY.to_owned(), self.description.to_json())]);
        tensor_file::write(path, tensors, metadata).map_err(WeightsError::io(path, "written"))
    }

    /// Whether a file of tensors is a trained model.
    pub fn contained_in(file: &WeightsFile) -> bool {
        file.metadata.contains_key(KEY)
    }

    /// Reads a model and checks that it has all parameters of its network.
    ///
    /// # Errors
    /// The file is damaged, or was not written by [`ModelFile::write`].
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let file = read(path).map_err(|error| match error {
            WeightsError::NotWeights { path, problem } => {
                WeightsError::NotModel { path, problem: NotModel::NotWeights(problem) }
            }
            error => error,
        })?;
        let not_model = |problem| WeightsError::NotModel { path: path.to_path_buf(), problem };
        let json = file.metadata.get(KEY).ok_or_else(|| not_model(NotModel::NoMetadata))?;
        let description = ModelDescription::from_json(json).map_err(|error| not_model(NotModel::Description(error)))?;
        let net = description.net().map_err(|error| not_model(NotModel::Net(error)))?;
        let mut mismatches = Vec::new();
        for spec in net.param_specs() {
            match file.tensors.get(&spec.name).map(Tensor::size) {
                None => mismatches.push(Mismatch::Missing { name: spec.name, shape: spec.shape }),
                Some(size) if size != spec.shape => {
                    mismatches.push(Mismatch::Shape { name: spec.name, network: spec.shape, file: size });
                }
                Some(_) => {}
            }
        }
        if !mismatches.is_empty() {
            return Err(WeightsError::Misfit {
                path: path.to_path_buf(),
                network: format!("the U-Net with the encoder {} in its description", description.encoder),
                mismatches: Mismatches(mismatches),
                hint: MisfitHint::None,
            });
        }
        Ok(ModelFile { description, params: Params(file.tensors) })
    }
}
