//! The model that the service runs, and its exchange while streams go on.
//!
//! Another model is loaded beside the one that runs, has to pass its golden frame, must not run on the CPU where the other
//! one runs on a GPU, and knows the classes that streams hide or colour; then the workers change between two frames. What
//! fails on the way is refused, and the model before goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{ServiceError, check_labels};
use crate::base::panic::panic_text;
use crate::base::stop::Stop;
use crate::config::{ModelConfig, Provider, Require, StreamConfig};
use crate::segment::engine::{EngineKey, RuntimePaths};
use crate::segment::file;
use crate::segment::manifest::ModelManifest;
use crate::segment::onnx::Model;
use crate::segment::pool::{Pool, WorkerSpec};
use crate::segment::tuning::{self, ThreadPlan, TuningGoal};
use crate::view::{ModelChangeRequest, ModelChangeState, ModelView, ServiceView};

/// How often the model's file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A model that takes this many times as long as the one before is worth a warning.
const NOTABLY_SLOWER: f64 = 1.5;

/// What viewers read while the first model is loaded.
const LOADING: &str = "LOADING MODEL";

/// What viewers read while TensorRT compiles the model.
const BUILDING: &str = "BUILDING ENGINE";

/// The settings of streams that a model has to fit; changed by reloads.
pub type Streams = Arc<Mutex<Vec<StreamConfig>>>;

/// Owns the model that runs.
pub struct ModelManager {
    pool: Arc<Pool>,
    view: Arc<ServiceView>,
    streams: Streams,
    current: Option<CurrentModel>,
    /// Another provider runs the model while TensorRT's engine is being built.
    building: bool,
}

struct CurrentModel {
    model: Arc<Model>,
    plan: ThreadPlan,
    /// Of the file that was loaded.
    stamp: ModelFileStamp,
}

/// Length and time of a file; `None` where there is none.
type Written = Option<(u64, SystemTime)>;

/// Tells whether a model's file, its manifest or its weight files were written to.
#[derive(Clone, Debug, Default, PartialEq)]
struct ModelFileStamp {
    model: Written,
    manifest: Written,
    external: Vec<Written>,
}

/// The files of a model, as they are looked at again and again.
struct WatchedModelFiles {
    model: PathBuf,
    /// Weight files that the model named when it was written last.
    external: Vec<PathBuf>,
    listed: Written,
}

impl WatchedModelFiles {
    fn of(model: &Path) -> WatchedModelFiles {
        WatchedModelFiles { model: model.to_path_buf(), external: Vec::new(), listed: None }
    }

    fn stamp(&mut self) -> ModelFileStamp {
        let model = written(&self.model);
        if model != self.listed {
            (self.external, self.listed) = (file::external_of(&self.model), model);
        }
        let external = self.external.iter().map(|path| written(path)).collect();
        ModelFileStamp { model, manifest: written(&ModelManifest::path_for(&self.model)), external }
    }
}

fn written(path: &Path) -> Written {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.len(), facts.modified().ok()?))
}

impl ModelManager {
    pub fn new(pool: Arc<Pool>, view: Arc<ServiceView>, streams: Streams) -> Self {
        pool.banner().set(LOADING);
        ModelManager { pool, view, streams, current: None, building: false }
    }

    /// Loads the first model; where TensorRT has to build an engine for it, on another provider for the time being.
    ///
    /// # Errors
    /// Why the service cannot run with it.
    pub fn first(&mut self, config: &ModelConfig) -> Result<(), ServiceError> {
        match interim(config, &RuntimePaths::default()) {
            Some(InterimModel { providers }) if !providers.is_empty() => {
                self.load_first(&ModelConfig { providers, ..config.clone() })?;
                self.building = true;
                Ok(())
            }
            Some(_) => {
                self.pool.banner().set(BUILDING);
                self.load_first(config)
            }
            None => self.load_first(config),
        }
    }

    fn load_first(&mut self, config: &ModelConfig) -> Result<(), ServiceError> {
        let stamp = WatchedModelFiles::of(&config.path).stamp();
        let goal = self.goal();
        let model = Arc::new(Model::load(config, tuning::default_threads(config, goal))?);
        self.fits(&model).map_err(ServiceError::Configuration)?;
        let runtime = |error: crate::segment::SegmentError| ServiceError::runtime(error);
        let (plan, trials) = tuning::tune(&model, goal).map_err(runtime)?;
        let time = match trials.iter().find(|trial| trial.plan == plan) {
            Some(trial) => trial.latency,
            None => model.time(plan.threads).map_err(runtime)?,
        };
        for trial in &trials {
            tracing::debug!(workers = trial.plan.workers, threads = trial.plan.threads, fps = trial.fps, latency = ?trial.latency, "measured");
        }
        self.install(CurrentModel { model, plan, stamp }, time).map_err(ServiceError::Runtime)
    }

