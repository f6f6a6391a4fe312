//! A tensor, as the ONNX file declares it.

use ort::value::TensorElementType;

/// Name, element type and shape of an input or output. A free dimension is -1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub element: TensorElementType,
    pub shape: Vec<i64>,
}

/// `image is u8 [-1, 288, 512, 3]`
impl std::fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {} {:?}", self.name, self.element, self.shape)
    }
}
