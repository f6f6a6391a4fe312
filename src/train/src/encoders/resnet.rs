//! ResNet with basic blocks (He et al., 2015): ResNet18 and ResNet34. Layers have the names of torchvision.

use super::Flavour;
use crate::net::{Conv, Feature, NetBuilder, NodeId, Op, Stage};

/// The number of blocks in each layer of ResNet18.
pub const RESNET18: [i64; 4] = [2, 2, 2, 2];
/// The number of blocks in each layer of ResNet34.
pub const RESNET34: [i64; 4] = [3, 4, 6, 3];

/// Adds the layers. Returns the features of strides 2 to 32.
pub fn build(b: &mut NetBuilder, blocks: [i64; 4], flavour: Flavour) -> Vec<Feature> {
    b.stage(Stage::Encoder(1));
    let stem = Conv { stride: 2, padding: flavour.padding(7, 2), ..Conv::new(3, 64, 7) };
    let mut x = b.conv("encoder.conv1", stem, b.input());
    x = b.batch_norm("encoder.bn1", 64, flavour.eps(), x);
    x = b.plain(Op::Relu, &[x]);
    let mut channels = 64;
    let mut features = vec![Feature { node: x, channels, stride: 2 }];
    b.stage(Stage::Encoder(2));
    x = b.plain(Op::MaxPool { kernel: 3, stride: 2, padding: flavour.padding(3, 2) }, &[x]);
    for (layer, blocks) in (1..).zip(blocks) {
        b.stage(Stage::Encoder(layer + 1));
        let outputs = 32 << layer;
        for block in 0..blocks {
            let stride = if block == 0 && layer > 1 { 2 } else { 1 };
            x = basic_block(b, &format!("encoder.layer{layer}.{block}"), channels, outputs, stride, flavour, x);
            channels = outputs;
        }
        features.push(Feature { node: x, channels, stride: 2 << layer });
    }
    features
}

/// Adds two 3×3 convolutions and the addition of the input. If the shape changes, the input passes a 1×1 convolution.
fn basic_block(
    b: &mut NetBuilder,
    name: &str,
    inputs: i64,
    outputs: i64,
    stride: i64,
    flavour: Flavour,
    input: NodeId,
) -> NodeId {
    let first = Conv { stride, padding: flavour.padding(3, stride), ..Conv::new(inputs, outputs, 3) };
    let mut x = b.conv(format!("{name}.conv1"), first, input);
    x = b.batch_norm(format!("{name}.bn1"), outputs, flavour.eps(), x);
    x = b.plain(Op::Relu, &[x]);
    x = b.conv(format!("{name}.conv2"), Conv::new(outputs, outputs, 3), x);
    x = b.batch_norm(format!("{name}.bn2"), outputs, flavour.eps(), x);
    let mut shortcut = input;
    if stride != 1 || inputs != outputs {
        shortcut = b.conv(format!("{name}.downsample.0"), Conv { stride, ..Conv::new(inputs, outputs, 1) }, shortcut);
        shortcut = b.batch_norm(format!("{name}.downsample.1"), outputs, flavour.eps(), shortcut);
    }
    x = b.plain(Op::Add, &[x, shortcut]);
    b.plain(Op::Relu, &[x])
}
