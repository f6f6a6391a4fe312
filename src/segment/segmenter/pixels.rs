//! RGB images as the input of a model: layout, channel order, normalised values.

use crate::segment::manifest::{ChannelOrder, Layout};
use crate::segment::normalisation::NormalisationTable;

/// Fills `out` with the normalised values of RGB images of `pixels` pixels each, in the layout and channel order `order`.
pub(super) fn normalise<T: Copy>(
    order: (Layout, ChannelOrder),
    table: &NormalisationTable<T>,
    rgb: &[u8],
    pixels: usize,
    out: &mut Vec<T>,
) {
    arrange(order, |channel, byte| table[channel][usize::from(byte)], rgb, pixels, out);
}

/// Fills `out` with `value(channel, byte)` of RGB images of `pixels` pixels each. `channel` is the channel of the model.
pub(super) fn arrange<T>(
    (layout, order): (Layout, ChannelOrder),
    value: impl Fn(usize, u8) -> T,
    rgb: &[u8],
    pixels: usize,
    out: &mut Vec<T>,
) {
    out.clear();
    out.reserve(rgb.len());
    // The offset of each channel of the model in an RGB pixel.
    let source = match order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    for image in rgb.chunks_exact(pixels * 3) {
        match layout {
            Layout::Nchw => {
                for (channel, &offset) in source.iter().enumerate() {
                    out.extend(image[offset..].iter().step_by(3).map(|&byte| value(channel, byte)));
                }
            }
            Layout::Nhwc => {
                for pixel in image.chunks_exact(3) {
                    out.extend(source.iter().enumerate().map(|(channel, &offset)| value(channel, pixel[offset])));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalise_writes_channels_and_axes_in_the_order_of_the_model() {
        let identity: NormalisationTable<f32> =
            Box::new(std::array::from_fn(|_| std::array::from_fn(|byte| byte as f32)));
        let rgb = [1, 2, 3, 4, 5, 6];
        let (mut out, mut bytes) = (Vec::new(), Vec::new());
        for (layout, order, expected) in [
            (Layout::Nchw, ChannelOrder::Rgb, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
            (Layout::Nchw, ChannelOrder::Bgr, [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]),
            (Layout::Nhwc, ChannelOrder::Rgb, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (Layout::Nhwc, ChannelOrder::Bgr, [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]),
        ] {
            normalise((layout, order), &identity, &rgb, 2, &mut out);
            assert_eq!(out, expected, "{layout:?} {order:?}");
            arrange((layout, order), |_, byte| byte, &rgb, 2, &mut bytes);
            assert_eq!(bytes, expected.map(|value| value as u8), "{layout:?} {order:?}");
        }
    }
}
