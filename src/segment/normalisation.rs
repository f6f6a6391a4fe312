//! Normalisation of the input of a foreign model, `(value / 255 * white - mean) / std`, and checks of its numbers.
//!
//! Numbers for one scale of pixel values combined with the `white` of another scale give an input without contrast, or far
//! outside of the range that the model was trained with: all pixels become one class, and no other check fails.

use half::f16;

use super::manifest::ManifestInput;

/// Contrast between black and white after normalisation. Published normalisations are between 1 (0..1) and 255 (0..255).
const CONTRAST: std::ops::RangeInclusive<f32> = 0.25..=256.0;

/// From this `white` on, pixel values are taken to be on the scale of bytes.
const BYTES: f32 = 100.0;

/// The normalised value of each byte, `[3][256]`: a table for each channel, in the order of the model.
pub type NormalisationTable<T> = Box<[[T; 256]; 3]>;

/// The table of `input` in single precision.
pub fn table(input: &ManifestInput) -> NormalisationTable<f32> {
    let channel = |channel: usize| -> [f32; 256] {
        std::array::from_fn(|byte| (byte as f32 / 255.0 * input.white - input.mean[channel]) / input.std[channel])
    };
    Box::new(std::array::from_fn(channel))
}

/// The table of `input` in half precision.
pub fn half_table(input: &ManifestInput) -> NormalisationTable<f16> {
    let table = table(input);
    Box::new(std::array::from_fn(|channel| table[channel].map(f16::from_f32)))
}

/// Why a normalisation cannot be the one that a model was trained with. Displays the key and what to write instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NormalisationError {
    #[error("input.{0}: a number is needed, not infinity or nan")]
    NotFinite(&'static str),
    #[error("input.std: std must not be 0; write 1 to divide by nothing")]
    ZeroStd,
    #[error("input.white: white must be positive, not {0}; write 1 or 255")]
    WhiteNotPositive(f32),
    #[error("input.mean: {0} is less than black, which is 0")]
    NegativeMean(f32),
    #[error("input.std: std must be positive, not {0}")]
    NegativeStd(f32),
    #[error("input.mean: {mean} is more than white, which is {white}; {}", self.help())]
    MeanAboveWhite { mean: f32, white: f32 },
    #[error("input.mean: {mean:?} is for pixel values from 0 to 1, and white is {white}: write white = 1")]
    MeanOfUnitScale { mean: [f32; 3], white: f32 },
    #[error(
        "input.std: {std} leaves a contrast of {:.4} between black and white (white is {white}); {}",
        .white / .std, self.help()
    )]
    LowContrast { std: f32, white: f32 },
    #[error(
        "input.std: {std} makes a contrast of {:.0} between black and white (white is {white}); {}",
        .white / .std, self.help()
    )]
    HighContrast { std: f32, white: f32 },
}

impl NormalisationError {
    /// The `white` of the scale that the other numbers are for, where they show it.
    pub fn suggested_white(&self) -> Option<f32> {
        match *self {
            NormalisationError::MeanAboveWhite { mean, .. } if mean <= 255.0 => Some(255.0),
            NormalisationError::LowContrast { std, white } if white < BYTES && std * 2.0 > white && std <= 255.0 => {
                Some(255.0)
            }
            NormalisationError::MeanOfUnitScale { .. } => Some(1.0),
            NormalisationError::HighContrast { std, white } if white >= BYTES && std < 1.0 => Some(1.0),
            _ => None,
        }
    }

    fn help(&self) -> String {
        let key = if matches!(self, NormalisationError::MeanAboveWhite { .. }) { "mean" } else { "std" };
        match (self.suggested_white(), self) {
            (Some(white), _) => format!("such a {key} is for pixel values from 0 to {white}: write white = {white}"),
            (None, NormalisationError::MeanAboveWhite { .. }) => {
                "divide mean and std by 257 and write white = 255 if they are for 16-bit pixels".into()
            }
            (None, _) => "use the normalisation that the model was trained with".into(),
        }
    }
}

