//! Loads a model, and replaces it while its streams continue.
//!
//! Another file is loaded while the current one runs. It must reproduce its golden frame, must not run on the CPU if the
//! current one runs on a GPU, and must have the classes that its streams hide or colour. Then the workers change between two
//! frames. A model that fails a check is refused, and the current one stays in use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::files::{ModelFilesVersion, WatchedModelFiles};
use super::interim::{InterimModel, interim};
use crate::base::memory::MemoryGrowth;
use crate::base::panic::panic_text;
use crate::config::{ModelConfig, Provider, StreamConfig};
use crate::drift::reference::Reference;
use crate::segment::SegmentError;
use crate::segment::engine::RuntimePaths;
use crate::segment::onnx::Model;
use crate::segment::pool::{Pool, WorkerSpec};
use crate::segment::tuning::{self, ThreadPlan, TuningGoal};
use crate::service::{ModelChangeError, ServiceError, SettingErrors, check_labels};
use crate::view::{ModelChangeState, ModelView, NamedModel, Saving};

/// A model that takes this many times as long as the previous one causes a warning.
const SLOWER_WARNING: f64 = 1.5;

/// Text in the video while the first model is loaded.
const LOADING: &str = "LOADING MODEL";

/// Text in the video while TensorRT compiles the model.
const BUILDING: &str = "BUILDING ENGINE";

/// The settings of all streams, which their models must match; changed by reloads.
pub type Streams = Arc<Mutex<Vec<StreamConfig>>>;

/// How the distribution of the cores is chosen for the first file of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstPlan {
    /// By a measurement, which takes all cores for a second.
    Measured,
    /// Without a measurement, because streams of other models run.
    Usual,
}

/// Owns a running model.
pub(super) struct ModelManager {
    pool: Arc<Pool>,
    view: Arc<NamedModel>,
    streams: Streams,
    current: Option<CurrentModel>,
    /// TensorRT's engine must still be built; another provider runs the model meanwhile.
    engine_pending: bool,
}

struct CurrentModel {
    model: Arc<Model>,
    plan: ThreadPlan,
    /// Of the loaded files.
    version: ModelFilesVersion,
}

