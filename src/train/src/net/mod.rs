//! A network as a list of operations. libtorch runs the list ([`exec`]), the export writes it as ONNX, and reports count its
//! operations. An operation is after its inputs in the list, so that one pass over the list runs the network.

pub mod decoder;
pub mod exec;
pub mod params;
pub mod statistics;

use serde::{Deserialize, Serialize};

pub use params::Params;

/// Index of a node in [`Net::nodes`].
pub type NodeId = usize;

/// The padding of the input of a convolution or pool: the same on both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Above and to the left.
    pub begin: i64,
    /// Below and to the right.
    pub end: i64,
}

impl Padding {
    pub const NONE: Padding = Padding { begin: 0, end: 0 };

    /// The same padding on both sides: PyTorch's `padding`.
    pub fn both(size: i64) -> Self {
        Padding { begin: size, end: size }
    }

    /// TensorFlow's "SAME" padding for inputs whose size is a multiple of `stride`: `kernel - stride` in total, and the odd
    /// pixel at the end (tensorflow/core/framework/kernel_shape_util.cc, `GetWindowedOutputSizeVerbose`).
    pub fn same(kernel: i64, stride: i64) -> Self {
        let total = (kernel - stride).max(0);
        Padding { begin: total / 2, end: total - total / 2 }
    }

    /// Whether the padding is the same on both sides.
    pub fn is_symmetric(self) -> bool {
        self.begin == self.end
    }
}

/// A convolution with square kernels, `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: i64,
    pub stride: i64,
    pub padding: Padding,
    pub groups: i64,
    pub bias: bool,
}

impl Conv {
    /// A convolution with stride 1, one group, symmetric padding that keeps the size, and no bias.
    pub fn new(inputs: i64, outputs: i64, kernel: i64) -> Self {
        Conv { inputs, outputs, kernel, stride: 1, padding: Padding::both(kernel / 2), groups: 1, bias: false }
    }

    /// A depthwise convolution: one filter for each channel.
    pub fn depthwise(channels: i64, kernel: i64) -> Self {
        Conv { groups: channels, ..Conv::new(channels, channels, kernel) }
    }

    /// The shape of the weight: `[outputs, inputs / groups, kernel, kernel]`.
    pub fn weight_shape(&self) -> [i64; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }
}

/// The operation of a node. Tensors are `[N, C, H, W]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The normalised image, `[N, 3, H, W]`: see [`Normalise`].
    Input,
    /// Has the parameters `NAME.weight` and, with a bias, `NAME.bias`.
    Conv(Conv),
    /// Has the parameters `NAME.weight` and `NAME.bias`, and the statistics `NAME.running_mean` and `NAME.running_var`.
    BatchNorm {
        channels: i64,
        eps: f64,
    },
    Relu,
    /// Clamps to 0 and 6.
    Relu6,
    /// Adds two tensors of the same shape.
    Add,
    /// Concatenates along the channels.
    Concat,
    MaxPool {
        kernel: i64,
        stride: i64,
        padding: Padding,
    },
    /// Enlarges each pixel to `factor` × `factor` pixels.
    Nearest {
        factor: i64,
    },
    /// Enlarges by bilinear interpolation between pixel centres (`align_corners = false`).
    Bilinear {
        factor: i64,
    },
}

/// The part of a network that a node belongs to. Learning rate, freezing and batch-norm mode are set for each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The layers of the encoder with the stride 2^n: 0 is full size, 5 is stride 32.
    Encoder(u8),
    Decoder,
    /// The last convolution, whose outputs are the classes.
    Head,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique. The names of its parameters begin with it: `encoder._blocks.3._bn1`.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub stage: Stage,
}

/// The conversion of the bytes of an image to the input of a network: channels in `order`, each `(byte - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalise {
    pub order: Order,
    /// Of each channel in `order`, 0 to 255.
    pub mean: [f32; 3],
    /// Of each channel in `order`.
    pub std: [f32; 3],
}

/// The order of the colour channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Rgb,
    Bgr,
}

impl Normalise {
    /// The normalisation of torchvision's networks.
    pub const IMAGENET: Normalise =
        Normalise { order: Order::Rgb, mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] };
}

/// A result of the encoder that the decoder uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub node: NodeId,
    pub channels: i64,
    /// Pixels of the image, across or down, for one pixel of the feature: 1, 2, 4, … 32.
    pub stride: i64,
}

/// A network: images in, logits out.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    pub nodes: Vec<Node>,
    pub normalise: Normalise,
    /// The node of the logits `[N, classes, H, W]`, in the size of the image.
    pub logits: NodeId,
}

