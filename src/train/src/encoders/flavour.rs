//! What weights of the same network disagree about: the image's numbers, the padding and batch norm's eps. They are a
//! property of where the weights come from, and a wrong one costs accuracy without any error.
//!
//! Of the two paddings, with stride 2 and an even size, one is the mirror image of the other: "SAME" pads a 3×3 kernel
//! by 0 before and 1 after, the symmetric one by 1 before, and its row after is never reached. A classifier hardly
//! notices; a feature moves by one pixel of its input at each halving, 31 pixels at stride 32.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::net::{Normalise, Order, Padding};

/// The habits of the framework that weights were trained in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Flavour {
    /// torchvision and most of timm: ImageNet's mean and deviation, the same padding on both sides, eps 1e-5.
    Torchvision,
    /// Keras' MobileNetV2 and timm's `tf_…`: `(RGB - 127.5) / 127.5`, TensorFlow's "SAME" padding, eps 1e-3.
    Tensorflow,
    /// EfficientNet-Lite as published: `(RGB - 127) / 128`, otherwise as `tensorflow`.
    Lite,
    /// VGG as published, and Keras' copy of it: BGR minus the mean colour, not scaled; otherwise as `torchvision`.
    Caffe,
}

impl Flavour {
    /// How bytes become the network's input.
    pub fn normalise(self) -> Normalise {
        match self {
            Flavour::Torchvision => Normalise::IMAGENET,
            Flavour::Tensorflow => Normalise { order: Order::Rgb, mean: [127.5; 3], std: [127.5; 3] },
            Flavour::Lite => Normalise { order: Order::Rgb, mean: [127.0; 3], std: [128.0; 3] },
            Flavour::Caffe => Normalise { order: Order::Bgr, mean: [104.007, 116.669, 122.679], std: [1.0; 3] },
        }
    }

    /// Padding that makes a `kernel` with this `stride` give `size / stride` rows and columns.
    pub fn padding(self, kernel: i64, stride: i64) -> Padding {
        match self {
            Flavour::Torchvision | Flavour::Caffe => Padding::both(kernel / 2),
            Flavour::Tensorflow | Flavour::Lite => Padding::same(kernel, stride),
        }
    }

    /// Batch norm's eps.
    pub fn eps(self) -> f64 {
        match self {
            Flavour::Torchvision | Flavour::Caffe => 1e-5,
            Flavour::Tensorflow | Flavour::Lite => 1e-3,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Torchvision => "torchvision",
            Flavour::Tensorflow => "tensorflow",
            Flavour::Lite => "lite",
            Flavour::Caffe => "caffe",
        })
    }
}
