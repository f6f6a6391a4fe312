//! A tensor, as the ONNX file declares it.

use ort::value::TensorElementType;

/// Element type and shape of an input or output; -1 for a free dimension.
#[derive(Clone, Debug)]
pub(in crate::segment) struct TensorSpec {
    pub name: String,
    pub element: TensorElementType,
    pub shape: Vec<i64>,
}
