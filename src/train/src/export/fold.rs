//! Folds batch norms into the convolutions before them: with fixed statistics, a batch norm multiplies each channel by a
//! factor and adds an offset.

use tch::{Device, Kind, Tensor};

use crate::net::{Conv, Net, Node, Op, Params};

/// The network without batch norms. Each batch norm is folded into the convolution before it if nothing else uses the
/// result of that convolution, and otherwise becomes a 1×1 depthwise convolution. The factors are computed in 64-bit
/// floats. The returned parameters are 32-bit floats on the CPU and share no memory with `params`.
pub fn fold(net: &Net, params: &Params) -> (Net, Params) {
    let uses = uses(net);
    let mut nodes: Vec<Node> = Vec::with_capacity(net.nodes.len());
    let mut folded = Params::default();
    // For each node of `net`, the new node with its result.
    let mut new_node: Vec<usize> = Vec::with_capacity(net.nodes.len());
    for node in &net.nodes {
        let inputs: Vec<usize> = node.inputs.iter().map(|&input| new_node[input]).collect();
        match node.op {
            Op::BatchNorm { channels, eps } => {
                let (factor, offset) = affine(node, params, eps);
                let before = inputs[0];
                let conv = match nodes[before].op {
                    Op::Conv(conv) if uses[node.inputs[0]] == 1 => conv,
                    _ => {
                        let conv = Conv { bias: true, ..Conv::depthwise(channels, 1) };
                        put(&mut folded, &node.name, "weight", &factor.reshape(conv.weight_shape()));
                        put(&mut folded, &node.name, "bias", &offset);
                        nodes.push(Node { op: Op::Conv(conv), inputs, ..node.clone() });
                        new_node.push(nodes.len() - 1);
                        continue;
                    }
                };
                let name = nodes[before].name.clone();
                let weight = double(folded.get(&format!("{name}.weight"))) * factor.reshape([-1, 1, 1, 1]);
                let bias = match conv.bias {
                    true => double(folded.get(&format!("{name}.bias"))) * &factor + offset,
                    false => offset,
                };
                put(&mut folded, &name, "weight", &weight);
                put(&mut folded, &name, "bias", &bias);
                nodes[before].op = Op::Conv(Conv { bias: true, ..conv });
                new_node.push(before);
            }
            op => {
                if let Op::Conv(conv) = op {
                    put(&mut folded, &node.name, "weight", params.get(&format!("{}.weight", node.name)));
                    if conv.bias {
                        put(&mut folded, &node.name, "bias", params.get(&format!("{}.bias", node.name)));
                    }
                }
                nodes.push(Node { inputs, ..node.clone() });
                new_node.push(nodes.len() - 1);
            }
        }
    }
    (Net { nodes, normalise: net.normalise, logits: new_node[net.logits] }, folded)
}

/// The number of uses of the result of each node. The logits are used once by the caller.
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

/// The factor and the offset of each channel of a batch norm.
fn affine(node: &Node, params: &Params, eps: f64) -> (Tensor, Tensor) {
    let param = |suffix: &str| double(params.get(&format!("{}.{suffix}", node.name)));
    let factor = param("weight") / (param("running_var") + eps).sqrt();
    let offset = param("bias") - param("running_mean") * &factor;
    (factor, offset)
}
