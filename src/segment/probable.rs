//! Where classes are probable, though another class may be more probable, by the output `scores` of a model.

use ort::session::SessionOutputs;

use super::classes::{classes, numbers};
use super::contract::SCORES;
use super::segmenter::{OnnxSegmenter, run_options};
use super::{RunOutputError, SegmentError};
use crate::frame::{ClassBias, ClassId, Labels, Probable};

/// Every how many pixels the confidence is measured.
const CONFIDENCE_STEP: usize = 4;

/// Classes of `n` images, the size of one mask, and where the classes of each bias are probable.
type BiasedClasses = (Vec<ClassId>, (usize, usize), Vec<Option<Box<Probable>>>);

impl OnnxSegmenter {
    /// As [`OnnxSegmenter::run_rgb`] with `n` images, and where the classes of `biases` are probable, if the model has scores.
    /// `biases` are those of the first images.
    ///
    /// # Errors
    /// As [`OnnxSegmenter::run_rgb`].
    pub(super) fn run_biased(
        &mut self,
        rgb: &[u8],
        n: usize,
        biases: &[Option<&ClassBias>],
    ) -> Result<BiasedClasses, SegmentError> {
        let contract = self.contract();
        if !contract.has_scores() || biases.iter().all(Option::is_none) {
            let (classes, size) = self.run_rgb(rgb, n)?;
            return Ok((classes, size, vec![None; biases.len()]));
        }
        let options = run_options(&[contract.output.name.clone(), SCORES.to_owned()])?;
        let read = |outputs: &SessionOutputs<'_>| {
            let (classes, size) = classes(&contract, outputs, n)?;
            Ok((classes, size, probable(outputs, n, &contract.labels, biases)?))
        };
        let read: Result<BiasedClasses, RunOutputError> = self.run_raw(rgb, n, &options, read)?;
        Ok(read?)
    }
}

/// For each of `biases`, which are those of the first images of the run, where its classes are probable. `n` is the number of
/// images of the run.
///
/// # Errors
/// The model did not return the output, or it has another type or shape.
fn probable(
    outputs: &SessionOutputs<'_>,
    n: usize,
    labels: &Labels,
    biases: &[Option<&ClassBias>],
) -> Result<Vec<Option<Box<Probable>>>, RunOutputError> {
    let value = outputs.get(SCORES).ok_or_else(|| RunOutputError::Missing(SCORES.into()))?;
    let shape: Vec<usize> = value.shape().iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    let classes = labels.len();
    let (width, height, steps) = match *shape.as_slice() {
        [images, height, width, channels] if (images, channels) == (n, classes) => {
            (width, height, Steps { pixel: classes, class: 1 })
        }
        [images, channels, height, width] if (images, channels) == (n, classes) => {
            (width, height, Steps { pixel: 1, class: width * height })
        }
        _ => return Err(RunOutputError::Shape { name: SCORES.into(), shape, frames: n, labels: classes }),
    };
    if width * height == 0 {
        return Err(RunOutputError::Empty(SCORES.into()));
    }
    let scores = numbers(SCORES, value)?;
    let images = scores.chunks_exact(width * height * classes);
    let read = |(scores, bias): (&[f32], &Option<&ClassBias>)| -> Option<Box<Probable>> {
        let bias = (*bias)?;
        let wanted: Vec<usize> =
            (0..classes).filter(|&class| bias.classes.iter().any(|name| *name == labels[class].name)).collect();
        let (pixels, confidence) = image(scores, steps, classes, &wanted, bias.bias);
        Some(Box::new(Probable { width, height, pixels, confidence }))
    };
    Ok(images.zip(biases).map(read).collect())
}

/// The distances in the scores of an image from a pixel to the next, and from a class to the next.
#[derive(Clone, Copy)]
struct Steps {
    pixel: usize,
    class: usize,
}

/// From this probability on, without a bias, a class counts as present.
const PRESENT: f32 = 0.5;

/// The pixels of an image in which the classes `wanted` together have at least the probability [`PRESENT`] less `bias`, and the mean
/// probability of the most probable class × 255.
fn image(scores: &[f32], steps: Steps, classes: usize, wanted: &[usize], bias: f32) -> (Vec<bool>, u8) {
    let pixels = scores.len() / classes;
    let least = PRESENT - bias;
    let (mut sum, mut measured) = (0.0_f64, 0_u32);
    let marked = (0..pixels).map(|pixel| {
        let score = |class: usize| scores[pixel * steps.pixel + class * steps.class];
        let best = (0..classes).map(score).fold(f32::MIN, f32::max);
        let own: f32 = wanted.iter().map(|&class| (score(class) - best).exp()).sum();
        // Most pixels are decided by the exponentials of these classes alone: the sum of all is at least 1.
        let is_measured = pixel % CONFIDENCE_STEP == 0;
        if !is_measured && own < least {
            return false;
        }
        let all: f32 = (0..classes).map(|class| (score(class) - best).exp()).sum();
        if is_measured {
            (sum, measured) = (sum + f64::from(1.0 / all), measured + 1);
        }
        let probability = own / all;
        // A score that is not a number marks its pixel.
        probability.is_nan() || probability >= least
    });
    let marked = marked.collect();
    (marked, (255.0 * sum / f64::from(measured.max(1))).clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logits of these probabilities.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|probability| probability.ln() + 3.0).collect()
    }

    #[test]
    fn pixels_are_marked_where_the_classes_are_probable_enough() {
        let last: Vec<f32> = [[0.6, 0.3, 0.1], [0.5, 0.35, 0.15], [0.1, 0.8, 0.1], [0.45, 0.1, 0.45]]
            .iter()
            .flat_map(|pixel| logits(pixel))
            .collect();
        let first: Vec<f32> =
            (0..3).flat_map(|class| (0..4).map(move |pixel| (pixel, class))).map(|(p, c)| last[p * 3 + c]).collect();
        for (scores, steps) in [(&last, Steps { pixel: 3, class: 1 }), (&first, Steps { pixel: 1, class: 4 })] {
            let marked = |wanted: &[usize], bias| image(scores, steps, 3, wanted, bias).0;
            assert_eq!(marked(&[1], 0.1), [false, false, true, false]);
            assert_eq!(marked(&[1], 0.18), [false, true, true, false]);
            assert_eq!(marked(&[1], 0.21), [true, true, true, false]);
            assert_eq!(marked(&[1], 0.41), [true, true, true, true]);
            assert_eq!(marked(&[1, 2], 0.05), [false, true, true, true], "together");
            assert_eq!(image(scores, steps, 3, &[1], 0.2).1, 153, "the first of four pixels: 0.6");
        }
    }

    #[test]
    fn a_score_that_is_not_a_number_marks_its_pixel() {
        let scores = [f32::NAN, f32::NAN];
        assert_eq!(image(&scores, Steps { pixel: 2, class: 1 }, 2, &[1], 0.2).0, [true]);
    }
}
