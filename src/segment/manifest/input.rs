//! `[input]` of a manifest.

use serde::Deserialize;

/// `[input]`: how the bytes of an image become the input of a float model.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ManifestInput {
    /// `[width, height]` in pixels; optional when the shape of the model is fixed.
    pub size: Option<[usize; 2]>,
    /// Order of the axes; detected from the shape of the model when not set.
    pub layout: Option<Layout>,
    #[serde(default)]
    pub order: ChannelOrder,
    /// Value of white before `mean` and `std` are applied: 1 (as in torchvision) or 255.
    #[serde(default = "one")]
    pub white: f32,
    /// Subtracted from each channel, in the channel order of the model.
    #[serde(default)]
    pub mean: [f32; 3],
    /// Divisor of each channel, in the channel order of the model.
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

/// Order of the axes of a tensor.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

impl Layout {
    /// The name in manifests.
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
