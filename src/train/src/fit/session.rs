//! A training run in its folder: start, resume, and finish.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maskcast::base::stop::Stop;
use tch::Device;

use super::checkpoint::{self, Checkpoint, CheckpointError, Progress, State};
use super::optimizer::Optimizer;
use super::run::{Ended, Fit, FitError, RunConfig};
use super::start::{StartError, start};
use crate::data::{DataError, Dataset};
use crate::device::set_threads;
use crate::evaluate::{self, EvaluateError};
use crate::loss::Loss;
use crate::net::Net;
use crate::weights::{About, ModelFile, WeightsError};

/// The best weights so far, in a run's folder.
pub const BEST: &str = "best.safetensors";

/// Why a run cannot start, continue or finish.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{0}")]
    Options(String),
    #[error("{}: {error}", path.display())]
    Folder { path: PathBuf, error: std::io::Error },
}

/// A run.
pub struct Session {
    pub config: RunConfig,
    pub dataset: Arc<Dataset>,
    pub about: About,
    pub net: Net,
    pub state: State,
    pub folder: PathBuf,
    /// Share of each class in the training pixels.
    pub shares: Vec<f64>,
    /// Assumptions about the data set, one sentence each, for display.
    pub notes: Vec<String>,
    device: Device,
    /// The lock that prevents other processes from training in the folder.
    _lock: File,
}

/// The lock file of the process that trains in a folder. The kernel releases the lock when the process ends.
const LOCK: &str = ".lock";

