//! The block that MobileNetV2 and EfficientNet-Lite are made of (Sandler et al., 2018): 1×1 to more channels, depthwise,
//! 1×1 back, with ReLU6 between, and the input added where the shape stays.

use super::Flavour;
use crate::net::{Conv, NetBuilder, NodeId, Op};

/// Shape of a block.
#[derive(Clone, Copy, Debug)]
pub struct InvertedResidual {
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: i64,
    pub stride: i64,
    /// Channels inside for each one that comes in; with 1 the first convolution is left out.
    pub expand: i64,
    pub flavour: Flavour,
}

/// Full names of a convolution and of the batch norm after it.
pub struct LayerNames {
    pub conv: String,
    pub norm: String,
}

impl InvertedResidual {
    /// Adds the block. `names` are for expansion (not used with `expand` 1), depthwise and projection.
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
