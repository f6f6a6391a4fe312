//! Converts class colours to YUV and prepares them for blending.
//!
//! The matrices are computed from the luma weights of red and blue (Kr, Kb) in ITU-R BT.601, BT.709 and BT.2020. Quantisation
//! to video range (16–235, 16–240) or full range is that of ITU-T H.273.

use crate::frame::{ClassId, Colorimetry, Rgb};

/// The coefficients for blending a colour into a sample: `out = (sample * inv + add) >> 8`.
///
/// `add` is the colour times its opacity (256 = opaque) plus one half for rounding, `inv` is 256 minus the opacity; so
/// the sum is below 2^16, and [`BlendCoefficients::CLEAR`] does not change the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlendCoefficients {
    pub inv: u16,
    /// For Y, U and V.
    pub add: [u16; 3],
}

impl BlendCoefficients {
    /// Does not change samples.
    pub const CLEAR: BlendCoefficients = BlendCoefficients { inv: 256, add: [0; 3] };

    /// Coefficients for a colour (each component 0 to 255) with an opacity from 0 to 1.
    pub fn new(yuv: [f32; 3], opacity: f32) -> BlendCoefficients {
        let opacity = (opacity.clamp(0.0, 1.0) * 256.0).round();
        if opacity == 0.0 {
            return BlendCoefficients::CLEAR;
        }
        let add = yuv.map(|value| (value.clamp(0.0, 255.0) * opacity).round() as u16 + 128);
        BlendCoefficients { inv: 256 - opacity as u16, add }
    }
}

/// Coefficients for each possible value of a mask pixel.
pub(super) struct Palette {
    classes: [BlendCoefficients; 256],
}

impl Palette {
    /// `drawn` has colour and opacity of each class, `None` for a hidden one. Hidden and unknown classes get the coefficients
    /// `hidden`.
    pub fn new(drawn: &[Option<(Rgb, f32)>], hidden: BlendCoefficients, color: Colorimetry) -> Palette {
        let mut classes = [hidden; 256];
        for (class, drawn) in classes.iter_mut().zip(drawn) {
            if let Some((rgb, opacity)) = drawn {
                // Rounded first, so that an opaque class has exactly the samples that an RGB converter gives.
                *class = BlendCoefficients::new(to_yuv(*rgb, color).map(f32::from), *opacity);
            }
        }
        Palette { classes }
    }

    /// Whether a class does not change samples.
    pub fn is_clear(&self, class: ClassId) -> bool {
        *self.coefficients(class) == BlendCoefficients::CLEAR
    }

    pub fn coefficients(&self, class: ClassId) -> &BlendCoefficients {
        &self.classes[usize::from(class)]
    }
}

/// Converts an RGB colour to 8-bit YUV.
pub(super) fn to_yuv(Rgb(r, g, b): Rgb, color: Colorimetry) -> [u8; 3] {
    // `as` saturates: full-range blue and red are 255.5.
    convert([r, g, b].map(f32::from), color).map(|value| value.round() as u8)
}

