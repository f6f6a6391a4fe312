//! A training run in its folder: start and resume.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maskcast::base::stop::Stop;
use tch::Device;

use super::checkpoint::{self, Checkpoint, CheckpointError, Progress, RunState};
use super::config::{FitOptions, RunConfig};
use super::initial::{InitialNet, InitialNetError, initial_net};
use super::optimizer::Optimizer;
use super::run::{FitError, RunEnd, TrainingLoop};
use crate::augment::Augment;
use crate::data::{DataError, Dataset};
use crate::device::set_threads;
use crate::distil::Teachers;
use crate::evaluate::{self, EvaluateError};
use crate::label::TeacherError;
use crate::loader::{self, Images};
use crate::loss::Loss;
use crate::net::{Net, exec, statistics};
use crate::replay::{Replay, ReplayError};
use crate::size::Size;
use crate::weights::{ModelDescription, ModelFile, WeightsError};

/// Name of the file with the best weights, in the folder of a run.
pub const BEST: &str = "best.safetensors";

/// Why a run cannot start, continue or finish.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    InitialNet(#[from] InitialNetError),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Refused(#[from] RunRefused),
    #[error(transparent)]
    Teacher(Box<TeacherError>),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
}

/// Options, a folder or a data set with which a run is refused.
#[derive(Debug, thiserror::Error)]
pub enum RunRefused {
    /// One message for each invalid option.
    #[error("{}", .0.join("\n"))]
    InvalidOptions(Vec<String>),
    #[error(
        "{} already contains a run: continue it with `maskcast-train resume {}`, or pass another folder with -o",
        .0.display(), .0.display()
    )]
    FolderHasRun(PathBuf),
    #[error("{}: another process trains in this folder; wait for it, or pass another folder with -o", .0.display())]
    FolderInUse(PathBuf),
    #[error("{0}")]
    Device(String),
    #[error("{0}")]
    Network(String),
    #[error("{}: the part {part} has no images; `maskcast-train data check` lists what was found", root.display())]
    EmptyPart { root: PathBuf, part: &'static str },
    #[error(
        "{}: no pixel of the training images is labelled, all are void; `maskcast-train data check` shows how the labels \
         are read",
        .0.display()
    )]
    OnlyVoid(PathBuf),
    #[error(
        "{}: every labelled pixel of the training images is {class}, so there is nothing to learn; `maskcast-train data \
         check` shows how the labels are read",
        root.display()
    )]
    OneClass { root: PathBuf, class: String },
    #[error(
        "{}: the run was started with {before} classes, and the data set now has {now}, or others: restore the classes \
         of the data set, or start a new run with --init",
        folder.display()
    )]
    ClassesChanged { folder: PathBuf, before: usize, now: usize },
    /// Epochs would have another number of steps, so schedule and patience would be wrong.
    #[error(
        "{}: the data set {} has changed since the run was started ({change}): epochs, learning rates and patience would \
         not fit. Restore the data set; or restart at epoch 1 with the weights of this run and the current data, with \
         `maskcast-train resume {} --restart`; or start another run from its best weights, with `maskcast-train fit DIR \
         -o OTHER --init {}`",
        folder.display(), root.display(), folder.display(), folder.join(BEST).display()
    )]
    DataChanged { folder: PathBuf, root: PathBuf, change: DataChange },
}

/// How a data set differs from that at the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataChange {
    /// Other numbers of training and validation images.
    Counts { before: (usize, usize), now: (usize, usize) },
    /// The same numbers, with other names or file sizes.
    Files,
    /// The checkpoint has no numbers.
    Unknown,
}

impl fmt::Display for DataChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataChange::Counts { before, now } => {
                write!(f, "then {} training and {} validation images, now {} and {}", before.0, before.1, now.0, now.1)
            }
            DataChange::Files => f.write_str("files were renamed or modified"),
            DataChange::Unknown => f.write_str("images were added, removed, moved or modified"),
        }
    }
}

/// A run in its folder.
pub struct Session {
    pub config: RunConfig,
    pub dataset: Arc<Dataset>,
    pub about: ModelDescription,
    pub net: Net,
    pub state: RunState,
    pub folder: PathBuf,
    /// Share of each class in the training pixels.
    pub shares: Vec<f64>,
    /// Assumptions about the data set, one sentence each, for display.
    pub notes: Vec<String>,
    replay: Option<Arc<Replay>>,
    teachers: Option<Arc<Teachers>>,
    device: Device,
    /// Prevents other processes from training in the folder.
    _lock: File,
}

/// Name of the file that the process that trains in a folder locks. The kernel releases the lock when the process ends.
const LOCK: &str = ".lock";

