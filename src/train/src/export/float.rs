//! The 32-bit float graph.

use super::graph::GraphBuilder;
use super::ops::{self, GraphOptions, Resize};
use super::proto::{ModelProto, TensorDataType};
use crate::net::{Net, Node, Op, Params};

/// The network as an ONNX model of 32-bit floats, without metadata. `net` has no batch norms (see [`super::fold`]).
///
/// # Panics
/// `net` has batch norms.
pub fn model(net: &Net, params: &Params, options: &GraphOptions) -> ModelProto {
    let mut b = GraphBuilder::default();
    let planes = ops::image(&mut b, options);
    let (small, factor) = ops::small_logits(net);
    let decides_small = ops::decides_small(net, options);
    let mut names: Vec<String> = Vec::with_capacity(net.nodes.len());
    for (index, node) in net.nodes.iter().enumerate() {
        if index == net.logits && decides_small && !options.logits {
            names.push(String::new());
            continue;
        }
        let inputs: Vec<&str> = node.inputs.iter().map(|&input| names[input].as_str()).collect();
        let name = match node.op {
            Op::Input => ops::normalised(&mut b, &net.normalise, &planes),
            _ => operation(&mut b, node, params, &inputs),
        };
        if index == small && options.scores {
            ops::scores(&mut b, options, &name, factor, 1, net.classes());
        }
        names.push(if index == small { ops::rejected(&mut b, options, &name, net.classes()) } else { name });
    }
    if decides_small {
        let half = ops::half_size(&mut b, &names[small], factor);
        ops::mask(&mut b, options, &half, 1, true);
        if options.confidence {
            ops::confidence(&mut b, options, &half);
        }
    } else {
        ops::mask(&mut b, options, &names[net.logits], 1, false);
        if options.confidence {
            let half = ops::half_size(&mut b, &names[small], factor);
            ops::confidence(&mut b, options, &half);
        }
    }
    if options.logits {
        b.node("Identity", &[&names[net.logits]], ops::LOGITS, Vec::new());
        b.output(ops::LOGITS, TensorDataType::Float, &[-1, net.classes(), options.height, options.width]);
    }
    b.finish()
}

/// Adds the operation of a node in float. `inputs` are names of float values. Returns the name of the result.
pub fn operation(b: &mut GraphBuilder, node: &Node, params: &Params, inputs: &[&str]) -> String {
    let name = &node.name;
    match node.op {
        Op::Conv(conv) => {
            let weight = parameter(b, params, format!("{name}.weight"));
            let bias = conv.bias.then(|| parameter(b, params, format!("{name}.bias")));
            let mut all = vec![inputs[0], &weight];
            all.extend(bias.as_deref());
            b.node("Conv", &all, name, ops::conv_attributes(&conv))
        }
        Op::Relu => b.node("Relu", inputs, name, Vec::new()),
        Op::Relu6 => {
            let (low, high) = (b.floats("clip.low", &[], &[0.0]), b.floats("clip.high", &[], &[6.0]));
            b.node("Clip", &[inputs[0], &low, &high], name, Vec::new())
        }
        Op::Add => b.node("Add", inputs, name, Vec::new()),
        Op::Concat => b.node("Concat", inputs, name, vec![super::graph::int("axis", 1)]),
        Op::MaxPool { kernel, stride, padding } => {
            b.node("MaxPool", inputs, name, ops::max_pool_attributes(kernel, stride, padding))
        }
        Op::Nearest { factor } => ops::resize(b, Resize::Nearest, factor, inputs[0], name),
        Op::Bilinear { factor } => ops::resize(b, Resize::Bilinear, factor, inputs[0], name),
        Op::Input => unreachable!("the input is not an operation"),
        Op::BatchNorm { .. } => unreachable!("batch norms are folded before an export"),
    }
}

/// Adds a parameter as a float constant. Returns its name.
fn parameter(b: &mut GraphBuilder, params: &Params, name: String) -> String {
    let tensor = params.get(&name);
    b.floats(&name, &tensor.size(), &values(tensor))
}

/// The values of a tensor in row-major order.
pub fn values(tensor: &tch::Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(tch::Device::Cpu).to_kind(tch::Kind::Float).contiguous().view([-1]);
    Vec::try_from(&flat).expect("a flat CPU tensor of floats converts")
}
