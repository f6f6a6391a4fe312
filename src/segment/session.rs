//! Opens a model on one execution provider.

use std::sync::Arc;

use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::Session;

use super::engine::{EngineKey, RuntimePaths};
use super::file::{ModelFile, folder_of};
use super::onnx_error::one_line;
use super::runtime::{self, RuntimeError};
use crate::config::{ModelConfig, Provider};

/// Why a session cannot be opened. Holds the message of ONNX Runtime.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The provider is not installed or does not support the model. Another provider may.
    #[error("{0}")]
    Provider(String),
    /// No provider can load the model.
    #[error("{0}")]
    Model(String),
}

/// Opens a model on `provider` alone, a GPU provider on the GPU number `device`. `threads` is the number of threads for nodes on the CPU (0 = one for each core).
///
/// # Errors
/// The provider or the model cannot be used.
pub(super) fn open_session(
    config: &ModelConfig,
    file: &ModelFile,
    provider: Provider,
    device: i32,
    threads: usize,
) -> Result<Session, SessionError> {
    let environment = &runtime::load(config.runtime.as_deref())?.environment;
    let model_error = |error: &dyn std::fmt::Display| SessionError::Model(one_line(&error.to_string()));
    let mut builder = Session::builder(environment).map_err(|error| model_error(&error))?;
    builder = builder.with_intra_threads(threads).map_err(|error| model_error(&error))?;
    // Spinning threads gain a little on an idle machine and cost much when decoders and encoders need the cores.
    builder = builder.with_intra_op_spinning(false).map_err(|error| model_error(&error))?;
    if provider == Provider::Cpu {
        // On a CPU, planning one block for all tensors takes 5 MiB more for the bundled model than its tensors one by one, and no
        // less time.
        builder = builder.with_memory_pattern(false).map_err(|error| model_error(&error))?;
    }
    let dispatches = dispatches(config, file, provider, device)?;
    if !dispatches.is_empty() {
        builder = builder
            .with_execution_providers(dispatches)
            .map_err(|error| SessionError::Provider(clean_message(&error.to_string())))?;
    }
    // Large models have their weights in other files, which were read with the model. ONNX Runtime copies them.
    for data in &file.external {
        let bytes = Arc::clone(&data.bytes);
        builder =
            builder.with_external_initializer_file_in_memory(&data.name, bytes).map_err(|error| model_error(&error))?;
    }
    let key = "session.model_external_initializers_file_folder_path";
    let folder = folder_of(&config.path).to_string_lossy();
    builder = builder.with_config_entry(key, folder).map_err(|error| model_error(&error))?;
    builder.commit_from_memory(&file.bytes).map_err(|error| {
        let reason = clean_message(&error.to_string());
        if provider == Provider::Cpu { SessionError::Model(reason) } else { SessionError::Provider(reason) }
    })
}

/// The providers to register.
fn dispatches(
    config: &ModelConfig,
    file: &ModelFile,
    provider: Provider,
    device: i32,
) -> Result<Vec<ExecutionProviderDispatch>, SessionError> {
    // The exhaustive search, the default of ONNX Runtime, doubles the time of the first run and is not faster for these
    // networks.
    let cuda = || {
        let search = ep::cuda::ConvAlgorithmSearch::Heuristic;
        ep::CUDA::default().with_device_id(device).with_conv_algorithm_search(search).build()
    };
    // Without `error_on_failure`, ONNX Runtime falls back to the CPU without an error.
    Ok(match provider {
        // ONNX Runtime always has it.
        Provider::Cpu => Vec::new(),
        Provider::Cuda => vec![cuda().error_on_failure()],
        Provider::TensorRt => {
            let mut options = ep::TensorRT::default().with_device_id(device).with_fp16(true);
            if let Some(cache) = &config.cache_dir {
                let folder = EngineKey::of(file, device, &RuntimePaths::default()).folder(cache);
                // Fails: without a cache, each start would take minutes.
                std::fs::create_dir_all(&folder).map_err(|error| {
                    SessionError::Provider(format!("model.cache_dir: {}: {error}", folder.display()))
                })?;
                let folder = folder.display();
                options = options
                    .with_engine_cache(true)
                    .with_engine_cache_path(folder.to_string())
                    .with_timing_cache(true)
                    .with_timing_cache_path(folder.to_string());
            }
            // Nodes that TensorRT does not support run on CUDA, or else on the CPU.
            vec![options.build().error_on_failure(), cuda().fail_silently()]
        }
    })
}

/// The message of ONNX Runtime without the place in its source, and with what to do about a missing library.
fn clean_message(text: &str) -> String {
    let text = one_line(text);
    // `/onnxruntime_src/…/provider_bridge_ort.cc:2043 onnxruntime::… [ONNXRuntimeError] : 1 : FAIL : Failed to load …`
    let reason = match text.rsplit_once("[ONNXRuntimeError] : ") {
        Some((_, rest)) => rest.splitn(3, " : ").last().unwrap_or(rest),
        None => &text,
    };
    let missing = reason
        .split_once("cannot open shared object file")
        .and_then(|(before, _)| before.trim_end_matches([':', ' ']).rsplit(' ').next());
    match missing {
        Some(library) if library.starts_with("libnvinfer") || library.starts_with("libnvonnxparser") => {
            format!("TensorRT's {library} is not installed where the system looks for libraries")
        }
        Some(library) if library.starts_with("lib") => {
            format!(
                "{library}, which the GPU part of ONNX Runtime needs, is not installed where the system looks for libraries (CUDA, cuDNN)"
            )
        }
        _ => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_missing_library() {
        let message = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& \
            onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
            /opt/ort/libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: cannot open shared object \
            file: No such file or directory\n";
        assert_eq!(
            clean_message(message),
            "TensorRT's libnvinfer.so.10 is not installed where the system looks for libraries"
        );
        assert!(
            clean_message(&message.replace("libnvinfer.so.10", "libcudnn.so.9")).starts_with("libcudnn.so.9, which")
        );
    }

    #[test]
    fn removes_the_place_in_the_source_from_other_messages() {
        let message = "Load model failed: [ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed : it ends early";
        assert_eq!(clean_message(message), "Failed : it ends early");
        assert_eq!(clean_message("out of\n  memory"), "out of memory");
    }
}
