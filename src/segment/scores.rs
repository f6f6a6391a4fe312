//! The scores of a model, for callers that combine several runs: the probability of every class, where the model returns it.

use std::sync::Arc;

use ort::session::SessionOutputs;
use ort::value::DynValue;

use super::classes::{numbers, sides};
use super::contract::{Axes, Channel, Contract, OutputMeaning, SCORES};
use super::head::QuantisedLogits;
use super::segmenter::{MaskReader, OnnxSegmenter, run_options};
use super::{RunOutputError, SegmentError};
use crate::frame::ClassId;

/// The output beside the mask in which models of the trainer return the probability of the class of each pixel, × 255.
const CONFIDENCE: &str = "confidence";

/// The scores of the pixels of one image, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub width: usize,
    pub height: usize,
    pub scores: PixelScores,
}

/// What a model says about the pixels of an image.
#[derive(Clone, Debug, PartialEq)]
pub enum PixelScores {
    /// The probabilities of all classes, `[C, height, width]`. They add up to 1 in each pixel.
    Probabilities(Vec<f32>),
    /// The class of each pixel, `[height, width]`, and its probability (0 to 1) if the model has the output `confidence`.
    Classes { classes: Vec<ClassId>, confidence: Option<Vec<f32>> },
}

impl OnnxSegmenter {
    /// Runs the model on one RGB image of its input size, `[H, W, 3]`.
    ///
    /// Outputs with a score for each class become probabilities: they are used as they are if they add up to 1 in each pixel,
    /// else softmax is applied. Outputs with one value a pixel and masks return classes.
    ///
    /// # Errors
    /// ONNX Runtime fails, or an output does not have the expected shape.
    pub fn run_scored(&mut self, rgb: &[u8]) -> Result<Scored, SegmentError> {
        let reader = self.reader();
        let contract = Arc::clone(&reader.contract);
        let mut names = reader.outputs();
        let scores = contract.output.meaning == OutputMeaning::Scores;
        if !scores && contract.others.iter().any(|name| name == CONFIDENCE) {
            names.push(CONFIDENCE.to_owned());
        }
        let options = run_options(&names)?;
        let n = self.least_images();
        let scored = self.run_filled_raw(rgb, n, &options, |outputs| {
            if scores { probabilities(&contract, outputs, n) } else { classes_of_first(&reader, outputs, n) }
        })?;
        Ok(scored?)
    }

    /// The probabilities of all classes for one RGB image of the input size, `[H, W, 3]`, also of a model whose mask is an output
    /// of its own and whose output `scores` has the logits. They are those before any rejection, in the size of the scores. A model
    /// without scores returns what [`OnnxSegmenter::run_scored`] does.
    ///
    /// # Errors
    /// As [`OnnxSegmenter::run_scored`].
    pub fn run_probabilities(&mut self, rgb: &[u8]) -> Result<Scored, SegmentError> {
        let reader = self.reader();
        let contract = Arc::clone(&reader.contract);
        if contract.output.meaning == OutputMeaning::Scores || !contract.has_scores() {
            return self.run_scored(rgb);
        }
        let n = self.least_images();
        let names = if reader.head.is_some() { reader.outputs() } else { vec![SCORES.to_owned()] };
        let options = run_options(&names)?;
        let scored = self.run_filled_raw(rgb, n, &options, |outputs| match &reader.head {
            Some(head) => Ok(dequantised(&head.logits(outputs, n)?)),
            None => {
                let shape = outputs.get(SCORES).map(dimensions).unwrap_or_default();
                // The scores of int8 models for CPUs have the classes as their last axis, others as their first.
                let last = shape.last() == Some(&contract.labels.len());
                let channel = if last { Channel::Last } else { Channel::First };
                planes(&contract, SCORES, Axes { batch: true, channel }, outputs, n)
            }
        })?;
        Ok(scored?)
    }
}

/// The probabilities of the first image.
fn dequantised(logits: &QuantisedLogits<'_>) -> Scored {
    let &QuantisedLogits { bytes, rows: height, columns: width, classes, scale } = logits;
    let pixels = width * height;
    let mut planes = vec![0.0; classes * pixels];
    for (pixel, bytes) in bytes.chunks_exact(classes).take(pixels).enumerate() {
        for (class, &byte) in bytes.iter().enumerate() {
            // Softmax needs no zero point.
            planes[class * pixels + pixel] = f32::from(byte) * scale;
        }
    }
    softmax(&mut planes, pixels);
    Scored { width, height, scores: PixelScores::Probabilities(planes) }
}

/// The probabilities of the first of `n` images.
fn probabilities(contract: &Contract, outputs: &SessionOutputs<'_>, n: usize) -> Result<Scored, RunOutputError> {
    planes(contract, &contract.output.name, contract.output.axes, outputs, n)
}

