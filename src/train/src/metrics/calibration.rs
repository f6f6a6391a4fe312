//! Calibration: the difference between the confidence of pixels and their accuracy. Of pixels with a confidence of 0.8, four out
//! of five should be right.

use serde::{Deserialize, Serialize};

use super::{MetricsError, check};
use crate::data::VOID;

/// Confidence and accuracy of pixels, in bins of equal width.
///
/// The expected calibration error (ECE) is the mean over pixels of |accuracy - mean confidence| of the pixel's bin
/// (Naeini et al., 2015; Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2: 15 bins, each open
/// below and closed above).
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    bins: Vec<BinSums>,
}

/// The sums over the pixels of a bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct BinSums {
    pixels: u64,
    correct: u64,
    confidence: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Calibration::new(15)
    }
}

impl Calibration {
    /// No pixels, with this number of bins.
    ///
    /// # Panics
    /// The number is 0.
    pub fn new(bins: usize) -> Self {
        assert!(bins > 0, "at least one bin");
        Calibration { bins: vec![BinSums::default(); bins] }
    }

    /// Adds pixels. `confidence` is the probability (0 to 1) of the predicted class.
    ///
    /// # Errors
    /// The lengths differ, or a confidence is not a probability. No pixel is added then.
    pub fn add(&mut self, confidence: &[f32], labels: &[u8], prediction: &[u8]) -> Result<(), MetricsError> {
        check(usize::from(VOID), labels, prediction)?;
        if confidence.len() != labels.len() {
            return Err(MetricsError::Size { labels: labels.len(), predictions: confidence.len() });
        }
        // Rounding may make a softmax in 32-bit floats larger than 1.
        let wrong = |(value, label): (&f32, &u8)| *label != VOID && !(0.0..=1.0 + 1e-3).contains(value);
        if let Some(pixel) = confidence.iter().zip(labels).position(wrong) {
            return Err(MetricsError::Confidence { value: confidence[pixel], pixel });
        }
        let bins = self.bins.len();
        for ((&confidence, &label), &class) in confidence.iter().zip(labels).zip(prediction) {
            if label != VOID {
                let confidence = f64::from(confidence.min(1.0));
                // A confidence on the border of two bins belongs to the lower one.
                let bin = ((confidence * bins as f64).ceil() as usize).clamp(1, bins) - 1;
                let sums = &mut self.bins[bin];
                sums.pixels += 1;
                sums.correct += u64::from(label == class);
                sums.confidence += confidence;
            }
        }
        Ok(())
    }

    /// Adds the pixels of another calibration.
    ///
    /// # Panics
    /// The numbers of bins differ.
    pub fn merge(&mut self, other: &Calibration) {
        assert_eq!(self.bins.len(), other.bins.len(), "calibrations with the same bins");
        for (sums, more) in self.bins.iter_mut().zip(&other.bins) {
            sums.pixels += more.pixels;
            sums.correct += more.correct;
            sums.confidence += more.confidence;
        }
    }

    /// The result; `None` before the first pixel.
    pub fn scores(&self) -> Option<CalibrationScores> {
        let pixels: u64 = self.bins.iter().map(|sums| sums.pixels).sum();
        if pixels == 0 {
            return None;
        }
        let count = self.bins.len() as f64;
        let bins: Vec<CalibrationBin> = self
            .bins
            .iter()
            .enumerate()
            .map(|(n, sums)| {
                let mean = |sum: f64| if sums.pixels == 0 { 0.0 } else { sum / sums.pixels as f64 };
                CalibrationBin {
                    from: n as f64 / count,
                    to: (n + 1) as f64 / count,
                    pixels: sums.pixels,
                    share: sums.pixels as f64 / pixels as f64,
                    confidence: mean(sums.confidence),
                    accuracy: mean(sums.correct as f64),
                }
            })
            .collect();
        let gap = |bin: &CalibrationBin| (bin.accuracy - bin.confidence).abs();
        let total = |value: fn(&BinSums) -> f64| self.bins.iter().map(value).sum::<f64>() / pixels as f64;
        Some(CalibrationScores {
            ece: bins.iter().map(|bin| bin.share * gap(bin)).sum(),
            max: bins.iter().map(gap).fold(0.0, f64::max),
            confidence: total(|sums| sums.confidence),
            accuracy: total(|sums| sums.correct as f64),
            bins,
        })
    }
}

/// The result of a [`Calibration`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationScores {
    /// Expected calibration error, 0 to 1; smaller is better.
    pub ece: f64,
    /// The largest |accuracy - confidence| of a bin with pixels (MCE).
    pub max: f64,
    /// Mean confidence of all pixels. If it is above `accuracy`, the model is overconfident.
    pub confidence: f64,
    /// Share of correct pixels.
    pub accuracy: f64,
    /// In ascending order of confidence.
    pub bins: Vec<CalibrationBin>,
}

/// The pixels whose confidence is above `from` and at most `to`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    pub from: f64,
    pub to: f64,
    pub pixels: u64,
    /// Share of all pixels, 0 to 1.
    pub share: f64,
    /// Mean confidence; 0 in an empty bin.
    pub confidence: f64,
    /// Share of correct pixels; 0 in an empty bin.
    pub accuracy: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_agree_with_values_computed_by_hand() {
        // Two bins. Lower: 0.25 wrong, 0.5 (on the border) right. Upper: 0.75, 1.0 right and 0.75 wrong. One void.
        let mut calibration = Calibration::new(2);
        let confidence = [0.25, 0.5, 0.75, 1.0, 0.75, 0.0];
        calibration.add(&confidence, &[1, 1, 1, 1, 1, VOID], &[0, 1, 1, 1, 0, 0]).unwrap();
        let scores = calibration.scores().unwrap();
        assert_eq!(scores.bins.iter().map(|bin| bin.pixels).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((scores.bins[0].confidence, scores.bins[0].accuracy), (0.375, 0.5));
        let upper = 2.5 / 3.0 - 2.0 / 3.0;
        assert!((scores.ece - (0.4 * 0.125 + 0.6 * upper)).abs() < 1e-12, "{}", scores.ece);
        assert!((scores.max - upper).abs() < 1e-12);
        assert!((scores.confidence - 0.65).abs() < 1e-12);
        assert_eq!(scores.accuracy, 0.6);
    }

    #[test]
    fn merged_calibrations_of_correct_and_confident_pixels_have_no_error() {
        let mut whole = Calibration::default();
        assert_eq!(whole.scores(), None);
        let mut part = Calibration::default();
        whole.add(&[1.0, 1.0004], &[0, 1], &[0, 1]).unwrap();
        part.add(&[1.0], &[2], &[2]).unwrap();
        whole.merge(&part);
        let scores = whole.scores().unwrap();
        assert_eq!((scores.ece, scores.bins[14].pixels), (0.0, 3));
    }

    #[test]
    fn confidences_that_are_not_probabilities_are_refused() {
        let mut calibration = Calibration::default();
        let result = calibration.add(&[0.5, f32::NAN], &[0, 0], &[0, 0]);
        assert!(matches!(result, Err(MetricsError::Confidence { pixel: 1, .. })), "{result:?}");
        let result = calibration.add(&[0.5], &[0, 0], &[0, 0]);
        assert!(matches!(result, Err(MetricsError::Size { .. })), "{result:?}");
        assert_eq!(calibration.scores(), None);
    }
}
