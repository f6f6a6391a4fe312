//! Builders of small ONNX models whose masks are known in advance.

use std::path::Path;

use prost::Message;

// The exporter's source file: the tests of the service build without the trainer.
#[path = "../../src/train/src/export/proto.rs"]
pub mod proto;

use proto::{
    Attribute, AttributeKind, Dim, Element, Graph, MetadataEntry, Model, Node, Opset, Shape, TensorType, Type,
    ValueInfo,
};

/// A tensor's name, element type and shape; -1 is a free dimension.
pub fn tensor(name: &str, element: Element, shape: &[i64]) -> ValueInfo {
    let dim = |&side: &i64| match side {
        -1 => Dim { value: None, param: Some("N".into()) },
        side => Dim { value: Some(side), param: None },
    };
    let shape = Shape { dim: shape.iter().map(dim).collect() };
    let tensor = TensorType { element: element.into(), shape: Some(shape) };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor: Some(tensor) }) }
}

pub fn node(op: &str, input: &str, output: &str, attributes: &[(&str, i64)]) -> Node {
    let attribute = |&(name, value): &(&str, i64)| Attribute {
        name: name.into(),
        i: Some(value),
        kind: AttributeKind::Int.into(),
        ..Attribute::default()
    };
    Node {
        input: vec![input.into()],
        output: vec![output.into()],
        op_type: op.into(),
        attribute: attributes.iter().map(attribute).collect(),
        ..Node::default()
    }
}

/// A model of `nodes` with one input and one output.
pub fn model(input: ValueInfo, output: ValueInfo, node: Vec<Node>, metadata: &[(&str, &str)]) -> Model {
    let entry = |&(key, value): &(&str, &str)| MetadataEntry { key: key.into(), value: value.into() };
    Model {
        ir_version: 9,
        graph: Some(Graph { node, name: "test".into(), input: vec![input], output: vec![output], ..Graph::default() }),
        opset_import: vec![Opset { domain: None, version: 17 }],
        metadata: metadata.iter().map(entry).collect(),
        ..Model::default()
    }
}

/// Labels of [`channels`] and [`foreign`]: class 0 where red is strongest, 1 green, 2 blue.
pub const LABELS: &str =
    r#"[{"name":"red","color":[255,0,0]},{"name":"green","color":[0,255,0]},{"name":"blue","color":[0,0,255]}]"#;

/// A model with Maskcast's metadata, `width` × `height`: the class is the strongest channel of the pixel.
pub fn channels(width: i64, height: i64, more: &[(&str, &str)]) -> Model {
    labelled(width, height, LABELS, more)
}

/// The same with other names and colours of the three classes.
pub fn labelled(width: i64, height: i64, labels: &str, more: &[(&str, &str)]) -> Model {
    let nodes = vec![
        node("Cast", "image", "float", &[("to", Element::Float as i64)]),
        node("ArgMax", "float", "index", &[("axis", 3), ("keepdims", 0)]),
        node("Cast", "index", "mask", &[("to", Element::Uint8 as i64)]),
    ];
    let mut metadata = vec![("maskcast.version", "1"), ("maskcast.labels", labels)];
    metadata.extend(more);
    model(
        tensor("image", Element::Uint8, &[-1, height, width, 3]),
        tensor("mask", Element::Uint8, &[-1, height, width]),
        nodes,
        &metadata,
    )
}

/// A foreign model, float NCHW in and logits out: the logits are the normalised channels themselves.
pub fn foreign(width: i64, height: i64) -> Model {
    let shape = [1, 3, height, width];
    model(
        tensor("input", Element::Float, &shape),
        tensor("logits", Element::Float, &shape),
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
pub fn with_external_weights(model: &Model, file: &str) -> Vec<u8> {
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
pub fn save(model: &Model, path: &Path) {
    std::fs::write(path, model.encode_to_vec()).unwrap();
}