    /// Another model in the place of the one that runs.
    ///
    /// # Errors
    /// Why it does not take that place; the one before goes on.
    pub fn change(&mut self, config: &ModelConfig, force: bool) -> Result<(), String> {
        let Some(current) = &self.current else { return Err("there is no model yet".into()) };
        let (before, plan) = (Arc::clone(&current.model), current.plan);
        let stamp = WatchedModelFiles::of(&config.path).stamp();
        let goal = self.goal();
        let threads =
            if before.provider == Provider::Cpu { plan.threads } else { tuning::default_threads(config, goal) };
        // A library that panics over a file is a reason to refuse the file.
        let loaded = catch_unwind(AssertUnwindSafe(|| Model::load(config, threads)));
        let model = match loaded {
            Ok(Ok(model)) => Arc::new(model),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(panic) => return Err(format!("{}: {}", config.path.display(), panic_text(&*panic))),
        };
        self.fits(&model)?;
        if before.provider != Provider::Cpu && model.provider == Provider::Cpu && !force {
            let reasons: Vec<String> =
                model.refused.iter().map(|(provider, reason)| format!("{}: {reason}", provider.name())).collect();
            return Err(format!(
                "{} would run on the CPU ({}), and the model that runs now is on {}; `--force` takes it all the same",
                config.path.display(),
                reasons.join("; "),
                before.provider.name()
            ));
        }
        let usual = tuning::default_plan(&model, goal);
        // Cores are shared as they were: measuring anew would take them from the streams.
        let plan = if model.provider == before.provider && model.config().workers == before.config().workers {
            ThreadPlan { max_batch: usual.max_batch, ..plan }
        } else {
            usual
        };
        let (time, time_before) = model.time_beside(&before, plan.threads).map_err(|error| error.to_string())?;
        let ratio = time.as_secs_f64() / time_before.as_secs_f64().max(1e-6);
        if ratio > NOTABLY_SLOWER {
            tracing::warn!(model = model.name(), "takes {ratio:.1} times as long as {}", before.name());
        }
        self.install(CurrentModel { model, plan, stamp }, time)
    }

