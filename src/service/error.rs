//! Why the service cannot start.

use crate::segment::ModelError;

/// Why the service cannot start; in one line each.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration asks for what cannot be: exit code 78.
    #[error("{0}")]
    Configuration(String),
    /// The machine does not give what is needed now: exit code 1.
    #[error("{0}")]
    Runtime(String),
    /// The stop was raised before everything had started: exit code 0.
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
