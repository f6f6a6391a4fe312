//! The learning-rate range test (Smith, "Cyclical learning rates for training neural networks", 2015): the learning rate
//! rises with each batch; the loss falls at the rates that are suitable, and rises at those that are too high.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::plan;
use super::progress::ProgressMeter;
use super::run::{Accumulation, FitError, Rates};
use super::session::{Session, SessionError};
use crate::loader::Loader;
use crate::report::{ReportError, curve, write_file};

/// The learning rates of the test: from `from` to `to` in `batches` logarithmic steps.
#[derive(Clone, Copy, Debug)]
pub struct LearningRateSweep {
    pub from: f64,
    pub to: f64,
    pub batches: u64,
}

/// Weight of a new loss in the exponential moving average.
const SMOOTHING: f64 = 0.1;
/// Share of the points at the start that are ignored: the loss falls there at any rate.
const IGNORED: f64 = 0.1;
/// Share of the points over which the slope is measured, because the loss varies between batches.
const WINDOW: f64 = 0.125;
/// The test ends when the loss is this many times the lowest loss.
const DIVERGED: f64 = 3.0;

/// The result of the test.
#[derive(Clone, Debug, Default)]
pub struct LearningRateCurve {
    /// Learning rate and smoothed loss.
    pub points: Vec<(f64, f64)>,
}

/// Runs the test. It changes the weights of the session, which must not be used afterwards.
///
/// # Errors
/// If a batch cannot be loaded.
pub fn find(session: &mut Session, sweep: LearningRateSweep) -> Result<LearningRateCurve, SessionError> {
    let batches = session.config.fit.batches();
    let phases = plan::phases(&session.config.fit);
    let phase = phases.last().expect("a run has a phase");
    let share = session.config.fit.encoder_lr / session.config.fit.lr;
    let mut meter = ProgressMeter::new("lr", 0, sweep.batches);
    let mut found = LearningRateCurve::default();
    let (mut smooth, mut weight) = (0.0, 0.0);
    let (training, state) = session.parts();
    let mut loader = Loader::start(&training.images, &batches, 0, sweep.batches).map_err(FitError::Thread)?;
    training.prepare(state, phase, phase.to);
    for step in 0..sweep.batches {
        let rate = sweep.from * (sweep.to / sweep.from).powf(step as f64 / (sweep.batches - 1) as f64);
        let encoder = phase.encoder_lr.map_or(0.0, |_| rate * share);
        let rates = Rates { encoder, decoder: rate };
        let Some(batch) = loader.next_batch().map_err(FitError::Load)? else { break };
        let Ok(loss) = training.train_batch(state, &batch, phase, phase.to, rates, Accumulation::SINGLE) else { break };
        smooth += SMOOTHING * (loss - smooth);
        weight += SMOOTHING * (1.0 - weight);
        found.points.push((rate, smooth / weight));
        let lowest = found.points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        if smooth / weight > DIVERGED * lowest {
            break;
        }
        meter.show(step + 1, || format!("rate {rate:.1e}, loss {:.4}", smooth / weight));
    }
    Ok(found)
}

impl LearningRateCurve {
    /// Suggests a learning rate: the middle of the window in which the loss falls fastest, by linear regression. `None` if
    /// the loss falls nowhere.
    pub fn suggestion(&self) -> Option<f64> {
        let count = self.points.len() as f64;
        let points: Vec<(f64, f64)> =
            self.points.iter().skip((IGNORED * count) as usize).map(|&(rate, loss)| (rate.ln(), loss)).collect();
        let slopes = points.windows(((WINDOW * count) as usize).max(3)).map(|window| {
            let middle = window.iter().map(|point| point.0).sum::<f64>() / window.len() as f64;
            let loss = window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64;
            let covariance: f64 = window.iter().map(|point| (point.0 - middle) * (point.1 - loss)).sum();
            let variance: f64 = window.iter().map(|point| (point.0 - middle).powi(2)).sum();
            (covariance / variance, middle.exp())
        });
        let steepest = slopes.min_by(|a, b| a.0.total_cmp(&b.0))?;
        (steepest.0 < 0.0).then_some(steepest.1)
    }

    /// Writes `lr.svg` and `lr.csv` into `folder`; returns the path of `lr.svg`.
    ///
    /// # Errors
    /// If the curve cannot be drawn or written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, ReportError> {
        let mut csv = String::from("rate,loss\n");
        for (rate, loss) in &self.points {
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{rate:e},{loss}");
        }
        let logarithms: Vec<(f64, f64)> = self.points.iter().map(|&(rate, loss)| (rate.log10(), loss)).collect();
        let svg = curve("Loss by learning rate", "loss", logarithms)?;
        write_file(folder, "lr.csv", &csv)?;
        write_file(folder, "lr.svg", &svg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A curve over rates from 1e-6 to 1.
    fn curve_of(loss: impl Fn(f64) -> f64) -> LearningRateCurve {
        let rates = (0..80).map(|n| 10f64.powf(-6.0 + 6.0 * f64::from(n) / 79.0));
        LearningRateCurve { points: rates.map(|rate| (rate, loss(rate.log10()))).collect() }
    }

    #[test]
    fn the_suggested_rate_is_where_the_loss_falls_fastest() {
        // Falls in the first batches, is flat, falls around 1e-3, then rises.
        let loss = |x: f64| {
            let first = 0.3 * (-(x + 6.0) * 8.0).exp();
            let fall = 1.0 / (1.0 + (3.0 * (x + 3.0)).exp());
            first + fall + if x > -1.0 { 3.0 * (x + 1.0) } else { 0.0 }
        };
        let rate = curve_of(loss).suggestion().unwrap();
        assert!((5e-4..2e-3).contains(&rate), "{rate}");
        assert_eq!(curve_of(|x| x).suggestion(), None);
        assert_eq!(LearningRateCurve::default().suggestion(), None);
    }
}
