//! The full evaluation of a model: all metrics, and the images with the best, median and worst mIoU.

use std::sync::Arc;

use crate::data::{Dataset, Pair, SimilarityIndex, VOID};
use crate::evaluate::{EvaluateError, EvaluatedImage, Predictor, evaluate_pairs};
use crate::metrics::{
    BoundaryF1, Calibration, CalibrationScores, ConfusionMatrix, MetricsError, ObjectRecall, Scores, SizeScores,
};
use crate::report::{ImageFacts, ReportError, choose_apart, image_miou};

/// The number of bins of the calibration plot.
const BINS: usize = 15;
/// The number of images of each rank: best, median, worst.
const SHOWN: usize = 3;

/// The result of an evaluation.
#[derive(Debug)]
pub struct Assessment {
    pub scores: Scores,
    pub confusion: ConfusionMatrix,
    /// `None` for a model without confidences.
    pub calibration: Option<CalibrationScores>,
    pub images: Vec<ImageFacts>,
    /// Recall of objects by their height in the model's input, for the requested classes.
    pub sizes: Vec<SizeScores>,
    /// Mean cross-entropy, if the model returns logits.
    pub loss: Option<f64>,
    /// Width and height of the first image.
    pub size: (u32, u32),
    /// Share of the pixels that are void, 0 to 1.
    pub void_share: f64,
}

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum AssessError {
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Evaluates a model on `pairs`. `sized` are the classes whose objects are measured by height. Calls `tick` after each image.
///
/// # Errors
/// An image cannot be read or drawn, or the model cannot be run.
pub fn assess(
    predictor: &mut dyn Predictor,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
    sized: &[u8],
    mut tick: impl FnMut(),
) -> Result<Assessment, AssessError> {
    let classes = dataset.classes.len();
    let mut confusion = ConfusionMatrix::new(classes);
    let mut boundary = BoundaryF1::new(classes);
    let mut calibration = Calibration::new(BINS);
    let mut objects = ObjectRecall::new(classes, sized);
    let mut ranked = Vec::with_capacity(pairs.len());
    let mut losses = Vec::new();
    let mut size = (0, 0);
    let (mut void, mut pixels) = (0usize, 0usize);
    evaluate_pairs(predictor, dataset, pairs, threads, |evaluated| {
        let EvaluatedImage { pair, image, mask, prediction, small } = evaluated;
        let named = |error: MetricsError| EvaluateError::Metrics { name: pair.name.clone(), error };
        confusion.add(&image.labels, &mask).map_err(named)?;
        boundary.add(&image.labels, &mask, image.width).map_err(named)?;
        if let Some(confidence) = &prediction.confidence {
            calibration.add(confidence, &small.labels, &prediction.mask).map_err(named)?;
        }
        objects.add(&small.labels, &prediction.mask, small.width).map_err(named)?;
        losses.extend(prediction.loss);
        if size == (0, 0) {
            size = (image.width as u32, image.height as u32);
        }
        let unlabelled = image.labels.iter().filter(|&&label| label == VOID).count();
        void += unlabelled;
        pixels += image.labels.len();
        // An image without labelled pixels has no rank.
        let miou = if unlabelled < image.labels.len() {
            image_miou(classes, &image.labels, &mask).ok().flatten()
        } else {
            None
        };
        ranked.push(miou);
        tick();
        Ok(())
    })?;
    let names: Vec<String> = dataset.classes.iter().map(|label| label.name.clone()).collect();
    let images = image_facts(predictor, dataset, pairs, &ranked)?;
    Ok(Assessment {
        scores: Scores::new(&confusion, Some(&boundary), &names),
        confusion,
        calibration: calibration.scores(),
        sizes: objects.scores(&names),
        images,
        loss: (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64),
        size,
        void_share: void as f64 / pixels.max(1) as f64,
    })
}

/// Selects the images of the report and runs the model on them again. Keeping the masks of all images needs too much memory.
fn image_facts(
    predictor: &mut dyn Predictor,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    ranked: &[Option<f64>],
) -> Result<Vec<ImageFacts>, AssessError> {
    let mut similarity = SimilarityIndex::of(pairs);
    let chosen = choose_apart(ranked, SHOWN, |a, b| similarity.are_similar(a, b));
    let wanted: Vec<Pair> = chosen.iter().map(|&(_, index)| pairs[index].clone()).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut facts = Vec::new();
    let mut failed = None;
    let mut places = chosen.iter();
    evaluate_pairs(predictor, dataset, &wanted, 1, |evaluated| {
        let Some(&(rank, index)) = places.next() else { return Ok(()) };
        let miou = ranked[index].unwrap_or(0.0);
        match ImageFacts::new(&evaluated.pair.name, rank, miou, evaluated.image, &evaluated.mask, &dataset.classes) {
            Ok(fact) => facts.push(fact),
            Err(error) => failed = Some(error),
        }
        Ok(())
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(facts),
    }
}
