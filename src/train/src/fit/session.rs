//! A run in its folder: begun, resumed, and brought to its end.

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

/// Why a run cannot begin, go on or end.
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
    /// What was assumed of the data set or has changed, a sentence each, for people.
    pub notes: Vec<String>,
    device: Device,
    /// Keeps other processes out of the folder.
    _lock: File,
}

/// Taken by the process that trains in a folder; goes with it, however it ends.
const LOCK: &str = ".lock";

fn lock(folder: &Path) -> Result<File, SessionError> {
    let path = folder.join(LOCK);
    let failed = |error| SessionError::Folder { path: path.clone(), error };
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(SessionError::Options(format!("{}: another process is training in it", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Why labels with these shares of the classes teach nothing; `None` when they do.
fn nothing_to_learn(dataset: &Dataset, shares: &[f64]) -> Option<String> {
    let occur: Vec<usize> = (0..shares.len()).filter(|&class| shares[class] > 0.0).collect();
    let root = dataset.root.display();
    match occur[..] {
        [] => Some(format!(
            "{root}: no pixel of the training images is labelled, all are void; `maskcast-train data check` says how \
             the labels were understood"
        )),
        [only] => Some(format!(
            "{root}: every labelled pixel of the training images is {}: there is nothing to tell apart; \
             `maskcast-train data check` says how the labels were understood",
            dataset.classes[only].name
        )),
        _ => None,
    }
}

/// Why a run does not go on with data that has changed, and what can be done: steps would be of other images, and
/// epochs of another number of steps, so that schedule and patience would shift.
fn changed(folder: &Path, dataset: &Dataset, progress: &Progress) -> String {
    let (folder, root) = (folder.display(), dataset.root.display());
    let (train, val) = (dataset.train.len(), dataset.val.len());
    let how = match progress.images {
        (0, 0) => "images were added, removed, moved or written to".to_string(),
        before if before == (train, val) => "files were renamed or written to".to_string(),
        before => format!("{} images to train and {} to validate then, {train} and {val} now", before.0, before.1),
    };
    format!(
        "{folder}: the data set {root} is not what it was when the run was begun ({how}): its epochs, learning rates and \
         patience would not fit. Put the data back as it was; or begin at epoch 1 again, with the weights of this run and \
         the data as it is, by `maskcast-train resume {folder} --restart`; or begin another run from its best weights by \
         `maskcast-train fit DIR -o OTHER --init {}`",
        folder.to_string() + "/" + BEST
    )
}

impl Session {
    /// Begins a run in `folder`, which is made if need be and must not hold another run.
    ///
    /// # Errors
    /// Everything that is wrong with the options, the data set, the weights or the folder.
    pub fn begin(mut config: RunConfig, folder: &Path) -> Result<Self, SessionError> {
        if folder.join(checkpoint::FILE).exists() {
            let folder = folder.display();
            return Err(SessionError::Options(format!(
                "{folder} holds a run already: go on with it by `maskcast-train resume {folder}`, or give another \
                 folder by -o"
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
                    "{}: {part}: has no images; `maskcast-train data check` says what is there",
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

    /// Takes up the run in `folder` where its last checkpoint stands; with `restart` at its first epoch again, with its
    /// weights and the data set as it is now.
    ///
    /// # Errors
    /// When there is none, or the data set is not what it was and `restart` is not asked for.
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
                "{}: the run was begun with {} classes, and the data set now has {} or other ones: a run goes on only \
                 with the data it was begun with",
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

    /// What learns, and what it learns into.
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

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The best weights.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn best(&self) -> Result<ModelFile, SessionError> {
        Ok(ModelFile::read(&self.folder.join(BEST))?)
    }
}
