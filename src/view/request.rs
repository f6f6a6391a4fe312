//! A change of settings that a client of the API requests, and its result.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::change_ticket::ChangeTicket;
use crate::config::{ConfigError, ConfigErrors, Edit, EditError, Object, SourceHost, StoreError};

/// A change that a client requests. Keys are those of the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Adds, changes or removes a stream.
    Stream(Edit),
    /// A merge patch for a stream's overlay.
    Overlay { stream: String, patch: Object },
}

/// A requested change and the channel for its result.
#[derive(Debug)]
pub struct ChangeRequest {
    pub change: Change,
    /// The host of the new source, if it was looked up already.
    pub host: Option<SourceHost>,
    pub ticket: ChangeTicket,
    pub result: oneshot::Sender<Result<ChangeOutcome, ChangeRefusal>>,
}

/// The change was applied.
#[derive(Clone, Debug, Default)]
pub struct ChangeOutcome {
    /// Why it is not in the configuration file, and so is lost at the next start.
    pub not_saved: Option<Arc<SaveError>>,
}

/// Why changes of overlays, which are applied, were not written to the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file has errors, before the changes or with them.
    #[error("{} is not valid at present: {}", .path.display(), first(.errors))]
    FileInvalid { path: PathBuf, errors: ConfigErrors },
    /// The text of the file cannot be changed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The file cannot be written, or another program was writing it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn first(errors: &ConfigErrors) -> String {
    errors.errors.first().map(ToString::to_string).unwrap_or_default()
}

/// Why a change was not applied. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeRefusal {
    #[error("there is no stream {0:?}")]
    NoStream(String),
    #[error("there is already a stream {0:?}")]
    NameTaken(String),
    #[error("the only stream cannot be removed; add another one first")]
    LastStream,
    /// The configuration file has models that are not loaded, because it was changed and not reloaded.
    #[error(
        "the configuration file has models that are not loaded ({}): reload the configuration (SIGHUP) and try again", .0.join(", ")
    )]
    NewModels(Vec<String>),
    /// All errors of the settings that the client sent.
    #[error("invalid settings")]
    Invalid(Vec<ConfigError>),
    /// Settings that the API must not set.
    #[error("invalid settings")]
    Forbidden(Vec<ConfigError>),
    /// The change depends on the first model, which is still loading; with what can be changed meanwhile.
    #[error("the model is being loaded: {0}")]
    ModelLoading(&'static str),
    #[error("the configuration file is invalid without the change")]
    FileInvalid(#[source] ConfigErrors),
    /// The configuration file cannot be written, or another program was writing it.
    #[error("nothing was changed: {0}")]
    FileUnwritable(#[source] StoreError),
    /// The text of the configuration file is valid, but cannot be changed.
    #[error(transparent)]
    Edit(EditError),
    /// A stream of the change cannot be started. File and service are as before.
    #[error("stream {stream} cannot be started: {source}")]
    StreamNotStarted { stream: String, source: Box<dyn Error + Send + Sync> },
    /// The service cannot use the changed configuration. File and service are as before.
    #[error(transparent)]
    NotApplied(Box<dyn Error + Send + Sync>),
}
