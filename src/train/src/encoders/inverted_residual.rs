//! The inverted residual block of MobileNetV2 and EfficientNet-Lite (Sandler et al., 2018): a 1×1 convolution to more
//! channels, a depthwise convolution, and a 1×1 convolution to fewer channels, with ReLU6 between them. The input is added if
//! it has the shape of the result.

use super::Flavour;
use crate::net::{Conv, NetBuilder, NodeId, Op};

/// The parameters of a block.
#[derive(Clone, Copy, Debug)]
pub struct InvertedResidual {
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: i64,
    pub stride: i64,
    /// Channels of the depthwise convolution for each input channel. With 1, there is no first convolution.
    pub expand: i64,
    pub flavour: Flavour,
}

/// The full names of a convolution and of the batch norm after it.
pub struct LayerNames {
    pub conv: String,
    pub norm: String,
}

impl InvertedResidual {
    /// Adds the block. `names` are those of the expansion (not used if `expand` is 1), the depthwise convolution and the
    /// projection.
    pub fn build(&self, b: &mut NetBuilder, names: [LayerNames; 3], input: NodeId) -> NodeId {
        let [expand, depthwise, project] = names;
        let inner = self.inputs * self.expand;
        let eps = self.flavour.eps();
        let mut x = input;
        if self.expand != 1 {
            x = b.conv(expand.conv, Conv::new(self.inputs, inner, 1), x);
            x = b.batch_norm(expand.norm, inner, eps, x);
            x = b.plain(Op::Relu6, &[x]);
        }
        let padding = self.flavour.padding(self.kernel, self.stride);
        x = b.conv(depthwise.conv, Conv { stride: self.stride, padding, ..Conv::depthwise(inner, self.kernel) }, x);
        x = b.batch_norm(depthwise.norm, inner, eps, x);
        x = b.plain(Op::Relu6, &[x]);
        x = b.conv(project.conv, Conv::new(inner, self.outputs, 1), x);
        x = b.batch_norm(project.norm, self.outputs, eps, x);
        if self.stride == 1 && self.inputs == self.outputs {
            x = b.plain(Op::Add, &[x, input]);
        }
        x
    }
}
