//! Errors of the service: why it cannot start or reload, why a stream is not started, why a model is refused.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::RandomError;
use crate::access::tls::CertificateError;
use crate::config::{ConfigError, Provider};
use crate::publish::OutputError;
use crate::publish::rtsp::RtspError;
use crate::segment::{MachineError, ModelError, ProviderProblem, SegmentError, UnusableModel};
use crate::server::ServerError;
use crate::sink::SinkError;
use crate::stream::StreamError;
use crate::webhook::WebhookError;

/// Why the service cannot start or reload. [`ServiceError::is_configuration`] decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Settings of a reload that this machine or the model does not allow.
    #[error(transparent)]
    Settings(SettingErrors),
    /// Settings that name classes that the model does not have.
    #[error(transparent)]
    Labels(SettingErrors),
    /// At the start: no H.264 encoder that the settings allow works on this machine.
    #[error(transparent)]
    Encoders(SettingErrors),
    /// The certificate of `[server.tls]` cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No provider can run the model, whose key path is `key`.
    #[error("{key}.path: {source}")]
    Model { key: String, source: Box<UnusableModel> },
    /// A model of the configuration file is not loaded, because the configuration was not reloaded since it was added, or the file
    /// was changed during the reload.
    #[error("model[{0}]: is new or was changed in the meantime, and is not loaded: reload the configuration")]
    ModelNotPrepared(String),
    /// The model of a stream does not run.
    #[error("the model {0:?} is not running")]
    NoModel(String),
    /// The collector of a stream cannot be started.
    #[error("cannot start the thread that collects frames of the stream {stream}: {source}")]
    Collector { stream: String, source: std::io::Error },
    /// The machine lacks something that the model needs.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The segmentation pool cannot be started, or a model that was loaded cannot be run.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Http(#[from] ServerError),
    #[error(transparent)]
    Rtsp(#[from] RtspError),
    /// The system has no random numbers for sessions.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A recording or a push of a stream cannot be started.
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A sink of `[[stream.sink]]` cannot be started.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The threads of a stream cannot be started.
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("thread not started: {thread}: {source}")]
    Thread { thread: &'static str, source: std::io::Error },
    /// A thread of the start has panicked, with this message.
    #[error("thread ended in a panic: {thread}: {message}")]
    Panicked { thread: &'static str, message: String },
    /// The service was stopped while it was starting.
    #[error("stopped while it was starting")]
    Stopped,
}

impl ServiceError {
    /// An error of the model with this key path.
    pub fn of_model(key: &str, error: ModelError) -> Self {
        match error {
            ModelError::Model(source) => ServiceError::Model { key: key.to_owned(), source: Box::new(source) },
            ModelError::Machine(problem) => ServiceError::Machine(problem),
        }
    }

    /// Whether the configuration must be changed: a restart does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            ServiceError::Settings(_)
            | ServiceError::Labels(_)
            | ServiceError::Certificate(_)
            | ServiceError::Model { .. }
            | ServiceError::ModelNotPrepared(_) => true,
            ServiceError::Encoders(_)
            | ServiceError::Machine(_)
            | ServiceError::Segment(_)
            | ServiceError::Http(_)
            | ServiceError::Rtsp(_)
            | ServiceError::Random(_)
            | ServiceError::Webhook(_)
            | ServiceError::Output(_)
            | ServiceError::Sink(_)
            | ServiceError::Stream(_)
            | ServiceError::NoModel(_)
            | ServiceError::Collector { .. }
            | ServiceError::Thread { .. }
            | ServiceError::Panicked { .. }
            | ServiceError::Stopped => false,
        }
    }
}

/// Errors of settings that were valid until this machine or the model was asked. Displayed as one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingErrors(pub Vec<ConfigError>);

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingErrors {}

/// Why a stream is not started, and after which pause it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{source}; next try in {} s", .pause.as_secs())]
pub struct StreamStartError {
    pub source: Box<ServiceError>,
    pub pause: Duration,
}

/// Why another model is refused. The current one stays in use.
#[derive(Debug, thiserror::Error)]
pub enum ModelChangeError {
    /// The first model is still loading, or could not be loaded.
    #[error("no model is loaded yet")]
    NoCurrentModel,
    /// The model cannot be loaded, or its golden frame differs.
    #[error(transparent)]
    Load(#[from] ModelError),
    /// Loading the file made a library panic, with this message.
    #[error("{}: {message}", .path.display())]
    Panicked { path: PathBuf, message: String },
    /// The model lacks classes that streams name.
    #[error(transparent)]
    Labels(SettingErrors),
    /// The model would run on the CPU, and the current one runs on a GPU.
    #[error(
        "{} would run on the CPU ({}), but the current model runs on {}; `--force` accepts it", .path.display(),
        reasons(.refused), .current.name()
    )]
    WouldRunOnCpu { path: PathBuf, refused: Vec<(Provider, ProviderProblem)>, current: Provider },
    /// The time of a run cannot be measured, or the workers cannot be replaced.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

fn reasons(refused: &[(Provider, ProviderProblem)]) -> String {
    let reasons: Vec<String> =
        refused.iter().map(|(provider, reason)| format!("{}: {reason}", provider.name())).collect();
    reasons.join("; ")
}
