//! Where classes are probable, though another class may be more probable, by the output `scores` of a model.

use ort::session::SessionOutputs;

use super::classes::numbers;
use super::contract::SCORES;
use super::head::QuantisedLogits;
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
        let reader = self.reader();
        let contract = &reader.contract;
        if !contract.has_scores() || biases.iter().all(Option::is_none) {
            let (classes, size) = self.run_rgb(rgb, n)?;
            return Ok((classes, size, vec![None; biases.len()]));
        }
        let mut names = reader.outputs();
        if reader.head.is_none() {
            names.push(SCORES.to_owned());
        }
        let options = run_options(&names)?;
        let read = |outputs: &SessionOutputs<'_>| {
            let (classes, size) = reader.classes(outputs, n)?;
            let probable = match &reader.head {
                Some(head) => probable_bytes(&head.logits(outputs, n)?, &contract.labels, biases),
                None => probable(outputs, n, &contract.labels, biases)?,
            };
            Ok((classes, size, probable))
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
pub(super) fn probable(
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
        let (pixels, certainty) = image(scores, steps, classes, &wanted(bias, labels), bias.bias);
        Some(Box::new(certainty.probable(width, height, pixels)))
    };
    Ok(images.zip(biases).map(read).collect())
}

/// As [`probable`], from quantised logits.
fn probable_bytes(
    logits: &QuantisedLogits<'_>,
    labels: &Labels,
    biases: &[Option<&ClassBias>],
) -> Vec<Option<Box<Probable>>> {
    let &QuantisedLogits { bytes, rows: height, columns: width, classes, scale } = logits;
    let read = |(bytes, bias): (&[u8], &Option<&ClassBias>)| -> Option<Box<Probable>> {
        let bias = (*bias)?;
        let (pixels, certainty) = image_of_bytes(bytes, classes, scale, &wanted(bias, labels), bias.bias);
        Some(Box::new(certainty.probable(width, height, pixels)))
    };
    bytes.chunks_exact(width * height * classes).zip(biases).map(read).collect()
}

/// The indices of the classes of a bias.
pub(super) fn wanted(bias: &ClassBias, labels: &Labels) -> Vec<usize> {
    (0..labels.len()).filter(|&class| bias.classes.iter().any(|name| *name == labels[class].name)).collect()
}

/// The distances in the scores of an image from a pixel to the next, and from a class to the next.
#[derive(Clone, Copy)]
struct Steps {
    pixel: usize,
    class: usize,
}

/// From this probability on, without a bias, a class counts as present.
const PRESENT: f32 = 0.5;

/// How sure the model is of an image: [`Probable::confidence`] and [`Probable::margin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Certainty {
    pub confidence: u8,
    pub margin: u16,
}

impl Certainty {
    pub fn probable(self, width: usize, height: usize, pixels: Vec<bool>) -> Probable {
        Probable { width, height, pixels, confidence: self.confidence, margin: self.margin }
    }
}

/// The sum of the exponentials of the classes of a pixel, the largest of which is 1, and the second largest.
struct Exponentials {
    sum: f32,
    second: f32,
}

impl Exponentials {
    fn of(exponentials: impl Iterator<Item = f32>) -> Self {
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for exponential in exponentials {
            sum += exponential;
            if exponential > first {
                (first, second) = (exponential, first);
            } else if exponential > second {
                second = exponential;
            }
        }
        Exponentials { sum, second }
    }
}

/// The pixels of an image in which the classes `wanted` together have at least the probability [`PRESENT`] less `bias`, and how sure
/// the model is.
fn image(scores: &[f32], steps: Steps, classes: usize, wanted: &[usize], bias: f32) -> (Vec<bool>, Certainty) {
    let score = |pixel: usize, class: usize| scores[pixel * steps.pixel + class * steps.class];
    mark(scores.len() / classes, bias, |pixel| {
        let best = (0..classes).map(|class| score(pixel, class)).fold(f32::MIN, f32::max);
        let own = wanted.iter().map(|&class| (score(pixel, class) - best).exp()).sum();
        (own, move || Exponentials::of((0..classes).map(|class| (score(pixel, class) - best).exp())))
    })
}

