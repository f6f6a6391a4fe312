//! Folds batch norms into the convolutions before them: with fixed statistics a batch norm is one factor and one
//! summand a channel.

use tch::{Device, Kind, Tensor};

use crate::net::{Conv, Net, Node, Op, Params};

/// The same network without batch norms: every one is folded into the convolution before it, or, where there is none
/// whose result only it uses, becomes a 1×1 depthwise convolution. Computed in 64-bit floats; parameters come back on
/// the CPU as 32-bit ones with memory of their own.
pub fn fold(net: &Net, params: &Params) -> (Net, Params) {
    let uses = uses(net);
    let mut nodes: Vec<Node> = Vec::with_capacity(net.nodes.len());
    let mut folded = Params::default();
    // Where each of the old nodes' results is found.
    let mut place: Vec<usize> = Vec::with_capacity(net.nodes.len());
    for node in &net.nodes {
        let inputs: Vec<usize> = node.inputs.iter().map(|&input| place[input]).collect();
        match node.op {
            Op::BatchNorm { channels, eps } => {
                let (factor, summand) = affine(node, params, eps);
                let before = inputs[0];
                let conv = match nodes[before].op {
                    Op::Conv(conv) if uses[node.inputs[0]] == 1 => conv,
                    _ => {
                        let conv = Conv { bias: true, ..Conv::depthwise(channels, 1) };
                        put(&mut folded, &node.name, "weight", &factor.reshape(conv.weight_shape()));
                        put(&mut folded, &node.name, "bias", &summand);
                        nodes.push(Node { op: Op::Conv(conv), inputs, ..node.clone() });
                        place.push(nodes.len() - 1);
                        continue;
                    }
                };
                let name = nodes[before].name.clone();
                let weight = double(folded.get(&format!("{name}.weight"))) * factor.reshape([-1, 1, 1, 1]);
                let bias = match conv.bias {
                    true => double(folded.get(&format!("{name}.bias"))) * &factor + summand,
                    false => summand,
                };
                put(&mut folded, &name, "weight", &weight);
                put(&mut folded, &name, "bias", &bias);
                nodes[before].op = Op::Conv(Conv { bias: true, ..conv });
                place.push(before);
            }
            op => {
                if let Op::Conv(conv) = op {
                    put(&mut folded, &node.name, "weight", params.get(&format!("{}.weight", node.name)));
                    if conv.bias {
                        put(&mut folded, &node.name, "bias", params.get(&format!("{}.bias", node.name)));
                    }
                }
                nodes.push(Node { inputs, ..node.clone() });
                place.push(nodes.len() - 1);
            }
        }
    }
    (Net { nodes, normalise: net.normalise, logits: place[net.logits] }, folded)
}

/// How often each node's result is used; being the network's result is a use.
pub fn uses(net: &Net) -> Vec<usize> {
    let mut uses = vec![0; net.nodes.len()];
    for &input in net.nodes.iter().flat_map(|node| &node.inputs) {
        uses[input] += 1;
    }
    uses[net.logits] += 1;
    uses
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double)
}

fn put(params: &mut Params, node: &str, suffix: &str, tensor: &Tensor) {
    let own = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().copy();
    params.0.insert(format!("{node}.{suffix}"), own);
}

/// The factor and the summand of a batch norm's channels.
fn affine(node: &Node, params: &Params, eps: f64) -> (Tensor, Tensor) {
    let param = |suffix: &str| double(params.get(&format!("{}.{suffix}", node.name)));
    let factor = param("weight") / (param("running_var") + eps).sqrt();
    let summand = param("bias") - param("running_mean") * &factor;
    (factor, summand)
}
