//! The encoders: classifiers without their last layers. Layers have the names of the usual source of pretrained weights, with
//! the prefix `encoder.`, so that weights are found by name. Normalisation, padding and the eps of batch norms depend on the
//! [`Flavour`] of the weights.

mod efficientnet_lite;
mod flavour;
mod inverted_residual;
mod mobilenet_v2;
mod original;
mod resnet;
#[cfg(test)]
mod tests;
mod vgg;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::net::decoder::{Decoder, NetError, unet};
use crate::net::{Feature, Net, NetBuilder, Normalise, ParamSpec};

pub use flavour::Flavour;

/// The architecture of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Encoder {
    #[value(name = "efficientnet-lite0")]
    #[serde(rename = "efficientnet-lite0")]
    EfficientnetLite0,
    #[value(name = "efficientnet-lite1")]
    #[serde(rename = "efficientnet-lite1")]
    EfficientnetLite1,
    #[value(name = "efficientnet-lite2")]
    #[serde(rename = "efficientnet-lite2")]
    EfficientnetLite2,
    #[value(name = "mobilenet-v2")]
    #[serde(rename = "mobilenet-v2")]
    MobilenetV2,
    #[value(name = "resnet18")]
    #[serde(rename = "resnet18")]
    Resnet18,
    #[value(name = "resnet34")]
    #[serde(rename = "resnet34")]
    Resnet34,
    #[value(name = "vgg11")]
    #[serde(rename = "vgg11")]
    Vgg11,
    #[value(name = "vgg11-bn")]
    #[serde(rename = "vgg11-bn")]
    Vgg11Bn,
    #[value(name = "vgg16")]
    #[serde(rename = "vgg16")]
    Vgg16,
    #[value(name = "vgg16-bn")]
    #[serde(rename = "vgg16-bn")]
    Vgg16Bn,
    /// The encoder of the original U-Net. It has no pretrained weights.
    Unet,
}

impl Encoder {
    /// The flavour of the usual weights of this encoder.
    pub fn usual_flavour(self) -> Flavour {
        match self {
            Encoder::EfficientnetLite0 | Encoder::EfficientnetLite1 | Encoder::EfficientnetLite2 => Flavour::Lite,
            _ => Flavour::Torchvision,
        }
    }

    /// The encoder for weights of this flavour.
    pub fn flavoured(self, flavour: Flavour) -> Variant {
        Variant { encoder: self, flavour }
    }

    /// The normalisation for the usual weights.
    pub fn normalise(self) -> Normalise {
        self.usual_flavour().normalise()
    }

    /// A U-Net with this encoder, for its usual weights.
    ///
    /// # Errors
    /// The decoder does not fit the encoder, or there are fewer than two classes.
    pub fn unet(self, decoder: &Decoder, classes: i64) -> Result<Net, NetError> {
        Variant::from(self).unet(decoder, classes)
    }

    /// The number of blocks in each row of the table of the architecture, for the encoders whose layers timm names by row.
    pub(crate) fn blocks_by_row(self) -> Option<[i64; 7]> {
        match self {
            Encoder::EfficientnetLite0 => Some(efficientnet_lite::repeats(1.0)),
            Encoder::EfficientnetLite1 => Some(efficientnet_lite::repeats(1.1)),
            Encoder::EfficientnetLite2 => Some(efficientnet_lite::repeats(1.2)),
            Encoder::MobilenetV2 => Some(mobilenet_v2::repeats()),
            _ => None,
        }
    }
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no encoder is hidden from the command line");
        f.write_str(value.get_name())
    }
}

/// An encoder for weights of one flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub encoder: Encoder,
    pub flavour: Flavour,
}

impl From<Encoder> for Variant {
    fn from(encoder: Encoder) -> Self {
        encoder.flavoured(encoder.usual_flavour())
    }
}

impl Variant {
    /// Adds the layers of the encoder. Returns its features, one for each stride, in ascending order of the strides.
    pub fn build(self, b: &mut NetBuilder) -> Vec<Feature> {
        let flavour = self.flavour;
        match self.encoder {
            Encoder::EfficientnetLite0 => efficientnet_lite::build(b, 1.0, 1.0, flavour),
            Encoder::EfficientnetLite1 => efficientnet_lite::build(b, 1.0, 1.1, flavour),
            Encoder::EfficientnetLite2 => efficientnet_lite::build(b, 1.1, 1.2, flavour),
            Encoder::MobilenetV2 => mobilenet_v2::build(b, flavour),
            Encoder::Resnet18 => resnet::build(b, resnet::RESNET18, flavour),
            Encoder::Resnet34 => resnet::build(b, resnet::RESNET34, flavour),
            Encoder::Vgg11 => vgg::build(b, vgg::VGG11, false, flavour),
            Encoder::Vgg11Bn => vgg::build(b, vgg::VGG11, true, flavour),
            Encoder::Vgg16 => vgg::build(b, vgg::VGG16, false, flavour),
            Encoder::Vgg16Bn => vgg::build(b, vgg::VGG16, true, flavour),
            Encoder::Unet => original::build(b, flavour),
        }
    }

    /// The normalisation for weights of this flavour.
    pub fn normalise(self) -> Normalise {
        self.flavour.normalise()
    }

    /// A U-Net with this encoder.
    ///
    /// # Errors
    /// The decoder does not fit the encoder, or there are fewer than two classes.
    pub fn unet(self, decoder: &Decoder, classes: i64) -> Result<Net, NetError> {
        let mut builder = NetBuilder::new();
        let features = self.build(&mut builder);
        unet(builder, &features, self.normalise(), decoder, classes)
    }

    /// The encoder without a decoder. The deepest features are in the place of the logits.
    pub fn alone(self) -> Net {
        let mut builder = NetBuilder::new();
        let features = self.build(&mut builder);
        let deepest = features.last().expect("every encoder has features");
        builder.finish(self.normalise(), deepest.node)
    }

    /// The parameters and running statistics of the encoder.
    pub fn param_specs(self) -> Vec<ParamSpec> {
        self.alone().param_specs()
    }
}
