//! Test models, which take red pixels for persons.

use std::path::Path;

use crate::common::onnx::proto::{ModelProto, NodeProto, TensorDataType, TensorProto};
use crate::common::onnx::{self, node, tensor};
use crate::paint::POISON_PIXELS;

/// How red a pixel is that a model takes for a person: `2r - g - b`.
const PERSON: f32 = 60.0;

/// How blue a pixel is that is poison.
const POISON: f32 = 300.0;

/// A class: its name, the weights of the channels, and what is added to their sum. A pixel has the class with the largest sum.
type Class = (&'static str, [f32; 3], f32);

const OTHER: Class = ("other", [0.0; 3], 0.0);
const SKY: Class = ("sky", [0.0; 3], -1000.0);
const BLUE: Class = ("blue", [-1.0, -1.0, 2.0], -POISON);
const RED: Class = ("person", [2.0, -1.0, -1.0], -PERSON);

/// What differs between the test models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Person is the class 1.
    First,
    /// Person is the class 3, another one is the class 1.
    OtherIndex,
    /// Has another class for the pixels of a person.
    WithoutPerson,
    /// Takes long to load and to run.
    Slow,
    /// Cannot be run with frames that have poison.
    Failing,
}

fn classes(kind: Kind) -> Vec<Class> {
    let thing = ("thing", RED.1, RED.2);
    match kind {
        Kind::First | Kind::Slow | Kind::Failing => vec![OTHER, RED, BLUE],
        Kind::OtherIndex => vec![OTHER, SKY, BLUE, RED],
        Kind::WithoutPerson => vec![OTHER, thing, BLUE],
    }
}

/// Writes a model with an input of this size.
pub fn write(path: &Path, kind: Kind, (width, height): (i64, i64)) {
    // At once: the service loads a file that has changed.
    let part = path.with_extension("part");
    onnx::save(&model(kind, width, height), &part);
    std::fs::rename(part, path).unwrap();
}

fn model(kind: Kind, width: i64, height: i64) -> ModelProto {
    let classes = classes(kind);
    let count = classes.len();
    let labels: Vec<String> =
        classes.iter().map(|(name, ..)| format!(r#"{{"name":"{name}","color":[0,200,90]}}"#)).collect();
    let labels = format!("[{}]", labels.join(","));
    let weights = (0..3).flat_map(|channel| classes.iter().map(move |class| class.1[channel])).collect::<Vec<f32>>();
    let biases = classes.iter().map(|class| class.2).collect::<Vec<f32>>();
    let mut constants =
        vec![floats("weights", &[3, count as i64], &weights), floats("biases", &[count as i64], &biases)];
    let mut nodes = vec![
        node("Cast", "image", "float", &[("to", TensorDataType::Float as i64)]),
        binary("MatMul", ["float", "weights"], "sums"),
        binary("Add", ["sums", "biases"], "logits"),
    ];
    let mut logits = "logits";
    if kind == Kind::Slow {
        add_work(&mut nodes, &mut constants);
        logits = "late";
    }
    nodes.push(node("ArgMax", logits, "index", &[("axis", 3), ("keepdims", 0)]));
    let mut index = "index";
    if kind == Kind::Failing {
        add_failure(&mut nodes, &mut constants);
        index = "checked";
    }
    nodes.push(node("Cast", index, "mask", &[("to", TensorDataType::Uint8 as i64)]));
    let mut model = onnx::model(
        tensor("image", TensorDataType::Uint8, &[-1, height, width, 3]),
        tensor("mask", TensorDataType::Uint8, &[-1, height, width]),
        nodes,
        &[("maskcast.version", "1"), ("maskcast.labels", &labels)],
    );
    model.graph.as_mut().unwrap().initializer = constants;
    model
}

/// Convolutions with weights of 0, whose result is added to the sums.
fn add_work(nodes: &mut Vec<NodeProto>, constants: &mut Vec<TensorProto>) {
    const CHANNELS: i64 = 32;
    const LAYERS: usize = 120;
    let side = (CHANNELS * CHANNELS * 9) as usize;
    constants.push(floats("first", &[3, CHANNELS], &vec![0.0; 3 * CHANNELS as usize]));
    constants.push(floats("kernel", &[CHANNELS, CHANNELS, 3, 3], &vec![0.0; side]));
    nodes.push(binary("MatMul", ["float", "first"], "wide"));
    nodes.push(with_ints(node("Transpose", "wide", "layer0", &[]), "perm", &[0, 3, 1, 2]));
    for layer in 0..LAYERS {
        let conv = binary("Conv", [&format!("layer{layer}"), "kernel"], &format!("layer{}", layer + 1));
        nodes.push(with_ints(conv, "pads", &[1; 4]));
    }
    let mean = node("ReduceMean", &format!("layer{LAYERS}"), "mean", &[("keepdims", 1)]);
    nodes.push(with_ints(mean, "axes", &[1, 2, 3]));
    nodes.push(binary("Add", ["logits", "mean"], "late"));
}

/// Looks up a constant by whether the frame has as many pixels of the class 2 as a patch of poison: there is no element for "yes".
/// The images with which the service tests a model have another number.
fn add_failure(nodes: &mut Vec<NodeProto>, constants: &mut Vec<TensorProto>) {
    constants.push(integers("poison", &[], &[2]));
    constants.push(integers("patch", &[], &[POISON_PIXELS as i64]));
    constants.push(integers("table", &[1], &[0]));
    nodes.push(binary("Equal", ["index", "poison"], "is_poison"));
    nodes.push(node("Cast", "is_poison", "poisoned", &[("to", TensorDataType::Int64 as i64)]));
    nodes.push(node("ReduceSum", "poisoned", "pixels", &[("keepdims", 0)]));
    nodes.push(binary("Equal", ["pixels", "patch"], "is_patch"));
    nodes.push(node("Cast", "is_patch", "element", &[("to", TensorDataType::Int64 as i64)]));
    nodes.push(binary("Gather", ["table", "element"], "nothing"));
    nodes.push(binary("Add", ["index", "nothing"], "checked"));
}

fn binary(op: &str, inputs: [&str; 2], output: &str) -> NodeProto {
    NodeProto { input: inputs.map(String::from).into(), ..node(op, "", output, &[]) }
}

fn with_ints(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    use crate::common::onnx::proto::{AttributeProto, AttributeType};
    let kind = AttributeType::Ints.into();
    node.attribute.push(AttributeProto { name: name.into(), ints: values.to_vec(), kind, ..AttributeProto::default() });
    node
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    constant(name, TensorDataType::Float, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    constant(name, TensorDataType::Int64, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn constant(name: &str, element: TensorDataType, dims: &[i64], data: Vec<u8>) -> TensorProto {
    TensorProto { dims: dims.to_vec(), element: element.into(), name: name.into(), raw_data: Some(data) }
}
