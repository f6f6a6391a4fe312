//! The model that the service runs, and its replacement while streams continue.
//!
//! Another model is loaded while the current one runs. It must reproduce its golden frame, must not run on the CPU if the
//! current one runs on a GPU, and must have the classes that streams hide or colour. Then the workers change between two
//! frames. A model that fails a check is refused, and the current one stays in use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::{ModelChangeError, ServiceError, SettingErrors, check_labels};
use crate::base::panic::panic_text;
use crate::base::stop::Stop;
use crate::config::{ModelConfig, Provider, Require, StreamConfig};
use crate::segment::SegmentError;
use crate::segment::engine::{EngineKey, RuntimePaths};
use crate::segment::file;
use crate::segment::manifest::ModelManifest;
use crate::segment::onnx::Model;
use crate::segment::pool::{Pool, WorkerSpec};
use crate::segment::tuning::{self, ThreadPlan, TuningGoal};
use crate::view::{ModelChangeRequest, ModelChangeState, ModelView, ServiceView};

/// How often the model's files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A model that takes this many times as long as the previous one causes a warning.
const SLOWER_WARNING: f64 = 1.5;

/// Text in the video while the first model is loaded.
const LOADING: &str = "LOADING MODEL";

/// Text in the video while TensorRT compiles the model.
const BUILDING: &str = "BUILDING ENGINE";

/// The settings of streams that a model must match; changed by reloads.
pub type Streams = Arc<Mutex<Vec<StreamConfig>>>;

/// Owns the running model.
pub struct ModelManager {
    pool: Arc<Pool>,
    view: Arc<ServiceView>,
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

/// Length and modification time of a file; `None` if it does not exist.
type FileVersion = Option<(u64, SystemTime)>;

/// The state of a model's file, its manifest and its weight files; it differs after any of them was written.
#[derive(Clone, Debug, Default, PartialEq)]
struct ModelFilesVersion {
    model: FileVersion,
    manifest: FileVersion,
    external: Vec<FileVersion>,
}

/// The files of a model, which are checked for changes.
struct WatchedModelFiles {
    model: PathBuf,
    /// Weight files that the model refers to, as of `parsed`.
    external: Vec<PathBuf>,
    parsed: FileVersion,
}

impl WatchedModelFiles {
    fn of(model: &Path) -> WatchedModelFiles {
        WatchedModelFiles { model: model.to_path_buf(), external: Vec::new(), parsed: None }
    }

