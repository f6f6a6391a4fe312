//! Finds and loads the ONNX Runtime library, once in a process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;

use super::onnx_error::{OnnxRuntimeError, one_line};

static LOADED: OnceLock<Result<Runtime, RuntimeError>> = OnceLock::new();

/// Why ONNX Runtime cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    /// `searched` names the places: `not found in A, B`.
    #[error(
        "the ONNX Runtime library libonnxruntime.so was {searched}; run `make setup`, or set model.runtime or ORT_DYLIB_PATH"
    )]
    NotFound { searched: String },
    #[error("{}: not a usable ONNX Runtime library: {reason}", .path.display())]
    NotALibrary { path: PathBuf, reason: String },
    #[error("ONNX Runtime cannot start: {0}")]
    Start(#[source] OnnxRuntimeError),
}

/// The loaded library.
pub struct Runtime {
    pub path: PathBuf,
    pub environment: Environment,
}

impl Runtime {
    /// Version and build that the library reports.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

/// Loads ONNX Runtime from `path`, or from where [`crate::base::paths::onnx_runtime`] finds it. Later calls return the
/// result of the first call: a process has one ONNX Runtime.
///
/// # Errors
/// The library is not found, or the file is not a usable library.
pub fn load(path: Option<&Path>) -> Result<&'static Runtime, RuntimeError> {
    LOADED.get_or_init(|| load_now(path)).as_ref().map_err(Clone::clone)
}

fn load_now(path: Option<&Path>) -> Result<Runtime, RuntimeError> {
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => crate::base::paths::onnx_runtime()
            .map_err(|searched| RuntimeError::NotFound { searched: searched.to_string() })?,
    };
    let builder = ort::init_from(&path)
        .map_err(|error| RuntimeError::NotALibrary { path: path.clone(), reason: one_line(&error.to_string()) })?;
    let environment = builder
        .with_name("maskcast")
        .with_telemetry(false)
        .build()
        .map_err(|error| RuntimeError::Start(error.into()))?;
    Ok(Runtime { path, environment })
}
