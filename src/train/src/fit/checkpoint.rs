//! Checkpoints: the state of a run on disk, from which it continues with the same result. A checkpoint has the weights,
//! their moving average, the state of the optimizer, the position and the history. Random numbers depend only on the seed
//! and the position and are not stored.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::config::RunConfig;
use super::optimizer::{Optimizer, ParameterState};
use crate::net::{Net, Params};
use crate::report::History;
use crate::tensor_file;
use crate::weights::{self, ModelDescription, WeightsError, WeightsFile};

/// Name of the file in the folder of a run.
pub const FILE: &str = "checkpoint.safetensors";
const KEY: &str = "maskcast.checkpoint";
const VERSION: u32 = 1;

/// The position of a run and its history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Number of batches that the run has trained on.
    pub step: u64,
    /// Sum of the losses of the batches of this epoch, and the number of these batches.
    pub loss_sum: f64,
    pub loss_count: u64,
    /// Seconds spent in this epoch; of these, seconds spent waiting for data.
    pub seconds: f64,
    pub waited: f64,
    /// Best validation mIoU so far, and its epoch (counted from 1).
    pub best: Option<(f64, u64)>,
    pub history: History,
    /// The scores of the model that the run adapts, before its first step.
    #[serde(default)]
    pub before: Option<ValidationScores>,
    /// The scores of the adapted model.
    #[serde(default)]
    pub after: Option<ValidationScores>,
    /// Where the first weights come from, for display.
    #[serde(default)]
    pub origin: String,
    /// Fingerprint of the data set at the start of the run; see
    /// [`Dataset::fingerprint`](crate::data::Dataset::fingerprint).
    #[serde(default)]
    pub data: String,
    /// Number of training and validation images at the start of the run; 0 in old checkpoints.
    #[serde(default, rename = "pictures")]
    pub images: (usize, usize),
}

/// What a model scores on the validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationScores {
    pub miou: Option<f64>,
    /// IoU of each class that occurs.
    pub classes: Vec<Option<f64>>,
    /// mIoU on replayed images that are not used for training.
    pub replayed: Option<f64>,
}

/// The weights, the optimizer and the position of a run.
#[derive(Debug)]
pub struct RunState {
    pub params: Params,
    /// Moving average of the weights; `None` if it is disabled.
    pub average: Option<Params>,
    pub optimizer: Optimizer,
    pub progress: Progress,
}

/// The metadata of the file.
#[derive(Serialize, Deserialize)]
struct CheckpointHeader {
    version: u32,
    config: RunConfig,
    about: String,
    progress: Progress,
    optimizer_steps: BTreeMap<String, i64>,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{}: contains no run ({FILE} is missing)", .0.display())]
    NoRun(PathBuf),
    #[error(
        "{source}\nThe run cannot be resumed. If {} exists, it has the best weights of the run: start a new run from \
         them with `--init`",
        folder.join("best.safetensors").display()
    )]
    Read { folder: PathBuf, source: Box<WeightsError> },
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}: not a checkpoint of `maskcast-train fit`", .0.display())]
    NotCheckpoint(PathBuf),
    #[error("{}: written by another version of maskcast-train ({reason}); resume with that version", path.display())]
    Version { path: PathBuf, reason: String },
    #[error("{}: the tensor {name} is missing: the file is of another network; restore the checkpoint", path.display())]
    MissingTensor { path: PathBuf, name: String },
}

impl RunState {
    /// Restarts training with the current weights on changed data: steps, epochs, schedule and patience count from 0, and
    /// the state of the optimizer is cleared. `data` is the fingerprint of the data set, `images` the number of training
    /// and validation images.
    pub fn restart(&mut self, data: String, images: (usize, usize)) {
        let epochs = self.progress.history.0.len();
        let origin = format!("{}; {epochs} epochs, then restarted with changed data", self.progress.origin);
        self.progress = Progress { origin, data, images, ..Progress::default() };
        self.optimizer.parameters.clear();
    }