    fn version(&mut self) -> ModelFilesVersion {
        let model = file_version(&self.model);
        if model != self.parsed {
            (self.external, self.parsed) = (file::external_of(&self.model), model);
        }
        let external = self.external.iter().map(|path| file_version(path)).collect();
        ModelFilesVersion { model, manifest: file_version(&ModelManifest::path_for(&self.model)), external }
    }
}

fn file_version(path: &Path) -> FileVersion {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

impl ModelManager {
    pub fn new(pool: Arc<Pool>, view: Arc<ServiceView>, streams: Streams) -> Self {
        pool.banner().set(LOADING);
        ModelManager { pool, view, streams, current: None, engine_pending: false }
    }

    /// Loads the first model. If TensorRT must build an engine for it, another provider runs it meanwhile.
    ///
    /// # Errors
    /// The service cannot run with this model.
    pub fn load_first(&mut self, config: &ModelConfig) -> Result<(), ServiceError> {
        match interim(config, &RuntimePaths::default()) {
            Some(InterimModel { providers }) if !providers.is_empty() => {
                self.load_and_measure(&ModelConfig { providers, ..config.clone() })?;
                self.engine_pending = true;
                Ok(())
            }
            Some(_) => {
                self.pool.banner().set(BUILDING);
                self.load_and_measure(config)
            }
            None => self.load_and_measure(config),
        }
    }

    fn load_and_measure(&mut self, config: &ModelConfig) -> Result<(), ServiceError> {
        let version = WatchedModelFiles::of(&config.path).version();
        let goal = self.goal();
        let model = Arc::new(Model::load(config, tuning::default_threads(config, goal))?);
        self.check_classes(&model).map_err(ServiceError::Labels)?;
        let (plan, trials) = tuning::tune(&model, goal)?;
        let time = match trials.iter().find(|trial| trial.plan == plan) {
            Some(trial) => trial.latency,
            None => model.time(plan.threads)?,
        };
        for trial in &trials {
            tracing::debug!(workers = trial.plan.workers, threads = trial.plan.threads, fps = trial.fps, latency = ?trial.latency, "model measured");
        }
        Ok(self.install(CurrentModel { model, plan, version }, time)?)
    }

    /// Replaces the running model.
    ///
    /// # Errors
    /// The new model is refused; the current one stays in use.
    pub fn change(&mut self, config: &ModelConfig, force: bool) -> Result<(), ModelChangeError> {
        let Some(current) = &self.current else { return Err(ModelChangeError::NoCurrentModel) };
        let (before, plan) = (Arc::clone(&current.model), current.plan);
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
        Ok(self.install(CurrentModel { model, plan, version }, time)?)
    }

    /// Replaces the workers.
    fn install(&mut self, next: CurrentModel, time: Duration) -> Result<(), SegmentError> {
        let CurrentModel { model, plan, .. } = &next;
        let (shared, threads) = (Arc::clone(model), plan.threads);
        let factory = Box::new(move || shared.segmenter(threads).map(|segmenter| Box::new(segmenter) as Box<_>));
        let spec = WorkerSpec { workers: plan.workers, max_batch: plan.max_batch, factory };
        self.pool.install(spec)?;
        self.pool.banner().clear();
        self.view.set_model(view_of(model, *plan, time));
        tracing::info!(
            model = model.name(),
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
        goal(self.lock_streams().len())
    }

    fn check_classes(&self, model: &Model) -> Result<(), SettingErrors> {
        check_labels(&self.lock_streams(), &model.contract.labels).map_err(SettingErrors)
    }

    fn lock_streams(&self) -> parking_lot::MutexGuard<'_, Vec<StreamConfig>> {
        self.streams.lock()
    }

    /// Changes the model and publishes the result.
    fn try_change(&mut self, config: &ModelConfig, force: bool) {
        let path = config.path.clone();
        self.view.set_model_change(path.clone(), ModelChangeState::Loading);
        let outcome = match self.change(config, force) {
            Ok(()) => ModelChangeState::Done,
            Err(error) => {
                tracing::error!(model = %path.display(), "model change refused, the current model stays in use: {error}");
                ModelChangeState::Refused(error.to_string())
            }
        };
        self.view.set_model_change(path, outcome);
    }
}

/// How the model runs while TensorRT builds an engine.
#[derive(Debug, PartialEq, Eq)]
struct InterimModel {
    /// Empty: no other provider is allowed.
    providers: Vec<Provider>,
}

/// `None` if no engine must be built: TensorRT is not the first provider, there is no GPU, or the engine is in the cache.
fn interim(config: &ModelConfig, paths: &RuntimePaths) -> Option<InterimModel> {
    if config.providers.first() != Some(&Provider::TensorRt) {
        return None;
    }
    // Loading reports the error of a file that cannot be read.
    let file = file::read(&config.path).ok()?;
    let key = EngineKey::of(&file, config.device, paths);
    if !key.has_gpu() || config.cache_dir.as_deref().is_some_and(|cache| key.is_built(cache)) {
        return None;
    }
    let usable = |provider: &Provider| match provider {
        Provider::TensorRt => false,
        Provider::Cuda => true,
        Provider::Cpu => config.require == Require::Any,
    };
    Some(InterimModel { providers: config.providers.iter().copied().filter(usable).collect() })
}

/// A single stream needs masks with little latency; several need throughput.
pub fn goal(streams: usize) -> TuningGoal {
    if streams > 1 { TuningGoal::Throughput } else { TuningGoal::Latency }
}

/// The thread that handles requests, new settings and changed files of the model. Dropping this stops it after the current
/// change.
pub struct Models {
    settings: Arc<Mutex<ModelConfig>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Models {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        manager: ModelManager,
        config: ModelConfig,
        requests: Receiver<ModelChangeRequest>,
    ) -> Result<Models, ServiceError> {
        let settings = Arc::new(Mutex::new(config));
        let stop = Stop::default();
        let (shared, stopped) = (Arc::clone(&settings), stop.clone());
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(move || watch(manager, &shared, &requests, &stopped))
            .map_err(|source| ServiceError::Thread { thread: "model", source })?;
        Ok(Models { settings, stop, thread: Some(thread) })
    }

    /// Applies `[model]` of a reloaded configuration.
    pub fn set(&self, config: ModelConfig) {
        *self.settings.lock() = config;
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        self.stop.raise();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("thread ended in a panic: model manager");
        }
    }
}

fn watch(
    mut manager: ModelManager,
    settings: &Mutex<ModelConfig>,
    requests: &Receiver<ModelChangeRequest>,
    stop: &Stop,
) {
    let current_settings = || settings.lock().clone();
    let mut configured = current_settings();
    // A request overrides the configured path until the configuration changes.
    let mut requested = configured.clone();
    let mut loaded = manager.current.as_ref().map(|current| current.version.clone()).unwrap_or_default();
    let mut previous = loaded.clone();
    let mut files = WatchedModelFiles::of(&requested.path);
    if std::mem::take(&mut manager.engine_pending) {
        let banner = manager.pool.banner();
        banner.set(BUILDING);
        manager.try_change(&configured, false);
        // Also if it could not be built: the model stays on its provider.
        banner.clear();
    }
    while !stop.is_raised() {
        match requests.recv_timeout(CHECK_INTERVAL) {
            Ok(ModelChangeRequest { path, force }) => {
                let config = ModelConfig { path, ..requested.clone() };
                manager.try_change(&config, force);
                if manager.current.as_ref().is_some_and(|current| current.model.path == config.path) {
                    requested = config;
                }
                files = WatchedModelFiles::of(&requested.path);
                loaded = files.version();
                previous = loaded.clone();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let latest = current_settings();
        if latest != configured {
            tracing::info!("model settings changed, loading: {}", latest.path.display());
            manager.try_change(&latest, true);
            (configured, requested) = (latest.clone(), latest);
            files = WatchedModelFiles::of(&requested.path);
            loaded = files.version();
            previous = loaded.clone();
            continue;
        }
        let now = files.version();
        // A file that is still being written differs between two checks; a deleted file may be replaced.
        if now != loaded && now == previous && now.model.is_some() {
            loaded = now.clone();
            tracing::info!("model file changed, loading: {}", requested.path.display());
            manager.try_change(&requested, false);
        }
        previous = now;
    }
}

fn view_of(model: &Model, plan: ThreadPlan, time: Duration) -> ModelView {
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
        workers: plan.workers,
        threads: plan.threads,
        max_batch: plan.max_batch,
        time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one GPU.
    fn machine(folder: &Path) -> RuntimePaths {
        let page = folder.join("driver/gpus/0000:01:00.0");
        std::fs::create_dir_all(&page).unwrap();
        std::fs::write(page.join("information"), "Model: NVIDIA L4\n").unwrap();
        RuntimePaths { driver: folder.join("driver"), libraries: Vec::new() }
    }

    #[test]
    fn another_provider_runs_while_an_engine_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let paths = machine(folder.path());
        let path = folder.path().join("model.onnx");
        // A graph with one node, the shortest model.
        std::fs::write(&path, b"\x3a\x04\x0a\x02\x22\x00").unwrap();
        let all = vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu];
        let cache = folder.path().join("cache");
        let config =
            ModelConfig { providers: all, cache_dir: Some(cache.clone()), ..ModelConfig::with_path(path.clone()) };
        let rest = |config: &ModelConfig| interim(config, &paths).map(|interim| interim.providers);
        assert_eq!(rest(&config), Some(vec![Provider::Cuda, Provider::Cpu]));
        // `require = "gpu"` excludes the CPU.
        assert_eq!(rest(&ModelConfig { require: Require::Gpu, ..config.clone() }), Some(vec![Provider::Cuda]));
        let alone = ModelConfig { providers: vec![Provider::TensorRt], ..config.clone() };
        assert_eq!(rest(&alone), Some(Vec::new()));
        assert_eq!(rest(&ModelConfig { providers: vec![Provider::Cuda], ..config.clone() }), None);
        let none = RuntimePaths { driver: "/nowhere".into(), libraries: Vec::new() };
        assert_eq!(interim(&config, &none), None, "without a GPU no engine is built");
        // The engine is in the cache.
        let engines = EngineKey::of(&file::read(&path).unwrap(), 0, &paths).folder(&cache);
        std::fs::create_dir_all(&engines).unwrap();
        std::fs::write(engines.join("a.engine"), "").unwrap();
        assert_eq!(rest(&config), None);
    }

    #[test]
    fn a_changed_file_manifest_or_weight_file_has_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let mut files = WatchedModelFiles::of(&path);
        let missing = files.version();
        std::fs::write(&path, "one").unwrap();
        let first = files.version();
        // A node, and a tensor whose data is in the file "w".
        let tensor = b"\x6a\x0d\x0a\x08location\x12\x01w";
        let mut graph = b"\x0a\x02\x22\x00\x2a".to_vec();
        graph.push(tensor.len() as u8);
        graph.extend(tensor);
        let model = [&[0x3a, graph.len() as u8], graph.as_slice()].concat();
        std::fs::write(&path, model).unwrap();
        let second = files.version();
        std::fs::write(folder.path().join("model.toml"), "manifest").unwrap();
        let third = files.version();
        std::fs::write(folder.path().join("w"), "weights").unwrap();
        let fourth = files.version();
        std::fs::write(folder.path().join("w"), "other weights").unwrap();
        let versions = [missing, first, second, third, fourth, files.version()];
        for (n, version) in versions.iter().enumerate() {
            assert!(versions[..n].iter().all(|before| before != version), "{n}");
        }
    }
}
