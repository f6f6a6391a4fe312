//! The history as a part of the service.

use std::sync::Arc;
use std::time::Duration;

use super::error::ServiceError;
use crate::config::HistoryConfig;
use crate::events::EventHub;
use crate::history::{History, HistoryThreads};

/// How long the stop waits for the last entries to be stored.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(300);

/// The history, which stores nothing yet. `None` if it is off.
pub(super) fn prepare(config: &HistoryConfig) -> Option<Arc<History>> {
    let Some(folder) = config.folder() else {
        let why =
            if config.enabled { "neither history.dir nor STATE_DIRECTORY is set" } else { "history.enabled is false" };
        tracing::info!("history is off: {why}");
        return None;
    };
    Some(Arc::new(History::new(folder, config.keep, config.max_size)))
}

/// Starts the threads of the history, which end the events that a previous process did not end.
pub(super) fn start(
    history: Option<&Arc<History>>,
    hub: &Arc<EventHub>,
) -> Result<Option<HistoryThreads>, ServiceError> {
    let started = history.map(|history| HistoryThreads::start(history, hub)).transpose();
    started.map_err(|source| ServiceError::Thread { thread: "history", source })
}

/// A reload does not change the history: warns of other settings than the `known` ones, once.
pub(super) fn warn_of_changes(config: &HistoryConfig, known: &mut HistoryConfig) {
    if config != known {
        tracing::warn!("settings of the history changed: restart the service to apply this");
        known.clone_from(config);
    }
}