    /// Writes the checkpoint into `folder`. The file is replaced atomically: if writing fails, the previous checkpoint is
    /// kept.
    ///
    /// # Errors
    /// If the file cannot be written, for example because the disk is full.
    pub fn write(&self, folder: &Path, config: &RunConfig, about: &ModelDescription) -> Result<(), CheckpointError> {
        let mut tensors: Vec<(String, &Tensor)> = Vec::new();
        tensors.extend(self.params.0.iter().map(|(name, tensor)| (format!("weights/{name}"), tensor)));
        if let Some(average) = &self.average {
            tensors.extend(average.0.iter().map(|(name, tensor)| (format!("average/{name}"), tensor)));
        }
        for (name, parameter) in &self.optimizer.parameters {
            tensors.push((format!("first/{name}"), &parameter.first));
            tensors.extend(parameter.second.as_ref().map(|second| (format!("second/{name}"), second)));
        }
        let header = CheckpointHeader {
            version: VERSION,
            config: config.clone(),
            about: about.to_json(),
            progress: self.progress.clone(),
            optimizer_steps: self
                .optimizer
                .parameters
                .iter()
                .map(|(name, parameter)| (name.clone(), parameter.steps))
                .collect(),
        };
        let header = serde_json::to_string(&header).expect("a header has only numbers and strings");
        let path = folder.join(FILE);
        tensor_file::write(&path, tensors, HashMap::from([(KEY.to_owned(), header)]))
            .map_err(|source| CheckpointError::Write { path, source })
    }
}

/// A checkpoint that was read. [`Checkpoint::config`] and [`Checkpoint::about`] define the network and the optimizer that
/// [`Checkpoint::state`] needs.
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    header: CheckpointHeader,
    about: ModelDescription,
}

impl Checkpoint {
    /// Reads the checkpoint in the folder of a run.
    ///
    /// # Errors
    /// If there is no checkpoint, or it is damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(CheckpointError::NoRun(folder.to_owned()));
        }
        let WeightsFile { tensors, metadata, .. } = weights::read(&path)
            .map_err(|error| CheckpointError::Read { folder: folder.to_owned(), source: error.into() })?;
        let Some(header) = metadata.get(KEY) else { return Err(CheckpointError::NotCheckpoint(path)) };
        let header: CheckpointHeader = serde_json::from_str(header)
            .map_err(|error| CheckpointError::Version { path: path.clone(), reason: error.to_string() })?;
        if header.version != VERSION {
            let reason = format!("checkpoint version {}, not {VERSION}", header.version);
            return Err(CheckpointError::Version { path, reason });
        }
        let about = ModelDescription::from_json(&header.about)
            .map_err(|error| CheckpointError::Version { path: path.clone(), reason: error.to_string() })?;
        Ok(Checkpoint { path, tensors, header, about })
    }

    pub fn config(&self) -> &RunConfig {
        &self.header.config
    }

    /// The model that the run trains.
    pub fn about(&self) -> &ModelDescription {
        &self.about
    }

    /// Returns the state of the run, with its tensors on `device`.
    ///
    /// # Errors
    /// If a tensor is missing.
    pub fn state(mut self, net: &Net, mut optimizer: Optimizer, device: Device) -> Result<RunState, CheckpointError> {
        let names: Vec<String> = net.param_specs().into_iter().map(|spec| spec.name).collect();
        let mut take = |prefix: &str, name: &str| {
            let key = format!("{prefix}/{name}");
            let tensor = self.tensors.remove(&key).map(|tensor| tensor.to_device(device));
            tensor.ok_or(CheckpointError::MissingTensor { path: self.path.clone(), name: key })
        };
        let mut all = |prefix: &str| -> Result<Params, CheckpointError> {
            let tensors = names.iter().map(|name| Ok((name.clone(), take(prefix, name)?)));
            Ok(Params(tensors.collect::<Result<_, CheckpointError>>()?))
        };
        let params = all("weights")?;
        let average = if self.header.config.fit.ema > 0.0 { Some(all("average")?) } else { None };
        for (name, steps) in self.header.optimizer_steps {
            let first = take("first", &name)?;
            let second = take("second", &name).ok();
            optimizer.parameters.insert(name, ParameterState { steps, first, second });
        }
        Ok(RunState { params, average, optimizer, progress: self.header.progress })
    }
}
