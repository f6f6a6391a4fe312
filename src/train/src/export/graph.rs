//! Builds the protobuf messages of an ONNX graph.

use prost::Message;

use super::proto::{
    AttributeProto, AttributeType, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorDataType, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

/// The version of the ONNX operators. ONNX Runtime 1.12 and TensorRT 8.5 and later support it.
const OPSET: i64 = 17;
/// The version of the file format, of ONNX 1.12.
const IR_VERSION: i64 = 8;

/// The name of the free batch dimension.
const BATCH: &str = "N";

/// Builds an ONNX graph node by node. A value is identified by its name.
#[derive(Default)]
pub struct GraphBuilder {
    graph: GraphProto,
}

impl GraphBuilder {
    /// Adds to a graph.
    pub fn continued(graph: GraphProto) -> Self {
        GraphBuilder { graph }
    }

    /// The graph, to be part of the model that it was taken from.
    pub fn into_graph(self) -> GraphProto {
        self.graph
    }

    /// The node that makes a value.
    pub fn made_by(&self, value: &str) -> Option<&NodeProto> {
        self.graph.node.iter().find(|node| node.output.iter().any(|output| output == value))
    }

    /// Adds a node with one output. Returns the name of the output.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: impl Into<String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = output.into();
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.to_owned(),
            attribute: attributes,
            domain: String::new(),
        });
        output
    }

    /// Adds a constant of 32-bit floats; `dims` is empty for a scalar. Returns its name, like the methods below.
    pub fn floats(&mut self, name: impl Into<String>, dims: &[i64], values: &[f32]) -> String {
        self.constant(name, dims, TensorDataType::Float, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Adds a vector of 64-bit integers.
    pub fn int64s(&mut self, name: impl Into<String>, values: &[i64]) -> String {
        let dims = [values.len() as i64];
        self.constant(name, &dims, TensorDataType::Int64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Adds a vector of 32-bit integers.
    pub fn int32s(&mut self, name: impl Into<String>, values: &[i32]) -> String {
        self.shaped_int32s(name, &[values.len() as i64], values)
    }

    /// Adds 32-bit integers with the given shape.
    pub fn shaped_int32s(&mut self, name: impl Into<String>, dims: &[i64], values: &[i32]) -> String {
        self.constant(name, dims, TensorDataType::Int32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Adds a constant of signed bytes.
    pub fn int8s(&mut self, name: impl Into<String>, dims: &[i64], values: &[i8]) -> String {
        self.constant(name, dims, TensorDataType::Int8, values.iter().map(|value| value.to_le_bytes()[0]).collect())
    }

    /// Adds an unsigned byte as a scalar.
    pub fn byte(&mut self, name: impl Into<String>, value: u8) -> String {
        self.constant(name, &[], TensorDataType::Uint8, vec![value])
    }

    /// Adds a constant, unless there is one of that name.
    fn constant(&mut self, name: impl Into<String>, dims: &[i64], element: TensorDataType, raw: Vec<u8>) -> String {
        let name = name.into();
        if !self.graph.initializer.iter().any(|known| known.name == name) {
            self.graph.initializer.push(TensorProto {
                dims: dims.to_vec(),
                element: element as i32,
                name: name.clone(),
                raw_data: Some(raw),
            });
        }
        name
    }

    /// Declares an input of the model; -1 is the free batch dimension.
    pub fn input(&mut self, name: &str, element: TensorDataType, shape: &[i64]) {
        self.graph.input.push(value_info(name, element, shape));
    }

    /// Declares an output of the model; -1 is the free batch dimension.
    pub fn output(&mut self, name: &str, element: TensorDataType, shape: &[i64]) {
        self.graph.output.push(value_info(name, element, shape));
    }

    /// The model without metadata.
    pub fn finish(mut self) -> ModelProto {
        self.graph.name = "maskcast".into();
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "maskcast-train".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: OPSET }],
            metadata: Vec::new(),
        }
    }
}

impl ModelProto {
    /// Adds an entry to the metadata, or replaces it.
    pub fn put(&mut self, key: &str, value: impl Into<String>) {
        match self.metadata.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.value = value.into(),
            None => self.metadata.push(StringStringEntryProto { key: key.into(), value: value.into() }),
        }
    }

    /// An entry of the metadata.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    }

    /// The content of the ONNX file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

fn value_info(name: &str, element: TensorDataType, shape: &[i64]) -> ValueInfoProto {
    let dim = |&side: &i64| match side {
        -1 => DimensionProto { value: None, param: Some(BATCH.into()) },
        side => DimensionProto { value: Some(side), param: None },
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TypeProtoTensor { element: element as i32, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor: Some(tensor) }) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), kind: kind as i32, ..AttributeProto::default() }
}

/// An attribute with an integer.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute with a list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

/// An attribute with a string.
pub fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}
