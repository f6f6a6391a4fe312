//! VGG (Simonyan and Zisserman, 2014): the convolutions of VGG11 and VGG16, with and without batch norm. Layers have the names
//! of torchvision: `features.N`, where N counts convolutions, batch norms, ReLUs and pools.

use super::Flavour;
use crate::net::{Conv, Feature, NetBuilder, Op, Padding, Stage};

/// The number of convolutions in each level of VGG11.
pub const VGG11: [usize; 5] = [1, 1, 2, 2, 2];
/// The number of convolutions in each level of VGG16.
pub const VGG16: [usize; 5] = [2, 2, 3, 3, 3];

/// The channels of each level.
const CHANNELS: [i64; 5] = [64, 128, 256, 512, 512];

/// Adds the layers. Returns the features of strides 1 to 16 before each pool, and of stride 32 after the last pool.
pub fn build(b: &mut NetBuilder, convs: [usize; 5], batch_norm: bool, flavour: Flavour) -> Vec<Feature> {
    let mut features = Vec::new();
    let mut x = b.input();
    let mut inputs = 3;
    let mut stride = 1;
    // The number of the next layer in torchvision.
    let mut number = 0;
    for (convs, channels) in convs.into_iter().zip(CHANNELS) {
        b.stage(Stage::Encoder(features.len() as u8));
        for _ in 0..convs {
            let conv = Conv { bias: true, ..Conv::new(inputs, channels, 3) };
            x = b.conv(format!("encoder.features.{number}"), conv, x);
            number += 1;
            if batch_norm {
                x = b.batch_norm(format!("encoder.features.{number}"), channels, flavour.eps(), x);
                number += 1;
            }
            x = b.plain(Op::Relu, &[x]);
            number += 1;
            inputs = channels;
        }
        features.push(Feature { node: x, channels, stride });
        b.stage(Stage::Encoder(features.len() as u8));
        x = b.plain(Op::MaxPool { kernel: 2, stride: 2, padding: Padding::NONE }, &[x]);
        number += 1;
        stride *= 2;
    }
    features.push(Feature { node: x, channels: inputs, stride });
    features
}