impl ModelManager {
    pub(super) fn new(pool: Arc<Pool>, view: Arc<NamedModel>, streams: Streams) -> Self {
        pool.banner().set(LOADING);
        ModelManager { pool, view, streams, current: None, engine_pending: false }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn view(&self) -> &Arc<NamedModel> {
        &self.view
    }

    /// Follows these settings of streams from now on.
    pub(super) fn follow(&mut self, streams: Streams) {
        self.streams = streams;
    }

    /// The version of the files that run.
    pub(super) fn version(&self) -> ModelFilesVersion {
        self.current.as_ref().map(|current| current.version.clone()).unwrap_or_default()
    }

    /// Whether the model runs from this file.
    pub(super) fn runs(&self, path: &Path) -> bool {
        self.current.as_ref().is_some_and(|current| current.model.path == path)
    }

    /// Loads the first file. If TensorRT must build an engine for it, another provider runs it meanwhile. `key` is the key path of
    /// the model.
    ///
    /// # Errors
    /// The service cannot run with this model.
    pub(super) fn load_first(&mut self, config: &ModelConfig, key: &str, plan: FirstPlan) -> Result<(), ServiceError> {
        match interim(config, &RuntimePaths::default()) {
            Some(InterimModel { providers }) if !providers.is_empty() => {
                self.load_and_measure(&ModelConfig { providers, ..config.clone() }, key, plan)?;
                self.engine_pending = true;
                Ok(())
            }
            Some(_) => {
                self.pool.banner().set(BUILDING);
                self.load_and_measure(config, key, plan)
            }
            None => self.load_and_measure(config, key, plan),
        }
    }

    /// Builds the engine that [`ModelManager::load_first`] has postponed.
    pub(super) fn build_pending_engine(&mut self, config: &ModelConfig) {
        if std::mem::take(&mut self.engine_pending) {
            self.pool.banner().set(BUILDING);
            self.try_change(config, false, Saving::NotRequested);
            // Also if it could not be built: the model stays on its provider.
            self.pool.banner().clear();
        }
    }

    fn load_and_measure(&mut self, config: &ModelConfig, key: &str, plan: FirstPlan) -> Result<(), ServiceError> {
        let growth = MemoryGrowth::start();
        let version = WatchedModelFiles::of(&config.path).version();
        let goal = self.goal();
        let model = Model::load(config, tuning::default_threads(config, goal));
        let model = Arc::new(model.map_err(|error| ServiceError::of_model(key, error))?);
        self.check_classes(&model).map_err(ServiceError::Labels)?;
        let (plan, trials) = match plan {
            FirstPlan::Measured => tuning::tune(&model, goal)?,
            FirstPlan::Usual => (tuning::default_plan(&model, goal), Vec::new()),
        };
        let time = match trials.iter().find(|trial| trial.plan == plan) {
            Some(trial) => trial.latency,
            None => model.time(plan.threads)?,
        };
        for trial in &trials {
            tracing::debug!(workers = trial.plan.workers, threads = trial.plan.threads, fps = trial.fps, latency = ?trial.latency, "model measured");
        }
        Ok(self.install(CurrentModel { model, plan, version }, time, growth)?)
    }

    /// Replaces the running model.
    ///
    /// # Errors
    /// The new model is refused; the current one stays in use.
    fn change(&mut self, config: &ModelConfig, force: bool) -> Result<(), ModelChangeError> {
        let Some(current) = &self.current else { return Err(ModelChangeError::NoCurrentModel) };
        let (before, plan) = (Arc::clone(&current.model), current.plan);
        let growth = MemoryGrowth::start();
        let version = WatchedModelFiles::of(&config.path).version();
        let goal = self.goal();
        let threads =
            if before.provider == Provider::Cpu { plan.threads } else { tuning::default_threads(config, goal) };
        // A file that makes a library panic is refused.
        let loaded = catch_unwind(AssertUnwindSafe(|| Model::load(config, threads)));
        let loaded = loaded.map_err(|panic| ModelChangeError::Panicked {
            path: config.path.clone(),
            message: panic_text(&*panic).to_owned(),
        })?;
        let model = Arc::new(loaded?);
        self.check_classes(&model).map_err(ModelChangeError::Labels)?;
        if before.provider != Provider::Cpu && model.provider == Provider::Cpu && !force {
            return Err(ModelChangeError::WouldRunOnCpu {
                path: config.path.clone(),
                refused: model.refused.clone(),
                current: before.provider,
            });
        }
        let usual = tuning::default_plan(&model, goal);
        // The distribution of cores is kept: measuring again would take them from the streams.
        let plan = if model.provider == before.provider && model.config().workers == before.config().workers {
            ThreadPlan { max_batch: usual.max_batch, ..plan }
        } else {
            usual
        };
        let (time, time_before) = model.time_beside(&before, plan.threads)?;
        let ratio = time.as_secs_f64() / time_before.as_secs_f64().max(1e-6);
        if ratio > SLOWER_WARNING {
            tracing::warn!(
                "model slower than before: {} takes {ratio:.1} times as long as {}",
                model.name(),
                before.name()
            );
        }
        Ok(self.install(CurrentModel { model, plan, version }, time, growth)?)
    }

    /// Replaces the workers.
    fn install(&mut self, next: CurrentModel, time: Duration, growth: MemoryGrowth) -> Result<(), SegmentError> {
        let CurrentModel { model, plan, .. } = &next;
        let (shared, threads) = (Arc::clone(model), plan.threads);
        let growth = Arc::new(growth);
        growth.observe();
        let observed = Arc::clone(&growth);
        let factory = Box::new(move || {
            let worker = shared.worker(threads)?;
            // Before the workers of the model before end, and free their memory.
            observed.observe();
            Ok(Box::new(worker) as Box<_>)
        });
        let spec = WorkerSpec { workers: plan.workers, max_batch: plan.max_batch, factory };
        self.pool.install(spec)?;
        self.pool.stats().set_model_hash(model.sha256());
        self.pool.banner().clear();
        self.view.set_running(view_of(model, *plan, time, growth.bytes()));
        tracing::info!(
            model = &*self.view.name,
            file = model.name(),
            requested = model.expected_provider().name(),
            provider = model.provider.name(),
            workers = plan.workers,
            threads = plan.threads,
            max_batch = plan.max_batch,
            "{}: {} runs on {}, {:.0} ms a frame: {}",
            if self.current.is_some() { "model changed" } else { "model loaded" },
            model.name(),
            model.provider.name(),
            time.as_secs_f64() * 1e3,
            model.placement
        );
        self.current = Some(next);
        Ok(())
    }

    fn goal(&self) -> TuningGoal {
        goal(self.streams.lock().iter().filter(|stream| self.is_own(stream)).count())
    }

    /// Whether the stream gets its masks from this model.
    fn is_own(&self, stream: &StreamConfig) -> bool {
        *stream.model == *self.view.name
    }

    fn check_classes(&self, model: &Model) -> Result<(), SettingErrors> {
        let streams = self.streams.lock();
        check_labels(streams.iter().filter(|stream| self.is_own(stream)), &model.contract.labels).map_err(SettingErrors)
    }

    /// Changes the model and publishes the result. The file that ran before stays known.
    pub(super) fn try_change(&mut self, config: &ModelConfig, force: bool, saving: Saving) {
        let path = config.path.clone();
        let before = self.current.as_ref().map(|current| current.model.path.clone());
        self.view.set_change(path.clone(), ModelChangeState::Loading, saving.clone());
        let outcome = match self.change(config, force) {
            Ok(()) => {
                if let Some(before) = before.filter(|before| *before != path) {
                    self.view.set_previous(before);
                }
                ModelChangeState::Done
            }
            Err(error) => {
                tracing::error!(model = &*self.view.name, file = %path.display(), "model change refused, the current model stays in use: {error}");
                ModelChangeState::Refused(error.to_string())
            }
        };
        self.view.set_change(path, outcome, saving);
    }
}

/// A single stream needs masks with little latency; several need throughput.
fn goal(streams: usize) -> TuningGoal {
    if streams > 1 { TuningGoal::Throughput } else { TuningGoal::Latency }
}

/// The training images that the file describes. A description of another version is not used.
fn reference_of(model: &Model) -> Option<Arc<Reference>> {
    let text = model.contract.reference.as_deref()?;
    match serde_json::from_str(text) {
        Ok(reference) => Some(Arc::new(reference)),
        Err(error) => {
            let file = model.path.display();
            tracing::warn!(
                "the description of the training images in the model is not used: {file}: maskcast.reference: {error}"
            );
            None
        }
    }
}

fn view_of(model: &Model, plan: ThreadPlan, time: Duration, memory: Option<u64>) -> ModelView {
    let devices = if model.provider == Provider::Cpu { &[] } else { model.config().device.numbers() };
    ModelView {
        name: model.name(),
        path: model.path.clone(),
        labels: Arc::clone(&model.contract.labels),
        requested: model.expected_provider().name(),
        actual: model.provider.name(),
        placement: model.placement.clone(),
        refused: model.refused.iter().map(|(provider, reason)| (provider.name(), reason.to_string())).collect(),
        golden_difference: model.golden_difference,
        output: model.contract.output.describe(&model.contract.labels),
        unlabelled: Arc::clone(&model.unlabelled),
        input: (model.contract.input.width, model.contract.input.height),
        devices: devices.to_vec(),
        workers: plan.workers,
        threads: plan.threads,
        max_batch: plan.max_batch,
        time,
        memory,
        reference: reference_of(model),
    }
}
