//! The models of the service: each has its own workers, and its own thread, which loads its files.
//!
//! At the start all models are loaded, also those that no stream uses, one after the other. A reload loads models that it adds
//! before it changes anything ([`PreparedModels`]), on a thread of its own, because that takes seconds or, with TensorRT, minutes.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::ServiceError;
use super::pools::Pools;
use crate::config::{Config, ModelConfig};
use crate::frame::Labels;
use crate::segment::pool::Pool;
use crate::view::{ModelChangeRequest, ModelFiles, NamedModel};

mod files;
mod interim;
mod manager;
mod thread;

pub use manager::Streams;

use manager::{FirstPlan, ModelManager};
use thread::ModelThread;

/// A model that has workers, which have no model at first, and no thread yet.
pub struct NewModel {
    config: ModelConfig,
    /// Its key path, for error messages.
    key: String,
    manager: ModelManager,
    requests: Receiver<ModelChangeRequest>,
}

/// The files that a configuration names.
fn files_of(config: &ModelConfig) -> ModelFiles {
    ModelFiles { configured: config.path.clone(), previous: config.previous.clone() }
}

impl NewModel {
    /// A model that is not loaded.
    ///
    /// # Errors
    /// The thread of its pool cannot be started.
    fn new(config: &ModelConfig, key: String, streams: &Streams) -> Result<NewModel, ServiceError> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let pool = Arc::new(Pool::idle(cores + 1)?);
        let (view, requests) = NamedModel::new(&config.name, pool.stats());
        view.set_files(files_of(config));
        let manager = ModelManager::new(pool, Arc::new(view), Arc::clone(streams));
        Ok(NewModel { config: config.clone(), key, manager, requests })
    }

    /// All models of a configuration, not loaded.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn all(config: &Config, streams: &Streams) -> Result<Vec<NewModel>, ServiceError> {
        let new = |model: &ModelConfig| NewModel::new(model, config.model_key(&model.name), streams);
        config.models.iter().map(new).collect()
    }

    /// Loads the model at the start of the service.
    ///
    /// # Errors
    /// The service cannot run with this model.
    pub fn load(&mut self) -> Result<(), ServiceError> {
        self.manager.load_first(&self.config, &self.key, FirstPlan::Measured)
    }

    pub fn view(&self) -> Arc<NamedModel> {
        Arc::clone(self.manager.view())
    }

    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(self.manager.pool())
    }

    /// Starts its thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    fn start(self) -> Result<RunningModel, ServiceError> {
        let NewModel { config, manager, requests, .. } = self;
        let (view, pool) = (Arc::clone(manager.view()), Arc::clone(manager.pool()));
        let thread = ModelThread::start(manager, config.clone(), requests)?;
        Ok(RunningModel { config, view, pool, thread })
    }
}

/// A model with its thread. Dropping it stops the thread after the current change; its workers end with the last stream.
pub struct RunningModel {
    config: ModelConfig,
    view: Arc<NamedModel>,
    pool: Arc<Pool>,
    thread: ModelThread,
}

/// The models of a running service, in the order of the configuration.
#[derive(Default)]
pub struct Models(Vec<RunningModel>);

/// Names of the models that a reload has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ModelsChange {
    pub added: Vec<String>,
    /// Their files are loaded while the current ones run.
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

impl Drop for Models {
    /// Stops all threads side by side.
    fn drop(&mut self) {
        self.0.iter().for_each(|model| model.thread.stop());
    }
}

