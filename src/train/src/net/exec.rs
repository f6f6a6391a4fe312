//! Runs a network in libtorch.
//!
//! All tensors have the memory layout of the input. Channels-last is the fastest layout for convolutions of libtorch on a
//! CPU.

use tch::{Device, Kind, Tensor};

use super::{Net, Node, Normalise, Op, Order, Padding, Params};

/// How a network is run.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// Whether a batch norm uses the statistics of the batch and updates its running statistics. Otherwise it uses its
    /// running statistics.
    pub batch_statistics: &'a dyn Fn(&Node) -> bool,
    /// The number format of convolutions. Parameters are 32-bit floats in any case.
    pub precision: Kind,
}

impl RunOptions<'_> {
    /// For inference: running statistics, 32-bit floats.
    pub const EVAL: RunOptions<'static> = RunOptions { batch_statistics: &|_| false, precision: Kind::Float };
}

/// The weight of a new batch in the running statistics: the default of PyTorch.
const MOMENTUM: f64 = 0.1;

/// Converts RGB images, bytes `[N, H, W, 3]`, to the input of a network, channels-last floats `[N, 3, H, W]` on `device`.
pub fn input(rgb: &Tensor, normalise: &Normalise, device: Device) -> Tensor {
    let rgb = rgb.to_device(device);
    let pixels = match normalise.order {
        Order::Rgb => rgb,
        Order::Bgr => rgb.flip([3]),
    };
    let mean = Tensor::from_slice(&normalise.mean).to_device(device);
    let std = Tensor::from_slice(&normalise.std).to_device(device);
    // A contiguous [N, H, W, C] with permuted axes is channels-last.
    ((pixels.to_kind(Kind::Float) - mean) / std).permute([0, 3, 1, 2])
}

/// Runs the network. Returns the logits `[N, classes, H, W]` as 32-bit floats.
pub fn forward(net: &Net, params: &Params, input: &Tensor, run: &RunOptions) -> Tensor {
    let mut last = None;
    visit(net, params, input, run, |node, value| {
        if node == net.logits {
            last = Some(value.shallow_clone());
        }
    });
    last.expect("the logits are a node of the network").to_kind(Kind::Float)
}

/// Runs the network and calls `show` with the index and the result of every node.
pub fn visit(net: &Net, params: &Params, input: &Tensor, run: &RunOptions, mut show: impl FnMut(usize, &Tensor)) {
    let last_use = last_uses(net);
    let mut values: Vec<Option<Tensor>> = Vec::with_capacity(net.nodes.len());
    for (index, node) in net.nodes.iter().enumerate() {
        let value = {
            let input_of = |at: usize| values[node.inputs[at]].as_ref().expect("kept until its last use");
            match node.op {
                Op::Input => input.shallow_clone(),
                Op::Add => input_of(0) + input_of(1),
                Op::Concat => {
                    let all: Vec<&Tensor> = (0..node.inputs.len()).map(input_of).collect();
                    Tensor::cat(&all, 1)
                }
                _ => apply(node, params, input_of(0), run),
            }
        };
        show(index, &value);
        values.push(Some(value));
        for &used in &node.inputs {
            if last_use[used] == index && used != net.logits {
                values[used] = None;
            }
        }
    }
}

/// For each node, the last node that uses its result.
fn last_uses(net: &Net) -> Vec<usize> {
    let mut last = vec![usize::MAX; net.nodes.len()];
    for (index, node) in net.nodes.iter().enumerate() {
        for &input in &node.inputs {
            last[input] = index;
        }
    }
    last
}

/// Computes an operation with one input.
fn apply(node: &Node, params: &Params, x: &Tensor, run: &RunOptions) -> Tensor {
    let param = |suffix: &str| params.get(&format!("{}.{suffix}", node.name));
    match node.op {
        Op::Conv(conv) => {
            let weight = param("weight").to_kind(run.precision);
            let bias = conv.bias.then(|| param("bias").to_kind(run.precision));
            let x = x.to_kind(run.precision);
            let (x, padding) = padded(&x, conv.padding, 0.0);
            let stride = [conv.stride; 2];
            x.conv2d(&weight, bias.as_ref(), stride, [padding; 2], [1, 1], conv.groups)
        }
        Op::BatchNorm { eps, .. } => x.batch_norm(
            Some(param("weight")),
            Some(param("bias")),
            Some(param("running_mean")),
            Some(param("running_var")),
            (run.batch_statistics)(node),
            MOMENTUM,
            eps,
            true,
        ),
        Op::Relu => x.relu(),
        // The backward pass of `clamp` accesses memory five times as often.
        Op::Relu6 => x.relu6(),
        Op::MaxPool { kernel, stride, padding } => {
            let (x, padding) = padded(x, padding, f64::NEG_INFINITY);
            x.max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1, 1], false)
        }
        Op::Nearest { factor } => {
            let (_, _, height, width) = x.size4().expect("a tensor [N, C, H, W]");
            x.upsample_nearest2d([height * factor, width * factor], None, None)
        }
        Op::Bilinear { factor } => {
            let (_, _, height, width) = x.size4().expect("a tensor [N, C, H, W]");
            let scale = factor as f64;
            x.upsample_bilinear2d([height * factor, width * factor], false, scale, scale)
        }
        Op::Input | Op::Add | Op::Concat => unreachable!("`visit` computes these operations"),
    }
}

/// Pads the input of a convolution or pool if the padding is not the same on both sides, which libtorch cannot do. Returns the
/// input and the padding that is left to libtorch.
fn padded(x: &Tensor, padding: Padding, value: f64) -> (Tensor, i64) {
    if padding.is_symmetric() {
        (x.shallow_clone(), padding.begin)
    } else {
        let Padding { begin, end } = padding;
        (x.pad([begin, end, begin, end], "constant", value), 0)
    }
}
