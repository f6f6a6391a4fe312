//! Tiny ONNX models, made by the tests themselves: the few messages of the ONNX format (onnx.proto, IR version 9) that
//! they need, and recipes for models whose masks can be told beforehand.

use std::path::Path;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    pub metadata: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub param: Option<String>,
}

/// TensorProto.DataType
pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;

/// A tensor's name, element type and shape; -1 is a free dimension.
pub fn tensor(name: &str, element: i32, shape: &[i64]) -> ValueInfo {
    let dim = |&side: &i64| match side {
        -1 => Dim { value: None, param: Some("N".into()) },
        side => Dim { value: Some(side), param: None },
    };
    let shape = Shape { dim: shape.iter().map(dim).collect() };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor: Some(Tensor { element, shape: Some(shape) }) }) }
}

pub fn node(op: &str, input: &str, output: &str, attributes: &[(&str, i64)]) -> Node {
    let attribute =
        |&(name, value): &(&str, i64)| Attribute { name: name.into(), i: Some(value), ints: Vec::new(), kind: 2 };
    Node {
        input: vec![input.into()],
        output: vec![output.into()],
        op_type: op.into(),
        attribute: attributes.iter().map(attribute).collect(),
    }
}

/// A model of `nodes` with one input and one output.
pub fn model(input: ValueInfo, output: ValueInfo, node: Vec<Node>, metadata: &[(&str, &str)]) -> Model {
    let entry = |&(key, value): &(&str, &str)| Entry { key: key.into(), value: value.into() };
    Model {
        ir_version: 9,
        graph: Some(Graph { node, name: "test".into(), input: vec![input], output: vec![output] }),
        opset_import: vec![Opset { domain: String::new(), version: 17 }],
        metadata: metadata.iter().map(entry).collect(),
    }
}

/// Labels of [`channels`] and [`foreign`]: class 0 where red is strongest, 1 green, 2 blue.
pub const LABELS: &str =
    r#"[{"name":"red","color":[255,0,0]},{"name":"green","color":[0,255,0]},{"name":"blue","color":[0,0,255]}]"#;

/// A model after Maskcast's contract, `width` × `height`: the class is the strongest channel of the pixel.
pub fn channels(width: i64, height: i64, more: &[(&str, &str)]) -> Model {
    let nodes = vec![
        node("Cast", "image", "float", &[("to", i64::from(FLOAT))]),
        node("ArgMax", "float", "index", &[("axis", 3), ("keepdims", 0)]),
        node("Cast", "index", "mask", &[("to", i64::from(UINT8))]),
    ];
    let mut metadata = vec![("maskcast.version", "1"), ("maskcast.labels", LABELS)];
    metadata.extend(more);
    model(
        tensor("image", UINT8, &[-1, height, width, 3]),
        tensor("mask", UINT8, &[-1, height, width]),
        nodes,
        &metadata,
    )
}

/// A foreign model, float NCHW in and logits out: the logits are the normalised channels themselves.
pub fn foreign(width: i64, height: i64) -> Model {
    let shape = [1, 3, height, width];
    model(
        tensor("input", FLOAT, &shape),
        tensor("logits", FLOAT, &shape),
        vec![node("Identity", "input", "logits", &[])],
        &[],
    )
}

/// The card that [`foreign`] needs.
pub const FOREIGN_CARD: &str = r##"
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

/// Writes a model.
pub fn save(model: &Model, path: &Path) {
    std::fs::write(path, model.encode_to_vec()).unwrap();
}
