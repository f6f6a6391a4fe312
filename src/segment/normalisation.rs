//! Normalisation of a foreign model's input, `(value / 255 * white - mean) / std`, and which of it cannot be meant.
//!
//! Numbers for one scale of pixel values with the `white` of another give an input without contrast or far outside of what
//! any model was trained with: all pixels become one class, and nothing else fails.

use half::f16;

use super::manifest::ManifestInput;

/// Contrast between black and white after normalisation: published ones lie between 1 (0..1) and 255 (0..255).
const CONTRAST: std::ops::RangeInclusive<f32> = 0.25..=256.0;

/// A `white` from which on pixel values are meant to have a scale of bytes.
const BYTES: f32 = 100.0;

/// The result for each byte, a table for each channel in the model's order.
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

/// Whether `input` is a normalisation that a model can have been trained with.
///
/// # Errors
/// The key that cannot be, and what would fit.
pub fn check(input: &ManifestInput) -> Result<(), String> {
    let ManifestInput { white, mean, std, .. } = input;
    let numbers = [("white", std::slice::from_ref(white)), ("mean", mean), ("std", std)];
    if let Some((key, _)) = numbers.iter().find(|(_, numbers)| !numbers.iter().all(|number| number.is_finite())) {
        return Err(format!("input.{key}: a number is needed, not infinity or nan"));
    }
    if std.contains(&0.0) {
        return Err("input.std: a zero would divide by nothing; write 1 where nothing is to be divided".into());
    }
    if *white <= 0.0 {
        return Err(format!("input.white: {white} makes white no brighter than black; write 1 or 255"));
    }
    if let Some(negative) = mean.iter().find(|mean| **mean < 0.0) {
        return Err(format!("input.mean: {negative} is less than black, which is 0"));
    }
    if let Some(negative) = std.iter().find(|std| **std < 0.0) {
        return Err(format!("input.std: {negative} would turn the picture into its negative"));
    }
    if let Some(mean) = mean.iter().find(|mean| *mean > white) {
        let help = if *mean <= 255.0 {
            "such a mean is for pixel values from 0 to 255: write white = 255"
        } else {
            "divide mean and std by 257 and write white = 255 if they are for 16-bit pixels"
        };
        return Err(format!("input.mean: {mean} is more than white, which is {white}; {help}"));
    }
    if *white >= BYTES && mean.iter().all(|mean| *mean > 0.0 && *mean <= 1.0) {
        return Err(format!(
            "input.mean: {mean:?} is for pixel values from 0 to 1, and white is {white}: write white = 1"
        ));
    }
    for std in std {
        let contrast = white / std;
        if contrast < *CONTRAST.start() {
            let help = if *white < BYTES && std * 2.0 > *white && *std <= 255.0 {
                "such a std is for pixel values from 0 to 255: write white = 255"
            } else {
                "see how the model was trained"
            };
            return Err(format!(
                "input.std: {std} leaves a contrast of {contrast:.4} between black and white (white is {white}); {help}"
            ));
        }
        if contrast > *CONTRAST.end() {
            let help = if *white >= BYTES && *std < 1.0 {
                "such a std is for pixel values from 0 to 1: write white = 1"
            } else {
                "see how the model was trained"
            };
            return Err(format!(
                "input.std: {std} makes a contrast of {contrast:.0} between black and white (white is {white}); {help}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(white: f32, mean: [f32; 3], std: [f32; 3]) -> ManifestInput {
        ManifestInput { white, mean, std, ..ManifestInput::default() }
    }

    #[test]
    fn published_normalisations_are_taken() {
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
    fn the_scale_that_was_meant_is_named() {
        for (white, mean, std, key, help) in [
            (1.0, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "input.mean", "white = 255"),
            (1.0, [0.0; 3], [58.395, 57.12, 57.375], "input.std", "white = 255"),
            (1.0, [0.0; 3], [255.0; 3], "input.std", "white = 255"),
            (1.0, [128.0; 3], [128.0; 3], "input.mean", "white = 255"),
            (1.0, [0.4, 0.4, 104.0], [1.0; 3], "input.mean", "white = 255"),
            (2.0, [127.5; 3], [127.5; 3], "input.mean", "white = 255"),
            (255.0, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "input.mean", "white = 1"),
            (255.0, [0.5; 3], [0.5; 3], "input.mean", "white = 1"),
            (255.0, [0.0; 3], [0.229, 0.224, 0.225], "input.std", "white = 1"),
            (255.0, [31785.0; 3], [14990.0; 3], "input.mean", "16-bit"),
            (1.0, [0.5; 3], [0.5, 0.0, 0.5], "input.std", "write 1"),
            (1.0, [0.5; 3], [-0.5; 3], "input.std", "negative"),
            (1.0, [-0.5; 3], [0.5; 3], "input.mean", "less than black"),
            (0.0, [0.0; 3], [1.0; 3], "input.white", "1 or 255"),
            (-1.0, [0.0; 3], [1.0; 3], "input.white", "1 or 255"),
            (1.0, [0.5; 3], [1e-9; 3], "input.std", "contrast"),
            (255.0, [0.0; 3], [1e30; 3], "input.std", "contrast"),
            (f32::NAN, [0.0; 3], [1.0; 3], "input.white", "number"),
            (1.0, [f32::INFINITY; 3], [1.0; 3], "input.mean", "number"),
        ] {
            let error = check(&input(white, mean, std)).unwrap_err();
            assert!(error.starts_with(key) && error.contains(help), "{error}");
        }
    }

    #[test]
    fn tables_hold_the_formula_in_both_precisions() {
        let input = input(1.0, [0.5, 0.25, 0.0], [0.25, 0.5, 1.0]);
        let (single, half) = (table(&input), half_table(&input));
        assert_eq!((single[0][0], single[0][255]), (-2.0, 2.0));
        assert_eq!((single[1][0], single[1][255]), (-0.5, 1.5));
        assert_eq!((half[0][0].to_f32(), half[1][255].to_f32()), (-2.0, 1.5));
        assert!((half[2][128].to_f32() - 128.0 / 255.0).abs() < 1e-3);
    }
}
