//! The full evaluation of a model: every measure, and the pictures that show where it is good and bad.

use std::sync::Arc;

use super::data::{Dataset, Likeness, Pair, VOID};
use super::evaluate::{EvaluateError, Judged, Predictor, judge};
use super::metrics::{BoundaryF1, Calibration, CalibrationScores, Confusion, MetricsError, Scores};
use super::report::{PictureFacts, ReportError, choose_apart, picture_miou};

/// Bins of the calibration plot.
const BINS: usize = 15;
/// Pictures of each rank: best, median, worst.
const SHOWN: usize = 3;

/// What was measured.
#[derive(Debug)]
pub struct Assessment {
    pub scores: Scores,
    pub confusion: Confusion,
    /// `None` for a model without confidences.
    pub calibration: Option<CalibrationScores>,
    pub pictures: Vec<PictureFacts>,
    /// Mean cross-entropy, where the model gives logits.
    pub loss: Option<f64>,
    /// Width and height of the first picture.
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

/// Measures a model over `pairs`. `tick` is called after each picture.
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
        let Judged { pair, picture, mask, prediction, small } = judged;
        let named = |error: MetricsError| EvaluateError::Metrics { name: pair.name.clone(), error };
        confusion.add(&picture.labels, &mask).map_err(named)?;
        boundary.add(&picture.labels, &mask, picture.width).map_err(named)?;
        if let Some(confidence) = &prediction.confidence {
            calibration.add(confidence, &small.labels, &prediction.mask).map_err(named)?;
        }
        losses.extend(prediction.loss);
        if size == (0, 0) {
            size = (picture.width as u32, picture.height as u32);
        }
        let unlabelled = picture.labels.iter().filter(|&&label| label == VOID).count();
        void += unlabelled;
        pixels += picture.labels.len();
        // A picture without labels has no rank.
        let rank = if unlabelled < picture.labels.len() {
            picture_miou(classes, &picture.labels, &mask).ok().flatten()
        } else {
            None
        };
        ranked.push(rank);
        tick();
        Ok(())
    })?;
    let names: Vec<String> = dataset.classes.iter().map(|label| label.name.clone()).collect();
    let pictures = shown(predictor, dataset, pairs, &ranked)?;
    Ok(Assessment {
        scores: Scores::new(&confusion, Some(&boundary), &names),
        confusion,
        calibration: calibration.scores(),
        pictures,
        loss: (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64),
        size,
        void_share: void as f64 / pixels.max(1) as f64,
    })
}

/// Runs the model again on the few pictures that are worth a look: keeping all masks of a large set would not do.
fn shown(
    predictor: &mut dyn Predictor,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    ranked: &[Option<f64>],
) -> Result<Vec<PictureFacts>, AssessError> {
    let mut likeness = Likeness::of(pairs);
    let chosen = choose_apart(ranked, SHOWN, |a, b| likeness.alike(a, b));
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
        match PictureFacts::new(&judged.pair.name, rank, miou, judged.picture, &judged.mask, &dataset.classes) {
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
