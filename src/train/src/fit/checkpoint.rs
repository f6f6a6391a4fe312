//! Checkpoints contain everything that a run needs to continue with the same result: weights, their moving average, the
//! optimizer, the position and the history. Random numbers depend only on the seed and the position and need no state.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::optimizer::{Optimizer, Slot};
use super::run::RunConfig;
use crate::net::{Net, Params};
use crate::report::History;
use crate::tensor_file;
use crate::weights::{self, About, WeightsError, WeightsFile};

/// The file's name in a run's folder.
pub const FILE: &str = "checkpoint.safetensors";
const KEY: &str = "maskcast.checkpoint";
const VERSION: u32 = 1;

/// The position of a run and its history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Batches learned from.
    pub step: u64,
    /// Sum of the losses of this epoch's batches, and their number.
    pub loss_sum: f64,
    pub loss_count: u64,
    /// Seconds spent in this epoch, and of these waiting for data.
    pub seconds: f64,
    pub waited: f64,
    /// Best validation mIoU so far, and its epoch (counted from 1).
    pub best: Option<(f64, u64)>,
    pub history: History,
    /// Where the first weights came from.
    #[serde(default)]
    pub origin: String,
    /// Of the data set that the run was begun with; see [`Dataset::fingerprint`](crate::data::Dataset::fingerprint).
    #[serde(default)]
    pub data: String,
    /// Its images for training and for validation; 0 where a checkpoint does not say.
    #[serde(default, rename = "pictures")]
    pub images: (usize, usize),
}

/// The weights and the position of a run.
#[derive(Debug)]
pub struct State {
    pub params: Params,
    /// The weights' moving average; `None` if it is switched off.
    pub average: Option<Params>,
    pub optimizer: Optimizer,
    pub progress: Progress,
}

#[derive(Serialize, Deserialize)]
struct Header {
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
    None(PathBuf),
    #[error(
        "{error}\nThe run cannot be continued from it. If {} exists, it contains the best weights so far: start a new \
         run from them with `--init`",
        folder.join("best.safetensors").display()
    )]
    Read { folder: PathBuf, error: Box<WeightsError> },
    #[error("{}: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
    #[error("{}: not a checkpoint of `maskcast-train fit`", .0.display())]
    Foreign(PathBuf),
    #[error("{}: written by a version that this one cannot read ({reason}); resume with that version", path.display())]
    Version { path: PathBuf, reason: String },
    #[error("{}: `{name}` is missing: the file belongs to another network; restore the checkpoint", path.display())]
    Missing { path: PathBuf, name: String },
}

impl State {
    /// Starts again with these weights on other data: steps, epochs, schedule and patience count from 0, and the
    /// optimizer's state is cleared.
    pub fn restart(&mut self, data: String, images: (usize, usize)) {
        let epochs = self.progress.history.0.len();
        let origin = format!("{}; {epochs} epochs with the data set as it was, then begun again", self.progress.origin);
        self.progress = Progress { origin, data, images, ..Progress::default() };
        self.optimizer.slots.clear();
    }

    /// Writes the checkpoint into `folder`; the one before stays until the new one is whole.
    ///
    /// # Errors
    /// Errors of the file system, a full disk for example.
    pub fn write(&self, folder: &Path, config: &RunConfig, about: &About) -> Result<(), CheckpointError> {
        let mut tensors: Vec<(String, &Tensor)> = Vec::new();
        tensors.extend(self.params.0.iter().map(|(name, tensor)| (format!("weights/{name}"), tensor)));
        if let Some(average) = &self.average {
            tensors.extend(average.0.iter().map(|(name, tensor)| (format!("average/{name}"), tensor)));
        }
        for (name, slot) in &self.optimizer.slots {
            tensors.push((format!("first/{name}"), &slot.first));
            tensors.extend(slot.second.as_ref().map(|second| (format!("second/{name}"), second)));
        }
        let header = Header {
            version: VERSION,
            config: config.clone(),
            about: about.to_json(),
            progress: self.progress.clone(),
            optimizer_steps: self.optimizer.slots.iter().map(|(name, slot)| (name.clone(), slot.steps)).collect(),
        };
        let header = serde_json::to_string(&header).expect("plain numbers and texts");
        let path = folder.join(FILE);
        tensor_file::write(&path, tensors, HashMap::from([(KEY.to_owned(), header)]))
            .map_err(|error| CheckpointError::Write { path, error })
    }
}

/// A checkpoint as read: the configuration first, for the network and the optimizer follow from it.
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    header: Header,
    about: About,
}

impl Checkpoint {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// If there is no checkpoint, or it is damaged or another version's.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(CheckpointError::None(folder.to_owned()));
        }
        let WeightsFile { tensors, metadata, .. } = weights::read(&path)
            .map_err(|error| CheckpointError::Read { folder: folder.to_owned(), error: error.into() })?;
        let Some(header) = metadata.get(KEY) else { return Err(CheckpointError::Foreign(path)) };
        let header: Header = serde_json::from_str(header)
            .map_err(|error| CheckpointError::Version { path: path.clone(), reason: error.to_string() })?;
        if header.version != VERSION {
            let reason = format!("checkpoint version {}, not {VERSION}", header.version);
            return Err(CheckpointError::Version { path, reason });
        }
        let about = About::from_json(&header.about)
            .map_err(|reason| CheckpointError::Version { path: path.clone(), reason })?;
        Ok(Checkpoint { path, tensors, header, about })
    }

    pub fn config(&self) -> &RunConfig {
        &self.header.config
    }

    /// What the run makes.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The state on `device`.
    ///
    /// # Errors
    /// If a tensor is missing.
    pub fn state(mut self, net: &Net, mut optimizer: Optimizer, device: Device) -> Result<State, CheckpointError> {
        let names: Vec<String> = net.shapes().into_iter().map(|shape| shape.name).collect();
        let mut take = |prefix: &str, name: &str| {
            let key = format!("{prefix}/{name}");
            let tensor = self.tensors.remove(&key).map(|tensor| tensor.to_device(device));
            tensor.ok_or(CheckpointError::Missing { path: self.path.clone(), name: key })
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
            optimizer.slots.insert(name, Slot { steps, first, second });
        }
        Ok(State { params, average, optimizer, progress: self.header.progress })
    }
}