fn lock(folder: &Path) -> Result<File, SessionError> {
    let path = folder.join(LOCK);
    let failed = |source| SessionError::Folder { path: path.clone(), source };
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunRefused::FolderInUse(folder.to_owned()).into()),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Checks that the training labels distinguish at least two classes. `shares` are the shares of the classes.
fn check_shares(dataset: &Dataset, shares: &[f64]) -> Result<(), RunRefused> {
    let occur: Vec<usize> = (0..shares.len()).filter(|&class| shares[class] > 0.0).collect();
    match occur[..] {
        [] => Err(RunRefused::OnlyVoid(dataset.root.clone())),
        [only] => Err(RunRefused::OneClass { root: dataset.root.clone(), class: dataset.classes[only].name.clone() }),
        _ => Ok(()),
    }
}

/// Checks that the classes of --void-as and --paste are in the data set.
fn check_named_classes(augment: &Augment, dataset: &Dataset) -> Result<(), RunRefused> {
    let named = augment.void_as.iter().map(|name| ("void-as", name));
    let named = named.chain(augment.paste.iter().map(|name| ("paste", name)));
    let names: Vec<&str> = dataset.classes.iter().map(|class| class.name.as_str()).collect();
    let unknown = named.filter(|(_, name)| !names.contains(&name.as_str()));
    let problem = |(option, name): (&str, &String)| {
        format!("--{option} {name}: the data set has no such class, only {}", names.join(", "))
    };
    let problems: Vec<String> = unknown.map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(RunRefused::InvalidOptions(problems)) }
}

/// How the data set has changed since the start of the run.
fn data_change(dataset: &Dataset, progress: &Progress) -> DataChange {
    let now = (dataset.train.len(), dataset.val.len());
    match progress.images {
        (0, 0) => DataChange::Unknown,
        before if before == now => DataChange::Files,
        before => DataChange::Counts { before, now },
    }
}

type Others = (Option<Arc<Replay>>, Option<Arc<Teachers>>);

/// The replayed images and the teachers of a run.
fn others(options: &FitOptions, dataset: &Dataset) -> Result<Others, SessionError> {
    let teachers = Teachers::load(&options.distil, &dataset.classes);
    let teachers = teachers.map_err(|error| SessionError::Teacher(error.into()))?;
    let replay = options.replay.replay.as_deref();
    let replay = replay.map(|path| Replay::open(path, &dataset.classes, teachers.is_some())).transpose()?;
    Ok((replay.map(Arc::new), teachers.map(Arc::new)))
}

/// Number of images from which the statistics of batch norms are estimated.
const STATISTICS_IMAGES: usize = 24;

/// Sets the statistics of the batch norms to those of training images, evenly spread over the data set.
fn estimate_statistics(initial: &mut InitialNet, dataset: &Dataset, input: Size) -> Result<(), SessionError> {
    let (count, normalise) = (dataset.train.len(), initial.net.normalise);
    let mut inputs = Vec::new();
    for index in 0..count.min(STATISTICS_IMAGES) {
        let pair = &dataset.train[index * count / count.min(STATISTICS_IMAGES)];
        let image = loader::whole(dataset, pair, input).map_err(EvaluateError::Load)?;
        inputs.push(exec::input(&loader::pack(&[image], input).rgb, &normalise, Device::Cpu));
    }
    statistics::estimate(&initial.net, &mut initial.params, inputs.into_iter());
    Ok(())
}

fn device(config: &RunConfig) -> Result<Device, RunRefused> {
    config.fit.machine.device.device().map_err(|error| RunRefused::Device(error.to_string()))
}

