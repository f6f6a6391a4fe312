//! The thread of a model: requests of clients, new settings and changed files.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::files::WatchedModelFiles;
use super::manager::ModelManager;
use crate::base::stop::Stop;
use crate::config::ModelConfig;
use crate::service::ServiceError;
use crate::view::{ModelChangeRequest, Saving};

/// How often the model's files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The thread that handles requests, new settings and changed files of the model. Dropping this stops it after the current
/// change.
pub(super) struct ModelThread {
    settings: Arc<Mutex<ModelConfig>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl ModelThread {
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        manager: ModelManager,
        config: ModelConfig,
        requests: Receiver<ModelChangeRequest>,
    ) -> Result<ModelThread, ServiceError> {
        let name = format!("model-{}", config.name);
        let settings = Arc::new(Mutex::new(config));
        let stop = Stop::default();
        let (shared, stopped) = (Arc::clone(&settings), stop.clone());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || watch(manager, &shared, &requests, &stopped))
            .map_err(|source| ServiceError::Thread { thread: "model", source })?;
        Ok(ModelThread { settings, stop, thread: Some(thread) })
    }

    /// Requests the thread to stop, without waiting.
    pub(super) fn stop(&self) {
        self.stop.raise();
    }

    /// Applies the settings of the model in a reloaded configuration.
    pub(super) fn set(&self, config: ModelConfig) {
        *self.settings.lock() = config;
    }
}

impl Drop for ModelThread {
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
    let mut loaded = manager.version();
    let mut previous = loaded.clone();
    let mut files = WatchedModelFiles::of(&requested.path);
    manager.build_pending_engine(&configured);
    while !stop.is_raised() {
        match requests.recv_timeout(CHECK_INTERVAL) {
            Ok(ModelChangeRequest { path, force, save }) => {
                let saving = if save { Saving::Requested } else { Saving::NotRequested };
                let config = ModelConfig { path, ..requested.clone() };
                manager.try_change(&config, force, saving);
                if manager.runs(&config.path) {
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
        if latest != configured && same_file_and_settings(&latest, &requested) {
            // The path of a request was written to the configuration.
            (configured, requested) = (latest.clone(), latest);
            continue;
        }
        if latest != configured {
            tracing::info!(model = configured.name, "model settings changed, loading: {}", latest.path.display());
            manager.try_change(&latest, true, Saving::NotRequested);
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
            tracing::info!(model = configured.name, "model file changed, loading: {}", requested.path.display());
            manager.try_change(&requested, false, Saving::NotRequested);
        }
        previous = now;
    }
}

/// Whether the model runs as before with the other settings: they differ in what the service remembers only.
fn same_file_and_settings(one: &ModelConfig, other: &ModelConfig) -> bool {
    *one == ModelConfig { previous: one.previous.clone(), ..other.clone() }
}