/// The probabilities of the first of `n` images, from the output with this name.
fn planes(
    contract: &Contract,
    name: &str,
    axes: Axes,
    outputs: &SessionOutputs<'_>,
    n: usize,
) -> Result<Scored, RunOutputError> {
    let value = outputs.get(name).ok_or_else(|| RunOutputError::Missing(name.to_owned()))?;
    let (shape, labels) = (dimensions(value), contract.labels.len());
    let Some((height, width)) = sides(axes, &shape, n, labels) else {
        return Err(RunOutputError::Shape { name: name.to_owned(), shape, frames: n, labels });
    };
    let pixels = width * height;
    if pixels == 0 {
        return Err(RunOutputError::Empty(name.to_owned()));
    }
    let numbers = numbers(name, value)?;
    let first = &numbers[..labels * pixels];
    let mut planes = match axes.channel {
        Channel::Last => {
            let mut planes = vec![0.0; labels * pixels];
            for (pixel, scores) in first.chunks_exact(labels).enumerate() {
                for (class, &score) in scores.iter().enumerate() {
                    planes[class * pixels + pixel] = score;
                }
            }
            planes
        }
        Channel::First | Channel::None => first.to_vec(),
    };
    if !are_probabilities(&planes, pixels) {
        softmax(&mut planes, pixels);
    }
    Ok(Scored { width, height, scores: PixelScores::Probabilities(planes) })
}

/// The classes of the first of `n` images, with their confidence if the model returned it.
fn classes_of_first(reader: &MaskReader, outputs: &SessionOutputs<'_>, n: usize) -> Result<Scored, RunOutputError> {
    let (mut indices, (width, height)) = reader.classes(outputs, n)?;
    indices.truncate(width * height);
    let confidence = match outputs.get(CONFIDENCE) {
        Some(value) => Some(confidence_of_first(value, n, (width, height))?),
        None => None,
    };
    Ok(Scored { width, height, scores: PixelScores::Classes { classes: indices, confidence } })
}

/// The confidence of the first image, `[N, h, w]`, in the size `(width, height)` of its mask.
fn confidence_of_first(value: &DynValue, n: usize, size: (usize, usize)) -> Result<Vec<f32>, RunOutputError> {
    let shape = dimensions(value);
    let &[images, height, width] = shape.as_slice() else {
        return Err(RunOutputError::Shape { name: CONFIDENCE.into(), shape, frames: n, labels: 1 });
    };
    if images != n || height * width == 0 {
        return Err(RunOutputError::Shape { name: CONFIDENCE.into(), shape, frames: n, labels: 1 });
    }
    let numbers = numbers(CONFIDENCE, value)?;
    let at = |position: usize, side: usize, of: usize| (2 * position + 1) * of / (2 * side);
    let pixel = |y: usize, x: usize| numbers[at(y, size.1, height) * width + at(x, size.0, width)] / 255.0;
    Ok((0..size.1).flat_map(|y| (0..size.0).map(move |x| (y, x))).map(|(y, x)| pixel(y, x).clamp(0.0, 1.0)).collect())
}

fn dimensions(value: &DynValue) -> Vec<usize> {
    value.shape().iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect()
}

/// Whether the scores of every pixel, in planes of classes, are from 0 to 1 and add up to 1.
fn are_probabilities(planes: &[f32], pixels: usize) -> bool {
    const ROUNDING: f32 = 1e-3;
    if !planes.iter().all(|&score| (-ROUNDING..=1.0 + ROUNDING).contains(&score)) {
        return false;
    }
    let mut sums = vec![0.0f32; pixels];
    for plane in planes.chunks_exact(pixels) {
        sums.iter_mut().zip(plane).for_each(|(sum, score)| *sum += score);
    }
    // Probabilities in float16 or bytes are rounded.
    sums.iter().all(|sum| (sum - 1.0).abs() < 0.02)
}

/// Softmax over the classes, in place. A pixel whose scores are not numbers gets no probability for any class.
fn softmax(planes: &mut [f32], pixels: usize) {
    let mut largest = vec![f32::NEG_INFINITY; pixels];
    for plane in planes.chunks_exact(pixels) {
        largest.iter_mut().zip(plane).for_each(|(largest, &score)| *largest = largest.max(score));
    }
    let mut sums = vec![0.0f32; pixels];
    for plane in planes.chunks_exact_mut(pixels) {
        for ((score, largest), sum) in plane.iter_mut().zip(&largest).zip(&mut sums) {
            *score = (*score - largest).exp();
            *sum += *score;
        }
    }
    for plane in planes.chunks_exact_mut(pixels) {
        for (score, sum) in plane.iter_mut().zip(&sums) {
            *score = if sum.is_finite() { *score / sum } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_probabilities_and_probabilities_stay() {
        let mut logits = vec![0.0, 2.0, 3f32.ln(), 2.0];
        assert!(!are_probabilities(&logits, 2));
        softmax(&mut logits, 2);
        let expected = [0.25, 0.5, 0.75, 0.5];
        assert!(logits.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{logits:?}");
        assert!(are_probabilities(&logits, 2));
        assert!(!are_probabilities(&[0.2, 0.9, 0.2, 0.1], 2), "the first pixel adds up to 0.4");
        let mut wrong = vec![f32::NAN, 0.0, 1.0, 0.0];
        softmax(&mut wrong, 2);
        assert_eq!(wrong, [0.0, 0.5, 0.0, 0.5]);
    }
}
