//! Normalisation, padding and the eps of batch norms, which differ between weights of the same network. They depend on the
//! source of the weights. Wrong ones lower the accuracy without an error.
//!
//! With stride 2 and an even size, the two paddings mirror each other: for a 3×3 kernel, "SAME" adds a row at the end, and
//! symmetric padding adds one at the beginning (the one at its end is not used). This hardly changes the result of a
//! classifier, but it moves features by one pixel of the input at each halving, by 31 pixels at stride 32.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::net::{Normalise, Order, Padding};

/// The conventions of the framework in which weights were trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Flavour {
    /// torchvision and most of timm: mean and deviation of ImageNet, symmetric padding, eps 1e-5.
    Torchvision,
    /// Keras' MobileNetV2 and timm's `tf_…`: `(RGB - 127.5) / 127.5`, TensorFlow's "SAME" padding, eps 1e-3.
    Tensorflow,
    /// The published EfficientNet-Lite: `(RGB - 127) / 128`, otherwise as `tensorflow`.
    Lite,
    /// The published VGG and that of Keras: BGR minus the mean colour, not scaled; otherwise as `torchvision`.
    Caffe,
}

impl Flavour {
    /// The conversion of image bytes to the input of the network.
    pub fn normalise(self) -> Normalise {
        match self {
            Flavour::Torchvision => Normalise::IMAGENET,
            Flavour::Tensorflow => Normalise { order: Order::Rgb, mean: [127.5; 3], std: [127.5; 3] },
            Flavour::Lite => Normalise { order: Order::Rgb, mean: [127.0; 3], std: [128.0; 3] },
            Flavour::Caffe => Normalise { order: Order::Bgr, mean: [104.007, 116.669, 122.679], std: [1.0; 3] },
        }
    }

    /// The padding with which a kernel of this size and stride returns `size / stride` rows and columns.
    pub fn padding(self, kernel: i64, stride: i64) -> Padding {
        match self {
            Flavour::Torchvision | Flavour::Caffe => Padding::both(kernel / 2),
            Flavour::Tensorflow | Flavour::Lite => Padding::same(kernel, stride),
        }
    }

    /// The eps of batch norms.
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