impl Net {
    /// The number of classes.
    pub fn classes(&self) -> i64 {
        let head = self.nodes.iter().rev().find_map(|node| match node.op {
            Op::Conv(conv) => Some(conv.outputs),
            _ => None,
        });
        head.unwrap_or(0)
    }

    /// All parameters and running statistics.
    pub fn param_specs(&self) -> Vec<ParamSpec> {
        let mut specs = Vec::new();
        for node in &self.nodes {
            let mut push = |suffix: &str, shape: Vec<i64>, learned: bool| {
                let name = format!("{}.{suffix}", node.name);
                specs.push(ParamSpec { name, shape, learned, stage: node.stage });
            };
            match node.op {
                Op::Conv(conv) => {
                    push("weight", conv.weight_shape().to_vec(), true);
                    if conv.bias {
                        push("bias", vec![conv.outputs], true);
                    }
                }
                Op::BatchNorm { channels, .. } => {
                    push("weight", vec![channels], true);
                    push("bias", vec![channels], true);
                    push("running_mean", vec![channels], false);
                    push("running_var", vec![channels], false);
                }
                _ => {}
            }
        }
        specs
    }

    /// The number of multiply-adds of the convolutions for one image of this size.
    pub fn multiply_adds(&self, height: i64, width: i64) -> i64 {
        let mut sizes: Vec<(i64, i64)> = Vec::with_capacity(self.nodes.len());
        let mut total = 0;
        for node in &self.nodes {
            let (h, w) = node.inputs.first().map_or((height, width), |&input| sizes[input]);
            let size = match node.op {
                Op::Conv(conv) => {
                    let (h, w) = (h / conv.stride, w / conv.stride);
                    total += conv.weight_shape().iter().product::<i64>() * h * w;
                    (h, w)
                }
                Op::MaxPool { stride, .. } => (h / stride, w / stride),
                Op::Nearest { factor } | Op::Bilinear { factor } => (h * factor, w * factor),
                _ => (h, w),
            };
            sizes.push(size);
        }
        total
    }
}

/// The name and shape of a parameter or running statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    pub name: String,
    pub shape: Vec<i64>,
    /// False for running statistics.
    pub learned: bool,
    pub stage: Stage,
}

/// Builds a [`Net`] node by node.
#[derive(Debug)]
pub struct NetBuilder {
    nodes: Vec<Node>,
    stage: Stage,
}

impl Default for NetBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl NetBuilder {
    /// A network with the image as its only node.
    pub fn new() -> Self {
        let input = Node { name: "image".into(), op: Op::Input, inputs: Vec::new(), stage: Stage::Encoder(0) };
        NetBuilder { nodes: vec![input], stage: Stage::Encoder(0) }
    }

    /// The node of the image.
    pub fn input(&self) -> NodeId {
        0
    }

    /// Sets the stage of the nodes that are added next.
    pub fn stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Adds a node with a unique name.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        let node = Node { name: name.into(), op, inputs: inputs.to_vec(), stage: self.stage };
        debug_assert!(node.inputs.iter().all(|&input| input < self.nodes.len()));
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds a node without parameters, named by its index.
    pub fn plain(&mut self, op: Op, inputs: &[NodeId]) -> NodeId {
        self.push(format!("node.{}", self.nodes.len()), op, inputs)
    }

    /// Adds a convolution.
    pub fn conv(&mut self, name: impl Into<String>, conv: Conv, input: NodeId) -> NodeId {
        self.push(name, Op::Conv(conv), &[input])
    }

    /// Adds a batch norm.
    pub fn batch_norm(&mut self, name: impl Into<String>, channels: i64, eps: f64, input: NodeId) -> NodeId {
        self.push(name, Op::BatchNorm { channels, eps }, &[input])
    }

    /// The network.
    ///
    /// # Panics
    /// There is no node `logits`.
    pub fn finish(self, normalise: Normalise, logits: NodeId) -> Net {
        assert!(logits < self.nodes.len(), "the logits are a node of the network");
        Net { nodes: self.nodes, normalise, logits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_pixel_at_the_end() {
        assert_eq!(Padding::same(3, 1), Padding { begin: 1, end: 1 });
        assert_eq!(Padding::same(3, 2), Padding { begin: 0, end: 1 });
        assert_eq!(Padding::same(5, 2), Padding { begin: 1, end: 2 });
        assert_eq!(Padding::same(1, 1), Padding::NONE);
    }
}
