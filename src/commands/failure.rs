//! Exit codes and errors of commands, and the steps that several commands share.

use std::io::Write;

use crate::base::atomic_file::AtomicFile;
use crate::config::Config;
use crate::segment::ModelError;
use crate::service::ServiceError;

/// Exit codes.
pub mod exit {
    /// A failure at run time.
    pub const FAILURE: u8 = 1;
    /// Invalid arguments.
    pub const USAGE: u8 = 2;
    /// An error in the configuration (`EX_CONFIG` of sysexits.h). A restart does not help.
    pub const CONFIG: u8 = 78;
}

/// The failure of a command, as it is shown to the user.
#[derive(Debug)]
pub struct Failure {
    /// One of the codes in [`exit`].
    pub code: u8,
    /// The error text, with one line per problem.
    pub message: String,
}

impl Failure {
    /// A failure at run time.
    pub fn runtime(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::FAILURE, message: problem.to_string() }
    }

    /// Invalid arguments.
    pub fn usage(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::USAGE, message: problem.to_string() }
    }

    /// An error in the configuration.
    pub fn config(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::CONFIG, message: problem.to_string() }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        if error.is_configuration() { Failure::config(error) } else { Failure::runtime(error) }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Failure::runtime(error)
    }
}

/// Reads a configuration. Its errors have exit code 78.
pub(super) fn load_config(path: &std::path::Path) -> Result<Config, Failure> {
    crate::config::load(path).map_err(Failure::config)
}

/// Writes `value` as indented JSON to `path`. An existing file is replaced in one step when the new one is complete.
pub(super) fn write_json(path: &std::path::Path, value: &serde_json::Value) -> Result<(), Failure> {
    let located = |error: std::io::Error| Failure::runtime(format!("{}: {error}", path.display()));
    let text = serde_json::to_string_pretty(value).map_err(Failure::runtime)?;
    let mut file = AtomicFile::create(path, 0o666).map_err(located)?;
    file.write_all((text + "\n").as_bytes()).and_then(|()| file.commit()).map_err(located)
}