impl Models {
    /// Starts the threads of the models of the start.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(new: Vec<NewModel>) -> Result<Models, ServiceError> {
        Ok(Models(new.into_iter().map(NewModel::start).collect::<Result<_, _>>()?))
    }

    /// The settings of the model of this name.
    pub fn config(&self, name: &str) -> Option<&ModelConfig> {
        self.0.iter().map(|model| &model.config).find(|config| config.name == name)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|model| model.config.name.clone()).collect()
    }

    pub fn views(&self) -> Vec<Arc<NamedModel>> {
        self.0.iter().map(|model| Arc::clone(&model.view)).collect()
    }

    /// Adds `new` models, passes changed settings to the threads of the others, and brings all into the order of `wanted`. Models that
    /// are not wanted come last, for [`Models::take_unwanted`].
    pub fn apply(&mut self, wanted: &[ModelConfig], new: Vec<RunningModel>, pools: &Pools) -> ModelsChange {
        let mut change = ModelsChange::default();
        for model in new {
            change.added.push(model.config.name.clone());
            pools.add(&model.config.name, Arc::clone(&model.pool));
            self.0.push(model);
        }
        let place = |name: &str| wanted.iter().position(|model| model.name == name);
        self.0.sort_by_key(|model| place(&model.config.name).unwrap_or(usize::MAX));
        for model in &mut self.0 {
            match wanted.iter().find(|wanted| wanted.name == model.config.name) {
                None => change.removed.push(model.config.name.clone()),
                Some(wanted) if *wanted != model.config => {
                    model.config = wanted.clone();
                    let files = files_of(wanted);
                    let previous = files.previous.clone().or_else(|| model.view.files().previous);
                    model.view.set_files(ModelFiles { previous, ..files });
                    model.thread.set(wanted.clone());
                    change.changed.push(wanted.name.clone());
                }
                Some(_) => {}
            }
        }
        change
    }

    /// Takes out the models that are not `wanted`, and their pools, after their streams have ended. Dropping them may take as long as
    /// loading a model.
    pub fn take_unwanted(&mut self, wanted: &[ModelConfig], pools: &Pools) -> Vec<RunningModel> {
        let is_wanted = |model: &RunningModel| wanted.iter().any(|wanted| wanted.name == model.config.name);
        let (kept, unwanted) = std::mem::take(&mut self.0).into_iter().partition(is_wanted);
        self.0 = kept;
        let unwanted: Vec<RunningModel> = unwanted;
        for model in &unwanted {
            model.thread.stop();
            pools.remove(&model.config.name);
        }
        unwanted
    }
}

/// The models that a reload adds, loaded before it is applied.
#[derive(Default)]
pub struct PreparedModels {
    loaded: Vec<NewModel>,
    failed: Vec<(ModelConfig, ServiceError)>,
}

impl PreparedModels {
    /// Loads the models of `config` that are not among the `running` ones. Takes seconds or minutes. A model that cannot be loaded is
    /// an error when the reload is applied.
    pub fn load(config: &Config, running: &[String]) -> PreparedModels {
        let mut prepared = PreparedModels::default();
        // Labels are checked against the streams of this file, not against those that run.
        let streams: Streams = Arc::new(Mutex::new(config.streams.clone()));
        for model in config.models.iter().filter(|model| !running.contains(&model.name)) {
            let key = format!("model[{}]", model.name);
            let loaded = NewModel::new(model, key, &streams).and_then(|mut new| {
                new.manager.load_first(&new.config, &new.key, FirstPlan::Usual)?;
                Ok(new)
            });
            match loaded {
                Ok(new) => prepared.loaded.push(new),
                Err(error) => prepared.failed.push((model.clone(), error)),
            }
        }
        prepared
    }

    /// The labels of a loaded model with these settings.
    pub fn labels(&self, config: &ModelConfig) -> Option<Labels> {
        let new = self.loaded.iter().find(|new| new.config == *config)?;
        Some(Arc::clone(&new.manager.view().running()?.labels))
    }

    /// Starts the threads of the models of `config` that are not running. They follow `streams` from now on.
    ///
    /// # Errors
    /// A model could not be loaded, or was not in the configuration when this was prepared.
    pub fn start(
        mut self,
        config: &Config,
        running: &Models,
        streams: &Streams,
    ) -> Result<Vec<RunningModel>, ServiceError> {
        let mut started = Vec::new();
        for model in config.models.iter().filter(|model| running.config(&model.name).is_none()) {
            if let Some(at) = self.failed.iter().position(|(failed, _)| failed == model) {
                return Err(self.failed.swap_remove(at).1);
            }
            let Some(at) = self.loaded.iter().position(|new| new.config == *model) else {
                return Err(ServiceError::ModelNotPrepared(model.name.clone()));
            };
            let mut new = self.loaded.swap_remove(at);
            new.manager.follow(Arc::clone(streams));
            started.push(new.start()?);
        }
        Ok(started)
    }
}
