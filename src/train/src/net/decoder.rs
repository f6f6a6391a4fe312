//! The U-Net around an encoder (Ronneberger, Fischer and Brox, 2015): upwards from the deepest features, twice as large
//! at each level, joined with the encoder's features of that size.

use serde::{Deserialize, Serialize};

use super::{Conv, Feature, Net, NetBuilder, NodeId, Normalise, Op, Stage};

/// The kind of the decoder's convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DecoderKind {
    /// Full 3×3 convolutions.
    Dense,
    /// Depthwise 3×3, then 1×1: a fraction of the work, a little less quality.
    Separable,
}

/// What the decoder looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    pub kind: DecoderKind,
    /// Channels of each level, from the deepest up. Four levels over a stride-32 encoder end at half the image's size,
    /// five at its full size; the logits are enlarged for what is left.
    pub widths: Vec<i64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { kind: DecoderKind::Dense, widths: vec![128, 64, 48, 32] }
    }
}

/// PyTorch's default.
const EPS: f64 = 1e-5;

/// Finishes a U-Net: `features` are the encoder's, one a stride, in any order.
///
/// Each level is nearest ×2, the encoder's features of that size where it has some, and twice 3×3 convolution, batch
/// norm, ReLU; then a 1×1 convolution to the classes, and bilinear interpolation to the image's size.
///
/// # Errors
/// If the encoder has no features, or the widths are none, not positive, or more than there are halvings.
pub fn unet(
    mut b: NetBuilder,
    features: &[Feature],
    normalise: Normalise,
    decoder: &Decoder,
    classes: i64,
) -> Result<Net, String> {
    let deepest = features.iter().max_by_key(|feature| feature.stride).ok_or("the encoder has no features")?;
    let halvings = i64::from(deepest.stride.ilog2());
    if decoder.widths.is_empty() || decoder.widths.len() as i64 > halvings {
        let given = decoder.widths.len();
        return Err(format!("a decoder over stride {} has 1 to {halvings} widths, not {given}", deepest.stride));
    }
    if let Some(width) = decoder.widths.iter().find(|&&width| width < 1) {
        return Err(format!("a decoder's width is at least 1, not {width}"));
    }
    if classes < 2 {
        return Err(format!("a model tells at least two classes apart, not {classes}"));
    }
    b.stage(Stage::Decoder);
    let (mut x, mut channels, mut stride) = (deepest.node, deepest.channels, deepest.stride);
    for (level, &width) in decoder.widths.iter().enumerate() {
        x = b.plain(Op::Nearest { factor: 2 }, &[x]);
        stride /= 2;
        if let Some(skip) = features.iter().find(|feature| feature.stride == stride) {
            x = b.plain(Op::Concat, &[x, skip.node]);
            channels += skip.channels;
        }
        for step in 0..2 {
            x = block(&mut b, decoder.kind, &format!("decoder.{level}.{step}"), channels, width, x);
            channels = width;
        }
    }
    b.stage(Stage::Head);
    x = b.conv("head", Conv { bias: true, ..Conv::new(channels, classes, 1) }, x);
    if stride > 1 {
        x = b.plain(Op::Bilinear { factor: stride }, &[x]);
    }
    Ok(b.finish(normalise, x))
}

/// Convolution, batch norm, ReLU; a separable one has a batch norm and a ReLU after each of its halves, as MobileNet
/// has.
fn block(b: &mut NetBuilder, kind: DecoderKind, name: &str, inputs: i64, outputs: i64, mut x: NodeId) -> NodeId {
    let conv = match kind {
        DecoderKind::Dense => Conv::new(inputs, outputs, 3),
        DecoderKind::Separable => {
            x = b.conv(format!("{name}.depthwise"), Conv::depthwise(inputs, 3), x);
            x = b.batch_norm(format!("{name}.depthwise_bn"), inputs, EPS, x);
            x = b.plain(Op::Relu, &[x]);
            Conv::new(inputs, outputs, 1)
        }
    };
    x = b.conv(format!("{name}.conv"), conv, x);
    x = b.batch_norm(format!("{name}.bn"), outputs, EPS, x);
    b.plain(Op::Relu, &[x])
}