fn lock(folder: &Path) -> Result<File, SessionError> {
    let path = folder.join(LOCK);
    let failed = |error| SessionError::Folder { path: path.clone(), error };
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SessionError::Options(format!(
            "{}: another process trains in this folder; wait for it, or pass another \
                folder with -o",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Why labels with these shares of the classes teach nothing; `None` if they do.
fn nothing_to_learn(dataset: &Dataset, shares: &[f64]) -> Option<String> {
    let occur: Vec<usize> = (0..shares.len()).filter(|&class| shares[class] > 0.0).collect();
    let root = dataset.root.display();
    match occur[..] {
        [] => Some(format!(
            "{root}: no pixel of the training images is labelled, all are void; `maskcast-train data check` says how \
             the labels are interpreted"
        )),
        [only] => Some(format!(
            "{root}: every labelled pixel of the training images is {}: there is nothing to distinguish; \
             `maskcast-train data check` says how the labels are interpreted",
            dataset.classes[only].name
        )),
        _ => None,
    }
}

/// The error for a run whose data set has changed. Its epochs would have another number of steps, which shifts schedule
/// and patience.
fn changed(folder: &Path, dataset: &Dataset, progress: &Progress) -> String {
    let (folder, root) = (folder.display(), dataset.root.display());
    let (train, val) = (dataset.train.len(), dataset.val.len());
    let how = match progress.images {
        (0, 0) => "images were added, removed, moved or modified".to_string(),
        before if before == (train, val) => "files were renamed or modified".to_string(),
        before => format!("then {} training and {} validation images, now {train} and {val}", before.0, before.1),
    };
    format!(
        "{folder}: the data set {root} has changed since the run was started ({how}): its epochs, learning rates and \
         patience would not fit. Restore the data set; or start again at epoch 1 with the weights of this run and the \
         current data, with `maskcast-train resume {folder} --restart`; or start another run from its best weights, \
         with \
         `maskcast-train fit DIR -o OTHER --init {}`",
        folder.to_string() + "/" + BEST
    )
}

impl Session {
    /// Starts a run in `folder`, which is created if necessary and must not contain another run.
    ///
    /// # Errors
    /// All problems of the options, the data set, the weights or the folder.
    pub fn begin(mut config: RunConfig, folder: &Path) -> Result<Self, SessionError> {
        if folder.join(checkpoint::FILE).exists() {
            let folder = folder.display();
            return Err(SessionError::Options(format!(
                "{folder} already contains a run: continue it with `maskcast-train resume {folder}`, or pass another \
                 folder with -o"
            )));
        }
        let problems = config.fit.problems();
        if !problems.is_empty() {
            return Err(SessionError::Options(problems.join("\n")));
        }
        if let Ok(data) = std::path::absolute(&config.data.data) {
            // The run may be resumed from elsewhere.
            config.data.data = data;
        }
        let device = config.fit.machine.device.device().map_err(SessionError::Options)?;
        config.fit.machine.threads = set_threads(config.fit.machine.threads);
        let mut dataset = config.data.open()?;
        dataset.keep(config.fit.machine.cache << 20);
        let dataset = Arc::new(dataset);
        for (part, pairs) in [("train", &dataset.train), ("val", &dataset.val)] {
            if pairs.is_empty() {
                return Err(SessionError::Options(format!(
                    "{}: the part {part} has no images; `maskcast-train data check` lists what was found",
                    dataset.root.display()
                )));
            }
        }
        let shares = evaluate::class_shares(&dataset, &dataset.train, config.fit.machine.loader_threads.max(1))?;
        if let Some(problem) = nothing_to_learn(&dataset, &shares) {
            return Err(SessionError::Options(problem));
        }
        let options = &config.fit;
        let begun = start(&options.net, options.strategy, &dataset.classes, options.seed)?;
        std::fs::create_dir_all(folder).map_err(|error| SessionError::Folder { path: folder.to_owned(), error })?;
        let lock = lock(folder)?;
        let params = begun.params.to_device(device);
        let average = (options.ema > 0.0).then(|| params.copied());
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay);
        let data = dataset.fingerprint();
        let images = (dataset.train.len(), dataset.val.len());
        let progress = Progress { origin: begun.origin, data, images, ..Progress::default() };
        let state = State { params, average, optimizer, progress };
        let about = About {
            encoder: begun.variant.encoder,
            flavour: begun.variant.flavour,
            decoder: options.net.decoder(),
            normalise: begun.net.normalise,
            labels: dataset.classes.clone(),
            input: options.net.input,
            train: serde_json::Value::Null,
        };
        config.fit.net.flavour = Some(about.flavour);
        let (folder, notes) = (folder.to_owned(), dataset.notes.clone());
        Ok(Session { config, dataset, about, net: begun.net, state, folder, shares, notes, device, _lock: lock })
    }

    /// Continues the run in `folder` from its last checkpoint; with `restart`, from its first epoch, with its weights
    /// and the current data set.
    ///
    /// # Errors
    /// If there is no run, or the data set has changed and `restart` is not set.
    pub fn resume(folder: &Path, restart: bool) -> Result<Self, SessionError> {
        let checkpoint = Checkpoint::read(folder)?;
        let lock = lock(folder)?;
        let config = checkpoint.config().clone();
        let options = &config.fit;
        let device = options.machine.device.device().map_err(SessionError::Options)?;
        set_threads(options.machine.threads);
        let mut dataset = config.data.open()?;
        dataset.keep(config.fit.machine.cache << 20);
        let dataset = Arc::new(dataset);
        let about = checkpoint.about().clone();
        if about.labels != dataset.classes {
            return Err(SessionError::Options(format!(
                "{}: the run was started with {} classes, and the data set now has {}, or others: restore the data \
                 set's classes, or start a new run with --init",
                folder.display(),
                about.labels.len(),
                dataset.classes.len()
            )));
        }
        let net = about.net().map_err(SessionError::Options)?;
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay);
        let mut state = checkpoint.state(&net, optimizer, device)?;
        let data = dataset.fingerprint();
        if restart {
            state.restart(data, (dataset.train.len(), dataset.val.len()));
        } else if !state.progress.data.is_empty() && state.progress.data != data {
            return Err(SessionError::Options(changed(folder, &dataset, &state.progress)));
        }
        let shares = evaluate::class_shares(&dataset, &dataset.train, options.machine.loader_threads.max(1))?;
        let notes = dataset.notes.clone();
        let folder = folder.to_owned();
        Ok(Session { config, dataset, about, net, state, folder, shares, notes, device, _lock: lock })
    }

    /// Fits to the end, or until `stop` is raised.
    ///
    /// # Errors
    /// See [`FitError`].
    pub fn fit(&mut self, stop: &Stop) -> Result<Ended, SessionError> {
        let stop = stop.clone();
        let (mut fit, state) = self.parts();
        fit.stop = stop;
        Ok(fit.run(state)?)
    }

    /// The training loop and the state that it changes.
    pub fn parts(&mut self) -> (Fit<'_>, &mut State) {
        let options = &self.config.fit;
        let best = self.folder.join(BEST);
        let about = &self.about;
        let fit = Fit {
            config: &self.config,
            about,
            dataset: self.dataset.clone(),
            net: &self.net,
            loss: Loss::new(&options.loss, &self.shares, self.device),
            device: self.device,
            precision: options.machine.precision.kind(self.device),
            folder: Some(self.folder.clone()),
            stop: Stop::default(),
            on_best: Box::new(move |params, progress| {
                let train = serde_json::json!({ "best": progress.best });
                let file = ModelFile { about: About { train, ..about.clone() }, params: params.to_device(Device::Cpu) };
                file.write(&best).map_err(|error| error.to_string())
            }),
        };
        (fit, &mut self.state)
    }

    /// The device of the computation.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The best weights.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn best(&self) -> Result<ModelFile, SessionError> {
        Ok(ModelFile::read(&self.folder.join(BEST))?)
    }
}