/// Checks whether a model can have been trained with the normalisation of `input`.
///
/// # Errors
/// The first number that cannot be right.
pub fn check(input: &ManifestInput) -> Result<(), NormalisationError> {
    let ManifestInput { white, mean, std, .. } = input;
    let numbers = [("white", std::slice::from_ref(white)), ("mean", mean), ("std", std)];
    if let Some((key, _)) = numbers.iter().find(|(_, numbers)| !numbers.iter().all(|number| number.is_finite())) {
        return Err(NormalisationError::NotFinite(key));
    }
    if std.contains(&0.0) {
        return Err(NormalisationError::ZeroStd);
    }
    let white = *white;
    if white <= 0.0 {
        return Err(NormalisationError::WhiteNotPositive(white));
    }
    if let Some(&negative) = mean.iter().find(|mean| **mean < 0.0) {
        return Err(NormalisationError::NegativeMean(negative));
    }
    if let Some(&negative) = std.iter().find(|std| **std < 0.0) {
        return Err(NormalisationError::NegativeStd(negative));
    }
    if let Some(&mean) = mean.iter().find(|mean| **mean > white) {
        return Err(NormalisationError::MeanAboveWhite { mean, white });
    }
    if white >= BYTES && mean.iter().all(|mean| *mean > 0.0 && *mean <= 1.0) {
        return Err(NormalisationError::MeanOfUnitScale { mean: *mean, white });
    }
    for &std in std {
        if white / std < *CONTRAST.start() {
            return Err(NormalisationError::LowContrast { std, white });
        }
        if white / std > *CONTRAST.end() {
            return Err(NormalisationError::HighContrast { std, white });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use NormalisationError::{
        HighContrast, LowContrast, MeanAboveWhite, MeanOfUnitScale, NegativeMean, NegativeStd, NotFinite,
        WhiteNotPositive, ZeroStd,
    };

    fn input(white: f32, mean: [f32; 3], std: [f32; 3]) -> ManifestInput {
        ManifestInput { white, mean, std, ..ManifestInput::default() }
    }

    #[test]
    fn accepts_published_normalisations() {
        for (white, mean, std) in [
            (1.0, [0.0; 3], [1.0; 3]),
            (255.0, [0.0; 3], [1.0; 3]),
            (255.0, [0.0; 3], [255.0; 3]),
            (1.0, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            (255.0, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
            (255.0, [104.0, 117.0, 123.0], [1.0; 3]),
            (255.0, [127.5; 3], [127.5; 3]),
            (1.0, [0.5; 3], [0.5; 3]),
            (2.0, [1.0; 3], [1.0; 3]),
            // CLIP, and Inception of Caffe.
            (1.0, [0.481, 0.458, 0.408], [0.269, 0.261, 0.276]),
            (255.0, [128.0; 3], [128.0; 3]),
        ] {
            assert_eq!(check(&input(white, mean, std)), Ok(()), "{white} {mean:?} {std:?}");
        }
    }

    #[test]
    fn rejects_numbers_of_another_scale_and_suggests_the_right_white() {
        let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let imagenet_bytes = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);
        let above = |mean, white| MeanAboveWhite { mean, white };
        for (white, mean, std, expected, suggested) in [
            (1.0, imagenet_bytes.0, imagenet_bytes.1, above(123.675, 1.0), Some(255.0)),
            (1.0, [0.0; 3], imagenet_bytes.1, LowContrast { std: 58.395, white: 1.0 }, Some(255.0)),
            (1.0, [0.0; 3], [255.0; 3], LowContrast { std: 255.0, white: 1.0 }, Some(255.0)),
            (1.0, [128.0; 3], [128.0; 3], above(128.0, 1.0), Some(255.0)),
            (1.0, [0.4, 0.4, 104.0], [1.0; 3], above(104.0, 1.0), Some(255.0)),
            (2.0, [127.5; 3], [127.5; 3], above(127.5, 2.0), Some(255.0)),
            (255.0, imagenet.0, imagenet.1, MeanOfUnitScale { mean: imagenet.0, white: 255.0 }, Some(1.0)),
            (255.0, [0.5; 3], [0.5; 3], MeanOfUnitScale { mean: [0.5; 3], white: 255.0 }, Some(1.0)),
            (255.0, [0.0; 3], imagenet.1, HighContrast { std: 0.229, white: 255.0 }, Some(1.0)),
            (255.0, [31785.0; 3], [14990.0; 3], above(31785.0, 255.0), None),
            (1.0, [0.5; 3], [0.5, 0.0, 0.5], ZeroStd, None),
            (1.0, [0.5; 3], [-0.5; 3], NegativeStd(-0.5), None),
            (1.0, [-0.5; 3], [0.5; 3], NegativeMean(-0.5), None),
            (0.0, [0.0; 3], [1.0; 3], WhiteNotPositive(0.0), None),
            (-1.0, [0.0; 3], [1.0; 3], WhiteNotPositive(-1.0), None),
            (1.0, [0.5; 3], [1e-9; 3], HighContrast { std: 1e-9, white: 1.0 }, None),
            (255.0, [0.0; 3], [1e30; 3], LowContrast { std: 1e30, white: 255.0 }, None),
            (f32::NAN, [0.0; 3], [1.0; 3], NotFinite("white"), None),
            (1.0, [f32::INFINITY; 3], [1.0; 3], NotFinite("mean"), None),
        ] {
            let error = check(&input(white, mean, std)).unwrap_err();
            assert_eq!((&error, error.suggested_white()), (&expected, suggested), "{error}");
        }
        let text = above(123.675, 1.0).to_string();
        assert!(text.starts_with("input.mean: 123.675") && text.ends_with("write white = 255"), "{text}");
    }

    #[test]
    fn tables_follow_the_formula_in_both_precisions() {
        let input = input(1.0, [0.5, 0.25, 0.0], [0.25, 0.5, 1.0]);
        let (single, half) = (table(&input), half_table(&input));
        assert_eq!((single[0][0], single[0][255]), (-2.0, 2.0));
        assert_eq!((single[1][0], single[1][255]), (-0.5, 1.5));
        assert_eq!((half[0][0].to_f32(), half[1][255].to_f32()), (-2.0, 1.5));
        assert!((half[2][128].to_f32() - 128.0 / 255.0).abs() < 1e-3);
    }
}
