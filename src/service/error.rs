//! Why the service cannot start.

use crate::segment::ModelError;

/// Why the service cannot start or reload.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration cannot work: exit code 78.
    #[error("{0}")]
    Configuration(String),
    /// A resource of the machine is not available: exit code 1.
    #[error("{0}")]
    Runtime(String),
    /// The service was stopped while it was starting: exit code 0.
    #[error("stopped while it was starting")]
    Stopped,
}

impl ServiceError {
    pub(super) fn runtime(problem: impl std::fmt::Display) -> Self {
        ServiceError::Runtime(problem.to_string())
    }
}

impl From<ModelError> for ServiceError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Model(problem) => ServiceError::Configuration(format!("model.path: {problem}")),
            ModelError::Machine(problem) => ServiceError::runtime(problem),
        }
    }
}
