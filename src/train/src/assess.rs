//! The full evaluation of a model: every measure, and the images that show where it is good and bad.

use std::sync::Arc;

use super::data::{Dataset, Pair, SimilarityIndex, VOID};
use super::evaluate::{EvaluateError, Judged, Predictor, judge};
use super::metrics::{BoundaryF1, Calibration, CalibrationScores, Confusion, MetricsError, Scores};
use super::report::{ImageFacts, ReportError, choose_apart, image_miou};

/// Bins of the calibration plot.
const BINS: usize = 15;
/// Images of each rank: best, median, worst.
const SHOWN: usize = 3;

/// What was measured.
#[derive(Debug)]
pub struct Assessment {
    pub scores: Scores,
    pub confusion: Confusion,
    /// `None` for a model without confidences.
    pub calibration: Option<CalibrationScores>,
    pub images: Vec<ImageFacts>,
    /// Mean cross-entropy, where the model gives logits.
    pub loss: Option<f64>,
    /// Width and height of the first image.
    pub size: (u32, u32),
    /// Share of the pixels without a class.
    pub void_share: f64,
}

/// Why there is no assessment.
#[derive(Debug, thiserror::Error)]
pub enum AssessError {
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Measures a model over `pairs`. `tick` is called after each image.
///
/// # Errors
/// What could not be read, or why the model failed.
pub fn assess(
    predictor: &mut dyn Predictor,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    threads: usize,
    mut tick: impl FnMut(),
) -> Result<Assessment, AssessError> {
    let classes = dataset.classes.len();
    let mut confusion = Confusion::new(classes);
    let mut boundary = BoundaryF1::new(classes);
    let mut calibration = Calibration::new(BINS);
    let mut ranked = Vec::with_capacity(pairs.len());
    let mut losses = Vec::new();
    let mut size = (0, 0);
    let (mut void, mut pixels) = (0usize, 0usize);
    judge(predictor, dataset, pairs, threads, |judged| {
        let Judged { pair, image, mask, prediction, small } = judged;
        let named = |error: MetricsError| EvaluateError::Metrics { name: pair.name.clone(), error };
        confusion.add(&image.labels, &mask).map_err(named)?;
        boundary.add(&image.labels, &mask, image.width).map_err(named)?;
        if let Some(confidence) = &prediction.confidence {
            calibration.add(confidence, &small.labels, &prediction.mask).map_err(named)?;
        }
        losses.extend(prediction.loss);
        if size == (0, 0) {
            size = (image.width as u32, image.height as u32);
        }
        let unlabelled = image.labels.iter().filter(|&&label| label == VOID).count();
        void += unlabelled;
        pixels += image.labels.len();
        // An image without labels has no rank.
        let rank = if unlabelled < image.labels.len() {
            image_miou(classes, &image.labels, &mask).ok().flatten()
        } else {
            None
        };
        ranked.push(rank);
        tick();
        Ok(())
    })?;
    let names: Vec<String> = dataset.classes.iter().map(|label| label.name.clone()).collect();
    let images = shown(predictor, dataset, pairs, &ranked)?;
    Ok(Assessment {
        scores: Scores::new(&confusion, Some(&boundary), &names),
        confusion,
        calibration: calibration.scores(),
        images,
        loss: (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64),
        size,
        void_share: void as f64 / pixels.max(1) as f64,
    })
}

/// Runs the model again on the few images that are worth a look: keeping all masks of a large set would not do.
fn shown(
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
    judge(predictor, dataset, &wanted, 1, |judged| {
        let Some(&(rank, index)) = places.next() else { return Ok(()) };
        let miou = ranked[index].unwrap_or(0.0);
        match ImageFacts::new(&judged.pair.name, rank, miou, judged.image, &judged.mask, &dataset.classes) {
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
