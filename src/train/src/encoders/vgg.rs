//! VGG (Simonyan and Zisserman, 2014): the convolutions of VGG11 and VGG16, with and without batch norm. Layer names as in
//! torchvision: `features.N`, N counting convolutions, batch norms, ReLUs and pools.

use super::Flavour;
use crate::net::{Conv, Feature, NetBuilder, Op, Padding, Stage};

/// Convolutions in each of the five levels.
pub const VGG11: [usize; 5] = [1, 1, 2, 2, 2];
pub const VGG16: [usize; 5] = [2, 2, 3, 3, 3];

/// Channels of the levels.
const CHANNELS: [i64; 5] = [64, 128, 256, 512, 512];

/// Adds the layers; features of strides 1 to 16 before each pool, and of stride 32 after the last.
pub fn build(b: &mut NetBuilder, convs: [usize; 5], batch_norm: bool, flavour: Flavour) -> Vec<Feature> {
    let mut features = Vec::new();
    let mut x = b.input();
    let mut inputs = 3;
    let mut stride = 1;
    // torchvision's number of the next layer.
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
