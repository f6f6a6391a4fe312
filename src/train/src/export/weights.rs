//! Quantises weights to signed bytes: symmetric, with one scale for each output channel.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::net::Conv;

/// The range of a signed byte that weights use.
///
/// x86 processors without VNNI (before Ice Lake and Zen 4) multiply pairs of unsigned and signed bytes and add the two
/// products in 16 bits with saturation (`vpmaddubsw`). Two large adjacent weights of the same sign then give wrong sums.
/// Measured on such a processor with an EfficientNet-Lite0 U-Net on CamVid, val mIoU: float 0.7246, `Full` 0.6934,
/// `Seven` 0.7167, `Fitted` 0.7235.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WeightBits {
    /// -127 to 127: for processors with VNNI, and for ARM.
    Full,
    /// -64 to 64: never saturates.
    Seven,
    /// In each channel the largest range in which no two adjacent weights saturate.
    #[default]
    Fitted,
}

/// The largest sum of two adjacent weights of the same sign. 255 × 128 is the largest product that fits in 16 bits, and
/// each weight may be rounded up by a half.
const PAIR_LIMIT: f32 = 127.4;

/// The quantised weights of a convolution.
pub struct QuantisedWeights {
    /// In the shape of the weights.
    pub bytes: Vec<i8>,
    /// `[outputs]`: `weight = byte × scale`
    pub scales: Vec<f32>,
}

/// Quantises `weight`, `[outputs, inputs / groups, kernel, kernel]`. `min_scale` returns the smallest allowed scale of an
/// output channel.
pub fn quantise(conv: &Conv, weight: &[f32], bits: WeightBits, min_scale: impl Fn(usize) -> f32) -> QuantisedWeights {
    let length = weight.len() / conv.outputs as usize;
    let mut quantised = QuantisedWeights { bytes: Vec::with_capacity(weight.len()), scales: Vec::new() };
    for (output, channel) in weight.chunks_exact(length).enumerate() {
        let largest = channel.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = match bits {
            WeightBits::Full => largest / 127.0,
            // ONNX Runtime has separate code for depthwise convolutions, which adds in 32 bits.
            _ if conv.inputs == conv.groups => largest / 127.0,
            WeightBits::Seven => largest / 64.0,
            WeightBits::Fitted => (largest / 127.0).max(largest_pair(conv, channel) / PAIR_LIMIT),
        };
        let scale = scale.max(min_scale(output)).max(f32::MIN_POSITIVE * 1e6);
        quantised.bytes.extend(channel.iter().map(|value| (value / scale).round().clamp(-127.0, 127.0) as i8));
        quantised.scales.push(scale);
    }
    quantised
}

/// The largest absolute sum of two weights of the same sign that are multiplied in one instruction. ONNX Runtime iterates
/// over the pixels of a filter, and over the channels of a pixel in pairs.
fn largest_pair(conv: &Conv, channel: &[f32]) -> f32 {
    let pixels = (conv.kernel * conv.kernel) as usize;
    let channels = channel.len() / pixels;
    let at = |position: usize| channel[position % channels * pixels + position / channels];
    let mut largest = 0.0_f32;
    for first in (0..channel.len()).step_by(2) {
        let pair = [at(first), if first + 1 < channel.len() { at(first + 1) } else { 0.0 }];
        let above: f32 = pair.iter().map(|value| value.max(0.0)).sum();
        let below: f32 = pair.iter().map(|value| (-value).max(0.0)).sum();
        largest = largest.max(above).max(below);
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_weights_do_not_saturate_sixteen_bits() {
        // Two input channels and a 2×2 kernel, [channel, row, column].
        let conv = Conv { kernel: 2, ..Conv::new(2, 1, 2) };
        let apart = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        let together = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
        let opposite = [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0];
        let bytes = |weight: &[f32], bits| quantise(&conv, weight, bits, |_| 0.0).bytes;
        assert_eq!(bytes(&apart, WeightBits::Fitted)[0], 127);
        assert_eq!(bytes(&opposite, WeightBits::Fitted)[4], -127);
        assert_eq!(bytes(&together, WeightBits::Fitted)[0], 64);
        assert_eq!(bytes(&together, WeightBits::Full)[0], 127);
        assert_eq!(bytes(&apart, WeightBits::Seven)[0], 64);
    }

    #[test]
    fn a_channel_of_zeros_has_a_positive_scale() {
        let conv = Conv::new(1, 2, 1);
        let quantised = quantise(&conv, &[0.0, 2.0], WeightBits::Full, |_| 0.0);
        assert!(quantised.scales[0] > 0.0);
        assert_eq!(quantised.bytes, [0, 127]);
    }
}
