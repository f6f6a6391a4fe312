//! `[input]` of a manifest.

use serde::Deserialize;

/// `[input]`: what a float model wants to see.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ManifestInput {
    /// `[width, height]`; may be left out when the model's own shape is fixed.
    pub size: Option<[usize; 2]>,
    /// Order of the axes; found from the model's shape when left out.
    pub layout: Option<Layout>,
    #[serde(default)]
    pub order: ChannelOrder,
    /// Value of white before `mean` and `std` are applied: 1 (as torchvision does) or 255.
    #[serde(default = "one")]
    pub white: f32,
    /// Subtracted, a channel each, in the model's channel order.
    #[serde(default)]
    pub mean: [f32; 3],
    /// Divided by, a channel each.
    #[serde(default = "ones")]
    pub std: [f32; 3],
}

impl Default for ManifestInput {
    fn default() -> Self {
        ManifestInput { size: None, layout: None, order: ChannelOrder::Rgb, white: 1.0, mean: [0.0; 3], std: [1.0; 3] }
    }
}

fn one() -> f32 {
    1.0
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

/// Order of a tensor's axes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

impl Layout {
    /// As manifests name it.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
        }
    }
}

/// Order of the colour channels.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    #[default]
    Rgb,
    Bgr,
}
