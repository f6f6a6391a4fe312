//! A model of the configuration: what runs, and requests to load another file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::drift::reference::Reference;
use crate::frame::Labels;
use crate::segment::placement::Placement;
use crate::segment::pool::PoolStats;
use crate::segment::unlabelled::Unlabelled;

/// A model of the configuration.
pub struct NamedModel {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The counters of its workers.
    pub pool: Arc<PoolStats>,
    running: RwLock<Option<Arc<ModelView>>>,
    change: Mutex<Option<ModelChange>>,
    files: Mutex<ModelFiles>,
    requests: Sender<ModelChangeRequest>,
}

/// A running model.
#[derive(Clone, Debug)]
pub struct ModelView {
    /// The name of its file.
    pub name: String,
    pub path: PathBuf,
    pub labels: Labels,
    /// The first provider of the configuration; without one, the provider that runs the model.
    pub requested: &'static str,
    /// The provider that runs the model.
    pub actual: &'static str,
    /// The nodes and time of each provider, as ONNX Runtime has assigned them.
    pub placement: Placement,
    /// Configured providers that do not run the model, with the reason.
    pub refused: Vec<(&'static str, String)>,
    /// Share of the golden frame's pixels that differ; `None` without a golden frame.
    pub golden_difference: Option<f64>,
    /// How the mask is decoded from the model's output.
    pub output: String,
    /// Pixels of its masks whose class has no label.
    pub unlabelled: Arc<Unlabelled>,
    /// Input size in pixels.
    pub input: (usize, usize),
    /// The numbers of the GPUs that run it; empty on the CPU.
    pub devices: Vec<i32>,
    pub workers: usize,
    pub threads: usize,
    pub max_batch: usize,
    /// Median time of a frame, measured when the model was loaded.
    pub time: Duration,
    /// The images that it was trained on; `None` if its file does not say.
    pub reference: Option<Arc<Reference>>,
    /// Growth of the resident memory of the process while it was loaded and its workers were made, in bytes; `None` where it cannot
    /// be measured.
    pub memory: Option<u64>,
}

/// The files of a model besides the one that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// The file of the configuration, which the next start loads.
    pub configured: PathBuf,
    /// The file that ran before; `None` if no other has.
    pub previous: Option<PathBuf>,
}

/// The newest request for another model and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelChange {
    pub path: PathBuf,
    pub outcome: ModelChangeState,
    pub saving: Saving,
    pub at: Timestamp,
}

/// Whether the file of a change is in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Saving {
    /// The client has not asked for it.
    #[default]
    NotRequested,
    /// It is written when the model runs.
    Requested,
    Saved,
    /// With the reason.
    Failed(String),
}

/// The state of a change of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelChangeState {
    /// The new model is being loaded and checked while the current one runs.
    Loading,
    /// The new model runs.
    Done,
    /// The current model continues to run.
    Refused(String),
}

/// A request for another model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChangeRequest {
    pub path: PathBuf,
    /// Accept a model that would run on the CPU although the current one runs on a GPU.
    pub force: bool,
    /// Write the path to the configuration when the model runs.
    pub save: bool,
}

/// Another file of the model is already being loaded; or the model has been removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelBusy;

impl NamedModel {
    /// A model that is not loaded yet, and the queue of the requests for it, one at a time.
    pub fn new(name: &str, pool: Arc<PoolStats>) -> (NamedModel, Receiver<ModelChangeRequest>) {
        let (requests, queued) = bounded(1);
        let model = NamedModel {
            name: name.into(),
            pool,
            running: RwLock::default(),
            change: Mutex::default(),
            files: Mutex::default(),
            requests,
        };
        (model, queued)
    }

    /// What runs; `None` until it is loaded.
    pub fn running(&self) -> Option<Arc<ModelView>> {
        self.running.read().clone()
    }

    pub fn set_running(&self, model: ModelView) {
        *self.running.write() = Some(Arc::new(model));
    }

    /// The newest request for another file and its state.
    pub fn change(&self) -> Option<ModelChange> {
        self.change.lock().clone()
    }

    pub fn set_change(&self, path: PathBuf, outcome: ModelChangeState, saving: Saving) {
        *self.change.lock() = Some(ModelChange { path, outcome, saving, at: Timestamp::now() });
    }

    /// The files besides the one that runs.
    pub fn files(&self) -> ModelFiles {
        self.files.lock().clone()
    }

    /// Stores the files of the configuration that was read.
    pub fn set_files(&self, files: ModelFiles) {
        *self.files.lock() = files;
    }

    /// Stores the file that ran before the one that runs now.
    pub fn set_previous(&self, previous: PathBuf) {
        self.files.lock().previous = Some(previous);
    }

    /// The path that is to be written to the configuration: that of a change which was made and not saved.
    pub fn unsaved(&self) -> Option<PathBuf> {
        let change = self.change.lock();
        let change = change.as_ref()?;
        (change.outcome == ModelChangeState::Done && change.saving == Saving::Requested).then(|| change.path.clone())
    }

    /// Stores the result of writing `path` to the configuration, unless there is a newer change.
    pub fn set_saved(&self, path: &Path, saving: Saving) {
        if let Some(change) = self.change.lock().as_mut().filter(|change| change.path == path) {
            if saving == Saving::Saved {
                self.files.lock().configured = path.to_path_buf();
            }
            change.saving = saving;
        }
    }

    /// Requests another file for the model. Returns the state of the request.
    ///
    /// # Errors
    /// The model cannot take a request now.
    pub fn request(&self, request: ModelChangeRequest) -> Result<ModelChange, ModelBusy> {
        let mut change = self.change.lock();
        if change.as_ref().is_some_and(|change| change.outcome == ModelChangeState::Loading) {
            return Err(ModelBusy);
        }
        let path = request.path.clone();
        let saving = if request.save { Saving::Requested } else { Saving::NotRequested };
        self.requests.try_send(request).map_err(|_| ModelBusy)?;
        let requested = ModelChange { path, outcome: ModelChangeState::Loading, saving, at: Timestamp::now() };
        Ok(change.insert(requested).clone())
    }
}
