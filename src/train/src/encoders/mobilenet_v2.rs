//! MobileNetV2 (Sandler et al., 2018), width 1.0. Layers have the names of torchvision's `mobilenet_v2`. Its last convolution,
//! to 1280 channels (`features.18`), is part of the classifier and is left out.

use super::Flavour;
use super::inverted_residual::{InvertedResidual, LayerNames};
use crate::net::{Conv, Feature, NetBuilder, Op, Stage};

/// Expansion, outputs, repeats, stride: table 2 of the paper.
const ROWS: [(i64, i64, i64, i64); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// The number of blocks in each row, by which timm names its layers.
pub fn repeats() -> [i64; 7] {
    ROWS.map(|(_, _, repeats, _)| repeats)
}

/// Adds the layers. Returns the features of strides 2 to 32.
pub fn build(b: &mut NetBuilder, flavour: Flavour) -> Vec<Feature> {
    let mut features: Vec<Feature> = Vec::new();
    let mut stride = 2;
    b.stage(Stage::Encoder(1));
    let stem = Conv { stride: 2, padding: flavour.padding(3, 2), ..Conv::new(3, 32, 3) };
    let mut x = b.conv("encoder.features.0.0", stem, b.input());
    x = b.batch_norm("encoder.features.0.1", 32, flavour.eps(), x);
    x = b.plain(Op::Relu6, &[x]);
    let mut channels = 32;
    let mut index = 1;
    for (expand, outputs, repeats, row_stride) in ROWS {
        for repeat in 0..repeats {
            let block_stride = if repeat == 0 { row_stride } else { 1 };
            if block_stride == 2 {
                features.push(Feature { node: x, channels, stride });
                stride *= 2;
                b.stage(Stage::Encoder(stride.ilog2() as u8));
            }
            let block =
                InvertedResidual { inputs: channels, outputs, kernel: 3, stride: block_stride, expand, flavour };
            x = block.build(b, names(index, expand), x);
            channels = outputs;
            index += 1;
        }
    }
    features.push(Feature { node: x, channels, stride });
    features
}

/// The names of the layers of a block. A block without expansion begins with number 0 as well.
fn names(index: i64, expand: i64) -> [LayerNames; 3] {
    let layers =
        if expand == 1 { [("", ""), ("0.0", "0.1"), ("1", "2")] } else { [("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")] };
    layers.map(|(conv, norm)| LayerNames {
        conv: format!("encoder.features.{index}.conv.{conv}"),
        norm: format!("encoder.features.{index}.conv.{norm}"),
    })
}