    fn install(&mut self, next: CurrentModel, time: Duration) -> Result<(), String> {
        let CurrentModel { model, plan, .. } = &next;
        let (maker, threads) = (Arc::clone(model), plan.threads);
        let factory = Box::new(move || maker.segmenter(threads).map(|segmenter| Box::new(segmenter) as Box<_>));
        let crew = WorkerSpec { workers: plan.workers, max_batch: plan.max_batch, factory };
        self.pool.install(crew).map_err(|error| error.to_string())?;
        self.pool.banner().clear();
        self.view.set_model(view_of(model, *plan, time));
        tracing::info!(
            model = model.name(),
            requested = model.expected_provider().name(),
            provider = model.provider.name(),
            workers = plan.workers,
            threads = plan.threads,
            max_batch = plan.max_batch,
            "the model runs on {}, {:.0} ms a frame: {}",
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

    fn fits(&self, model: &Model) -> Result<(), String> {
        check_labels(&self.lock_streams(), &model.contract.labels).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }

    fn lock_streams(&self) -> std::sync::MutexGuard<'_, Vec<StreamConfig>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the model and says what became of it.
    fn try_change(&mut self, config: &ModelConfig, force: bool) {
        let path = config.path.clone();
        self.view.set_change(path.clone(), ModelChangeState::Loading);
        let outcome = match self.change(config, force) {
            Ok(()) => ModelChangeState::Done,
            Err(reason) => {
                tracing::error!(model = %path.display(), "refused, the model before goes on: {reason}");
                ModelChangeState::Refused(reason)
            }
        };
        self.view.set_change(path, outcome);
    }
}

/// What to run on while TensorRT builds an engine.
#[derive(Debug, PartialEq, Eq)]
struct InterimModel {
    /// Empty: there is nothing else to run on.
    providers: Vec<Provider>,
}

/// `None` where no engine has to be built: TensorRT is not asked for first, there is no GPU, or the engine is in the cache.
fn interim(config: &ModelConfig, places: &RuntimePaths) -> Option<InterimModel> {
    if config.providers.first() != Some(&Provider::TensorRt) {
        return None;
    }
    // One that cannot be read fails when it is loaded, with the reason.
    let file = file::read(&config.path).ok()?;
    let key = EngineKey::of(&file, config.device, places);
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

/// One live stream wants its masks soon; several want many.
pub fn goal(streams: usize) -> TuningGoal {
    if streams > 1 { TuningGoal::Throughput } else { TuningGoal::Latency }
}

/// The thread that waits for model_requests, new settings and changed files. Dropping it ends it after the change it is on.
pub struct Models {
    settings: Arc<Mutex<ModelConfig>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Models {
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        keeper: ModelManager,
        config: ModelConfig,
        wished: Receiver<ModelChangeRequest>,
    ) -> Result<Models, ServiceError> {
        let settings = Arc::new(Mutex::new(config));
        let stop = Stop::default();
        let (shared, stopped) = (Arc::clone(&settings), stop.clone());
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(move || watch(keeper, &shared, &wished, &stopped))
            .map_err(|error| ServiceError::Runtime(format!("no thread for the model: {error}")))?;
        Ok(Models { settings, stop, thread: Some(thread) })
    }

    /// `[model]` of a configuration that was read anew; the model is changed where it says something else.
    pub fn set(&self, config: ModelConfig) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        self.stop.raise();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the model's thread ended in a panic");
        }
    }
}

fn watch(mut keeper: ModelManager, settings: &Mutex<ModelConfig>, wished: &Receiver<ModelChangeRequest>, stop: &Stop) {
    let settings_now = || settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut configured = settings_now();
    // A request replaces the configured path until the configuration changes.
    let mut wanted = configured.clone();
    let mut known = keeper.current.as_ref().map(|current| current.stamp.clone()).unwrap_or_default();
    let mut seen = known.clone();
    let mut files = WatchedModelFiles::of(&wanted.path);
    if std::mem::take(&mut keeper.building) {
        let notice = keeper.pool.banner();
        notice.set(BUILDING);
        keeper.try_change(&configured, false);
        // Also when it could not be built: the model goes on where it runs.
        notice.clear();
    }
    while !stop.is_raised() {
        match wished.recv_timeout(LOOK) {
            Ok(ModelChangeRequest { path, force }) => {
                let config = ModelConfig { path, ..wanted.clone() };
                keeper.try_change(&config, force);
                if keeper.current.as_ref().is_some_and(|current| current.model.path == config.path) {
                    wanted = config;
                }
                files = WatchedModelFiles::of(&wanted.path);
                known = files.stamp();
                seen = known.clone();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let latest = settings_now();
        if latest != configured {
            tracing::info!(model = %latest.path.display(), "the configuration has another model");
            keeper.try_change(&latest, true);
            (configured, wanted) = (latest.clone(), latest);
            files = WatchedModelFiles::of(&wanted.path);
            known = files.stamp();
            seen = known.clone();
            continue;
        }
        let now = files.stamp();
        // A file that is still being written changes from one look to the next; one that is gone will come again.
        if now != known && now == seen && now.model.is_some() {
            known = now.clone();
            tracing::info!(model = %wanted.path.display(), "the model's file has changed");
            keeper.try_change(&wanted, false);
        }
        seen = now;
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
    fn places(folder: &Path) -> RuntimePaths {
        let page = folder.join("driver/gpus/0000:01:00.0");
        std::fs::create_dir_all(&page).unwrap();
        std::fs::write(page.join("information"), "Model: NVIDIA L4\n").unwrap();
        RuntimePaths { driver: folder.join("driver"), libraries: Vec::new() }
    }

    #[test]
    fn another_provider_runs_while_an_engine_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let path = folder.path().join("model.onnx");
        // A graph with one node, as short as a model can be.
        std::fs::write(&path, b"\x3a\x04\x0a\x02\x22\x00").unwrap();
        let all = vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu];
        let cache = folder.path().join("cache");
        let config =
            ModelConfig { providers: all, cache_dir: Some(cache.clone()), ..ModelConfig::with_path(path.clone()) };
        let rest = |config: &ModelConfig| interim(config, &places).map(|interim| interim.providers);
        assert_eq!(rest(&config), Some(vec![Provider::Cuda, Provider::Cpu]));
        // The CPU is no stand-in where it is forbidden.
        assert_eq!(rest(&ModelConfig { require: Require::Gpu, ..config.clone() }), Some(vec![Provider::Cuda]));
        let alone = ModelConfig { providers: vec![Provider::TensorRt], ..config.clone() };
        assert_eq!(rest(&alone), Some(Vec::new()));
        assert_eq!(rest(&ModelConfig { providers: vec![Provider::Cuda], ..config.clone() }), None);
        let none = RuntimePaths { driver: "/nowhere".into(), libraries: Vec::new() };
        assert_eq!(interim(&config, &none), None, "without a GPU nothing is built");
        // With an engine in the cache there is nothing to wait for.
        let engines = EngineKey::of(&file::read(&path).unwrap(), 0, &places).folder(&cache);
        std::fs::create_dir_all(&engines).unwrap();
        std::fs::write(engines.join("a.engine"), "").unwrap();
        assert_eq!(rest(&config), None);
    }

    #[test]
    fn a_stamp_detects_a_changed_file_manifest_or_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let mut files = WatchedModelFiles::of(&path);
        let gone = files.stamp();
        std::fs::write(&path, "one").unwrap();
        let first = files.stamp();
        // A node, and a tensor whose data are in the file "w".
        let tensor = b"\x6a\x0d\x0a\x08location\x12\x01w";
        let mut graph = b"\x0a\x02\x22\x00\x2a".to_vec();
        graph.push(tensor.len() as u8);
        graph.extend(tensor);
        let model = [&[0x3a, graph.len() as u8], graph.as_slice()].concat();
        std::fs::write(&path, model).unwrap();
        let second = files.stamp();
        std::fs::write(folder.path().join("model.toml"), "manifest").unwrap();
        let third = files.stamp();
        std::fs::write(folder.path().join("w"), "weights").unwrap();
        let fourth = files.stamp();
        std::fs::write(folder.path().join("w"), "other weights").unwrap();
        let stamps = [gone, first, second, third, fourth, files.stamp()];
        for (n, stamp) in stamps.iter().enumerate() {
            assert!(stamps[..n].iter().all(|before| before != stamp), "{n}");
        }
    }
}