/// As [`image`], for bytes `[pixels, classes]` of logits that differ by `scale` from the next byte.
pub(super) fn image_of_bytes(
    bytes: &[u8],
    classes: usize,
    scale: f32,
    wanted: &[usize],
    bias: f32,
) -> (Vec<bool>, Certainty) {
    // Of the difference to the largest logit.
    let powers: [f32; 256] = std::array::from_fn(|difference| (-(difference as f32) * scale).exp());
    mark(bytes.len() / classes, bias, |pixel| {
        let pixel = &bytes[pixel * classes..][..classes];
        let best = pixel.iter().copied().max().unwrap_or(0);
        let power = move |byte: u8| powers[usize::from(best - byte)];
        let own = wanted.iter().map(|&class| power(pixel[class])).sum();
        (own, move || Exponentials::of(pixel.iter().map(|&byte| power(byte))))
    })
}

/// Marks pixels. `sums` returns for a pixel the sum of the exponentials of the classes that are wanted, and the function that computes
/// those of all of them.
fn mark<All: Fn() -> Exponentials>(
    pixels: usize,
    bias: f32,
    sums: impl Fn(usize) -> (f32, All),
) -> (Vec<bool>, Certainty) {
    let least = PRESENT - bias;
    let (mut confidence, mut margin, mut measured) = (0.0_f64, 0.0_f64, 0_u32);
    let marked = (0..pixels).map(|pixel| {
        let (own, all) = sums(pixel);
        // Most pixels are decided by the exponentials of these classes alone: the sum of all is at least 1.
        let is_measured = pixel % CONFIDENCE_STEP == 0;
        if !is_measured && own < least {
            return false;
        }
        let all = all();
        if is_measured {
            confidence += f64::from(1.0 / all.sum);
            margin += f64::from((1.0 - all.second) / all.sum);
            measured += 1;
        }
        let probability = own / all.sum;
        // A score that is not a number marks its pixel.
        probability.is_nan() || probability >= least
    });
    let marked = marked.collect();
    let mean = |sum: f64, scale: f64| (scale * sum / f64::from(measured.max(1))).clamp(0.0, scale);
    (marked, Certainty { confidence: mean(confidence, 255.0) as u8, margin: mean(margin, 65_535.0) as u16 })
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
            let certainty = image(scores, steps, 3, &[1], 0.2).1;
            assert_eq!(certainty.confidence, 153, "the first of four pixels: 0.6");
            let margin = f32::from(certainty.margin) / 65_535.0;
            assert!((margin - 0.3).abs() < 1e-4, "0.6 - 0.3, not {margin}");
        }
    }

    #[test]
    fn quantised_logits_mark_the_same_pixels() {
        let (classes, scale, zero) = (16, 0.177, 146_u8);
        let mut state = 1_u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Mostly within a few logits of each other.
            100 + (state >> 27) as u8
        })
        .take(4000 * classes)
        .collect();
        let scores: Vec<f32> = bytes.iter().map(|&byte| (f32::from(byte) - f32::from(zero)) * scale).collect();
        for (wanted, bias) in [(vec![1], 0.2), (vec![1], 0.4), (vec![2, 9], 0.1)] {
            let expected = image(&scores, Steps { pixel: classes, class: 1 }, classes, &wanted, bias);
            let marked = expected.0.iter().filter(|marked| **marked).count();
            assert!((20..3980).contains(&marked), "{marked}");
            assert_eq!(image_of_bytes(&bytes, classes, scale, &wanted, bias), expected);
        }
    }

    #[test]
    fn a_score_that_is_not_a_number_marks_its_pixel() {
        let scores = [f32::NAN, f32::NAN];
        assert_eq!(image(&scores, Steps { pixel: 2, class: 1 }, 2, &[1], 0.2).0, [true]);
    }
}
