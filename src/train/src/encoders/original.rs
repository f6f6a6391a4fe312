//! The encoder of the original U-Net (Ronneberger, Fischer and Brox, 2015): five levels of two 3×3 convolutions, with
//! max-pooling between the levels, 64 to 1024 channels. Unlike in the paper, convolutions keep the size of the image and have
//! a batch norm. There are no pretrained weights.

use super::Flavour;
use crate::net::{Conv, Feature, NetBuilder, Op, Padding, Stage};

const CHANNELS: [i64; 5] = [64, 128, 256, 512, 1024];

/// Adds the layers. Returns the features of strides 1 to 16.
pub fn build(b: &mut NetBuilder, flavour: Flavour) -> Vec<Feature> {
    let mut features = Vec::new();
    let mut x = b.input();
    let mut inputs = 3;
    for (level, channels) in CHANNELS.into_iter().enumerate() {
        b.stage(Stage::Encoder(level as u8));
        if level > 0 {
            x = b.plain(Op::MaxPool { kernel: 2, stride: 2, padding: Padding::NONE }, &[x]);
        }
        for step in 0..2 {
            x = b.conv(format!("encoder.{level}.{step}.conv"), Conv::new(inputs, channels, 3), x);
            x = b.batch_norm(format!("encoder.{level}.{step}.bn"), channels, flavour.eps(), x);
            x = b.plain(Op::Relu, &[x]);
            inputs = channels;
        }
        features.push(Feature { node: x, channels, stride: 1 << level });
    }
    features
}
