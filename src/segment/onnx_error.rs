//! Errors of ONNX Runtime and the texts of libraries.

use std::sync::Arc;

/// An error of ONNX Runtime, displayed as one line. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OnnxRuntimeError(Arc<ort::Error>);

impl<R> From<ort::Error<R>> for OnnxRuntimeError
where
    ort::Error: From<ort::Error<R>>,
{
    fn from(error: ort::Error<R>) -> Self {
        OnnxRuntimeError(Arc::new(error.into()))
    }
}

impl std::fmt::Display for OnnxRuntimeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&one_line(&self.0.to_string()))
    }
}

impl std::error::Error for OnnxRuntimeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Replaces the line breaks in messages of libraries.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