impl Session {
    /// Starts a run in `folder`, which is created if necessary and must not contain another run.
    ///
    /// # Errors
    /// If the options, the data set, the weights or the folder cannot be used. All invalid options are listed.
    pub fn start(mut config: RunConfig, folder: &Path) -> Result<Self, SessionError> {
        if folder.join(checkpoint::FILE).exists() {
            return Err(RunRefused::FolderHasRun(folder.to_owned()).into());
        }
        let problems = config.fit.problems();
        if !problems.is_empty() {
            return Err(RunRefused::InvalidOptions(problems).into());
        }
        // The run may be resumed from another working directory.
        let mut paths = vec![&mut config.data.data];
        paths.extend(&mut config.fit.replay.replay);
        for teacher in &mut config.fit.distil.teachers {
            paths.push(&mut teacher.model);
            paths.extend(&mut teacher.map);
        }
        for path in paths {
            if let Ok(absolute) = std::path::absolute(&path) {
                *path = absolute;
            }
        }
        let device = device(&config)?;
        config.fit.machine.threads = set_threads(config.fit.machine.threads);
        let mut dataset = config.data.open()?;
        dataset.keep(config.fit.machine.cache << 20);
        let dataset = Arc::new(dataset);
        for (part, pairs) in [("train", &dataset.train), ("val", &dataset.val)] {
            if pairs.is_empty() {
                return Err(RunRefused::EmptyPart { root: dataset.root.clone(), part }.into());
            }
        }
        check_named_classes(&config.fit.augment, &dataset)?;
        let shares = evaluate::class_shares(&dataset, &dataset.train, config.fit.machine.loader_threads.max(1))?;
        check_shares(&dataset, &shares)?;
        let options = &config.fit;
        let (replay, teachers) = others(options, &dataset)?;
        let mut initial = initial_net(&options.net, options.strategy, &dataset.classes, options.seed)?;
        if initial.lacks_statistics {
            estimate_statistics(&mut initial, &dataset, options.net.input)?;
        }
        std::fs::create_dir_all(folder).map_err(|source| SessionError::Folder { path: folder.to_owned(), source })?;
        let lock = lock(folder)?;
        let params = initial.params.to_device(device);
        let average = (options.ema > 0.0).then(|| params.copied());
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay);
        let data = dataset.fingerprint();
        let images = (dataset.train.len(), dataset.val.len());
        let progress = Progress { origin: initial.origin, data, images, ..Progress::default() };
        let state = RunState { params, average, optimizer, progress };
        let about = ModelDescription {
            encoder: initial.variant.encoder,
            flavour: initial.variant.flavour,
            decoder: options.net.decoder(),
            normalise: initial.net.normalise,
            labels: dataset.classes.clone(),
            input: options.net.input,
            train: serde_json::Value::Null,
        };
        config.fit.net.flavour = Some(about.flavour);
        let (folder, notes) = (folder.to_owned(), dataset.notes.clone());
        let net = initial.net;
        Ok(Session { config, dataset, about, net, state, folder, shares, notes, replay, teachers, device, _lock: lock })
    }

    /// Resumes the run in `folder` from its last checkpoint; with `restart`, from epoch 1 with its current weights and the
    /// current data set.
    ///
    /// # Errors
    /// If there is no run, or the data set has changed and `restart` is not set.
    pub fn resume(folder: &Path, restart: bool) -> Result<Self, SessionError> {
        let checkpoint = Checkpoint::read(folder)?;
        let lock = lock(folder)?;
        let config = checkpoint.config().clone();
        let options = &config.fit;
        let device = device(&config)?;
        set_threads(options.machine.threads);
        let mut dataset = config.data.open()?;
        dataset.keep(config.fit.machine.cache << 20);
        let dataset = Arc::new(dataset);
        let mut about = checkpoint.about().clone();
        if !about.labels.iter().map(|label| &label.name).eq(dataset.classes.iter().map(|label| &label.name)) {
            let (before, now) = (about.labels.len(), dataset.classes.len());
            return Err(RunRefused::ClassesChanged { folder: folder.to_owned(), before, now }.into());
        }
        // Other colours and weights of the classes do not change the training.
        about.labels.clone_from(&dataset.classes);
        let net = about.net().map_err(|error| RunRefused::Network(error.to_string()))?;
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay);
        let mut state = checkpoint.state(&net, optimizer, device)?;
        let data = dataset.fingerprint();
        if restart {
            state.restart(data, (dataset.train.len(), dataset.val.len()));
        } else if !state.progress.data.is_empty() && state.progress.data != data {
            let change = data_change(&dataset, &state.progress);
            let (folder, root) = (folder.to_owned(), dataset.root.clone());
            return Err(RunRefused::DataChanged { folder, root, change }.into());
        }
        let shares = evaluate::class_shares(&dataset, &dataset.train, options.machine.loader_threads.max(1))?;
        let (replay, teachers) = others(options, &dataset)?;
        let notes = dataset.notes.clone();
        let folder = folder.to_owned();
        Ok(Session { config, dataset, about, net, state, folder, shares, notes, replay, teachers, device, _lock: lock })
    }

    /// Trains to the end, or until `stop` is raised.
    ///
    /// # Errors
    /// See [`FitError`].
    pub fn train(&mut self, stop: &Stop) -> Result<RunEnd, SessionError> {
        let stop = stop.clone();
        let (mut training, state) = self.parts();
        training.stop = stop;
        Ok(training.run(state)?)
    }

    /// Returns the training loop and the state that it changes.
    pub fn parts(&mut self) -> (TrainingLoop<'_>, &mut RunState) {
        let options = &self.config.fit;
        let best = self.folder.join(BEST);
        let about = &self.about;
        let training = TrainingLoop {
            config: &self.config,
            about,
            images: Images {
                dataset: self.dataset.clone(),
                replay: self.replay.clone(),
                teachers: self.teachers.clone(),
            },
            net: &self.net,
            loss: Loss::new(&options.loss, &self.shares, self.device),
            device: self.device,
            precision: options.machine.precision.kind(self.device),
            folder: Some(self.folder.clone()),
            stop: Stop::default(),
            store_best: Box::new(move |params, progress| {
                let train = serde_json::json!({ "best": progress.best });
                let description = ModelDescription { train, ..about.clone() };
                let file = ModelFile { description, params: params.to_device(Device::Cpu) };
                file.write(&best)
            }),
        };
        (training, &mut self.state)
    }

    /// The device that computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Reads the best weights.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn best(&self) -> Result<ModelFile, SessionError> {
        Ok(ModelFile::read(&self.folder.join(BEST))?)
    }
}
