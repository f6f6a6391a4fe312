//! A change of settings that a client of the API requests, and its result.

use tokio::sync::oneshot;

use super::change_ticket::ChangeTicket;
use crate::config::{ConfigError, ConfigErrors, Edit, Object, SourceHost};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeOutcome {
    /// Why it is not in the configuration file, and so is lost at the next start.
    pub not_saved: Option<String>,
}

/// Why a change was not applied. Nothing has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeRefusal {
    NoStream(String),
    /// There is already a stream of this name.
    NameTaken(String),
    /// The only stream cannot be removed.
    LastStream,
    /// All errors of the settings that the client sent.
    Invalid(Vec<ConfigError>),
    /// Settings that the API must not set.
    Forbidden(Vec<ConfigError>),
    /// The change depends on the first model, which is still loading.
    ModelLoading(String),
    /// The configuration file is invalid without the change.
    FileInvalid(ConfigErrors),
    /// The configuration file cannot be written, or another program was writing it.
    FileUnwritable(String),
    Failed(String),
}
