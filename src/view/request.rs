//! A change of the settings that a client of the API asks for, and the answer to it.

use tokio::sync::oneshot;

use super::change_ticket::ChangeTicket;
use crate::config::{ConfigError, ConfigErrors, Edit, Object, SourceHost};

/// What a client wants changed. Keys are those of the configuration file.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A stream, or no stream any more.
    Stream(Edit),
    /// A merge patch for a stream's overlay.
    Overlay { stream: String, patch: Object },
}

/// A wanted change, and where the answer goes.
#[derive(Debug)]
pub struct ChangeRequest {
    pub wanted: Change,
    /// The host of the wanted source, where it was looked up already.
    pub host: Option<SourceHost>,
    /// Whether it is still wanted.
    pub turn: ChangeTicket,
    pub answer: oneshot::Sender<Result<ChangeOutcome, ChangeRefusal>>,
}

/// The change was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeOutcome {
    /// Why it will be forgotten at the next start.
    pub not_remembered: Option<String>,
}

/// The change was not made, and everything is as before.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeRefusal {
    NoStream(String),
    /// There is a stream of this name.
    Taken(String),
    /// The only stream must stay.
    Last,
    /// All that is wrong with what the client sent.
    Invalid(Vec<ConfigError>),
    /// What may not be set by the API.
    Forbidden(Vec<ConfigError>),
    /// It depends on the first model, which is still being loaded.
    Loading(String),
    /// The file itself has errors, without the change.
    File(ConfigErrors),
    /// The file cannot be written, or somebody else was writing it.
    Unwritable(String),
    Failed(String),
}
