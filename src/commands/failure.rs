//! How a command ends: its exit code and message, and the steps that several commands have in common.

use std::io::Write;

use crate::base::atomic_file::AtomicFile;
use crate::config::Config;
use crate::segment::ModelError;
use crate::service::ServiceError;

/// Exit codes.
pub mod exit {
    /// Something failed at run time.
    pub const FAILURE: u8 = 1;
    /// Wrong use of the command line.
    pub const USAGE: u8 = 2;
    /// The configuration cannot work (`EX_CONFIG` of sysexits.h): restarting does not help.
    pub const CONFIG: u8 = 78;
}

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// For people, a line a problem.
    pub message: String,
}

impl Failure {
    pub fn runtime(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::FAILURE, message: problem.to_string() }
    }

    pub fn usage(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::USAGE, message: problem.to_string() }
    }

    pub fn config(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::CONFIG, message: problem.to_string() }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Configuration(problem) => Failure::config(problem),
            ServiceError::Runtime(problem) => Failure::runtime(problem),
            error @ ServiceError::Stopped => Failure::runtime(error),
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Failure::runtime(error)
    }
}

/// Reads a configuration; its errors end the program with exit code 78.
pub(super) fn load_config(path: &std::path::Path) -> Result<Config, Failure> {
    crate::config::load(path).map_err(Failure::config)
}

/// Writes `value` as indented JSON to `path`, in one step: what was there stays until the new file is complete.
pub(super) fn write_json(path: &std::path::Path, value: &serde_json::Value) -> Result<(), Failure> {
    let located = |error: std::io::Error| Failure::runtime(format!("{}: {error}", path.display()));
    let text = serde_json::to_string_pretty(value).map_err(Failure::runtime)?;
    let mut file = AtomicFile::create(path, 0o666).map_err(located)?;
    file.write_all((text + "\n").as_bytes()).and_then(|()| file.commit()).map_err(located)
}
