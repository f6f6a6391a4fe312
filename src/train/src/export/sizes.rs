//! The sizes of the results of a network's nodes.

use crate::net::{Net, Op, Padding};

/// The size of the result of a node for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureSize {
    pub channels: i64,
    pub height: i64,
    pub width: i64,
}

/// The size of the result of each node for an image of `height` × `width` pixels.
pub fn feature_sizes(net: &Net, height: i64, width: i64) -> Vec<FeatureSize> {
    let mut sizes: Vec<FeatureSize> = Vec::with_capacity(net.nodes.len());
    for node in &net.nodes {
        let before = node.inputs.first().map_or(FeatureSize { channels: 3, height, width }, |&input| sizes[input]);
        sizes.push(match node.op {
            Op::Conv(conv) => {
                FeatureSize { channels: conv.outputs, ..window(before, conv.kernel, conv.stride, conv.padding) }
            }
            Op::MaxPool { kernel, stride, padding } => window(before, kernel, stride, padding),
            Op::Nearest { factor } | Op::Bilinear { factor } => {
                FeatureSize { height: before.height * factor, width: before.width * factor, ..before }
            }
            Op::Concat => {
                FeatureSize { channels: node.inputs.iter().map(|&input| sizes[input].channels).sum(), ..before }
            }
            Op::Input | Op::BatchNorm { .. } | Op::Relu | Op::Relu6 | Op::Add => before,
        });
    }
    sizes
}

/// The size after a convolution or pool.
fn window(before: FeatureSize, kernel: i64, stride: i64, padding: Padding) -> FeatureSize {
    let side = |side: i64| (side + padding.begin + padding.end - kernel) / stride + 1;
    FeatureSize { height: side(before.height), width: side(before.width), ..before }
}
