//! The decoder of a U-Net (Ronneberger, Fischer and Brox, 2015). Each level doubles the size of the features of the level
//! below, starting with the deepest features of the encoder, and concatenates the encoder's features of that size.

use serde::{Deserialize, Serialize};

use super::{Conv, Feature, Net, NetBuilder, NodeId, Normalise, Op, Stage};

/// The convolutions of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DecoderKind {
    /// Full 3×3 convolutions.
    Dense,
    /// Depthwise 3×3, then 1×1: much less computation, slightly lower quality.
    Separable,
}

/// The architecture of a decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    pub kind: DecoderKind,
    /// Channels of each level, the deepest level first. With an encoder of stride 32, four levels end at half the size of
    /// the image and five at its full size. The logits are enlarged to the full size.
    pub widths: Vec<i64>,
}

/// Why a U-Net cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    #[error("the encoder has no features")]
    NoFeatures,
    #[error("a decoder for an encoder of stride {stride} has 1 to {max} widths, not {given}")]
    Levels { stride: i64, max: i64, given: usize },
    #[error("a width of the decoder is at least 1, not {0}")]
    Width(i64),
    #[error("a model has at least two classes, not {0}")]
    Classes(i64),
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { kind: DecoderKind::Dense, widths: vec![128, 64, 48, 32] }
    }
}

/// The eps of the batch norms: the default of PyTorch.
const EPS: f64 = 1e-5;

/// Adds the decoder and the head to an encoder. `features` are those of the encoder, one for each stride, in any order.
///
/// A level is a nearest enlargement by 2, a concatenation with the encoder's features of that size (if it has any), and
/// twice a 3×3 convolution, batch norm and ReLU. The head is a 1×1 convolution to the classes. Its result is enlarged to
/// the size of the image by bilinear interpolation.
///
/// # Errors
/// The encoder has no features, the number of levels does not fit its stride, a width is not positive, or there are fewer
/// than two classes.
pub fn unet(
    mut b: NetBuilder,
    features: &[Feature],
    normalise: Normalise,
    decoder: &Decoder,
    classes: i64,
) -> Result<Net, NetError> {
    let deepest = features.iter().max_by_key(|feature| feature.stride).ok_or(NetError::NoFeatures)?;
    let max = i64::from(deepest.stride.ilog2());
    let given = decoder.widths.len();
    if given == 0 || given as i64 > max {
        return Err(NetError::Levels { stride: deepest.stride, max, given });
    }
    if let Some(&width) = decoder.widths.iter().find(|&&width| width < 1) {
        return Err(NetError::Width(width));
    }
    if classes < 2 {
        return Err(NetError::Classes(classes));
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

/// Adds a convolution, batch norm and ReLU. A separable convolution has a batch norm and a ReLU after each of its two
/// convolutions, as in MobileNet.
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
