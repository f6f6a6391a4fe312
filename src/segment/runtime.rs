//! Finding and loading the ONNX Runtime library, once a process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;

use super::SegmentError;

static LOADED: OnceLock<Result<Runtime, SegmentError>> = OnceLock::new();

/// The loaded library.
pub struct Runtime {
    pub path: PathBuf,
    pub environment: Environment,
}

impl Runtime {
    /// Version and build of the library, as it says itself.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

/// Loads ONNX Runtime from `path`, or from where [`crate::base::paths::onnx_runtime`] finds it. Later calls return what the
/// first one got: a process has one ONNX Runtime.
///
/// # Errors
/// Says where the library was looked for, or why the file found is not one.
pub fn load(path: Option<&Path>) -> Result<&'static Runtime, SegmentError> {
    LOADED.get_or_init(|| load_now(path)).as_ref().map_err(Clone::clone)
}

fn load_now(path: Option<&Path>) -> Result<Runtime, SegmentError> {
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => crate::base::paths::onnx_runtime().map_err(|places| {
            SegmentError(format!(
                "the ONNX Runtime library libonnxruntime.so was {places}; `make setup` brings it, or set model.runtime or ORT_DYLIB_PATH"
            ))
        })?,
    };
    let builder = ort::init_from(&path)
        .map_err(|error| SegmentError(format!("{}: not a usable ONNX Runtime library: {error}", path.display())))?;
    let environment = builder
        .with_name("maskcast")
        .with_telemetry(false)
        .build()
        .map_err(|error| SegmentError(format!("ONNX Runtime cannot start: {error}")))?;
    Ok(Runtime { path, environment })
}