/// Converts an RGB colour (components 0 to 255) to YUV without rounding.
pub(super) fn convert(rgb: [f32; 3], color: Colorimetry) -> [f32; 3] {
    let (kr, kb) = color.matrix.weights();
    let (kr, kb) = (kr as f32, kb as f32);
    let [r, g, b] = rgb.map(|component| component / 255.0);
    let y = kr * r + (1.0 - kr - kb) * g + kb * b;
    let u = (b - y) / (2.0 * (1.0 - kb));
    let v = (r - y) / (2.0 * (1.0 - kr));
    if color.full_range {
        [255.0 * y, 128.0 + 255.0 * u, 128.0 + 255.0 * v]
    } else {
        [16.0 + 219.0 * y, 128.0 + 224.0 * u, 128.0 + 224.0 * v]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Matrix;

    fn color(matrix: Matrix, full_range: bool) -> Colorimetry {
        Colorimetry::new(matrix, full_range)
    }

    #[track_caller]
    fn near(rgb: Rgb, color: Colorimetry, expected: [i32; 3]) {
        let got = to_yuv(rgb, color).map(i32::from);
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() <= 1, "{rgb:?} {color:?}: {got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn colour_bars_match_published_values() {
        // 100 % colour bars, 8 bit, as published for the standards.
        let bt601 = color(Matrix::Bt601, false);
        near(Rgb(255, 0, 0), bt601, [81, 90, 240]);
        near(Rgb(0, 255, 0), bt601, [145, 54, 34]);
        near(Rgb(0, 0, 255), bt601, [41, 240, 110]);
        near(Rgb(255, 255, 0), bt601, [210, 16, 146]);
        let bt709 = color(Matrix::Bt709, false);
        near(Rgb(255, 0, 0), bt709, [63, 102, 240]);
        near(Rgb(0, 255, 0), bt709, [173, 42, 26]);
        near(Rgb(0, 0, 255), bt709, [32, 240, 118]);
        near(Rgb(0, 255, 255), bt709, [188, 154, 16]);
        // BT.2020: Y = 16 + 219 Kr for red, 16 + 219 Kb for blue.
        let bt2020 = color(Matrix::Bt2020, false);
        near(Rgb(255, 0, 0), bt2020, [74, 97, 240]);
        near(Rgb(0, 0, 255), bt2020, [29, 240, 119]);
        // JFIF.
        near(Rgb(255, 0, 0), color(Matrix::Bt601, true), [76, 85, 255]);
        near(Rgb(0, 0, 255), color(Matrix::Bt601, true), [29, 255, 107]);
    }

    #[test]
    fn greys_have_neutral_chroma() {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020, Matrix::Fcc, Matrix::Smpte240m] {
            assert_eq!(to_yuv(Rgb(0, 0, 0), color(matrix, false)), [16, 128, 128]);
            assert_eq!(to_yuv(Rgb(255, 255, 255), color(matrix, false)), [235, 128, 128]);
            assert_eq!(to_yuv(Rgb(0, 0, 0), color(matrix, true)), [0, 128, 128]);
            assert_eq!(to_yuv(Rgb(255, 255, 255), color(matrix, true)), [255, 128, 128]);
        }
    }

    #[test]
    fn coefficients_never_overflow_and_are_exact_at_both_ends() {
        for step in 0..=1000 {
            for value in [0.0, 16.0, 127.5, 255.0] {
                let blend = BlendCoefficients::new([value; 3], step as f32 / 1000.0);
                assert!(255 * u32::from(blend.inv) + u32::from(blend.add[0]) < 1 << 16);
            }
        }
        let blend = |with: BlendCoefficients, sample: u16| (sample * with.inv + with.add[0]) >> 8;
        for sample in 0..=255 {
            assert_eq!(blend(BlendCoefficients::new([77.0; 3], 0.0), sample), sample);
            assert_eq!(blend(BlendCoefficients::new([77.0; 3], 1.0), sample), 77);
            let half = (f32::from(sample) + 77.0) / 2.0;
            assert!((f32::from(blend(BlendCoefficients::new([77.0; 3], 0.5), sample)) - half).abs() <= 0.5);
        }
    }

    #[test]
    fn classes_beyond_the_labels_are_hidden() {
        let palette =
            Palette::new(&[Some((Rgb(9, 9, 9), 0.5)), None], BlendCoefficients::CLEAR, Colorimetry::default());
        assert_ne!(*palette.coefficients(0), BlendCoefficients::CLEAR);
        assert_eq!(*palette.coefficients(1), BlendCoefficients::CLEAR);
        assert_eq!(*palette.coefficients(2), BlendCoefficients::CLEAR);
        assert_eq!(*palette.coefficients(255), BlendCoefficients::CLEAR);
    }
}
