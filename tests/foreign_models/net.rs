//! A builder of small ONNX models, node by node, as other trainers export them.

use crate::common::onnx::{self, proto};
use proto::{DimensionProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto};

/// Width and height of the input of the models, pixels.
pub const WIDTH: usize = 64;
pub const HEIGHT: usize = 32;

// Element types of tensors (`TensorProto.DataType`).
pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;
pub const FLOAT16: i32 = 10;

// Shapes of images and of one value per pixel.
pub const NCHW: [i64; 4] = [1, 3, HEIGHT as i64, WIDTH as i64];
pub const NHWC: [i64; 4] = [1, HEIGHT as i64, WIDTH as i64, 3];
pub const PLANE: [i64; 4] = [1, 1, HEIGHT as i64, WIDTH as i64];

/// Builds a model of nodes, in the order of their calls, and of constants.
#[derive(Default)]
pub struct Net {
    pub nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    metadata: Vec<(&'static str, String)>,
}

/// A tensor's name, element type and shape; a negative side is a free dimension.
pub fn value(name: &str, element: i32, shape: &[i64]) -> ValueInfoProto {
    let dim =
        |&side: &i64| DimensionProto { value: (side >= 0).then_some(side), param: (side < 0).then(|| "free".into()) };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { tensor: Some(TypeProtoTensor { element, shape: Some(shape) }) }),
    }
}

/// An attribute with a list of integers.
pub fn ints(name: &str, values: &[i64]) -> proto::AttributeProto {
    proto::AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        kind: proto::AttributeType::Ints.into(),
        ..proto::AttributeProto::default()
    }
}

impl Net {
    /// Adds a node with integer attributes.
    pub fn op(mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> Self {
        let mut node = onnx::node(op, "", output, attributes);
        node.input = inputs.iter().map(ToString::to_string).collect();
        self.nodes.push(node);
        self
    }

    pub fn transpose(mut self, input: &str, output: &str, perm: &[i64]) -> Self {
        let mut node = onnx::node("Transpose", input, output, &[]);
        node.attribute.push(ints("perm", perm));
        self.nodes.push(node);
        self
    }

    /// Adds a constant of floats.
    pub fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        let raw_data = Some(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        self.constants.push(TensorProto { dims: dims.to_vec(), element: FLOAT, name: name.into(), raw_data });
        self
    }

    /// Adds a constant list of integers.
    pub fn indices(mut self, name: &str, values: &[i64]) -> Self {
        let raw_data = Some(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        self.constants.push(TensorProto {
            dims: vec![values.len() as i64],
            element: INT64,
            name: name.into(),
            raw_data,
        });
        self
    }

    /// Adds ten times (red - green/2 - blue/2 - 0.25) of `input` in 0..1 and NCHW: above 0 for red pixels.
    pub fn redness(self, input: &str, output: &str) -> Self {
        self.floats("w", &[1, 3, 1, 1], &[10.0, -5.0, -5.0]).floats("b", &[1], &[-2.5]).op(
            "Conv",
            &[input, "w", "b"],
            output,
            &[],
        )
    }

    /// Adds four logits of `input` in 0..1 and NCHW: other, red, green, blue.
    pub fn colours(self, input: &str, output: &str) -> Self {
        let weights = [0.0, 0.0, 0.0, 1.0, -0.5, -0.5, -0.5, 1.0, -0.5, -0.5, -0.5, 1.0];
        let net = self.floats("cw", &[4, 3, 1, 1], &weights).floats("cb", &[4], &[0.25, 0.0, 0.0, 0.0]);
        net.op("Conv", &[input, "cw", "cb"], output, &[])
    }

    /// Adds an entry to the metadata of the model.
    pub fn metadata(mut self, key: &'static str, text: &str) -> Self {
        self.metadata.push((key, text.into()));
        self
    }

    /// The model with this input and these outputs.
    pub fn model(self, input: ValueInfoProto, outputs: Vec<ValueInfoProto>) -> proto::ModelProto {
        let metadata: Vec<(&str, &str)> = self.metadata.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let mut model = onnx::model(input, outputs[0].clone(), self.nodes, &metadata);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer = self.constants;
        graph.output = outputs;
        model
    }

    /// The model with the float NCHW input `input` and one output.
    pub fn plain(self, output: &str, element: i32, shape: &[i64]) -> proto::ModelProto {
        self.model(value("input", FLOAT, &NCHW), vec![value(output, element, shape)])
    }
}
