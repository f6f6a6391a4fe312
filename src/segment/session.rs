//! Opening a model on one execution provider.

use std::sync::Arc;

use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::Session;

use super::engine::{EngineKey, RuntimePaths};
use super::file::{ModelFile, folder_of};
use super::runtime;
use crate::config::{ModelConfig, Provider};

/// Whose fault it is that a session cannot be opened.
pub(super) enum SessionError {
    /// The provider is not there or does not take the model: the next one may.
    Provider(String),
    /// No provider would take it.
    Model(String),
}

/// Opens a model, whose file was read, on `provider` alone, with `threads` threads for what runs on the CPU (0 = one a core).
///
/// # Errors
/// What the provider or the file is to blame for.
pub(super) fn open_session(
    config: &ModelConfig,
    file: &ModelFile,
    provider: Provider,
    threads: usize,
) -> Result<Session, SessionError> {
    let environment = match runtime::load(config.runtime.as_deref()) {
        Ok(runtime) => &runtime.environment,
        Err(error) => return Err(SessionError::Model(error.0)),
    };
    let model_error = |error: &dyn std::fmt::Display| SessionError::Model(one_line(&error.to_string()));
    let mut builder = Session::builder(environment).map_err(|error| model_error(&error))?;
    builder = builder.with_intra_threads(threads).map_err(|error| model_error(&error))?;
    // Spinning threads win a little on an idle machine and lose a lot where decoders and encoders want the cores.
    builder = builder.with_intra_op_spinning(false).map_err(|error| model_error(&error))?;
    let dispatches = dispatches(config, file, provider)?;
    if !dispatches.is_empty() {
        builder = builder
            .with_execution_providers(dispatches)
            .map_err(|error| SessionError::Provider(said(&error.to_string())))?;
    }
    // Large models keep their weights in files beside them, which were read with the model; ONNX Runtime copies them.
    for data in &file.external {
        let bytes = Arc::clone(&data.bytes);
        builder =
            builder.with_external_initializer_file_in_memory(&data.name, bytes).map_err(|error| model_error(&error))?;
    }
    let key = "session.model_external_initializers_file_folder_path";
    let folder = folder_of(&config.path).to_string_lossy();
    builder = builder.with_config_entry(key, folder).map_err(|error| model_error(&error))?;
    builder.commit_from_memory(&file.bytes).map_err(|error| {
        let reason = said(&error.to_string());
        if provider == Provider::Cpu { SessionError::Model(reason) } else { SessionError::Provider(reason) }
    })
}

/// The options of a GPU provider; none for the CPU, which ONNX Runtime always has.
fn dispatches(
    config: &ModelConfig,
    file: &ModelFile,
    provider: Provider,
) -> Result<Vec<ExecutionProviderDispatch>, SessionError> {
    // The exhaustive search, ONNX Runtime's default, takes twice as long at the first run and finds nothing better for such
    // networks.
    let cuda = || {
        let search = ep::cuda::ConvAlgorithmSearch::Heuristic;
        ep::CUDA::default().with_device_id(config.device).with_conv_algorithm_search(search).build()
    };
    // Without `error_on_failure`, ONNX Runtime falls back to the CPU and says so nowhere that a service could read it.
    Ok(match provider {
        Provider::Cpu => Vec::new(),
        Provider::Cuda => vec![cuda().error_on_failure()],
        Provider::TensorRt => {
            let mut options = ep::TensorRT::default().with_device_id(config.device).with_fp16(true);
            if let Some(cache) = &config.cache_dir {
                let folder = EngineKey::of(file, config.device, &RuntimePaths::default()).folder(cache);
                // A folder that cannot be written costs minutes at every start, which is better said than suffered.
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
            // What TensorRT does not take goes to CUDA before it goes to the CPU.
            vec![options.build().error_on_failure(), cuda().fail_silently()]
        }
    })
}

/// What ONNX Runtime says without where in its source it says so, and what to do about a library that is missing.
fn said(text: &str) -> String {
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
                "{library}, which ONNX Runtime's GPU half needs, is not installed where the system looks for libraries (CUDA, cuDNN)"
            )
        }
        _ => reason.to_string(),
    }
}

/// Messages of libraries come with line breaks.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let message = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& \
            onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
            /opt/ort/libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: cannot open shared object \
            file: No such file or directory\n";
        assert_eq!(said(message), "TensorRT's libnvinfer.so.10 is not installed where the system looks for libraries");
        assert!(said(&message.replace("libnvinfer.so.10", "libcudnn.so.9")).starts_with("libcudnn.so.9, which"));
    }

    #[test]
    fn other_messages_lose_their_place_in_the_source_only() {
        let message = "Load model failed: [ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed : it ends early";
        assert_eq!(said(message), "Failed : it ends early");
        assert_eq!(said("out of\n  memory"), "out of memory");
    }
}
