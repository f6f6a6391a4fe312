//! Builders of small ONNX models whose masks are known in advance.

use std::path::Path;

use prost::Message;

// The exporter's source file: the tests of the service build without the trainer.
#[path = "../../src/train/src/export/proto.rs"]
pub mod proto;

use proto::{
    AttributeProto, AttributeType, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorDataType, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

/// A tensor's name, element type and shape; -1 is a free dimension.
pub fn tensor(name: &str, element: TensorDataType, shape: &[i64]) -> ValueInfoProto {
    let dim = |&side: &i64| match side {
        -1 => DimensionProto { value: None, param: Some("N".into()) },
        side => DimensionProto { value: Some(side), param: None },
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TypeProtoTensor { element: element.into(), shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor: Some(tensor) }) }
}

pub fn node(op: &str, input: &str, output: &str, attributes: &[(&str, i64)]) -> NodeProto {
    let attribute = |&(name, value): &(&str, i64)| AttributeProto {
        name: name.into(),
        i: Some(value),
        kind: AttributeType::Int.into(),
        ..AttributeProto::default()
    };
    NodeProto {
        input: vec![input.into()],
        output: vec![output.into()],
        op_type: op.into(),
        attribute: attributes.iter().map(attribute).collect(),
        ..NodeProto::default()
    }
}

/// A model of `nodes` with one input and one output.
pub fn model(
    input: ValueInfoProto,
    output: ValueInfoProto,
    node: Vec<NodeProto>,
    metadata: &[(&str, &str)],
) -> ModelProto {
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto { key: key.into(), value: value.into() };
    ModelProto {
        ir_version: 9,
        graph: Some(GraphProto {
            node,
            name: "test".into(),
            input: vec![input],
            output: vec![output],
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetIdProto { domain: None, version: 17 }],
        metadata: metadata.iter().map(entry).collect(),
        ..ModelProto::default()
    }
}

/// Labels of [`channels`] and [`foreign`]: class 0 where red is strongest, 1 green, 2 blue.
pub const LABELS: &str =
    r#"[{"name":"red","color":[255,0,0]},{"name":"green","color":[0,255,0]},{"name":"blue","color":[0,0,255]}]"#;

/// A model with Maskcast's metadata, `width` × `height`: the class is the strongest channel of the pixel.
pub fn channels(width: i64, height: i64, more: &[(&str, &str)]) -> ModelProto {
    labelled(width, height, LABELS, more)
}

/// The same with other names and colours of the three classes.
pub fn labelled(width: i64, height: i64, labels: &str, more: &[(&str, &str)]) -> ModelProto {
    let nodes = vec![
        node("Cast", "image", "float", &[("to", TensorDataType::Float as i64)]),
        node("ArgMax", "float", "index", &[("axis", 3), ("keepdims", 0)]),
        node("Cast", "index", "mask", &[("to", TensorDataType::Uint8 as i64)]),
    ];
    let mut metadata = vec![("maskcast.version", "1"), ("maskcast.labels", labels)];
    metadata.extend(more);
    model(
        tensor("image", TensorDataType::Uint8, &[-1, height, width, 3]),
        tensor("mask", TensorDataType::Uint8, &[-1, height, width]),
        nodes,
        &metadata,
    )
}

/// A foreign model, float NCHW in and logits out: the logits are the normalised channels themselves.
pub fn foreign(width: i64, height: i64) -> ModelProto {
    let shape = [1, 3, height, width];
    model(
        tensor("input", TensorDataType::Float, &shape),
        tensor("logits", TensorDataType::Float, &shape),
        vec![node("Identity", "input", "logits", &[])],
        &[],
    )
}

/// The manifest that [`foreign`] needs.
pub const FOREIGN_MANIFEST: &str = r##"
[input]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[[labels]]
name = "red"
color = "#ff0000"
[[labels]]
name = "green"
color = "#00ff00"
[[labels]]
name = "blue"
color = "#0000ff"
"##;

/// The bytes of `model` with the data of its first constant in `file` beside it. The exporter's types lack these fields of
/// a tensor, so they are appended to the encoded message.
#[allow(dead_code)]
pub fn with_external_weights(model: &ModelProto, file: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        prost::encode_length_delimiter(bytes.len(), &mut out).unwrap();
        out.extend(bytes);
        out
    };
    let mut model = model.clone();
    let graph = model.graph.as_mut().unwrap();
    let mut tensor = graph.initializer.remove(0);
    tensor.raw_data = None;
    // external_data: location; data_location: EXTERNAL
    let location = [field(1, b"location"), field(2, file.as_bytes())].concat();
    let tensor = [tensor.encode_to_vec(), field(13, &location), vec![0x70, 1]].concat();
    // Protocol Buffers merge the fields of a message that occurs twice.
    [model.encode_to_vec(), field(7, &field(5, &tensor))].concat()
}

/// Writes a model.
pub fn save(model: &ModelProto, path: &Path) {
    std::fs::write(path, model.encode_to_vec()).unwrap();
}
